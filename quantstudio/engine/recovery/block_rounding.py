"""The training behind `round`, block after block on what each reads and is to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.recovered import LayerRecovered
from quantstudio.core.target import target_named
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.quantization.written_weights import WeightSlot
from quantstudio.engine.recovery.adam import Adam
from quantstudio.engine.recovery.blocks import Block, find_blocks
from quantstudio.engine.recovery.distillation import kept_batches
from quantstudio.engine.recovery.layer_errors import LayerErrors
from quantstudio.engine.recovery.soft_rounding import SoftWeight, exponent_at, other_levels
from quantstudio.engine.recovery.trained_weights import (
    TrainedBias,
    trained_biases,
    weight_slots,
    write_initializers,
)
from quantstudio.engine.recovery.training_settings import RoundSettings
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings
from quantstudio.engine.torch_graph.module import TorchGraph

Tensor = torch.Tensor
Values = dict[str, Tensor]
# Part of the samples that only says whether a block became better.
HELD_OUT = 0.125
# Bytes of the inputs and targets of a block that are kept; with more, fewer samples are used.
_MOST_BYTES = 1 << 30
# Rates of Adam, and what weights between two levels cost on average, in errors of the block before.
_ROUNDING_RATE = 5e-2
_BIAS_RATE = 1e-3
_PENALTY = 30.0
# QDrop: share of the values that pass unrounded while activations have few bits.
_DROPPED = 0.5
_FEW_BITS = 4


def rounded_graph(
    graph: Graph, context: StepContext, settings: RoundSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights on levels that were chosen block by block.

    Raises:
        DataError: too few samples.
        JobCancelled: `cancel` was set.
    """
    with torch_settings(worker_threads()):
        return _Rounding(graph, context, settings, reporter, cancel).outcome()


class _Rounding:
    """The rounding under way."""

    def __init__(
        self,
        graph: Graph,
        context: StepContext,
        settings: RoundSettings,
        reporter: Reporter,
        cancel: CancelToken,
    ) -> None:
        self.graph, self.context, self.settings = graph, context, settings
        self.reporter, self.cancel = reporter, cancel
        self.device = resolve_device(context.device)
        reference = context.unrounded or graph
        statistics = context.statistics(graph) if context.plan.is_static else None
        self.student = FakeQuantized(graph, statistics, context.plan).to(self.device).requires_grad_(False)
        self.student.weights = {slot: one.to(self.device) for slot, one in self.student.weights.items()}
        self.teacher = TorchGraph(reference.proto).to(self.device).requires_grad_(False)
        self.known = {name for node in self.teacher.nodes for name in node.outputs}
        self.slots = weight_slots(self.student, context.plan.schemes)
        self.batches = self._batches()
        self.random = torch.Generator(device=self.device).manual_seed(context.seed)
        self.errors = LayerErrors(reference, context.plan, self.batches[0])
        self.written: dict[str, Tensor] = {}

    def outcome(self) -> StepOutcome:
        """Round every block, and write down what became better."""
        layers = {slot[0] for slots in self.slots.values() for slot in slots}
        blocks = find_blocks(self.student.network, layers, self.known)
        before = self.errors.measured(self.student)
        gained = self._walk(blocks)
        if not gained:
            text = f"Changed nothing: none of {counted(len(blocks), 'block')} became better."
            return StepOutcome(self.graph, text, {"blocks": 0})
        after = self.errors.measured(self.student)
        for layer, error in before.items():
            self.reporter.found(LayerRecovered(layer, error, after.get(layer), self.errors.measure))
        first, last = (sum(one[place] for one in gained) / len(gained) for place in (0, 1))
        text = (
            f"Rounded {counted(len(gained), 'block')} anew: the error of a block's output fell from "
            f"{percent(first**0.5, 1)} to {percent(last**0.5, 1)} of it, on samples kept out of training."
        )
        model = editable_copy(self.graph)
        write_initializers(model, {name: one.cpu().numpy() for name, one in self.written.items()})
        details = {"blocks": len(gained), "before": first, "after": last}
        return StepOutcome(derived_graph(self.graph, model, text), text, details)

    def _walk(self, blocks: Sequence[Block]) -> list[tuple[float, float]]:
        """Every block behind the rounded ones before it; error before and behind of those that changed."""
        quantized = [dict(batch) for batch in self.batches]
        exact = [
            {name: batch[name] for name in self.teacher.input_names if name in batch}
            for batch in self.batches
        ]
        gained = []
        for place, block in enumerate(blocks):
            self.cancel.raise_if_set()
            self.reporter.progress(place, len(blocks), "blocks", f"Rounding up to {block.output}")
            if block.layers:
                found = self._round(block, quantized, exact)
                gained += [found] if found is not None else []
            if block.is_last:
                with torch.no_grad():
                    ends = [block.output]
                    quantized = [self.student.network.run_part(one, ends) for one in quantized]
                    exact = [self.teacher.run_part(one, ends) for one in exact]
        self.reporter.progress(len(blocks), len(blocks), "blocks", "Rounding done")
        return gained

    def _round(
        self, block: Block, quantized: Sequence[Values], exact: Sequence[Values]
    ) -> tuple[float, float] | None:
        names = [name for name, slots in self.slots.items() if all(slot[0] in block.layers for slot in slots)]
        if not names:
            return None
        data = self._data(block, quantized, exact)
        soft = {name: self._soft(name) for name in names}
        biases = trained_biases(self.student, self.graph, block.layers, self.errors.spreads)
        held = data[: max(1, round(HELD_OUT * len(data)))]
        with torch.no_grad():
            before = sum(float(self._error(block, one)) for one in held) / len(held)
        self._train(block, data[len(held) :], soft, biases, before)
        with torch.no_grad():
            self._put(soft, biases, hard=True)
            after = sum(float(self._error(block, one)) for one in held) / len(held)
        if not after < before:
            self._undo(soft, biases)
            return None
        self.written.update({name: one.chosen() for name, one in soft.items()})
        self.written.update({name: one.value().detach() for name, one in biases.items()})
        return before, after

    def _train(
        self,
        block: Block,
        data: Sequence[_Sample],
        soft: dict[str, SoftWeight],
        biases: dict[str, TrainedBias],
        error: float,
    ) -> None:
        optimizer = Adam(
            ([one.parameter for one in soft.values()], _ROUNDING_RATE),
            ([one.parameter for one in biases.values()], _BIAS_RATE),
        )
        count = sum(one.written.numel() for one in soft.values())
        self._drop(block)
        for done in range(self.settings.iterations):
            self.cancel.raise_if_set()
            place = int(torch.randint(len(data), (1,), generator=self.random, device=self.device))
            self._put(soft, biases, hard=False)
            loss = self._error(block, data[place], mixed=self.student.dropped > 0)
            exponent = exponent_at(done / self.settings.iterations)
            if exponent is not None:
                between = torch.stack([one.penalty(exponent) for one in soft.values()]).sum() / count
                loss = loss + _PENALTY * error * between
            if not bool(torch.isfinite(loss)):
                break
            torch.autograd.backward(loss)
            optimizer.step()
        self.student.dropped = 0.0

    def _drop(self, block: Block) -> None:
        schemes = self.context.plan.schemes
        if any(
            schemes[name].is_static and schemes[name].activations.bits <= _FEW_BITS for name in block.layers
        ):
            self.student.dropped, self.student.generator = _DROPPED, self.random

    def _error(self, block: Block, sample: _Sample, *, mixed: bool = False) -> Tensor:
        """Squared error of a block's output, as a share of its power."""
        inputs = sample.inputs
        if mixed:
            inputs = {name: self._mix(value, sample.exact.get(name)) for name, value in inputs.items()}
        found = self.student.network.run_part(inputs, [block.output])[block.output]
        return (found - sample.target).square().mean() / sample.target.square().mean().clamp_min(1e-20)

    def _mix(self, quantized: Tensor, exact: Tensor | None) -> Tensor:
        if exact is None or not quantized.is_floating_point():
            return quantized
        chance = torch.rand(quantized.shape, generator=self.random, device=self.device)
        return torch.where(chance < _DROPPED, exact, quantized)

    def _data(self, block: Block, quantized: Sequence[Values], exact: Sequence[Values]) -> list[_Sample]:
        """What the block reads and is to write, batch by batch."""
        found: list[_Sample] = []
        total = 0
        with torch.no_grad():
            for low, high in zip(quantized, exact, strict=True):
                self.cancel.raise_if_set()
                inputs = self.student.network.run_part(low, list(block.inputs))
                both = [name for name in block.inputs if name in self.known or name in high]
                wanted = self.teacher.run_part(high, list(dict.fromkeys([block.output, *both])))
                one = _Sample(inputs, wanted, wanted[block.output])
                total += sum(value.nbytes for value in (*inputs.values(), one.target))
                found.append(one)
                if total > _MOST_BYTES and len(found) > 1:
                    break
        return found

    def _soft(self, name: str) -> SoftWeight:
        slot: WeightSlot = self.slots[name][0]
        written = self.student.weights[slot]
        wanted = self.student.network.initializer(name)
        if name in self.teacher.weights and self.teacher.initializer(name).shape == written.shape:
            wanted = self.teacher.initializer(name)
        bits = target_named(self.context.plan.target).weight_bits
        scheme = self.context.plan.schemes[slot[0]]
        other = other_levels(written, wanted, self.student.scales[slot], scheme, bits)
        return SoftWeight(written, wanted, other)

    def _put(self, soft: dict[str, SoftWeight], biases: dict[str, TrainedBias], *, hard: bool) -> None:
        for name, weight in soft.items():
            value = weight.chosen() if hard else weight.value()
            for slot in self.slots[name]:
                self.student.weights[slot] = value
        for name, bias in biases.items():
            value = bias.value()
            self.student.network.overrides[name] = value.detach() if hard else value

    def _undo(self, soft: dict[str, SoftWeight], biases: dict[str, TrainedBias]) -> None:
        for name, weight in soft.items():
            for slot in self.slots[name]:
                self.student.weights[slot] = weight.written
        for name, bias in biases.items():
            self.student.network.overrides[name] = bias.start

    def _batches(self) -> list[Values]:
        batches = kept_batches(self.context.dataset, self.settings.samples, HELD_OUT, self.cancel)
        return [{name: value.to(self.device) for name, value in one.items()} for one in batches]


@dataclass(frozen=True, slots=True)
class _Sample:
    """One batch of a block.

    Attributes:
        inputs: What it reads in the quantized network.
        exact: The same in the float network, as far as known.
        target: What the float network's block writes.
    """

    inputs: Values
    exact: Values
    target: Tensor
