"""How much each unit of a network matters: by its weights, or by what the answers lose without it.

Every unit has a factor of one on it wherever its channels are read. What the answers lose when the factor
becomes zero is, to first order, the derivative by it: of a loss (Taylor), or of the answers themselves in
directions whose covariance is the curvature of the divergence (Fisher), squared and averaged over samples.

Source: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, arXiv:1906.10771, eq. 7 to 9;
Theis et al. 2018, Faster gaze prediction with dense networks and Fisher pruning, arXiv:1801.05787, eq. 6;
directions as in Martens 2020, arXiv:1412.1193, section 9. By weights: Li et al. 2017, arXiv:1608.08710,
summed over a group as in Fang et al. 2023, arXiv:2301.12900, eq. 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.compression.dependencies import Dependencies
from quantstudio.engine.compression.flow import Read
from quantstudio.engine.compression.pruning_settings import Criterion
from quantstudio.engine.data.dataset import Batch, Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.recovery.distillation import Distillation, output_losses
from quantstudio.engine.torch_graph.device import resolve_device
from quantstudio.engine.torch_graph.module import Hook, Node, TorchGraph, Value
from quantstudio.engine.torch_graph.registry import Result

FloatArray = NDArray[np.float64]
Importance = Mapping[str, FloatArray]
_BATCH = 16
# Scores of one class a sample.
_CLASS_RANK = 2


def by_weights(graph: Graph, found: Dependencies) -> Importance:
    """Energy of the weights of each unit, of what a unit of the group has on average, mean over its tensors.

    Args:
        graph: The graph.
        found: Its groups.
    """
    total = np.zeros(found.flow.labels.count)
    tensors = np.zeros(found.flow.labels.count)
    for tensor in graph.proto.graph.initializer:
        if len(tensor.dims) < 2:
            continue
        for axis, labels in enumerate(found.flow.constant_axes(tensor)):
            if labels is None:
                continue
            values = np.asarray(as_array(tensor), dtype=np.float64)
            energy = np.sum(values**2, axis=tuple(a for a in range(values.ndim) if a != axis))
            roots = found.flow.labels.roots(labels)
            np.add.at(total, roots, energy / max(float(energy.mean()), 1e-300))
            np.add.at(tensors, roots, 1.0)
    mean = total / np.maximum(tensors, 1)
    return {group.name: mean[found.units[group.name]] for group in found.prunable}


@dataclass(frozen=True, slots=True)
class Measured:
    """What the answers lose without each unit.

    Attributes:
        importance: By group, one a unit; by Fisher the divergence without it alone, in nats.
        samples: Samples it was measured on.
        is_labelled: Whether labels were used.
    """

    importance: Importance
    samples: int
    is_labelled: bool


def by_answers(
    graph: Graph,
    found: Dependencies,
    dataset: Dataset,
    *,
    criterion: Criterion,
    samples: int,
    seed: int,
    device: str,
    reporter: Reporter,
    cancel: CancelToken,
) -> Measured:
    """What the answers lose without each unit, to second order for the divergence and to first for a loss.

    Args:
        graph: The graph.
        found: Its groups.
        dataset: Samples, with labels or without.
        criterion: FISHER, or TAYLOR, which is the same where there are no classes with labels.
        samples: How many to use, at most.
        seed: Of the random directions.
        device: torch device.
        reporter: Told of every batch.
        cancel: Looked at between batches.

    Raises:
        CalibrationError: a gradient is not finite.
        UnsupportedOpError: torch cannot compute the network.
        JobCancelled: `cancel` was set.
    """
    work = _Pass(graph, found, dataset, criterion, seed, device, cancel)
    count = min(samples, len(dataset))
    squares = np.zeros(work.unit_count)
    for batch in dataset.batches(_BATCH, stop=count):
        cancel.raise_if_set()
        reporter.progress(batch.start, count, "samples", "Measuring what each unit matters")
        squares += work.squares(batch)
    if not np.isfinite(squares).all():
        raise CalibrationError(
            "what units matter is no finite number: a gradient overflows on these samples",
            where=graph.summary.source_path,
            hint=Hint("Choose other data, or the criterion magnitude", HintAction.CHOOSE_DATA),
        )
    half = 0.5 if not work.is_labelled else 1.0
    by_unit = half * squares / max(count, 1)
    return Measured(work.by_group(by_unit), count, work.is_labelled)


class _Pass:
    """Forward and backward passes with a factor on every unit."""

    def __init__(
        self,
        graph: Graph,
        found: Dependencies,
        dataset: Dataset,
        criterion: Criterion,
        seed: int,
        device: str,
        cancel: CancelToken,
    ) -> None:
        self._found = found
        self._dataset = dataset
        losses = output_losses(graph, dataset, cancel)
        self._ends = Distillation(losses, graph.proto, graph.proto)
        self._module = TorchGraph(graph.proto, self._ends.wanted).to(resolve_device(device))
        self._module.requires_grad_(False)
        self._random = torch.Generator().manual_seed(seed)
        self._is_scaled = False
        units = [found.units[group.name] for group in found.prunable]
        self._place = np.full(found.flow.labels.count, -1, dtype=np.int64)
        roots = np.concatenate(units) if units else np.zeros(0, dtype=np.int64)
        self._place[roots] = np.arange(len(roots))
        self.unit_count = len(roots)
        self._reads = [read for read in found.flow.reads if (self._units(read) >= 0).any()]
        self._is_by_sample = all(self._has_samples_first(graph, read) for read in self._reads)
        self.is_labelled = (
            criterion is Criterion.TAYLOR
            and dataset.labels is not None
            and dataset.labels.ndim == 1
            and dataset.labels.dtype.kind in "iu"
            and len(losses) == 1
            and losses[0].has_classes
            and len(found.flow.shape(losses[0].name)) == _CLASS_RANK
        )

    def _units(self, read: Read) -> NDArray[np.int64]:
        return self._place[self._found.flow.labels.roots(read.labels)]

    def _has_samples_first(self, graph: Graph, read: Read) -> bool:
        flow = self._found.flow
        node = next(node for node in graph.proto.graph.node if node.name == read.node)
        return read.axis > 0 and flow.shape(node.input[read.slot])[0] == flow.samples

    def by_group(self, values: FloatArray) -> Importance:
        """Figures of all units by group."""
        return {
            group.name: values[self._place[self._found.units[group.name]]] for group in self._found.prunable
        }

    def squares(self, batch: Batch) -> FloatArray:
        """Sum over a batch of the squared effect of each unit."""
        gates: list[torch.Tensor] = []
        self._module.hooks = self._hooks(batch.held, gates)
        feed = {name: torch.tensor(array) for name, array in batch.feed.items()}
        with torch.enable_grad():
            values = self._module.run(feed, self._ends.wanted)
            answers = [values[name] for name in self._ends.wanted]
            if not self._is_scaled:
                self._ends.set_scale([[answer.detach().cpu() for answer in answers]])
                self._is_scaled = True
            directions = self._directions(answers, batch)
            live = [
                (answer, direction) for answer, direction in zip(answers, directions, strict=True)
                if answer.requires_grad
            ]  # fmt: skip
            effects = np.zeros((batch.held if self._is_by_sample else 1, self.unit_count + 1))
            if live and gates:
                found = torch.autograd.grad(
                    [answer for answer, _direction in live],
                    gates,
                    [direction for _answer, direction in live],
                    allow_unused=True,
                )
                for read, gradient in zip(self._gated, found, strict=True):
                    if gradient is not None:
                        rows = gradient.double().cpu().numpy().reshape(effects.shape[0], -1)
                        np.add.at(effects.T, self._units(read), rows.T)
        # Places that stay were added to the last column.
        squared: FloatArray = (effects[:, :-1] ** 2)[: batch.count if self._is_by_sample else 1].sum(0)
        return squared

    def _directions(self, answers: list[torch.Tensor], batch: Batch) -> list[torch.Tensor]:
        if not self.is_labelled or self._dataset.labels is None:
            cpu = [answer.detach().cpu() for answer in answers]
            found = self._ends.directions(cpu, self._random)
            return [one.to(answer) for one, answer in zip(found, answers, strict=True)]
        labels = np.resize(self._dataset.labels[batch.start : batch.start + batch.count], batch.held)
        with torch.enable_grad():
            scores = answers[0].detach().requires_grad_()
            flat = scores.reshape(batch.held, -1)
            chosen = torch.as_tensor(labels.astype(np.int64), device=flat.device)
            logits = flat if self._ends.has_logits[0] else flat.clamp_min(1e-12).log()
            loss = torch.nn.functional.cross_entropy(logits, chosen, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, [scores])
        return [gradient]

    def _hooks(self, samples: int, gates: list[torch.Tensor]) -> dict[str, Hook]:
        """A replacement for every node that reads channels: its factors are made as it is run."""
        by_node: dict[str, list[Read]] = {}
        for read in self._reads:
            by_node.setdefault(read.node, []).append(read)
        self._gated: list[Read] = []

        def gated(node: Node, inputs: tuple[Value, ...]) -> Result:
            changed = list(inputs)
            for read in by_node[node.name]:
                source = changed[read.slot]
                if source is None:
                    continue
                shape = [1] * source.ndim
                shape[read.axis] = len(read.labels)
                if self._is_by_sample:
                    shape[0] = samples
                gate = torch.ones(shape, dtype=source.dtype, device=source.device, requires_grad=True)
                gates.append(gate)
                self._gated.append(read)
                changed[read.slot] = source * gate
            return node.compute(*changed)

        return dict.fromkeys(by_node, gated)
