"""Which scales, means and deviations are worth trying on data with such values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import Transform
from quantstudio.core.figures import MINUS

# Beyond this a mean for each column of a table is no transform a person reads.
MAX_COLUMNS = 64
_BYTE = 255
_WORD = 65535
_DIGITS = 4
_SMALLEST_STD = 1e-3
# Own statistics this near to published ones are those, taken from other samples of the same set.
_SAME = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """What the numbers of a data set look like, before any scaling.

    Attributes:
        low: Smallest.
        high: Largest.
        are_whole: Whether all are whole numbers.
        mean: Of each channel or column, shape [C].
        std: Of each, shape [C].
        are_pictures: Whether samples have height and width.
    """

    low: float
    high: float
    are_whole: bool
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    are_pictures: bool

    @property
    def channels(self) -> int:
        """Channels or columns."""
        return len(self.mean)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transform worth trying.

    Attributes:
        title: What it is, for a person.
        transform: It.
    """

    title: str
    transform: Transform


# Published means and deviations of pixels scaled to 0 to 1.
_GRAY = (("MNIST", (0.1307,), (0.3081,)), ("Fashion-MNIST", (0.2860,), (0.3530,)))
_COLOUR = (
    ("ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ("CIFAR-100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
)


def values_of(samples: NDArray[np.generic], channel: int | None, *, are_pictures: bool) -> Values:
    """What a batch of untransformed samples looks like.

    Args:
        samples: Shape [N, ...].
        channel: Axis of the channels; None where there is none.
        are_pictures: Whether samples have height and width.
    """
    numbers = np.asarray(samples, dtype=np.float64)
    if channel is None:
        mean, std = np.array([numbers.mean()]), np.array([numbers.std()])
    else:
        axes = tuple(axis for axis in range(numbers.ndim) if axis != channel % numbers.ndim)
        mean, std = numbers.mean(axis=axes), numbers.std(axis=axes)
    low, high = float(numbers.min()), float(numbers.max())
    return Values(low, high, bool((numbers == np.rint(numbers)).all()), mean, std, are_pictures)


def candidates(values: Values, geometry: Transform) -> tuple[Candidate, ...]:
    """Transforms worth trying, the most usual for such values first, none twice.

    Args:
        values: What the numbers look like.
        geometry: Layout and size that make the data fit; kept in every candidate.
    """
    found: dict[Transform, Candidate] = {}
    for title, scale, mean, std in _affine(values):
        transform = replace(geometry, scale=scale, mean=mean, std=std)
        found.setdefault(transform, Candidate(title, transform))
    return tuple(found.values())


def reversed_channels(candidate: Candidate) -> Candidate:
    """The same for a network that wants blue first."""
    turned = replace(candidate.transform, channels="BGR")
    return Candidate(f"{candidate.title}, blue first", turned)


_Affine = tuple[str, float, tuple[float, ...], tuple[float, ...]]
_ZERO, _ONE, _HALF = (0.0,), (1.0,), (0.5,)


def _affine(values: Values) -> Iterator[_Affine]:
    """Title, scale, mean and deviation of each."""
    if not values.are_pictures and not _are_pixels(values):
        yield "as stored", 1.0, _ZERO, _ONE
        yield from _own(values, 1.0, "columns standardized")
        return
    if values.low < 0:
        yield "as stored", 1.0, _ZERO, _ONE
        yield f"{MINUS}1 to 1 moved to 0 to 1", 0.5, (-0.5,), _ONE
        yield from _own(values, 1.0, "mean and deviation of this data")
        return
    for number, unit in enumerate(_units(values)):
        scale = 1 / unit
        of_unit = f" ({unit:g} becomes 1)" if number else ""
        yield f"0 to 1{of_unit}", scale, _ZERO, _ONE
        yield f"{MINUS}1 to 1{of_unit}", scale, _HALF, _HALF
        if unit in (1.0, _BYTE):
            yield from _published(values, scale)
        if not number:  # with another unit it would be the same
            yield from _own(values, scale, "mean and deviation of this data")
        yield f"{MINUS}0.5 to 0.5{of_unit}", scale, _HALF, _ONE
    yield ("as stored" if values.high <= 1 else f"as stored, 0 to {values.high:g}"), 1.0, _ZERO, _ONE
    if values.high <= 1:
        yield "0 to 255", 255.0, _ZERO, _ONE


def _are_pixels(values: Values) -> bool:
    """Whether rows of numbers are images laid flat: many columns in one byte's range."""
    return (
        values.are_whole and values.low >= 0 and 16 <= values.high <= _BYTE and values.channels > MAX_COLUMNS
    )


def _units(values: Values) -> Iterator[float]:
    """What may stand for 1: the largest number such values can take."""
    if values.high <= 1:
        yield 1.0
        return
    if values.high > _BYTE:
        yield float(_WORD) if values.are_whole else values.high
        return
    if values.high <= _BYTE / 4:
        # Few levels: 16 for those of scanned digits, 15 for four bits, whatever is the largest otherwise.
        yield float(2 ** math.ceil(math.log2(values.high)))
        if values.are_whole:
            yield float(values.high)
    yield float(_BYTE)


def _published(values: Values, scale: float) -> Iterator[_Affine]:
    """Statistics of well-known data sets; those that this data has come first."""
    known = _GRAY if values.channels == 1 else _COLOUR if values.channels == 3 else ()
    for name, mean, std in sorted(known, key=lambda row: _distance(values, scale, row[1], row[2]) >= _SAME):
        yield f"mean and deviation of {name}", scale, mean, std


def _own(values: Values, scale: float, title: str) -> Iterator[_Affine]:
    """Statistics of the data itself, unless they are published ones."""
    if values.channels > MAX_COLUMNS or bool((values.std * scale < _SMALLEST_STD).any()):
        return
    if values.are_pictures:
        known = _GRAY if values.channels == 1 else _COLOUR if values.channels == 3 else ()
        if any(_distance(values, scale, mean, std) < _SAME for _, mean, std in known):
            return
    mean = tuple(round(float(v) * scale, _DIGITS) for v in values.mean)
    std = tuple(round(float(v) * scale, _DIGITS) for v in values.std)
    yield title, scale, mean, std


def _distance(values: Values, scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> float:
    return float(
        max(
            np.abs(values.mean * scale - np.array(mean)).max(),
            np.abs(values.std * scale - np.array(std)).max(),
        )
    )
