"""What each task adds up over the samples, a few numbers a sample: of one model against the base."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import sqnr_db
from quantstudio.core.judgement import (
    BOXES,
    DECISIONS,
    LABELLED_DECISIONS,
    MASKS,
    POSITIONS,
    SIGNAL,
    VALUES,
    VECTORS,
    TaskFigure,
)
from quantstudio.core.results import Headline, Interval
from quantstudio.engine.evaluation.boxes import Boxes, decoded, matched
from quantstudio.engine.evaluation.outputs import predictions
from quantstudio.engine.evaluation.reading import Reading
from quantstudio.engine.evaluation.sample_axis import Array
from quantstudio.engine.evaluation.uncertainty import bootstrap_interval

Rows = Mapping[str, Array]
Numbers = NDArray[np.float64]
TINY = float(np.finfo(float).tiny)
NO_LOSS = Interval(0.0, 0.0, 0.0)
# Neighbours of more samples than this are looked for among the first so many.
MAX_NEIGHBOURS = 2000
# An output whose values are all below this is rounding noise, and its relative error says nothing.
SMALLEST_OUTPUT = 1e-6


class Tally(Protocol):
    """Adds up one model's outputs against the base's."""

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the samples from `start` on."""

    def metrics(self) -> dict[str, float]:
        """Figures of the task, shares of one."""

    def headline(self) -> Headline | None:
        """The one figure; None where the base gives nothing to compare with."""


def headline(figure: TaskFigure, base: float, value: float, loss: Interval) -> Headline:
    """A task's figure; the loss is kept the difference of both, which its interval then holds."""
    exact = 100 * (base - value)
    shift = exact - loss.value
    held = Interval(exact, min(loss.low + shift, exact), max(loss.high + shift, exact))
    return Headline(figure.metric, figure.label, base, value, held, figure.unit, figure.floor)


def mean_headline(figure: TaskFigure, values: Numbers, base: Numbers | None = None) -> Headline:
    """A figure that is a mean over samples; the base's is 1 where it is not given."""
    full = np.ones(len(values)) if base is None else base
    loss = bootstrap_interval(100 * (full - values)[:, None], lambda means: means[:, 0])
    return headline(figure, float(full.mean()), float(values.mean()), loss)


class BoxTally:
    """Boxes found by both."""

    def __init__(self, reading: Reading, samples: int) -> None:
        assert reading.head is not None
        self._head = reading.head
        self._counts = np.zeros((samples, 3))

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the boxes of the samples from `start` on."""
        count = len(next(iter(base.values())))
        for i in range(count):
            ours = self._boxes(base, i)
            theirs = ours if other is base else self._boxes(other, i)
            self._counts[start + i] = matched(ours, theirs), len(ours), len(theirs)

    def _boxes(self, rows: Rows, index: int) -> Boxes:
        return decoded({name: array[index] for name, array in rows.items()}, self._head)

    def metrics(self) -> dict[str, float]:
        """f1, precision and recall of the boxes, and how many the base finds a sample."""
        same, ours, theirs = self._counts.sum(axis=0)
        return {
            "f1": float(_f1(self._counts.mean(axis=0)[None])[0]),
            "precision": float(same / theirs) if theirs else float("nan"),
            "recall": float(same / ours) if ours else float("nan"),
            "boxes": float(ours) / max(len(self._counts), 1),
        }

    def headline(self) -> Headline | None:
        """F1 of the boxes; None where neither finds any."""
        if not self._counts[:, 1:].any():
            return None
        loss = bootstrap_interval(self._counts, lambda means: 100 * (1 - _f1(means)))
        return headline(BOXES, 1.0, float(_f1(self._counts.mean(axis=0)[None])[0]), loss)


def _f1(means: Numbers) -> Numbers:
    """2 * both / (ours + theirs), 1 where there is none of either; rows hold both, ours, theirs."""
    total = means[:, 1] + means[:, 2]
    return np.asarray(np.where(total > 0, 2 * means[:, 0] / np.maximum(total, TINY), 1.0))


class DecisionTally:
    """Values decided yes or no: F1 of the yes."""

    def __init__(self, reading: Reading, samples: int, labels: NDArray[np.float32] | None = None) -> None:
        self._names = reading.judgement.outputs
        self._threshold = 0.5 if reading.is_probability else 0.0
        self._labels = labels
        self._counts = np.zeros((samples, 3))
        self._base = np.zeros((samples, 3))

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the values of the samples from `start` on."""
        for name in self._names:
            ours, theirs = self._decided(base[name]), self._decided(other[name])
            stop = start + len(ours)
            if self._labels is not None:
                truth = self._labels[start:stop].reshape(len(ours), -1) > 0.5
                self._base[start:stop] += _both(truth, ours)
            else:
                truth = ours
            self._counts[start:stop] += _both(truth, theirs)

    def _decided(self, rows: Array) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):  # NaN is no
            return np.asarray(np.asarray(rows, np.float64).reshape(len(rows), -1) > self._threshold)

    def metrics(self) -> dict[str, float]:
        """f1, precision and recall of the yes."""
        both, truth, found = self._counts.sum(axis=0)
        return {
            "f1": float(_f1(self._counts.mean(axis=0)[None])[0]),
            "precision": float(both / found) if found else float("nan"),
            "recall": float(both / truth) if truth else float("nan"),
        }

    def headline(self) -> Headline | None:
        """F1 of the yes; None where there is none."""
        if not self._counts[:, 1:].any():
            return None
        value = float(_f1(self._counts.mean(axis=0)[None])[0])
        if self._labels is None:
            loss = bootstrap_interval(self._counts, lambda means: 100 * (1 - _f1(means)))
            return headline(DECISIONS, 1.0, value, loss)
        pairs = np.concatenate([self._base, self._counts], axis=1)
        loss = bootstrap_interval(pairs, lambda means: 100 * (_f1(means[:, :3]) - _f1(means[:, 3:])))
        return headline(LABELLED_DECISIONS, float(_f1(self._base.mean(axis=0)[None])[0]), value, loss)


def _both(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> Numbers:
    return np.stack([(truth & found).sum(axis=1), truth.sum(axis=1), found.sum(axis=1)], axis=1).astype(float)


class MaskTally:
    """Pixels of each class, found by both."""

    def __init__(self, reading: Reading, samples: int) -> None:
        self._name = reading.output
        self._axis = reading.class_axis
        self._threshold = 0.5 if reading.is_probability else 0.0
        self._iou = np.zeros(samples)
        self._same = np.zeros(samples)
        self._is_empty = True

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the pixels of the samples from `start` on."""
        ours, theirs = self._classes(base[self._name]), self._classes(other[self._name])
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            self._iou[start + i] = self._sample_iou(a.ravel(), b.ravel())
            self._same[start + i] = float((a == b).mean())

    def _classes(self, rows: Array) -> NDArray[np.int64]:
        if rows.dtype.kind != "f":
            return np.asarray(rows, dtype=np.int64)
        if self._axis == 0:
            with np.errstate(invalid="ignore"):
                return (np.asarray(rows, np.float64) > self._threshold).astype(np.int64)
        chosen = np.asarray(rows.argmax(axis=self._axis), dtype=np.int64)
        chosen[np.isnan(rows).any(axis=self._axis)] = -1
        return chosen

    def _sample_iou(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
        """Mean over the classes that occur in either; of a mask of one class, the class alone."""
        top = int(max(a.max(initial=0), b.max(initial=0))) + 1
        valid = b >= 0
        ours = np.bincount(np.maximum(a, 0), minlength=top)
        theirs = np.bincount(b[valid], minlength=top)
        common = np.bincount(a[(a == b) & valid], minlength=top)
        union = ours + theirs - common
        first = 1 if self._axis == 0 else 0
        occurs = np.flatnonzero(union[first:]) + first
        if not len(occurs):
            return 1.0
        self._is_empty = False
        return float((common[occurs] / union[occurs]).mean())

    def metrics(self) -> dict[str, float]:
        """miou, and the share of pixels with the same class."""
        return {"miou": float(self._iou.mean()), "pixels": float(self._same.mean())}

    def headline(self) -> Headline | None:
        """Mean IoU of the samples; None where no mask has a pixel."""
        return None if self._is_empty else mean_headline(MASKS, self._iou)


class PositionTally:
    """Tokens at each position."""

    def __init__(self, reading: Reading, samples: int) -> None:
        assert reading.form is not None
        self._name, self._form, self._has_blank = reading.output, reading.form, reading.has_blank
        self._same = np.zeros(samples)
        self._whole = np.zeros(samples)
        self._chosen: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the positions of the samples from `start` on."""
        for i, (a, b) in enumerate(zip(base[self._name], other[self._name], strict=True)):
            ours, theirs = predictions(a[None], self._form), predictions(b[None], self._form)
            self._same[start + i] = float((ours == theirs).mean()) if ours.shape == theirs.shape else 0.0
            self._chosen.append((ours, theirs))

    def metrics(self) -> dict[str, float]:
        """agreement of positions, and the share of samples that read the same from end to end."""
        blank = self._blank() if self._has_blank else None
        same = [_read(a, blank) == _read(b, blank) for a, b in self._chosen]
        return {"agreement": float(self._same.mean()), "sequences": float(np.mean(same)) if same else 0.0}

    def _blank(self) -> int | None:
        """The class of most positions, if that is the first or the last, as recognisers have it."""
        counts = np.bincount(np.concatenate([np.maximum(a, 0) for a, _ in self._chosen]))
        most = int(counts.argmax())
        return most if most in (0, self._form.classes - 1) else None

    def headline(self) -> Headline:
        """Positions with the same token."""
        return mean_headline(POSITIONS, self._same)


def _read(chosen: NDArray[np.int64], blank: int | None) -> list[int]:
    if blank is None:
        return [int(c) for c in chosen]
    changes = np.append(True, chosen[1:] != chosen[:-1])
    return [int(c) for c in chosen[changes] if c != blank]


class VectorTally:
    """Vectors: their direction, and which others lie nearest."""

    def __init__(self, reading: Reading, samples: int) -> None:
        self._name = reading.output
        self._cosine = np.zeros(samples)
        self._ours: list[Array] = []
        self._theirs: list[Array] = []

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the vectors of the samples from `start` on; of several a sample, each and their mean."""
        for i, (a, b) in enumerate(zip(base[self._name], other[self._name], strict=True)):
            self._cosine[start + i] = float(cosines(_vectors(a), _vectors(b)).mean())
            if len(self._ours) < MAX_NEIGHBOURS:
                self._ours.append(_vectors(a).mean(axis=0))
                self._theirs.append(_vectors(b).mean(axis=0))

    def metrics(self) -> dict[str, float]:
        """Mean cosine, and the share of samples whose nearest neighbour is the same."""
        found = {"cosine": float(self._cosine.mean())}
        if len(self._ours) > 2:
            near = [_nearest(np.stack(side)) for side in (self._ours, self._theirs)]
            found["neighbours"] = float((near[0] == near[1]).mean())
        return found

    def headline(self) -> Headline:
        """Mean cosine."""
        return mean_headline(VECTORS, self._cosine)


def _vectors(sample: Array) -> Numbers:
    return np.asarray(sample, dtype=np.float64).reshape(-1, sample.shape[-1])


def cosines(a: Numbers, b: Numbers) -> Numbers:
    """Cosine of each row with the same of the other; 0 where a number is missing, 1 for two zeros."""
    b = np.where(np.isfinite(b).all(axis=1, keepdims=True), b, 0.0)
    a = np.where(np.isfinite(a).all(axis=1, keepdims=True), a, 0.0)
    lengths = np.sqrt(np.square(a).sum(axis=1)), np.sqrt(np.square(b).sum(axis=1))
    product = lengths[0] * lengths[1]
    found = (a * b).sum(axis=1) / np.maximum(product, TINY)
    return np.asarray(np.where(product > 0, np.clip(found, -1, 1), (lengths[0] == lengths[1]) * 1.0))


def _nearest(vectors: Numbers) -> NDArray[np.int64]:
    unit = np.nan_to_num(vectors)
    unit = unit / np.maximum(np.sqrt(np.square(unit).sum(axis=1, keepdims=True)), TINY)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -2)
    return np.asarray(alike.argmax(axis=1), dtype=np.int64)


class NumberTally:
    """Numbers to come close to: how much of their spread over the samples is kept."""

    def __init__(self, reading: Reading, samples: int) -> None:
        self._names = reading.judgement.outputs
        self._base: list[Numbers] = []
        self._other: list[Numbers] = []

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Keep the numbers of the samples from `start` on."""
        del start
        for kept, rows in ((self._base, base), (self._other, other)):
            parts = [np.asarray(rows[name], np.float64).reshape(len(rows[name]), -1) for name in self._names]
            kept.append(np.concatenate(parts, axis=1))

    def _unexplained(self) -> Numbers | None:
        """Squared error of each sample by the spread of the base; None where nothing spreads."""
        base, other = np.concatenate(self._base), np.concatenate(self._other)
        spread = base.var(axis=0)
        varies = spread > SMALLEST_OUTPUT**2
        if len(base) < 3 or not varies.any():
            return None
        other = np.where(np.isfinite(other), other, base + 10 * np.sqrt(spread))
        return np.asarray((np.square(other - base)[:, varies] / spread[varies]).mean(axis=1))

    def metrics(self) -> dict[str, float]:
        """r2 against the base."""
        lost = self._unexplained()
        return {} if lost is None else {"r2": 1 - float(lost.mean())}

    def headline(self) -> Headline | None:
        """R² against the base."""
        lost = self._unexplained()
        return None if lost is None else mean_headline(VALUES, 1 - lost)


class ErrorTally:
    """Every float output as it is: signal, noise and cosine, sample by sample."""

    def __init__(self, names: tuple[str, ...], samples: int) -> None:
        self.names = names
        self._signal = np.zeros((samples, len(names)))
        self._noise = np.zeros((samples, len(names)))
        self._cosine = np.zeros((samples, len(names)))
        self._values = np.zeros(len(names))

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the values of the samples from `start` on."""
        for k, name in enumerate(self.names):
            a = np.asarray(base[name], dtype=np.float64).reshape(len(base[name]), -1)
            b = np.asarray(other[name], dtype=np.float64).reshape(len(other[name]), -1)
            stop = start + len(a)
            usable = np.isfinite(a)
            signal = np.where(usable, a, 0.0)
            if a.shape != b.shape:  # as many rows as each found objects: nothing lines up
                self._signal[start:stop, k] = self._noise[start:stop, k] = np.square(signal).sum(axis=1)
                continue
            self._signal[start:stop, k] = np.square(signal).sum(axis=1)
            self._noise[start:stop, k] = np.square(np.where(usable, b - signal, 0.0)).sum(axis=1)
            self._cosine[start:stop, k] = cosines(signal, np.where(usable, b, 0.0))
            self._values[k] += a.size

    def sqnr_db(self, name: str) -> float:
        """Of one output over all samples; minus infinity where the variant has NaN."""
        k = self.names.index(name)
        signal, noise = float(self._signal[:, k].sum()), float(self._noise[:, k].sum())
        return sqnr_db(signal, noise) if np.isfinite(noise) else -np.inf

    def cosine(self, name: str) -> float:
        """Mean over samples, of one output."""
        return float(self._cosine[:, self.names.index(name)].mean())

    @property
    def has_nan(self) -> bool:
        """Whether the variant gave values that are not finite numbers where the base's are."""
        return not bool(np.isfinite(self._noise).all())

    def metrics(self) -> dict[str, float]:
        """What of the outputs is kept."""
        found = self.headline()
        return {} if found is None else {SIGNAL.metric: found.value}

    def headline(self, names: Collection[str] = ()) -> Headline | None:
        """1 less the relative error of the worst output; None where all outputs are zero.

        Args:
            names: Outputs that count; all of them without.
        """
        power = self._signal.sum(axis=0) / np.maximum(self._values, 1)
        counts = np.array([not names or name in names for name in self.names], dtype=np.bool_)
        told = np.flatnonzero((power > SMALLEST_OUTPUT**2) & counts)
        if not len(told):
            return None
        noise = np.where(np.isfinite(self._noise), self._noise, np.maximum(self._signal, 1.0) * 100)
        columns = np.concatenate([self._signal[:, told], noise[:, told]], axis=1)
        count = len(told)

        def error(means: Numbers) -> Numbers:
            worst = (means[:, count:] / np.maximum(means[:, :count], TINY)).max(axis=1)
            return np.asarray(100 * np.minimum(np.sqrt(worst), 1.0))

        loss = bootstrap_interval(columns, error)
        return headline(SIGNAL, 1.0, 1 - loss.value / 100, loss)
