"""Which activation tensors calibration looks at: as few as can do, because each costs time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import onnx

from quantstudio.engine.model.graph import Graph

# Operators whose tensors static quantization may put on an integer grid (ONNX Runtime has an integer kernel
# for them, or moves values through them unchanged).
INTEGER_OPS = frozenset(
    {
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Div",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Pad",
        "Relu",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Sub",
        "Tanh",
        "Where",
    }
)
# The output holds exactly the input's values in another order or shape, so it has the input's histogram.
SAME_VALUES_OPS = frozenset(
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
# Absorbed by the operator in front: its integer form writes the clamped values at once, and nobody reads the
# ones before. Observing those would also undo the float kernel's own fusion and cost a second pass.
ABSORBED_OPS = frozenset({"Relu", "Clip"})
ABSORBING_OPS = frozenset({"Add", "Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """Tensors to observe.

    Attributes:
        observed: Tensors to look at, in graph order.
        aliases: Other tensors that hold exactly the values of an observed one: name to observed name.
    """

    observed: tuple[str, ...]
    aliases: dict[str, str]


def calibration_tensors(graph: Graph) -> tuple[str, ...]:
    """Every activation tensor that gets a histogram, aliases included."""
    plan = plan_calibration(graph)
    return (*plan.observed, *plan.aliases)


def plan_calibration(graph: Graph) -> CalibrationPlan:
    """Float activations of the main graph that static quantization may need.

    Inputs and outputs of `INTEGER_OPS`, what listed layers read, and float graph inputs; except the value
    between an operator and the Relu or Clip it absorbs. Tensors inside If, Loop and Scan bodies cannot be
    observed: the runtime does not give them out.
    """
    proto = graph.proto.graph
    producer = {name: node for node in proto.node for name in node.output if name}
    order = {name: i for i, name in enumerate([*(v.name for v in proto.input), *producer])}
    float_tensors = order.keys() - _other_types(proto) - _absorbed(graph)
    observed: set[str] = set()
    aliases: dict[str, str] = {}
    for name in _wanted(graph):
        source = name
        while source in producer and producer[source].op_type in SAME_VALUES_OPS:
            source = producer[source].input[0]
        if name not in float_tensors or source not in order:  # an initializer in other clothes
            continue
        observed.add(source)
        if source != name:
            aliases[name] = source
    return CalibrationPlan(tuple(sorted(observed, key=order.__getitem__)), aliases)


def _wanted(graph: Graph) -> dict[str, None]:
    """Names to consider, in order: not all of them tensors, not all of them float."""
    proto = graph.proto.graph
    wanted = {v.name: None for v in proto.input}
    for node in proto.node:
        if node.op_type in INTEGER_OPS or node.op_type in SAME_VALUES_OPS:
            wanted.update(dict.fromkeys((*node.input, *node.output)))
    for layer in graph.layers:
        if not layer.scope:
            wanted.update(dict.fromkeys(layer.inputs))
    return wanted


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


def _absorbed(graph: Graph) -> set[str]:
    """Tensors between an operator and the Relu or Clip it absorbs."""
    proto = graph.proto.graph
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in proto.node:
        for name in {*node.input, *_captured(node)}:
            readers[name].append(node)
    given_out = {v.name for v in proto.output}
    return {
        node.output[0]
        for node in proto.node
        if node.op_type in ABSORBING_OPS
        and node.output[0] not in given_out
        and [r.op_type in ABSORBED_OPS and r.input[0] == node.output[0] for r in readers[node.output[0]]]
        == [True]
    }


def _captured(node: onnx.NodeProto) -> set[str]:
    """Outer tensors that bodies of a control-flow node may read."""
    names: set[str] = set()
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for body in bodies:
            for inner in body.node:
                names.update(inner.input)
                names.update(_captured(inner))
    return names
