"""The layer table of a normalised graph: what owns weights, how much, and what it may become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from quantstudio.core.layers import LayerInfo
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.graph.protos import (
    all_graphs,
    int_attribute,
    tensor_bytes,
    tensor_elements,
    type_name,
)
from quantstudio.engine.graph.shapes import infer, value_types
from quantstudio.engine.graph.view import Index, index
from quantstudio.engine.model.layer_labels import labelled, module_path
from quantstudio.engine.model.macs import multiply_accumulates
from quantstudio.engine.model.packed import PackedWeight, packed_weight, unpacking_nodes
from quantstudio.engine.targets.legality import legal_schemes, stored_precision

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})

# Slot of the weight, then slots of everything else a layer owns.
_OWNED = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gather": (0,),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    "PRelu": (1,),
    # Layers of a file that is quantized already.
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
    "QGemm": (3, 6),
    "MatMulNBits": (1, 2, 3),
    "DynamicQuantizeLSTM": (1, 2, 3),
    "DynamicQuantizeMatMul": (1, 4),
    "MatMulIntegerToFloat": (1, 6),
    "QAttention": (1, 2),
    "GatherBlockQuantized": (0,),
    "MatMulBnb4": (1,),
}
_PRODUCTS = frozenset({"MatMul", "Gemm"})
_RESHAPES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze"})
_AXES = {"Conv": 0, "ConvTranspose": 1, "Gather": 0, "LSTM": 1, "GRU": 1, "RNN": 1, "QLinearConv": 0}


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Layers of a graph and how they hang together.

    Attributes:
        layers: In execution order; bodies follow the node that holds them.
        edges: Producer and consumer layer by index.
        parameters: All weights of the graph, tied ones once.
        weight_bytes: Bytes of all initializers.
    """

    layers: tuple[LayerInfo, ...]
    edges: tuple[tuple[int, int], ...]
    parameters: int
    weight_bytes: int


def list_layers(model: ModelProto) -> LayerTable:
    """Everything that owns weights, and products of two activations.

    Args:
        model: A normalised model.
    """
    made = index(model.graph)
    types = value_types(infer(model, batch=1))
    batch = _fixed_batch(model)
    counted: set[str] = set()
    layers: list[LayerInfo] = []
    nodes: dict[str, int] = {}
    # Digits are brought apart by a product, too: it belongs to the layer whose weights they are.
    unpacking = unpacking_nodes(model.graph)
    for scope, node in _nodes(model.graph):
        if node.name in unpacking:
            continue
        layer = _layer(node, scope, made, counted)
        if layer is None:
            continue
        weight = made.constants.get(layer.weight_name)
        macs = multiply_accumulates(node, layer.weight_shape, types, has_weight=weight is not None)
        nodes[node.name] = len(layers)
        layers.append(replace(layer, macs=None if macs is None else macs // batch))
    parameters = sum(layer.parameters for layer in layers) + _unlisted(made, counted)
    shared = tuple(
        replace(layer, share=layer.parameters / parameters if parameters else 0.0)
        for layer in labelled(layers)
    )
    weight_bytes = sum(tensor_bytes(tensor) for tensor in made.constants.values())
    return LayerTable(shared, _edges(model.graph, nodes), parameters, weight_bytes)


def _nodes(graph: GraphProto) -> Iterator[tuple[str, NodeProto]]:
    for scope, body in all_graphs(graph):
        for node in body.node:
            yield scope, node


def _layer(node: NodeProto, scope: str, made: Index, counted: set[str]) -> LayerInfo | None:
    slots = _slots(node, made)
    if slots is None:
        return None
    owned = [_constant_behind(node.input[slot], made) for slot in slots if slot < len(node.input)]
    tensors = [tensor for tensor in owned if tensor is not None]
    weight = owned[0] if owned else None
    if weight is None and node.op_type not in _PRODUCTS:
        return None
    tensors += _bias_after(node, made)
    new = [tensor for tensor in tensors if tensor.name not in counted]
    counted.update(tensor.name for tensor in tensors)
    shape = tuple(weight.dims) if weight is not None else ()
    dtype = _weight_type(node, weight)
    packed = _packed_behind(node.input[slots[0]], made) if slots and weight is not None else None
    schemes, reason = legal_schemes(
        node.op_type,
        shape,
        has_weight=weight is not None,
        in_body=bool(scope),
        weight_dtype=dtype,
    )
    stored = stored_precision(dtype) if weight is not None else ""
    if packed is not None:
        reason, stored = reason.replace(f"({stored})", f"({packed.text})"), packed.text
    sizes = {} if packed is None else {packed.name: packed.size_bytes}
    quantizable = any(not NAMED_SCHEMES[name].is_float for name in schemes)
    return LayerInfo(
        name=node.name,
        op_type=node.op_type,
        weight_name=weight.name if weight is not None else "",
        weight_shape=shape,
        parameters=sum(tensor_elements(tensor) for tensor in new),
        weight_bytes=sum(sizes.get(tensor.name) or tensor_bytes(tensor) for tensor in new),
        quantizable=quantizable,
        reason="" if quantizable else reason,
        schemes=tuple(schemes),
        channel_axis=_channel_axis(node, made) if weight is not None else None,
        inputs=tuple(name for name in node.input if name and _constant_behind(name, made) is None),
        outputs=tuple(name for name in node.output if name),
        scope=scope,
        stored_as=stored,
        groups=int_attribute(node, "group", 1) if node.op_type in ("Conv", "ConvTranspose") else 1,
        label=module_path(node, [tensor.name for tensor in tensors], has_weight=weight is not None),
    )


def _weight_type(node: NodeProto, weight: TensorProto | None) -> str:
    """Element type of a weight; of one packed into bytes, what the operator unpacks."""
    if weight is None:
        return "float32"
    if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
        return f"int{int_attribute(node, 'bits', 4)}"
    return "float4e2m1" if node.op_type == "MatMulBnb4" else type_name(weight.data_type)


def _slots(node: NodeProto, made: Index) -> tuple[int, ...] | None:
    """Input slots of what the node owns, weight first; None when it is not a layer."""
    if node.op_type in _PRODUCTS:
        constant = [_constant_behind(node.input[slot], made) is not None for slot in (0, 1)]
        if all(constant):
            return None
        weight = 1 if constant[1] else 0
        return ((weight, 2) if node.op_type == "Gemm" else (weight,)) if any(constant) else ()
    if node.op_type == "Einsum":
        return _einsum_slots(node, made)
    slots = _OWNED.get(node.op_type)
    if slots is None or (node.op_type == "Gather" and not _is_embedding(node, made)):
        return None
    return slots


def _einsum_slots(node: NodeProto, made: Index) -> tuple[int, ...] | None:
    """The one constant operand of a product written as Einsum; with several or none it is not a layer."""
    slots = tuple(slot for slot, name in enumerate(node.input) if made.constants.get(name) is not None)
    return slots if len(slots) == 1 and len(node.input) > 1 else None


def _is_embedding(node: NodeProto, made: Index) -> bool:
    """A Gather of rows out of a matrix of weights; one out of a shape or a lookup vector is none."""
    table = _constant_behind(node.input[0], made)
    rows = made.constants.get(node.input[0]) is not table or (
        table is not None and table.data_type in _FLOATS
    )
    return table is not None and rows and len(table.dims) >= 2 and int_attribute(node, "axis", 0) == 0


def _constant_behind(name: str, made: Index) -> TensorProto | None:
    """The initializer, also behind what dequantizes the weights of a file that is quantized already.

    That is a DequantizeLinear, or Cast and Mul where the runtime has none for the type; a Reshape may fold
    the matrix of blocks into the form of a convolution.
    """
    tensor = made.constants.get(name)
    packed = _packed_behind(name, made) if tensor is None else None
    if packed is not None:
        return TensorProto(name=packed.name, data_type=TensorProto.INT8, dims=packed.shape)
    producer = made.producers.get(name)
    while producer is not None and producer.op_type in _RESHAPES and not producer.domain:
        producer = made.producers.get(producer.input[0])
    if tensor is not None or producer is None:
        return tensor
    if producer.op_type == "DequantizeLinear":
        return made.constants.get(producer.input[0])
    if producer.op_type == "Mul" and made.constants.get(producer.input[1]) is not None:
        cast = made.producers.get(producer.input[0])
        return made.constants.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
    return None


def _packed_behind(name: str, made: Index) -> PackedWeight | None:
    """The packed weight a layer reads, itself or dequantized; in front of its Cast and Mul, too."""
    producer = made.producers.get(name)
    if producer is not None and producer.op_type in ("DequantizeLinear", "Mul"):
        name = producer.input[0]
        producer = made.producers.get(name)
        if (
            producer is not None
            and producer.op_type == "Cast"
            and made.constants.get(producer.input[0]) is None
        ):
            name = producer.input[0]
    return packed_weight(name, made)


def _bias_after(node: NodeProto, made: Index) -> list[TensorProto]:
    """The vector an Add puts on a product: the exporter's form of a bias."""
    if node.op_type != "MatMul":
        return []
    after = made.only_consumer(node.output[0])
    if after is None or after.op_type != "Add" or after.domain:
        return []
    others = [made.constants.get(name) for name in after.input if name != node.output[0]]
    return [
        tensor
        for tensor in others
        if tensor is not None and tensor.dims and tensor.dims[-1] == tensor_elements(tensor) > 1
    ]


def _channel_axis(node: NodeProto, made: Index) -> int | None:
    if node.op_type == "Gemm":
        weight_second = _constant_behind(node.input[1], made) is not None
        if weight_second:
            return 0 if int_attribute(node, "transB", 0) else 1
        return 1 if int_attribute(node, "transA", 0) else 0
    if node.op_type in ("MatMul", "MatMulInteger"):
        second = _constant_behind(node.input[1], made)
        if second is not None:
            return len(second.dims) - 1 if len(second.dims) > 1 else None
        first = _constant_behind(node.input[0], made)
        return len(first.dims) - 2 if first is not None and len(first.dims) > 1 else None
    if node.op_type == "Einsum":
        return _einsum_axis(node, made)
    return _AXES.get(node.op_type)


def _einsum_axis(node: NodeProto, made: Index) -> int | None:
    """Last axis of the weight that is still there in the output; None where the equation leaves it open."""
    equation = next((a.s.decode() for a in node.attribute if a.name == "equation"), "").replace(" ", "")
    operands, arrow, output = equation.partition("->")
    slots = _einsum_slots(node, made)
    if not arrow or "." in equation or slots is None:
        return None
    labels = operands.split(",")[slots[0]]
    kept = [axis for axis, label in enumerate(labels) if label in output]
    return kept[-1] if kept else None


def _unlisted(made: Index, counted: set[str]) -> int:
    """Learned values no layer owns, such as position tables; single numbers are limits or factors."""
    return sum(
        elements
        for name, tensor in made.constants.items()
        if name not in counted and tensor.data_type in _FLOATS and (elements := tensor_elements(tensor)) > 1
    )


def _fixed_batch(model: ModelProto) -> int:
    """Samples in one run: the first axis all inputs share when it is fixed, else 1."""
    firsts = set()
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims:
            firsts.add(dims[0].dim_value if dims[0].HasField("dim_value") else 1)
    return max(1, firsts.pop()) if len(firsts) == 1 else 1


def _edges(graph: GraphProto, layers: dict[str, int]) -> tuple[tuple[int, int], ...]:
    """Layer to layer, through nodes that are not layers."""
    reached: dict[str, set[int]] = {}
    edges: set[tuple[int, int]] = set()
    _follow(graph, layers, reached, edges)
    return tuple(sorted(edges))


def _follow(
    graph: GraphProto, layers: dict[str, int], reached: dict[str, set[int]], edges: set[tuple[int, int]]
) -> None:
    for node in graph.node:
        sources: set[int] = set()
        for name in node.input:
            sources |= reached.get(name, set())
        for attribute in node.attribute:
            if attribute.HasField("g"):
                for value in attribute.g.input:
                    reached[value.name] = sources
                _follow(attribute.g, layers, reached, edges)
                for value in attribute.g.output:
                    sources = sources | reached.get(value.name, set())
        number = layers.get(node.name)
        if number is not None:
            edges.update((source, number) for source in sources)
            sources = {number}
        for name in node.output:
            reached[name] = sources
