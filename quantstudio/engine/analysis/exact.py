"""Exact sensitivity: one layer at a time really quantized and run in ONNX Runtime, no approximation.

What comes before the layer does not depend on it: its results are kept (as far as memory allows) and only
the rest of the graph runs again, fully optimized, once for each precision.

Chosen by measurement. In FP32 passes of processor time for one precision of all layers (residual CNN,
MobileNet, transformer), with everything reported besides the KL: 9.7, 21.7, 12.3; a session on the whole
model for every layer, KL alone: 12.3, 26.2, 19.5. Overriding one initializer of the whole model needs basic
optimization, since full optimization ignores it, and took 1.8 to 4.7 times as long; replaying in torch what
the change reaches was 0.4 to 1.4 times as fast as a session for every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.analysis.classes import class_labels
from quantstudio.engine.analysis.divergence import (
    Array,
    Deviation,
    Objective,
    OutputKind,
    Scores,
    SpreadTally,
    divergence,
    predicted_classes,
)
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.cut import CutGraph, Edit
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import CPU, run, worker_threads

# Tensors in front of a layer, and FP32 outputs, stay in memory up to this size each; beyond it they are
# computed again for every layer.
KEPT_BYTES = 256 * 2**20
# Outputs of one batch: comparing them takes several times as much in float64.
_OUTPUT_BYTES = 8 * 2**20
# Larger batches are not faster.
_LARGEST_BATCH = 32

Feed = dict[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One layer at one precision.

    Attributes:
        divergence: Of each sample, nats, [N].
        hits: Whether each sample's class is right; None without class labels.
    """

    divergence: Scores
    hits: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Where the graph is cut, and what crosses the cut.

    Attributes:
        position: First node behind it.
        types: Types of the tensors that cross it.
        feeds: Their values for every batch; None where they were not kept.
    """

    position: int
    types: dict[str, onnx.ValueInfoProto]
    feeds: list[Feed] | None = None

    def part_of(self, values: Mapping[str, Array]) -> Feed:
        """The tensors that cross the cut, out of more."""
        return {name: values[name] for name in self.types}


@dataclass(frozen=True, slots=True, eq=False)
class _Bridge:
    """Computes what crosses one cut from what crosses an earlier one."""

    session: ort.InferenceSession
    outputs: tuple[str, ...]


class _Kept(list[Feed]):
    """Feeds in order, until they take too much memory: then none."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def add(self, feed: Feed) -> None:
        self._bytes += sum(array.nbytes for array in feed.values())
        if self.fits:
            self.append(feed)
        else:
            self.clear()

    @property
    def fits(self) -> bool:
        return self._bytes <= KEPT_BYTES


@dataclass(slots=True)
class _Collected:
    """What one changed graph does to the outputs; `waiting` are outputs not compared yet, with FP32's."""

    divergence: list[Scores] = field(default_factory=list)
    hits: list[NDArray[np.bool_]] = field(default_factory=list)
    waiting: list[tuple[Feed, Feed]] = field(default_factory=list)
    waiting_bytes: int = 0

    def joined(self) -> Measured:
        return Measured(np.concatenate(self.divergence), np.concatenate(self.hits) if self.hits else None)


def _alike(pairs: Sequence[tuple[Feed, Feed]], names: Sequence[str]) -> Iterator[list[tuple[Feed, Feed]]]:
    """Runs of batches whose outputs have one shape and can be joined."""
    for _, part in groupby(pairs, key=lambda pair: [pair[0][name].shape[1:] for name in names]):
        yield list(part)


class ExactScorer:
    """Runs a graph with one layer changed at a time against the FP32 outputs of the same samples.

    Attributes:
        scores: FP32 class scores, [N, C]; None for outputs of another form.
        base_hits: Whether FP32 gets each sample right; None without class labels.
    """

    def __init__(
        self,
        graph: Graph,
        dataset: Dataset,
        objective: Objective,
        *,
        samples: int,
        cancel: CancelToken,
        provider: str = CPU,
        truth: ExactScorer | None = None,
    ) -> None:
        """Run FP32 once, unless another scorer did.

        Args:
            graph: The network.
            dataset: Samples.
            objective: Which outputs are compared, and how.
            samples: How many of them, from the first on.
            cancel: Ends runs in progress, too.
            provider: Full name of the execution provider.
            truth: Scorer of the FP32 graph over the same samples, when `graph` is a quantized copy of it.

        Raises:
            MeasureError: the model does not run on this data, or its outputs hold NaN.
        """
        self._graph = CutGraph(
            graph, objective.outputs, threads=worker_threads(), provider=provider, cancel=cancel
        )
        self._dataset = dataset
        self._objective = objective
        self._samples = min(samples, len(dataset))
        self._cancel = cancel
        self._start = _Cut(0, {n: self._graph.input_types[n] for n in self._graph.live_at(0)})
        self._cut = self._start
        self._truth = truth
        self._size: int = truth._size if truth is not None else dataset.fixed_batch or self._batch_size()
        self._deviations: tuple[Deviation, ...] = ()
        self._base = _Kept()
        self._labels: NDArray[np.int64] | None = None
        self.scores: Array | None = None
        self.base_hits: NDArray[np.bool_] | None = None
        if truth is None:
            self._run_unchanged()
        else:
            self._trust(truth)

    @property
    def batches(self) -> int:
        """Batches the samples come in."""
        return -(-self._samples // self._size)

    # -- scoring ---------------------------------------------------------------------------------------

    def measure(
        self, node: str, edits: Sequence[Edit], after_batch: Callable[[], None] = lambda: None
    ) -> list[Measured]:
        """The graph under each edit of one layer.

        Args:
            node: The layer, or the first node that is edited. Going in execution order is cheapest.
            edits: From `weight_edit` and `activation_edit`.
            after_batch: Called after each batch.

        Raises:
            MeasureError: a changed graph does not run.
            JobCancelled: the token was set.
        """
        position = self._graph.position(node)
        if position is None:
            for _ in range(self.batches):
                after_batch()
            return [Measured(np.zeros(self._samples), self.base_hits) for _ in edits]
        if position < self._cut.position:
            self._cut = self._start
        cut, bridge = self._moved_to(position)
        # FP32 outputs too large to keep come from an unchanged copy that runs beside the others.
        unchanged = None if self._base.fits or self._truth is not None else self._behind(cut)
        beside = self._recomputed_truth() if self._truth is not None and not self._base.fits else None
        sessions = [self._behind(cut, edit) for edit in edits]
        found = [_Collected() for _ in edits]
        kept = _Kept()
        for index, values in enumerate(self._feeds()):
            feed = cut.part_of(values if bridge is None else {**values, **self._crossed(bridge, values)})
            if beside is not None:
                base = next(beside)
            else:
                base = self._base[index] if unchanged is None else self._outputs(unchanged, feed, index)
            for collected, session in zip(found, sessions, strict=True):
                self._collect(collected, base, self._outputs(session, feed, index), index)
            kept.add(feed)
            after_batch()
        if kept.fits:
            self._cut = replace(cut, feeds=list(kept))
        for collected in found:
            if collected.waiting:
                self._compare(collected)
        return [collected.joined() for collected in found]

    def _collect(self, collected: _Collected, base: Feed, outputs: Feed, index: int) -> None:
        collected.waiting.append((base, outputs))
        collected.waiting_bytes += sum(array.nbytes for array in outputs.values())
        # Comparing a batch of a small network takes longer than running it; many at once take as long as one.
        if collected.waiting_bytes > _OUTPUT_BYTES:
            self._compare(collected)
        if self._labels is not None:
            collected.hits.append(self._right(outputs, index))

    def _compare(self, collected: _Collected) -> None:
        """Divergence of the outputs that wait."""
        names = self._objective.outputs
        for part in _alike(collected.waiting, names):
            base, outputs = (
                [np.concatenate([pair[side][n] for pair in part]) for n in names] for side in (0, 1)
            )
            collected.divergence.append(divergence(base, outputs, self._objective, self._deviations))
        collected.waiting.clear()
        collected.waiting_bytes = 0

    # -- cutting ---------------------------------------------------------------------------------------

    def _moved_to(self, position: int) -> tuple[_Cut, _Bridge | None]:
        """The cut in front of a position, and what computes it from the present one.

        The present cut where something other than plain tensors would cross the new one.
        """
        names = self._graph.live_at(position)
        present = self._cut
        new = tuple(name for name in names if name not in present.types)
        types = dict(present.types)
        bridge = None
        if new:
            session = self._graph.session(present.position, position, present.types, new)
            found = self._graph.output_types(session)
            if found is None:
                return present, None
            types.update(found)
            bridge = _Bridge(session, new)
        return _Cut(position, {name: types[name] for name in names}), bridge

    def _behind(self, cut: _Cut, edit: Edit | None = None) -> ort.InferenceSession:
        outputs = [name for name in self._objective.outputs if name not in cut.types]
        return self._graph.session(cut.position, self._graph.end, cut.types, outputs, edit)

    def _crossed(self, bridge: _Bridge, values: Feed) -> Feed:
        given = self._cut.part_of(values)
        found = run(bridge.session, given, bridge.outputs, cancel=self._cancel)
        return dict(zip(bridge.outputs, found, strict=True))

    def _feeds(self) -> Iterator[Feed]:
        if self._cut.feeds is not None:
            yield from self._cut.feeds
        else:
            for batch in self._dataset.batches(self._size, stop=self._samples):
                yield dict(batch.feed)

    def _trust(self, truth: ExactScorer) -> None:
        """Compare with what another scorer found FP32 to give."""
        self._base, self._deviations = truth._base, truth._deviations
        self._labels, self.scores, self.base_hits = truth._labels, truth.scores, truth.base_hits

    def _recomputed_truth(self) -> Iterator[Feed]:
        """FP32 outputs that were too large to keep, batch by batch."""
        truth = self._truth
        assert truth is not None
        session = truth._behind(truth._start)
        for index, batch in enumerate(self._dataset.batches(self._size, stop=self._samples)):
            yield truth._outputs(session, truth._start.part_of(batch.feed), index)

    # -- running ---------------------------------------------------------------------------------------

    def _run_unchanged(self) -> None:
        spread = SpreadTally(len(self._objective.outputs), self._objective.split)
        scores: list[Array] = []
        session = self._behind(self._start)
        for index, feed in enumerate(self._feeds()):
            outputs = self._outputs(session, self._start.part_of(feed), index)
            values = [outputs[n] for n in self._objective.outputs]
            if any(np.isnan(value).any() for value in values):
                raise MeasureError(
                    "the model's outputs hold NaN on this data, so nothing can be compared with them",
                    hint=Hint(
                        "Check the data and its transform; if they are right, the network computes NaN",
                        HintAction.CHECK_DATA,
                    ),
                )
            self._base.add(outputs)
            if self._objective.kind is OutputKind.VALUES:
                spread.add(values)
            elif self._objective.kind is OutputKind.CLASSES and values[0].ndim == 2:
                scores.append(values[0])
        self._deviations = spread.deviations()
        if scores:
            self.scores = np.concatenate(scores)
            labels = class_labels(self._dataset)
            self._labels = None if labels is None else labels[: self._samples]
        if self.scores is not None and self._labels is not None:
            self.base_hits = np.equal(predicted_classes(self.scores, self._objective), self._labels)

    def _outputs(self, session: ort.InferenceSession, feed: Feed, index: int) -> Feed:
        """The compared outputs of one batch, valid samples only."""
        names = [output.name for output in session.get_outputs()]
        values = {**feed, **dict(zip(names, run(session, feed, names, cancel=self._cancel), strict=True))}
        valid = min(self._size, self._samples - index * self._size)
        held = self._dataset.fixed_batch or valid
        found = {}
        for position, name in enumerate(self._objective.outputs):
            found[name] = self._objective.rows(position, values[name], held, valid)
        return found

    def _batch_size(self) -> int:
        """Samples per batch, by what one sample puts out."""
        if self._objective.has_whole_outputs:
            return 1
        feed = self._start.part_of(next(self._dataset.batches(1, stop=1)).feed)
        found = run(self._behind(self._start), feed, cancel=self._cancel)
        per_sample = sum(np.asarray(value).nbytes for value in found)
        return max(1, min(_LARGEST_BATCH, _OUTPUT_BYTES // max(per_sample, 1)))

    def _right(self, outputs: Feed, index: int) -> NDArray[np.bool_]:
        assert self._labels is not None
        chosen = predicted_classes(outputs[self._objective.outputs[0]], self._objective)
        first = index * self._size
        return np.equal(chosen, self._labels[first : first + len(chosen)])
