"""Where a training stands, on disk: a killed run goes on at its last minute, a cancelled one at its end.

    training/KEY.npz    parameters, what the optimizer knows of them, the best state, the curve

KEY is that of the step, so what is found was made of the very same inputs. It goes with the step's end.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.files import written_beside
from quantstudio.core.folders import cache_folder, cache_root
from quantstudio.core.keeping import kept_if_possible
from quantstudio.core.trained import TrainingPoint

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a training stands.

    Attributes:
        step: Steps that are done.
        best_step: Steps before the best state.
        best_loss: Its loss on the samples that judge.
        losses: Of the steps since the last look.
        curve: What was seen so far.
        arrays: Tensors by name: parameters, moments, the best parameters.
    """

    step: int
    best_step: int
    best_loss: float
    losses: tuple[float, ...]
    curve: tuple[TrainingPoint, ...]
    arrays: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class _Header:
    step: int
    best_step: int
    best_loss: float
    losses: tuple[float, ...] = ()
    curve: tuple[TrainingPoint, ...] = ()


class Checkpoint:
    """The stand of one training.

    Args:
        key: Of the step; empty where it is run by itself, which keeps nothing.
    """

    def __init__(self, key: str) -> None:
        self._path = cache_root() / "training" / f"{key}.npz" if key else None

    def read(self) -> Stand | None:
        """The stand of a run before, or None; what cannot be read is left alone and written over."""
        if self._path is None:
            return None
        try:
            with np.load(self._path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "header"}
                header = from_json(_Header, json.loads(str(file["header"])))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, CodecError):
            return None
        return Stand(header.step, header.best_step, header.best_loss, header.losses, header.curve, arrays)

    def write(self, stand: Stand) -> None:
        """Keep a stand; where the cache folder refuses it, training goes on without."""
        if self._path is None:
            return
        header = _Header(stand.step, stand.best_step, stand.best_loss, stand.losses, stand.curve)
        with kept_if_possible("stands of a training"):
            cache_folder("training")
            with written_beside(self._path) as temporary, temporary.open("wb") as file:
                arrays: dict[str, Any] = {"header": np.array(json.dumps(to_json(header))), **stand.arrays}
                np.savez(file, **arrays)

    def forget(self) -> None:
        """The training is done."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def named(prefix: str, arrays: Sequence[Array]) -> dict[str, Array]:
    """Arrays under names that say their order."""
    return {f"{prefix}-{place}": array for place, array in enumerate(arrays)}


def in_order(prefix: str, arrays: Mapping[str, Array]) -> list[Array]:
    """What `named` put away."""
    count = sum(name.startswith(f"{prefix}-") for name in arrays)
    return [arrays[f"{prefix}-{place}"] for place in range(count)]
