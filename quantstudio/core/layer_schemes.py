"""Schemes of all layers of a model, held so that they are counted once: there are hundreds, of a handful."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.precision import LayerScheme


class LayerSchemes(dict[str, LayerScheme]):
    """The scheme of every layer by name, in the order of the layers; never changed once it is made.

    Layers share the few schemes a recipe holds; to hash or compare one takes longer than to look at all the
    layers, so objects are told apart and not values. Equal ones may have two numbers.
    """

    @classmethod
    def of(cls, schemes: Mapping[str, LayerScheme]) -> LayerSchemes:
        """These schemes; they themselves where they are held so already."""
        return schemes if isinstance(schemes, cls) else cls(schemes)

    @cached_property
    def kinds(self) -> tuple[LayerScheme, ...]:
        """The schemes some layer has, by number: in the order of the first layers that have them."""
        given = list(self.values())
        return tuple(given[index] for index in self._parted[0])

    @property
    def numbers(self) -> NDArray[np.intp]:
        """Number of every layer's scheme in `kinds`, [layers]."""
        return self._parted[1]

    @cached_property
    def _parted(self) -> tuple[list[int], NDArray[np.intp]]:
        """The first layer of every kind, and the kind of every layer."""
        keys = np.fromiter(map(id, self.values()), dtype=np.intp, count=len(self))
        numbers, firsts = np.full(len(keys), -1, dtype=np.intp), list[int]()
        while len(keys) and numbers[first := int(numbers.argmin())] < 0:
            numbers[keys == keys[first]] = len(firsts)
            firsts.append(first)
        return firsts, numbers
