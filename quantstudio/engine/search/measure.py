"""What a built plan really does: KL from FP32 and accuracy, on samples whose FP32 outputs are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from quantstudio.core.events import CancelToken
from quantstudio.core.results import Interval
from quantstudio.engine.analysis.classes import SampleClasses, sample_classes
from quantstudio.engine.analysis.divergence import (
    Array,
    Deviation,
    OutputKind,
    SpreadTally,
    class_axis,
    divergence,
    objective_of,
    predicted_classes,
)
from quantstudio.engine.evaluation.probe import DatasetLike
from quantstudio.engine.evaluation.uncertainty import paired_accuracy, wilson_interval
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session, run, worker_threads
from quantstudio.engine.graph.writing import write_model

_BATCH = 64
# Of fewer samples of a class nothing is said: one of them is five points.
FEWEST_OF_A_CLASS = 20
# How often a plan may be refused for a class that loses nothing.
CHANCE = 0.05
_FEEDS_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class ClassDrop:
    """What one class loses.

    Attributes:
        name: Of the class, or its number.
        samples: Of the class.
        drop: Points lost against FP32 on them, paired; of predictions changed, without labels.
        p_value: That chance alone makes such a difference in this class.
        among: Classes looked at together, of those with enough samples to tell.
    """

    name: str
    samples: int
    drop: Interval
    p_value: float = 0.0
    among: int = 1

    def breaks(self, limit: float) -> bool:
        """Whether it loses more than a bound, and more than its samples could by chance.

        The worst of many classes loses something by chance alone: what one of them must show is shared among
        all (Bonferroni), so that noise in one class refuses no plan.
        """
        is_proven = self.drop.low > 0 and self.p_value < CHANCE / self.among
        return self.samples >= FEWEST_OF_A_CLASS and self.drop.value > limit and is_proven


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on the judge's samples.

    Attributes:
        kl: Mean divergence from FP32, nats.
        metric: Top-1 or agreement with FP32 with its 95 % interval, 0 to 1; None for value outputs.
        drop: Points lost against FP32, or points of predictions changed without labels.
        samples: Samples.
        changed: Share of predictions that are not FP32's; None for value outputs.
        classes: What every class loses; empty for outputs that are not one class score a sample.
    """

    kl: float
    metric: Interval | None
    drop: Interval | None
    samples: int
    changed: float | None = None
    classes: tuple[ClassDrop, ...] = ()

    @property
    def worst(self) -> ClassDrop | None:
        """The class that loses most, of those with enough samples to tell; None without any."""
        counted = [one for one in self.classes if one.samples >= FEWEST_OF_A_CLASS]
        return max(counted, key=lambda one: one.drop.value, default=None)


class Judge:
    """Compares models with FP32 on the same samples; FP32 runs once.

    Attributes:
        metric_name: "top1" with class labels, "agreement" without, empty for value outputs.
        base: FP32 itself.
    """

    def __init__(self, graph: Graph, dataset: DatasetLike, *, samples: int, cancel: CancelToken) -> None:
        """Run FP32.

        Raises:
            MeasureError: the model does not run on this data.
            JobCancelled: the token was set.
        """
        self._dataset = dataset
        self._samples = min(samples, len(dataset)) if samples > 0 else len(dataset)
        self._cancel = cancel
        self._kept: list[tuple[Mapping[str, Array], int]] | None = None
        self._objective = objective_of(graph, dataset, cancel)
        self._outputs = self._run(
            open_session(Path(graph.summary.graph_path), threads=worker_threads(), cancel=cancel)
        )
        is_values = self._objective.kind is OutputKind.VALUES
        self._deviations = self._spread() if is_values else ()
        self._classes = self._predictions(self._outputs)
        self._labels = self._class_labels()
        scores = self._outputs[0][0] if self._classes is not None and self._classes.ndim == 1 else None
        self._grouped = sample_classes(dataset, self._objective, scores)
        self.metric_name = "" if self._classes is None else "agreement" if self._labels is None else "top1"
        self.base = self._measurement(self._outputs)

    def measure(self, model: onnx.ModelProto) -> Measurement:
        """A variant, run as whoever gets the file runs it.

        Raises:
            ModelLoadError: the runtime refuses it.
            JobCancelled: the token was set.
        """
        with tempfile.TemporaryDirectory(prefix="quantstudio-search-") as folder:
            path = Path(folder) / "plan.onnx"
            write_model(model, path)
            return self.measure_file(path)

    def measure_file(self, path: Path) -> Measurement:
        """As `measure`, from a file."""
        self._cancel.raise_if_set()
        return self._measurement(self._run(open_session(path, threads=worker_threads(), cancel=self._cancel)))

    def first_feed(self) -> dict[str, Array]:
        """One sample (or one fixed batch), for timing."""
        return dict(next(self._dataset.batches(1, stop=1)).feed)

    def _spread(self) -> tuple[Deviation, ...]:
        tally = SpreadTally(len(self._objective.outputs), self._objective.split)
        for part in self._outputs:
            tally.add(part)
        return tally.deviations()

    def _measurement(self, outputs: list[list[Array]]) -> Measurement:
        if all(np.isfinite(np.asarray(output, np.float64)).all() for part in outputs for output in part):
            each = [
                divergence(ours, theirs, self._objective, self._deviations)
                for ours, theirs in zip(self._outputs, outputs, strict=True)
            ]
            kl = float(np.concatenate(each).mean())
        else:
            kl = float("inf")
        metric = drop = changed = None
        losses: tuple[ClassDrop, ...] = ()
        classes = self._predictions(outputs)
        if classes is not None and self._classes is not None:
            truth = self._classes if self._labels is None else self._labels
            base_right, right = (self._classes == truth).reshape(-1), (classes == truth).reshape(-1)
            share = float(right.mean())
            changed = float((self._classes != classes).mean())
            metric = Interval(share, *wilson_interval(int(right.sum()), right.size))
            drop = paired_accuracy(base_right, right).drop
            if self._grouped is not None:
                losses = self._by_class(self._grouped, base_right, right)
        return Measurement(max(kl, 0.0), metric, drop, self._samples, changed, losses)

    def _by_class(
        self, grouped: SampleClasses, base_right: NDArray[np.bool_], right: NDArray[np.bool_]
    ) -> tuple[ClassDrop, ...]:
        found = []
        counts = np.bincount(grouped.of_sample[grouped.of_sample >= 0], minlength=len(grouped.names))
        among = max(int((counts >= FEWEST_OF_A_CLASS).sum()), 1)
        for index, name in enumerate(grouped.names):
            own = grouped.of_sample == index
            if own.any():
                paired = paired_accuracy(base_right[own], right[own])
                p_value = 1.0 if paired.p_value is None else paired.p_value
                found.append(ClassDrop(name, int(own.sum()), paired.drop, p_value, among))
        return tuple(found)

    def _predictions(self, outputs: list[list[Array]]) -> NDArray[np.int64] | None:
        scores = outputs[0][0]
        if self._objective.kind is not OutputKind.CLASSES or scores.ndim < 2:
            return None
        if scores.shape[class_axis(scores, self._objective)] < 2:
            return None
        chosen = [predicted_classes(part[0], self._objective) for part in outputs]
        return chosen[0] if len(chosen) == 1 else np.concatenate([part.reshape(-1) for part in chosen])[None]

    def _class_labels(self) -> NDArray[np.int64] | None:
        labels = self._dataset.labels
        if labels is None or self._classes is None or self._classes.ndim != 1:
            return None
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            return None
        return np.asarray(labels[: self._samples], dtype=np.int64)

    def _run(self, session: ort.InferenceSession) -> list[list[Array]]:
        """The compared outputs, samples first, in parts whose samples have one size."""
        parts: list[list[Array]] = [[] for _ in self._objective.outputs]
        for feed, count in self._feeds():
            self._cancel.raise_if_set()
            held = self._dataset.fixed_batch or count
            found = run(session, feed, self._objective.outputs, cancel=self._cancel)
            for position, value in enumerate(found):
                parts[position].append(self._objective.rows(position, value, held, count))
        # Where samples differ in size, one part each; else one for all.
        runs = groupby(zip(*parts, strict=True), key=lambda run: [one.shape[1:] for one in run])
        return [[np.concatenate(one) for one in zip(*part, strict=True)] for _, part in runs]

    def _feeds(self) -> Iterator[tuple[Mapping[str, Array], int]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[tuple[Mapping[str, Array], int]] | None = []
        size, most = 0, 1 if self._objective.has_whole_outputs else _BATCH
        for batch in self._dataset.batches(most, stop=self._samples):
            size += sum(array.nbytes for array in batch.feed.values())
            if kept is not None and size <= _FEEDS_KEPT_BYTES:
                kept.append((batch.feed, batch.count))
            else:
                kept = None
            yield batch.feed, batch.count
        self._kept = kept
