"""Which activation tensors calibration looks at: as few as can do, because each costs time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.view import GraphView

# Layers with an integer kernel, and operators that stay on integers when they lie between such layers. The
# emitter quantizes a part of these, never more.
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
BETWEEN = frozenset(
    {
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Flatten",
        "GlobalAveragePool",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
# Operators all of whose inputs carry data; of the others only the first does.
MANY_INPUTS = frozenset({"Add", "Concat", "MatMul", "Mul"})
# The output holds exactly the input's values in another order or shape, so it has the input's histogram.
SAME_VALUES = frozenset(
    {
        "DepthToSpace",
        "Dropout",
        "Flatten",
        "Identity",
        "Reshape",
        "SpaceToDepth",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
# Absorbed by the operator in front: its integer kernel writes the clamped values at once, and nobody else can
# tell those from the ones before. Observing both would also undo the float kernel's fusion.
ABSORBED = frozenset({"Relu", "Clip"})
ABSORBING = PRODUCTS | {"Add"}


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """Tensors to observe.

    Attributes:
        observed: Tensors to look at, in graph order.
        aliases: Other tensors with the histogram of an observed one (name to observed name): they hold the
            same values, or are read by nothing but a Relu or Clip that writes it.
    """

    observed: tuple[str, ...]
    aliases: dict[str, str]


def calibration_tensors(graph: Graph) -> tuple[str, ...]:
    """Every activation tensor that gets a histogram, aliases included."""
    plan = plan_calibration(graph)
    return (*plan.observed, *plan.aliases)


def plan_calibration(graph: Graph) -> CalibrationPlan:
    """Float activations of the main graph that static quantization may need, whatever the recipe.

    What layers read; what they write if that can stay on integers; what lies between them; and float graph
    inputs. Tensors inside If, Loop and Scan bodies cannot be observed: the runtime does not give them out.
    """
    flow = _Flow(graph.proto)
    observed: set[str] = set()
    aliases: dict[str, str] = {}
    for name in _wanted(graph, flow):
        source = flow.source(name)
        if name not in flow.floats or source not in flow.floats:
            continue
        observed.add(source)
        if source != name:
            aliases[name] = source
    order = {name: i for i, name in enumerate(flow.order)}
    return CalibrationPlan(tuple(sorted(observed, key=order.__getitem__)), aliases)


class _Flow(GraphView):
    """The main graph with what calibration asks of it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.order = [*(value.name for value in model.graph.input), *self.producer]
        self.floats = set(self.order) - _other_types(model.graph)

    def data_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Activations a node computes with: no constants, no shapes."""
        names = node.input if node.op_type in MANY_INPUTS else node.input[:1]
        return [n for n in names if n in self.floats]

    def absorbed_by(self, name: str) -> onnx.NodeProto | None:
        """The Relu or Clip that alone reads the output of an operator that can absorb it."""
        producer, readers = self.producer.get(name), self.consumers[name]
        if producer is None or producer.op_type not in ABSORBING or name in self.outputs:
            return None
        if len(readers) == 1 and readers[0].op_type in ABSORBED and readers[0].input[0] == name:
            return readers[0]
        return None

    def source(self, name: str) -> str:
        """The tensor whose histogram this one shares."""
        while name in self.producer and self.producer[name].op_type in SAME_VALUES:
            name = self.producer[name].input[0]
        reader = self.absorbed_by(name)
        return name if reader is None else reader.output[0]

    def integer_nodes(self) -> set[str]:
        """Names of nodes that can run on integers if every layer does.

        The largest set of operators between layers each of which reads integers only, and writes for one.
        """
        integer = {n.name for n in self.nodes if n.op_type in PRODUCTS or n.op_type in BETWEEN}
        changed = True
        while changed:
            changed = False
            for node in self.nodes:
                if node.name not in integer or node.op_type in PRODUCTS:
                    continue
                fed = all(
                    name in self.inputs or self.producer[name].name in integer
                    for name in self.data_inputs(node)
                )
                read = any(r.name in integer for r in self.consumers[node.output[0]])
                if not fed or not (read or self._ends_a_layer(node)):
                    integer.discard(node.name)
                    changed = True
        return integer

    def _ends_a_layer(self, node: onnx.NodeProto) -> bool:
        return node.op_type in ABSORBED and self.absorbed_by(node.input[0]) is node


def _wanted(graph: Graph, flow: _Flow) -> Iterator[str]:
    integer = flow.integer_nodes()
    yield from flow.inputs
    for node in flow.nodes:
        if node.name in integer:
            yield from flow.data_inputs(node)
            # Gemm and MatMul can write floats; every other integer operator writes integers.
            if node.op_type not in ("Gemm", "MatMul") or any(
                r.name in integer for r in flow.consumers[node.output[0]]
            ):
                yield node.output[0]
    for layer in graph.layers:
        if not layer.scope:
            yield from layer.inputs


def _other_types(proto: onnx.GraphProto) -> set[str]:
    """Tensors known not to be float32, sequences and maps; unknown types stay in, the runtime knows them."""
    return {
        v.name
        for v in (*proto.input, *proto.value_info, *proto.output)
        if v.HasField("type")
        and (
            not v.type.HasField("tensor_type")
            or v.type.tensor_type.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UNDEFINED)
        )
    }
