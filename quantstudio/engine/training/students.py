"""Networks that are trained: a float one, and one as a plan quantizes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
import torch

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.statistics import Statistics
from quantstudio.core.target import target_named
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.learned_ranges import mark_range
from quantstudio.engine.quantization.activations import ActivationParams
from quantstudio.engine.quantization.fake_quantization import FakeQuantized, bounds
from quantstudio.engine.recovery.trained_weights import weight_slots, write_initializers
from quantstudio.engine.torch_graph.module import Feed, TorchGraph
from quantstudio.engine.torch_graph.rounding import learned_quantized
from quantstudio.engine.training.learned_weights import LearnedWeight, learned_weight

Tensor = torch.Tensor
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that are trained alike.

    Attributes:
        name: What they are: "weights", "scales", "ranges".
        tensors: The parameters.
        rate: Learning rate as a part of that of the training.
        layers: What each belongs to, for messages.
    """

    name: str
    tensors: list[Tensor]
    rate: float
    layers: list[str]


class Student(Protocol):
    """A network under training."""

    groups: list[ParameterGroup]

    def refresh(self) -> None:
        """Let it compute with today's parameters."""

    def run(self, feed: Feed, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Tensors by name."""

    def record(self, feed: Feed) -> dict[str, Tensor]:
        """All tensors of one run by name."""

    def write(self, model: onnx.ModelProto) -> None:
        """Put what was learned into a copy of the graph's model."""


class _FloatParameter:
    """A float weight in units of its spread; what is zero stays so, and what shares values goes on sharing.

    Args:
        start: The weight.
    """

    def __init__(self, start: Tensor) -> None:
        self._unit = start.float().square().mean().sqrt().clamp_min(_LEAST_UNIT).to(start.dtype)
        self._index, self._mask = None, None
        values = start
        shared = shared_values(start)
        if shared is not None:
            values, self._index = shared
        if start.ndim > 1 and bool((values == 0).any()):
            self._mask = values != 0
        self.parameter = (values / self._unit).requires_grad_(True)

    def value(self) -> Tensor:
        """The weight as it is now."""
        found = self.parameter * self._unit
        if self._mask is not None:
            found = found * self._mask
        return found if self._index is None else found.reshape(-1)[self._index]


def shared_values(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """The values of a weight that shares few of them, and where each is; None of one that does not.

    Shared values are those of the whole weight, or of each slice of its first or last axis by itself, or of
    as many slices together as a channel group has.
    """
    count = weight.numel()
    if weight.ndim < 2 or not count:
        return None
    values, index = torch.unique(weight, return_inverse=True)
    if len(values) <= min(_MOST_VALUES, count // _READERS):
        return values, index
    for axis in (0, weight.ndim - 1):
        rows = weight.movedim(axis, 0)
        # Largest first: a part of a group would go on by itself.
        for size in (one for one in _GROUPS if len(rows) % one == 0 and one < len(rows)):
            found = _values_of_groups(rows.reshape(len(rows) // size, -1))
            if found is not None:
                return found[0], found[1].reshape(rows.shape).movedim(0, axis)
    return None


def _values_of_groups(groups: Tensor) -> tuple[Tensor, Tensor] | None:
    """The values of all rows [G, K] behind one another, and where each is; None where a row has many."""
    most = min(_MOST_VALUES, groups.shape[1] // _READERS)
    tables, places, start = [], [], 0
    for row in groups:
        own, where = torch.unique(row, return_inverse=True)
        if len(own) > most:
            return None
        tables.append(own)
        places.append(where + start)
        start += len(own)
    return torch.cat(tables), torch.stack(places)


# Channels that may have a table together.
_GROUPS = (64, 32, 16, 8, 4, 2, 1)
# A weight shares values where it has at most so many, each for at least so many weights on average.
_MOST_VALUES, _READERS = 256, 4
# Biases that are all zero are trained as well.
_LEAST_UNIT = 1e-2


class _FloatParameters:
    """Float weights of a network, by initializer."""

    def __init__(self, network: TorchGraph, names: Iterable[str]) -> None:
        self._network = network
        self.own = {name: _FloatParameter(network.initializer(name).detach()) for name in names}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is trained, by initializer."""
        return {name: one.parameter for name, one in self.own.items()}

    def refresh(self) -> None:
        """Let the network compute with today's values."""
        for name, one in self.own.items():
            self._network.overrides[name] = one.value()


class FloatStudent:
    """A float network; weights that are zero stay so, and what is shared stays shared.

    Args:
        graph: The network.
        device: Where it computes.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        self.network = TorchGraph(graph.proto).to(device)
        self.network.requires_grad_(False)
        self._floats = _FloatParameters(self.network, self.network.weights)
        tensors = self._floats.tensors
        self.groups = [ParameterGroup("weights", list(tensors.values()), 1.0, list(tensors))]

    def refresh(self) -> None:
        """Let it compute with today's parameters."""
        self._floats.refresh()

    def run(self, feed: Feed, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Tensors by name."""
        return self.network.run(feed, outputs)

    def record(self, feed: Feed) -> dict[str, Tensor]:
        """All tensors of one run by name."""
        return self.network.record(feed)

    def write(self, model: onnx.ModelProto) -> None:
        """Put what was learned into a copy of the graph's model."""
        with torch.no_grad():
            self.refresh()
            write_initializers(model, _arrays({n: self.network.overrides[n] for n in self._floats.own}))


class QuantizedStudent(FakeQuantized):
    """A network as a plan quantizes it, with float weights, grids and activation ranges that are learned.

    Args:
        graph: The network.
        statistics: Of its activations; only static layers need them.
        plan: What its layers become.
        device: Where it computes.
    """

    def __init__(
        self, graph: Graph, statistics: Statistics | None, plan: EffectivePlan, device: torch.device
    ) -> None:
        super().__init__(graph, statistics, plan)
        self.to(device)
        self.requires_grad_(False)
        self.weights_learned: dict[str, LearnedWeight] = {}
        self._slots = weight_slots(self, plan.schemes)
        bits = target_named(plan.target).weight_bits
        fixed: set[str] = set()
        for name, slots in self._slots.items():
            scheme = plan.schemes[slots[0][0]]
            found = learned_weight(
                self.network.initializer(name).detach(),
                self.weights[slots[0]].to(device),
                self.scales[slots[0]],
                scheme,
                8 if scheme.is_weight_only else bits,
            )
            if found is None:
                fixed.add(name)
            else:
                self.weights_learned[name] = found
        self.weights = {slot: value.to(device) for slot, value in self.weights.items()}
        self.ranges: dict[tuple[str, int], Tensor] = {}
        self._range_params: dict[tuple[str, int], ActivationParams] = {}
        self._limits: dict[tuple[str, int], float] = {}
        self._find_ranges(device)
        quantized = {
            self.network.node(layer).inputs[index]
            for layer, index in self.weights
            if self.network.has_node(layer)
        }
        self._floats = _FloatParameters(
            self.network, [name for name in self.network.weights if name not in quantized | fixed]
        )
        self.groups = self._groups()

    def _find_ranges(self, device: torch.device) -> None:
        made = {name: node for node in self.network.nodes for name in node.outputs}
        for place in self.rounding.values():
            for params in (*place.writes.values(), *(one for pairs in place.reads.values() for one in pairs)):
                # Inputs of the network keep their range: what comes in is given.
                if not params.tensor or params.tensor not in made:
                    continue
                key = (params.tensor, params.grid.bits)
                if key in self.ranges:
                    continue
                self.ranges[key] = torch.ones(1, device=device).requires_grad_(True)
                self._range_params[key] = params
                node = made[params.tensor]
                limit = node.inputs[2] if node.op_type == "Clip" and len(node.inputs) > 2 else ""
                # One that is computed as the network runs folds into no kernel.
                if limit and limit not in made and limit not in self.network.input_names:
                    room = bounds(params)[1] - params.zero_point
                    self._limits[key] = float(self.network.initializer(limit)) / room

    def _groups(self) -> list[ParameterGroup]:
        learned, floats = self.weights_learned, self._floats.tensors
        grids = [(name, one) for name, weight in learned.items() for one in weight.grid]
        return [
            ParameterGroup(
                "weights",
                [*(weight.latent for weight in learned.values()), *floats.values()],
                1.0,
                [*learned, *floats],
            ),
            ParameterGroup("grids", [one for _, one in grids], GRID_RATE, [name for name, _ in grids]),
            ParameterGroup(
                "ranges", list(self.ranges.values()), RANGE_RATE, [tensor for tensor, _ in self.ranges]
            ),
        ]

    def through(self, value: Tensor, params: ActivationParams) -> Tensor:
        """A tensor behind a Q/DQ pair whose scale is learned."""
        key = (params.tensor, params.grid.bits)
        if key not in self.ranges:
            return super().through(value, params)
        low, high = bounds(params)
        return learned_quantized(value, self.scale(key), params.zero_point, low, high)

    def bias(self, layer: str, value: Tensor) -> Tensor:
        """A bias as it is: the steps of its 32-bit grid move with the scales, and are far finer."""
        del layer
        return value

    def scale(self, key: tuple[str, int]) -> Tensor:
        """Today's scale of an activation, by tensor and bits; shape [1]."""
        found = (self.ranges[key] * float(self._range_params[key].scale)).clamp_min(_SMALLEST)
        limit = self._limits.get(key)
        return found if limit is None else found.clamp_max(limit)

    def refresh(self) -> None:
        """Let it compute with today's parameters."""
        for name, weight in self.weights_learned.items():
            value = weight.value()
            for slot in self._slots[name]:
                self.weights[slot] = value
        self._floats.refresh()

    def record(self, feed: Feed) -> dict[str, Tensor]:
        """All tensors of one run by name."""
        return self.network.record(feed)

    def write(self, model: onnx.ModelProto) -> None:
        """Put what was learned into a copy of the graph's model: weights on their grids, and ranges."""
        with torch.no_grad():
            self.refresh()
            values = {name: self.weights[self._slots[name][0]] for name in self.weights_learned}
            values.update({name: self.network.overrides[name] for name in self._floats.own})
            write_initializers(model, _arrays(values))
            nodes = {name: node for node in model.graph.node for name in node.output}
            for tensor, bits in self.ranges:
                params, scale = self._range_params[tensor, bits], float(self.scale((tensor, bits)))
                low, high = bounds(params)
                ends = (low - params.zero_point) * scale, (high - params.zero_point) * scale
                mark_range(nodes[tensor], tensor, bits, ends)


# Scales move every weight of a channel, or every activation of a layer, at once.
GRID_RATE, RANGE_RATE = 0.3, 1.0


def _arrays(values: Mapping[str, Tensor]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {
        name: np.ascontiguousarray(value.detach().cpu().numpy(), dtype=np.float32)
        for name, value in values.items()
    }
