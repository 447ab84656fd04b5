"""Shape inference that carries no weight data, so that it costs milliseconds whatever the model's size."""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from quantstudio.engine.graph.protos import all_graphs, subgraphs, tensor_elements

Shape = tuple[int | str | None, ...]

# Constants this small may be shapes, axes or sizes, whose values inference needs.
_SHAPE_LIKE_ELEMENTS = 1024


def skeleton(model: ModelProto) -> ModelProto:
    """A copy in which large initializers keep their type and shape but lose their data."""
    copy = ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    _copy_graph(model.graph, copy.graph)
    return copy


def infer(model: ModelProto, batch: int | None = None) -> ModelProto:
    """A skeleton with inferred value_info in the main graph and in bodies.

    Args:
        model: Any model; its own value_info is ignored.
        batch: Number to put for the first axis of the inputs where it is dynamic, and for the same symbol on
            other axes; None keeps axes dynamic.

    Returns:
        The skeleton; without value_info where inference fails, as it does on operators it does not know.
    """
    bare = skeleton(model)
    for _scope, graph in all_graphs(bare.graph):
        del graph.value_info[:]
        for node in graph.node:
            # Inference does not look into this function; what it gives has the shape of what it reads.
            if node.op_type == "GroupNormalization" and not node.domain:
                del node.input[1:], node.attribute[:]
                node.op_type = "Identity"
    if batch is not None:
        _bind_batch(bare.graph, batch)
    try:
        return onnx.shape_inference.infer_shapes(bare, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return bare


def _bind_batch(graph: GraphProto, batch: int) -> None:
    firsts = [dims[0] for value in graph.input if (dims := value.type.tensor_type.shape.dim)]
    symbols = {dim.dim_param for dim in firsts if dim.dim_param}
    for dim in firsts:
        if not dim.HasField("dim_value"):
            dim.dim_value = batch
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = batch
    # Declared output shapes still carry the symbols that are now numbers.
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def value_types(model: ModelProto) -> dict[str, tuple[int, Shape | None]]:
    """Element type and shape (None when unknown) of every tensor an inferred model tells about."""
    types: dict[str, tuple[int, Shape | None]] = {}
    for _scope, graph in all_graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.HasField("tensor_type"):
                types[value.name] = (value.type.tensor_type.elem_type, shape_of(value))
        for tensor in graph.initializer:
            types[tensor.name] = (tensor.data_type, tuple(tensor.dims))
    return types


def shape_of(value: ValueInfoProto) -> Shape | None:
    """Shape of a tensor value: numbers, names of symbolic dimensions, None for unknown ones."""
    tensor_type = value.type.tensor_type
    if not tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in tensor_type.shape.dim
    )


def contradicts(stated: Shape | None, found: Shape | None) -> bool:
    """Whether two shapes cannot be of one tensor: other rank, or two numbers that differ."""
    if stated is None or found is None:
        return False
    if len(stated) != len(found):
        return True
    pairs = zip(stated, found, strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def write_value_info(model: ModelProto, inferred: ModelProto) -> None:
    """Take over inferred value_info, in node order so that equal models have equal bytes."""
    graphs = zip(all_graphs(model.graph), all_graphs(inferred.graph), strict=True)
    for (_scope, graph), (_same, source) in graphs:
        known = {value.name: value for value in source.value_info}
        outputs = {value.name for value in graph.output}
        del graph.value_info[:]
        for node in graph.node:
            for name in node.output:
                if name in known and name not in outputs:
                    graph.value_info.append(known[name])
        shapes = {value.name: value for value in source.output}
        for value in graph.output:
            found = shapes.get(value.name)
            if found is not None and not value.type.tensor_type.HasField("shape"):
                value.type.CopyFrom(found.type)


def _copy_graph(source: GraphProto, target: GraphProto) -> None:
    target.name = source.name or "graph"
    target.input.extend(source.input)
    target.output.extend(source.output)
    for tensor in source.initializer:
        if tensor_elements(tensor) <= _SHAPE_LIKE_ELEMENTS:
            target.initializer.append(tensor)
        else:
            bare = TensorProto(name=tensor.name, data_type=tensor.data_type)
            bare.dims.extend(tensor.dims)
            target.initializer.append(bare)
    for node in source.node:
        if not any(True for _ in subgraphs(node)):
            target.node.append(node)
            continue
        copied = target.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
        copied.input.extend(node.input)
        copied.output.extend(node.output)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                body = copied.attribute.add(name=attribute.name, type=attribute.type)
                _copy_graph(attribute.g, body.g)
            else:
                copied.attribute.append(attribute)
