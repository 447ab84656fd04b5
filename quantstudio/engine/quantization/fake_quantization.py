"""A plan run in torch: every tensor rounded where the emitted file rounds it, with gradients through it all.

The ONNX graph stays as it is, so that weights keep their names and can be written back. Integer nodes write
what stands behind their Q/DQ pair; what float nodes write is rounded for each integer node that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.precision import FP32, LayerScheme
from quantstudio.core.statistics import Statistics
from quantstudio.core.target import Target, target_named
from quantstudio.engine.graph.channel_limits import without_limits
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import bodies
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.quantization.activations import ActivationParams, range_of_constant
from quantstudio.engine.quantization.biases import with_biases_joined
from quantstudio.engine.quantization.plan import RESCALING, SAME_SCALE, Plan, activation_inputs, make_plan
from quantstudio.engine.quantization.written_weights import WeightSlot, written_weights
from quantstudio.engine.torch_graph.module import Feed, Node, TorchGraph
from quantstudio.engine.torch_graph.registry import Result
from quantstudio.engine.torch_graph.rounding import fake_quantized, fake_quantized_dynamic, rounded

Tensor = torch.Tensor
Value = Tensor | None
_OPERANDS = frozenset({"Add", "Mul", "Concat"})


@dataclass(slots=True)
class NodeRounding:
    """What is rounded around one node.

    Attributes:
        reads: Q/DQ pairs an input goes through, in order, by input index.
        writes: Q/DQ pair of an output, by output index.
        dynamic: Inputs whose range is measured on every run.
    """

    reads: dict[int, list[ActivationParams]] = field(default_factory=dict)
    writes: dict[int, ActivationParams] = field(default_factory=dict)
    dynamic: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the node reads and writes floats."""
        return not (self.reads or self.writes or self.dynamic)


class FakeQuantized(nn.Module):
    """A network as a plan quantizes it.

    Run it as the `TorchGraph` it holds. Trainers put their own tensors into `weights` (what a layer computes
    with, in the shape of the graph's initializer), or change parameters of `network` and take the entry out.

    Attributes:
        network: The graph; its hooks do the rounding. Values of a partial run (`TorchGraph.run_part`) are
            those the emitted file has: rounded behind integer nodes.
        plan: What is rounded where.
        rounding: By node name.
        weights: What every layer computes with; at first what the emitter writes, dequantized.
        scales: Which values of an integer weight share a scale, by layer and input of its node.
        bias_steps: Step of a layer's 32-bit bias, per channel or one; layers not in it have a float bias.
        activations: Whether activations are rounded; without, only weights and biases are.
        dropped: Share of values of an activation left as they were (QDrop, Wei et al. 2022,
            arXiv:2203.05740, eq. 7); 0 for what the file computes.
        generator: Draws them.
    """

    def __init__(self, graph: Graph, statistics: Statistics | None, effective: EffectivePlan) -> None:
        """Build the module.

        Args:
            graph: Normalised model, after the steps of the plan so far.
            statistics: Activation statistics of that graph; only static layers need them.
            effective: What every layer becomes.

        Raises:
            UnsupportedOpError: an operator has no torch form; names the node.
            RecipeError: a range is set for a tensor that does not exist.
            CalibrationError: a static layer has no statistics.
            BuildError: a weight holds NaN or infinity.
        """
        super().__init__()
        static = {name for name, scheme in effective.schemes.items() if scheme.is_static}
        view, _ = without_limits(GraphView(graph.proto), static, SAME_SCALE | RESCALING)
        view = with_biases_joined(view, static)
        self.plan = make_plan(view, statistics, effective)
        self.network = TorchGraph(_model_of(view))
        self.rounding = dict(_rounding(view, self.plan))
        written = written_weights(graph, view, self.plan, effective)
        self.weights: dict[WeightSlot, Tensor] = {
            slot: torch.from_numpy(value) for slot, value in written.values.items()
        }
        self.weights.update(_operands(view, self.plan, target_named(effective.target)))
        self.scales = written.scales
        self.bias_steps = {name: torch.from_numpy(step) for name, step in written.bias_steps.items()}
        self.bias_factors = written.bias_factors
        self.activations = True
        self.dropped = 0.0
        self.generator: torch.Generator | None = None
        self._hook()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Outputs for inputs in the order of the graph; a single output comes bare."""
        result: Tensor | tuple[Tensor, ...] = self.network(*inputs)
        return result

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Tensors by name for one feed, as `TorchGraph.run`."""
        return self.network.run(feed, outputs)

    def read(self, node: str, index: int, value: Tensor) -> Tensor:
        """An activation as a node reads it, rounded as its integers are."""
        place = self.rounding.get(node)
        if place is None or not self.activations:
            return value
        for params in place.reads.get(index, ()):
            value = self.through(value, params)
        return self._mixed(value, fake_quantized_dynamic(value)) if index in place.dynamic else value

    def params(self, node: str, index: int) -> ActivationParams | None:
        """The quantizer an output of a node goes through; None where it stays as it is."""
        place = self.rounding.get(node)
        return place.writes.get(index) if place is not None and self.activations else None

    def written(self, node: str, index: int, value: Tensor) -> Tensor:
        """An output of a node, rounded where the file rounds it."""
        params = self.params(node, index)
        return value if params is None else self.through(value, params)

    def bias(self, layer: str, value: Tensor) -> Tensor:
        """A layer's bias on its 32-bit grid."""
        step = self.bias_steps.get(layer)
        if step is None:
            return value
        factor = self.bias_factors.get(layer, 1.0)
        step = step.to(value.device) / factor
        return rounded(value / step) * step

    def through(self, value: Tensor, params: ActivationParams) -> Tensor:
        """A tensor behind a Q/DQ pair."""
        low, high = bounds(params)
        return self._mixed(value, fake_quantized(value, float(params.scale), params.zero_point, low, high))

    def _mixed(self, value: Tensor, quantized: Tensor) -> Tensor:
        if not self.dropped:
            return quantized
        chance = torch.rand(value.shape, generator=self.generator, device=value.device)
        return torch.where(chance < self.dropped, value, quantized)

    def _hook(self) -> None:
        names = {*self.rounding, *self.bias_steps, *(name for name, _ in self.weights)}
        for module in self.network.modules():
            if isinstance(module, TorchGraph):
                for name in names:
                    if module.has_node(name):
                        module.hooks[name] = self.compute

    def compute(self, node: Node, inputs: tuple[Value, ...]) -> Result:
        """A node with everything around it rounded: the hook of every node that is not all float."""
        given = list(inputs)
        for index, value in enumerate(inputs):
            if (node.name, index) in self.weights:
                weight = self.weights[node.name, index]
                given[index] = weight if value is None else weight.to(value.device)
            elif value is not None:
                given[index] = self.read(node.name, index, value)
        if node.name in self.bias_steps and given[2] is not None:
            given[2] = self.bias(node.name, given[2])
        result = node.compute(*given)
        if isinstance(result, torch.Tensor):
            return self.written(node.name, 0, result)
        return tuple(
            one if one is None else self.written(node.name, index, one) for index, one in enumerate(result)
        )


def bounds(params: ActivationParams) -> tuple[int, int]:
    """Smallest and largest integer a Q/DQ pair lets through: the byte's, unless fewer bits were asked."""
    if params.is_narrow:
        return params.grid.low, params.grid.high
    return (-128, 127) if params.grid.signed else (0, 255)


def _model_of(view: GraphView) -> onnx.ModelProto:
    """The graph of a view as a model of its own."""
    source = view.model
    model = onnx.ModelProto(ir_version=source.ir_version, opset_import=source.opset_import)
    model.graph.name = source.graph.name
    model.graph.input.extend(source.graph.input)
    model.graph.output.extend(source.graph.output)
    model.graph.initializer.extend(source.graph.initializer)
    model.graph.node.extend(view.nodes)
    return model


def _rounding(view: GraphView, plan: Plan) -> Iterator[tuple[str, NodeRounding]]:
    integer_made = {name for node in view.nodes if node.name in plan.integer for name in node.output}
    for node in view.nodes:
        place = NodeRounding()
        scheme = plan.schemes.get(node.name, FP32)
        if node.name in plan.integer:
            for index, name in activation_inputs(node, view):
                params = plan.quantized.get(name)
                if params is None:
                    continue
                pairs = [] if name in integer_made else [params]
                narrower = plan.narrowed.get((name, scheme.activations.bits)) if scheme.is_static else None
                pairs += [narrower] if narrower is not None else []
                if pairs:
                    place.reads[index] = pairs
            for index, name in enumerate(node.output):
                if name in plan.quantized:
                    place.writes[index] = plan.quantized[name]
        if scheme.is_dynamic:
            place.dynamic = (0,)
        if not place.is_empty:
            yield node.name, place
    yield from _rounding_in_bodies(view.nodes, plan.schemes)


def _rounding_in_bodies(
    nodes: Sequence[onnx.NodeProto], schemes: Mapping[str, LayerScheme]
) -> Iterator[tuple[str, NodeRounding]]:
    """Layers in the bodies of control flow; they are dynamic at most."""
    for node in nodes:
        for body in bodies(node):
            for inner in body.node:
                if schemes.get(inner.name, FP32).is_dynamic:
                    yield inner.name, NodeRounding(dynamic=(0,))
            yield from _rounding_in_bodies(list(body.node), schemes)


def _operands(view: GraphView, plan: Plan, target: Target) -> Iterator[tuple[WeightSlot, Tensor]]:
    """Constant operands of the integer operators between the layers."""
    for node in view.nodes:
        if node.name not in plan.integer or node.op_type not in _OPERANDS or node.name in plan.schemes:
            continue
        for index, name in enumerate(node.input):
            if view.is_constant(name) and (node.name, index) not in plan.apart:
                value = np.asarray(view.array(name), dtype=np.float32)
                yield (node.name, index), torch.from_numpy(_rounded_constant(value, target))


def _rounded_constant(value: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    params = range_of_constant(value, target.activation_grid())
    integers = params.as_byte(np.rint(value / params.scale) + params.zero_point).astype(np.float32)
    return np.asarray((integers - params.zero_point) * params.scale, dtype=np.float32)
