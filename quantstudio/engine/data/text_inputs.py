"""What each input of a language model gets for a window of tokens, the empty cache included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import DataError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.axes import is_batch_symbol


class _Role(StrEnum):
    IDS = "ids"
    MASK = "mask"
    POSITIONS = "positions"
    PLACES = "places"  # positions without a sample axis
    ZEROS = "zeros"
    PAST = "past"
    SWITCH = "switch"  # of a decoder with and without cache in one: on where there is something in it
    COUNT = "count"  # of logits to keep: all


_NAMES = {
    "input_ids": _Role.IDS,
    "attention_mask": _Role.MASK,
    "input_mask": _Role.MASK,
    "position_ids": _Role.POSITIONS,
    "cache_position": _Role.PLACES,
    "token_type_ids": _Role.ZEROS,
    "segment_ids": _Role.ZEROS,
    "use_cache_branch": _Role.SWITCH,
    "num_logits_to_keep": _Role.COUNT,
    "logits_to_keep": _Role.COUNT,
}
_INTEGERS = ("int32", "int64")


def is_cache(info: TensorInfo) -> bool:
    """Whether an input or output holds keys and values of what was read before, by its name and form."""
    name = info.name.lower()
    is_float = info.dtype.startswith(("float", "bfloat"))
    return is_float and len(info.shape) >= 3 and any(word in name for word in ("past", "present", "cache"))


def batch_axis(info: TensorInfo) -> int:
    """Axis of the samples: the one called so, else the first."""
    return next((axis for axis, size in enumerate(info.shape) if is_batch_symbol(size)), 0)


def cache_axis(info: TensorInfo) -> int | None:
    """Axis of the tokens in a cache: the open one that is not the samples'; None where all are fixed."""
    samples = batch_axis(info)
    return next((k for k, size in enumerate(info.shape) if k != samples and not isinstance(size, int)), None)


def cache_bytes_per_token(inputs: Iterable[TensorInfo]) -> int:
    """Bytes of keys and values that are kept for each token read; 0 without a cache."""
    total = 0
    for info in inputs:
        if is_cache(info) and cache_axis(info) is not None:
            sizes = [
                size for k, size in enumerate(info.shape) if k != batch_axis(info) and isinstance(size, int)
            ]
            total += math.prod(sizes) * np.dtype(info.dtype).itemsize
    return total


@dataclass(frozen=True, slots=True, eq=False)
class TextInputs:
    """The inputs of a language model.

    Args:
        inputs: Them.
        where: The data, for error messages.
        tokens: Tokens of a window that feeds are made for.

    Raises:
        DataError: one is nothing that text gives.
    """

    inputs: tuple[TensorInfo, ...]
    where: str
    tokens: int = 0

    def __post_init__(self) -> None:
        roles = {info.name: self._role(info) for info in self.inputs}
        if _Role.IDS not in roles.values():
            raise DataError(
                "the model reads no tokens, so text is no data for it",
                where=self.where,
                hint=Hint("Give arrays or images", HintAction.CHOOSE_DATA),
            )

    @property
    def ids(self) -> str:
        """The input that gets the tokens."""
        return self._one(_Role.IDS).name

    @property
    def length(self) -> int | None:
        """Tokens the model insists on; None where any number is fine."""
        size = self._one(_Role.IDS).shape[-1] if self._one(_Role.IDS).shape else None
        return size if isinstance(size, int) else None

    @property
    def fixed_batch(self) -> int | None:
        """Samples the model insists on; None where any number is fine."""
        info = self._one(_Role.IDS)
        size = info.shape[batch_axis(info)] if len(info.shape) > 1 else None
        return size if isinstance(size, int) else None

    @property
    def sample_axes(self) -> dict[str, int]:
        """Axis of the samples by input."""
        per_sample = (_Role.IDS, _Role.MASK, _Role.POSITIONS, _Role.ZEROS, _Role.PAST)
        return {info.name: batch_axis(info) for info in self._ordered() if self._role(info) in per_sample}

    def longest(self, told: int | None) -> int | None:
        """Tokens the model can read at once, where anything says so."""
        mask = next((info for info in self.inputs if self._role(info) is _Role.MASK), None)
        size = mask.shape[-1] if mask is not None and mask.shape else None
        known = [one for one in (told, size) if isinstance(one, int)]
        return min(known, default=None)

    def of_length(self, tokens: int) -> TextInputs:
        """The same for windows of so many tokens."""
        return replace(self, tokens=tokens)

    def feed(self, tokens: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """All inputs for windows of tokens, [n, T], the tokens first, with nothing read before."""
        return {info.name: self._array(info, tokens, 0) for info in self._ordered()}

    def more(self, tokens: NDArray[np.int64], read: int) -> dict[str, NDArray[Any]]:
        """All inputs but the cache for further tokens, [n, T], where so many were read before."""
        others = [info for info in self.inputs if self._role(info) is not _Role.PAST]
        return {info.name: self._array(info, tokens, read) for info in others}

    @property
    def caches(self) -> tuple[TensorInfo, ...]:
        """The inputs that hold what was read before."""
        return tuple(info for info in self.inputs if self._role(info) is _Role.PAST)

    def _ordered(self) -> list[TensorInfo]:
        """The tokens first: who looks for the text takes the first input."""
        return sorted(self.inputs, key=lambda info: self._role(info) is not _Role.IDS)

    def _array(self, info: TensorInfo, tokens: NDArray[np.int64], read: int) -> NDArray[Any]:
        count, length = tokens.shape
        places: NDArray[Any] = np.arange(read, read + length)
        match self._role(info):
            case _Role.IDS:
                made: NDArray[Any] = tokens
            case _Role.MASK:
                made = np.ones((count, read + length), np.int64)
                size = info.shape[-1]
                if isinstance(size, int) and size > read + length:  # a cache of fixed length comes first
                    made = np.concatenate([np.zeros((count, size - read - length), np.int64), made], axis=1)
            case _Role.POSITIONS:
                made = np.broadcast_to(places, (count, length))
            case _Role.PLACES:
                made = places
            case _Role.ZEROS:
                made = np.zeros((count, length))
            case _Role.PAST:
                samples = batch_axis(info)
                made = np.zeros(
                    [
                        count if k == samples else size if isinstance(size, int) else 0
                        for k, size in enumerate(info.shape)
                    ]
                )
            case _Role.SWITCH:
                made = np.full([1] * len(info.shape), read > 0)
            case _Role.COUNT:
                made = np.zeros([1] * len(info.shape))
        return np.ascontiguousarray(made, dtype=info.dtype)

    def _one(self, role: _Role) -> TensorInfo:
        return next(info for info in self.inputs if self._role(info) is role)

    def _role(self, info: TensorInfo) -> _Role:
        if is_cache(info):
            return _Role.PAST
        found = _NAMES.get(info.name.lower())
        if found is not None:
            return found
        tables = [one for one in self.inputs if one.dtype in _INTEGERS and len(one.shape) == 2]
        named = any(_NAMES.get(one.name.lower()) is _Role.IDS for one in self.inputs)
        if tables and info is tables[0] and not named:
            return _Role.IDS
        raise DataError(
            f"text gives nothing for the model's input {info.name!r} ({info.dtype} {list(info.shape)})",
            where=self.where,
            hint="Give an .npz file with one array per input",
        )
