"""How far spectra are apart: what a listener hears, or sees as a lost texture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.results import Headline
from quantstudio.engine.evaluation.reading import Reading
from quantstudio.engine.evaluation.sample_axis import Array
from quantstudio.engine.evaluation.tallies import ErrorTally, Rows

# Parts of a spectrum this far below its strongest are noise.
_FLOOR = 1e-4


class SignalTally:
    """Signal to noise, and the distance of the spectra."""

    def __init__(self, reading: Reading, samples: int) -> None:
        self._name = reading.output
        self._errors = ErrorTally((self._name,), samples)
        self._distance = np.zeros(samples)

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the signals of the samples from `start` on."""
        self._errors.add(start, base, other)
        for i, (a, b) in enumerate(zip(base[self._name], other[self._name], strict=True)):
            self._distance[start + i] = spectral_distance(a, b)

    def metrics(self) -> dict[str, float]:
        """The share kept, and the distance of the spectra in dB."""
        return {**self._errors.metrics(), "spectral_db": float(self._distance.mean())}

    def headline(self) -> Headline | None:
        """The share kept."""
        return self._errors.headline()


def spectral_distance(a: Array, b: Array) -> float:
    """Root mean square difference of two spectra along their longest axis, dB."""
    if a.shape != b.shape or not a.ndim:
        return float("nan")
    axis = int(np.argmax(a.shape))
    ours, theirs = (_spectrum(np.asarray(x, dtype=np.float64), axis) for x in (a, b))
    floor = max(float(ours.max(initial=0)) * _FLOOR, np.finfo(float).tiny)
    difference = 20 * np.log10(np.maximum(theirs, floor) / np.maximum(ours, floor))
    return float(np.sqrt(np.square(difference).mean()))


def _spectrum(signal: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(np.abs(np.fft.rfft(np.nan_to_num(signal), axis=axis)))
