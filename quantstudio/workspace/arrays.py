"""Statistics that lie in files of the cache: read off the owner's thread, kept while they are shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.signals import Signal
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.workspace.background import Background

FILES_KEPT = 3
# What to tell where statistics cannot be read any more, and what to do about it.
GONE = {
    "weights": (
        "Weight statistics are no longer in the cache",
        Hint("Analyze sensitivity again", HintAction.ANALYZE),
    ),
    "activations": ("Calibration is no longer in the cache", Hint("Calibrate again", HintAction.CALIBRATE)),
}

logger = logging.getLogger(__name__)


class Arrays:
    """Weight statistics by layer, activation statistics by file.

    Attributes:
        weights_changed: More weight statistics are there, or others.
        activations_changed: Activation statistics of a file are there.

    Args:
        background: Reads the files.
        on_gone: Told, with "weights" or "activations", when a file cannot be read any more.
    """

    def __init__(self, background: Background, on_gone: Callable[[str], None]) -> None:
        self.weights_changed: Signal[[]] = Signal()
        self.activations_changed: Signal[[]] = Signal()
        self._background = background
        self._on_gone = on_gone
        self._weights: dict[str, WeightStatistics] = {}
        self._weights_path = ""
        self._activations: dict[str, Statistics] = {}
        self._unreadable: set[str] = set()

    @property
    def weights(self) -> dict[str, WeightStatistics]:
        """By layer; grows while they are computed."""
        return self._weights

    def activations(self, path: str) -> Statistics | None:
        """Those of a file; None until it is read."""
        return self._activations.get(path)

    def is_readable(self, path: str) -> bool:
        """Whether nothing is known against a file."""
        return bool(path) and path not in self._unreadable

    def forget_weights(self) -> None:
        """Another model is shown."""
        self._weights, self._weights_path = {}, ""

    def add_weights(self, rows: Iterable[WeightStatistics]) -> None:
        """Weight statistics of some or all layers."""
        self._weights.update({row.layer: row for row in rows})
        self.weights_changed.emit()

    def add_activations(self, path: str, statistics: Statistics) -> None:
        """Activation statistics as a file holds them."""
        self._activations.pop(path, None)
        self._activations[path] = statistics
        while len(self._activations) > FILES_KEPT:
            del self._activations[next(iter(self._activations))]
        self.activations_changed.emit()

    def load_weights(self, path: str) -> None:
        """Read weight statistics without holding anybody up."""
        self._weights_path = path
        self._unreadable.discard(path)

        def read(rows: tuple[WeightStatistics, ...]) -> None:
            if self._weights_path == path:
                self.add_weights(rows)

        self._background.run(
            lambda: _read_weights(path), read, lambda error: self._on_unreadable("weights", path, error)
        )

    def load_activations(self, path: str) -> None:
        """Read activation statistics without holding anybody up."""
        self._unreadable.discard(path)
        self._background.run(
            lambda: _read_activations(path),
            lambda found: self.add_activations(path, found),
            lambda error: self._on_unreadable("activations", path, error),
        )

    def _on_unreadable(self, what: str, path: str, error: Exception) -> None:
        logger.warning("%s statistics: %s", what, error)
        self._unreadable.add(path)
        self._on_gone(what)


def _read_weights(path: str) -> tuple[WeightStatistics, ...]:
    from quantstudio.core.statistics_file import load_weight_statistics

    return tuple(load_weight_statistics(Path(path)))


def _read_activations(path: str) -> Statistics:
    from quantstudio.core.statistics_file import load_statistics

    return load_statistics(Path(path))
