"""What tuning may change of a quantized network: scales, entries of codebooks, biases; never an index.

Everything is trained relative to what it was, so that one learning rate fits all: a scale as a factor, a
table entry in parts of its channel's largest, a bias in standard deviations of its layer's output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from quantstudio.core.precision import Grid, LayerScheme, integer_levels
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_tensor
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.quantization.written_weights import ScaleLayout, WeightSlot
from quantstudio.engine.recovery.bias_targets import find_targets
from quantstudio.engine.torch_graph.rounding import rounded

Tensor = torch.Tensor


class ScaledWeight:
    """A weight on a uniform grid whose scales are trained.

    Args:
        written: What the file holds, dequantized.
        layout: Which values share a scale.
    """

    def __init__(self, written: Tensor, layout: ScaleLayout) -> None:
        self._written, self._layout = written, layout
        self.parameter = torch.ones(_scale_shape(written.shape, layout), device=written.device)
        self.parameter.requires_grad_(True)

    def value(self) -> Tensor:
        """The weight as it is now."""
        factor, layout = self.parameter, self._layout
        if layout.group_size and layout.axis is not None:
            length = self._written.shape[layout.axis]
            factor = factor.repeat_interleave(layout.group_size, layout.axis).narrow(layout.axis, 0, length)
        return self._written * factor


class TableWeight:
    """A weight of a table a channel: the scale of every table and its entries are trained apart.

    Entries stay on the integer grid, and the largest of a table is the largest integer for good: it moves
    with the scale alone. Trained as an entry, it would move all others with it, of which its gradient knows
    nothing.

    Args:
        written: What the file holds, dequantized.
        axis: Axis of the channels; None for one table.
        entries: Entries a table has.
        high: The largest integer.
    """

    def __init__(self, written: Tensor, axis: int | None, entries: int, high: int) -> None:
        self._axis, self._high, self._shape = axis, high, written.shape
        rows = written.reshape(1, -1) if axis is None else written.movedim(axis, 0).flatten(1)
        table, self._index = _tables(rows.cpu().numpy(), entries)
        start = torch.from_numpy(table).to(written.device)
        largest = start.abs().amax(1, keepdim=True)
        self._unit = largest.clamp_min(torch.finfo(torch.float32).tiny * 2**8)
        self._start = start / self._unit
        self._is_largest = start.abs() == largest
        self._index = self._index.to(written.device)
        self.parameter = torch.ones_like(largest).requires_grad_(True)
        self.entries = self._start.clone().requires_grad_(True)

    def value(self) -> Tensor:
        """The weight as it is now, on its grid."""
        shares = torch.where(self._is_largest, self._start, self.entries)
        codes = rounded(shares * self._high).clamp(-self._high, self._high)
        table = codes * (self.parameter * self._unit / self._high)
        rows = torch.gather(table, 1, self._index)
        if self._axis is None:
            return rows.reshape(self._shape)
        moved = [self._shape[self._axis], *(n for i, n in enumerate(self._shape) if i != self._axis)]
        return rows.reshape(moved).movedim(0, self._axis)


TrainedWeight = ScaledWeight | TableWeight


@dataclass(slots=True)
class TrainedBias:
    """A bias that is trained.

    Attributes:
        start: What it was.
        unit: What one step of the parameter is worth.
        parameter: What is added, in units; shape of the bias.
    """

    start: Tensor
    unit: float
    parameter: Tensor

    def value(self) -> Tensor:
        """The bias as it is now."""
        return self.start + self.unit * self.parameter


class TrainedParts:
    """Everything of a quantized network that tuning trains.

    Args:
        module: The quantized network; `apply` puts today's values into it.
        graph: The graph it was made of.
        schemes: What its layers became.
        max_bits: Bits of a weight an integer kernel of the target takes.
        spreads: Standard deviation of each layer's output, by tensor.
    """

    def __init__(
        self,
        module: FakeQuantized,
        graph: Graph,
        schemes: Mapping[str, LayerScheme],
        max_bits: int,
        spreads: Mapping[str, float],
    ) -> None:
        self._module = module
        self.weights: dict[str, TrainedWeight] = {}
        self._slots: dict[str, list[WeightSlot]] = {}
        for name, slots in weight_slots(module, schemes).items():
            scheme, first = schemes[slots[0][0]], module.weights[slots[0]]
            self.weights[name] = _trained(first, module.scales[slots[0]], scheme, max_bits)
            self._slots[name] = slots
        layers = {layer for slots in self._slots.values() for layer, _ in slots}
        self.biases = trained_biases(module, graph, layers, spreads)

    @property
    def scale_parameters(self) -> list[Tensor]:
        """Factors of scales."""
        return [weight.parameter for weight in self.weights.values()]

    @property
    def entry_parameters(self) -> list[Tensor]:
        """Entries of tables, as parts of the largest of their table."""
        return [weight.entries for weight in self.weights.values() if isinstance(weight, TableWeight)]

    @property
    def bias_parameters(self) -> list[Tensor]:
        """What is added to biases."""
        return [bias.parameter for bias in self.biases.values()]

    @property
    def _parameters(self) -> list[Tensor]:
        return [*self.scale_parameters, *self.entry_parameters, *self.bias_parameters]

    def state(self) -> list[Tensor]:
        """A copy of all parameters."""
        return [one.detach().clone() for one in self._parameters]

    def restore(self, state: Sequence[Tensor]) -> None:
        """Go back to a copy."""
        with torch.no_grad():
            for one, kept in zip(self._parameters, state, strict=True):
                one.copy_(kept)

    def apply(self) -> None:
        """Let the network compute with today's values."""
        for name, weight in self.weights.items():
            value = weight.value()
            for slot in self._slots[name]:
                self._module.weights[slot] = value
        for name, bias in self.biases.items():
            self._module.network.overrides[name] = bias.value()

    def written(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Today's value of every initializer that is trained, by name."""
        with torch.no_grad():
            for name, part in (*self.weights.items(), *self.biases.items()):
                yield name, np.ascontiguousarray(part.value().cpu().numpy(), dtype=np.float32)


def trained_biases(
    module: FakeQuantized, graph: Graph, layers: Collection[str], spreads: Mapping[str, float]
) -> dict[str, TrainedBias]:
    """The biases of some layers by initializer.

    Args:
        module: The quantized network.
        graph: The graph it was made of.
        layers: Names of the layers.
        spreads: Standard deviation of each layer's output, by tensor.
    """
    found = {}
    for target in find_targets(graph):
        name = _bias_name(graph.proto, target.node, target.slot)
        if target.layer in layers and name in module.network.weights:
            start = module.network.initializer(name).detach().clone()
            unit = max(spreads.get(target.output, 1.0), 1e-12) / abs(target.beta)
            found[name] = TrainedBias(start, unit, torch.zeros_like(start, requires_grad=True))
    return found


def write_initializers(model: onnx.ModelProto, values: Mapping[str, NDArray[np.float32]]) -> None:
    """Replace initializers of a model, in place."""
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(as_tensor(tensor.name, values[tensor.name]))


def _scale_shape(shape: Sequence[int], layout: ScaleLayout) -> list[int]:
    if layout.axis is None:
        return [1] * len(shape)
    if layout.group_size:
        groups = -(-shape[layout.axis] // layout.group_size)
        return [groups if axis == layout.axis else size for axis, size in enumerate(shape)]
    return [size if axis == layout.axis else 1 for axis, size in enumerate(shape)]


def _trained(written: Tensor, layout: ScaleLayout, scheme: LayerScheme, max_bits: int) -> TrainedWeight:
    entries = 1 << scheme.weights.bits
    # Entries of a table that channels share would part if each trained its own: its scales are trained alone.
    if scheme.weights.grid is Grid.CODEBOOK and not layout.group_size:
        rows = written.reshape(1, -1) if layout.axis is None else written.movedim(layout.axis, 0).flatten(1)
        # Layers that gain nothing by a table have INT8 instead.
        if all(len(np.unique(row)) <= entries for row in rows.cpu().numpy()):
            return TableWeight(written, layout.axis, entries, integer_levels(scheme.weights, max_bits)[1])
    return ScaledWeight(written, layout)


def _tables(rows: NDArray[np.float32], entries: int) -> tuple[NDArray[np.float32], Tensor]:
    """The values of each row, ascending, shape [C, entries], and where each weight is among them."""
    table = np.zeros((len(rows), entries), np.float32)
    index = np.empty(rows.shape, np.int64)
    for position, row in enumerate(rows):
        found, where = np.unique(row, return_inverse=True)
        # What is left over lies on an entry that is used: it must not become the largest by itself.
        table[position] = found[0]
        table[position, : len(found)] = found
        index[position] = where.reshape(-1)
    return table, torch.from_numpy(index)


def weight_slots(module: FakeQuantized, schemes: Mapping[str, LayerScheme]) -> dict[str, list[WeightSlot]]:
    """Slots of every integer weight by initializer, where only layers read it which round it alike."""
    found: dict[str, list[WeightSlot]] = {}
    for layer, index in module.scales:
        if module.network.has_node(layer) and schemes[layer].weights.is_integer:
            found.setdefault(module.network.node(layer).inputs[index], []).append((layer, index))
    readers: dict[str, int] = {}
    for node in module.network.nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    return {
        name: slots
        for name, slots in found.items()
        if readers[name] == len(slots)
        and all(torch.equal(module.weights[slots[0]], module.weights[slot]) for slot in slots[1:])
    }


def _bias_name(model: onnx.ModelProto, node: str, slot: int) -> str:
    found = next(one for one in model.graph.node if one.name == node)
    return found.input[slot] if len(found.input) > slot else ""
