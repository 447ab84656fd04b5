"""Constants out of nodes and into initializers; what depends on constants alone is computed once."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from quantstudio.core.errors import QuantStudioError
from quantstudio.engine.graph.protos import (
    NATIVE_TYPES,
    Array,
    all_graphs,
    as_array,
    as_tensor,
    attribute,
    delete_nodes,
    int_attribute,
    subgraphs,
    tensor_bytes,
)
from quantstudio.engine.graph.runtime import Optimization, open_session, run
from quantstudio.engine.graph.shapes import Shape, infer, value_types
from quantstudio.engine.graph.view import Index, index
from quantstudio.engine.model.packed import unpacking_nodes

# A folded tensor larger than its operands costs file size; biases made by Expand are far below this.
GROWTH_LIMIT_BYTES = 1 << 20

# What gives another answer on every run.
RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    }
)
_NOT_FOLDED = RANDOM | frozenset(
    {
        # A quantized weight stays quantized.
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "If",
        "Loop",
        "Scan",
        "SequenceMap",
    }
)


def constant_nodes_to_initializers(graph: GraphProto) -> int:
    """Turn Constant nodes into initializers, in bodies too.

    Returns:
        How many there were.
    """
    count = 0
    for _scope, body in all_graphs(graph):
        doomed = []
        for node in body.node:
            if node.op_type != "Constant" or node.domain:
                continue
            tensor = _constant_value(node)
            if tensor is not None:
                tensor.name = node.output[0]
                body.initializer.append(tensor)
                doomed.append(node)
        delete_nodes(body, doomed)
        count += len(doomed)
    return count


def _constant_value(node: NodeProto) -> TensorProto | None:
    value = attribute(node, "value")
    if value is not None:
        tensor = TensorProto()
        tensor.CopyFrom(value.t)
        return tensor
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        found = attribute(node, name)
        if found is not None:
            return as_tensor("", np.array(found.f if name == "value_float" else found.i, dtype))
    for name, dtype in (("value_floats", np.float32), ("value_ints", np.int64)):
        found = attribute(node, name)
        if found is not None:
            return as_tensor("", np.array(found.floats if name == "value_floats" else found.ints, dtype))
    sparse = attribute(node, "sparse_value")
    return dense(sparse.sparse_tensor) if sparse is not None else None


def dense(sparse: onnx.SparseTensorProto) -> TensorProto:
    """A sparse tensor written out, with its name."""
    values = as_array(sparse.values)
    indices = as_array(sparse.indices)
    full = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        full.reshape(-1)[indices] = values
    else:
        full[tuple(indices.T)] = values
    return as_tensor(sparse.values.name, full)


def fold_shapes(graph: GraphProto, types: dict[str, tuple[int, Shape | None]]) -> int:
    """Replace Shape and Size of tensors whose shape is fixed by initializers.

    Returns:
        How many were replaced.
    """
    count = 0
    for _scope, body in all_graphs(graph):
        doomed = []
        for node in body.node:
            if node.op_type not in ("Shape", "Size") or node.domain:
                continue
            _kind, shape = types.get(node.input[0], (0, None))
            if shape is None:
                continue
            if node.op_type == "Shape":
                shape = shape[int_attribute(node, "start", 0) : int_attribute(node, "end", len(shape))]
            if not all(isinstance(dim, int) for dim in shape):
                continue
            dims = np.array(shape, dtype=np.int64)
            value = dims if node.op_type == "Shape" else np.array(dims.prod(), dtype=np.int64)
            body.initializer.append(as_tensor(node.output[0], value))
            doomed.append(node)
        delete_nodes(body, doomed)
        count += len(doomed)
    return count


def fold_constants(model: ModelProto) -> int:
    """Compute nodes that read constants only, wave by wave, in the main graph and in bodies.

    A node is left alone where its result would be much larger than its operands, where its size cannot be
    told beforehand, or where the runtime cannot compute it.

    Returns:
        How many nodes were folded.
    """
    folded = 0
    # A packed weight stays packed.
    refused = unpacking_nodes(model.graph)
    while True:
        made = index(model.graph)
        found = 0
        for _scope, body in list(all_graphs(model.graph)):
            wave = [n for n in body.node if _is_foldable(n, made) and n.name not in refused]
            if wave:
                found += _fold_wave(model, body, wave, made, refused)
        folded += found
        if not found:
            return folded


def _is_foldable(node: NodeProto, made: Index) -> bool:
    if node.domain or node.op_type in _NOT_FOLDED or any(True for _ in subgraphs(node)):
        return False
    names = [name for name in node.input if name]
    if not names and node.op_type == "Constant":
        return False
    if any(made.outputs[name] for name in node.output):
        # The interface keeps its producer: an initializer may not be a graph output everywhere.
        return False
    constants = [made.constants.get(name) for name in names]
    return all(tensor is not None and tensor.data_type in NATIVE_TYPES for tensor in constants)


def _fold_wave(
    model: ModelProto, body: GraphProto, wave: list[NodeProto], made: Index, refused: set[str]
) -> int:
    types = _result_types(model, wave, made)
    chosen = []
    for node in wave:
        if _is_affordable(node, made, types):
            chosen.append(node)
        else:
            refused.add(node.name)
    values = _compute(model, chosen, made, types, refused)
    done = []
    for node in chosen:
        names = [name for name in node.output if name]
        if all(name in values for name in names):
            body.initializer.extend(as_tensor(name, values[name]) for name in names)
            done.append(node)
    delete_nodes(body, done)
    return len(done)


def _operands(wave: list[NodeProto], made: Index) -> dict[str, TensorProto]:
    return {name: made.constants[name] for node in wave for name in node.input if name}


def _result_types(
    model: ModelProto, wave: list[NodeProto], made: Index
) -> dict[str, tuple[int, Shape | None]]:
    operands = _operands(wave, made)
    bare = ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = "constants"
    bare.graph.node.extend(wave)
    bare.graph.initializer.extend(operands.values())
    return value_types(infer(bare))


def _is_affordable(node: NodeProto, made: Index, types: dict[str, tuple[int, Shape | None]]) -> bool:
    operands = sum(tensor_bytes(made.constants[name]) for name in node.input if name)
    total = 0
    for name in node.output:
        if not name:
            continue
        kind, shape = types.get(name, (0, None))
        if kind not in NATIVE_TYPES or shape is None or not all(isinstance(dim, int) for dim in shape):
            return False
        elements = int(np.prod([int(dim) for dim in shape if dim is not None], dtype=np.float64))
        total += elements * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    return total <= max(GROWTH_LIMIT_BYTES, 2 * operands)


def _compute(
    model: ModelProto,
    wave: list[NodeProto],
    made: Index,
    types: dict[str, tuple[int, Shape | None]],
    refused: set[str],
) -> dict[str, Array]:
    """Results by name; when a wave fails as a whole, node by node, refusing those that fail."""
    if not wave:
        return {}
    try:
        return _run_constants(model, wave, made, types)
    except QuantStudioError:
        if len(wave) == 1:
            refused.add(wave[0].name)
            return {}
    values: dict[str, Array] = {}
    for node in wave:
        values |= _compute(model, [node], made, types, refused)
    return values


def _run_constants(
    model: ModelProto, wave: list[NodeProto], made: Index, types: dict[str, tuple[int, Shape | None]]
) -> dict[str, Array]:
    operands = _operands(wave, made)
    outputs = [name for node in wave for name in node.output if name]
    graph = helper.make_graph(
        list(wave),
        "constants",
        [helper.make_tensor_value_info(n, t.data_type, list(t.dims)) for n, t in operands.items()],
        [helper.make_tensor_value_info(name, types[name][0], None) for name in outputs],
    )
    small = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    session = open_session(small.SerializeToString(), threads=1, optimization=Optimization.NONE)
    feed = {name: as_array(tensor) for name, tensor in operands.items()}
    return dict(zip(outputs, run(session, feed, outputs), strict=True))
