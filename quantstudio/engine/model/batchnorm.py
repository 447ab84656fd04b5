"""Per-channel scale and shift after a convolution, folded into its weights and bias.

BatchNormalization in inference form is y = a * x + b per channel, with a = scale / sqrt(variance + epsilon)
and b = bias - a * mean (Ioffe and Szegedy 2015, arXiv:1502.03167). A Mul, Div, Add or Sub by a per-channel
constant is the same thing with a or b alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto

from quantstudio.engine.graph.names import fresh_name
from quantstudio.engine.graph.protos import (
    all_graphs,
    as_array,
    as_tensor,
    delete_nodes,
    float_attribute,
    int_attribute,
    set_attribute,
    tensor_elements,
)
from quantstudio.engine.graph.shapes import Shape
from quantstudio.engine.graph.view import Index, index

_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm"})

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Affine:
    """y = a * x + b per channel; shapes [C]."""

    a: Vector
    b: Vector


def fold_batchnorm(graph: GraphProto, types: dict[str, tuple[int, Shape | None]]) -> int:
    """Fold per-channel scale and shift after Conv, ConvTranspose and Gemm into their weights.

    Only where the affine node alone reads the layer's output, so that no other value changes.

    Args:
        graph: Graph to edit, bodies included.
        types: Inferred types, for the rank of broadcast constants.

    Returns:
        How many nodes were folded.
    """
    count = 0
    for _scope, body in all_graphs(graph):
        made = index(graph)
        taken = made.names()
        folded = []
        for node in body.node:
            while _is_foldable_layer(node, made):
                after = made.only_consumer(node.output[0])
                if after is None or made.homes[after.output[0]] is not body:
                    break
                affine = _affine_of(after, node, made, types)
                if affine is None:
                    break
                _absorb(node, affine, body, made, taken)
                folded.append(after)
                _take_output(node, after, made)
        delete_nodes(body, folded)
        count += len(folded)
    return count


def _is_foldable_layer(node: NodeProto, made: Index) -> bool:
    if node.domain or node.op_type not in _LINEAR or len(node.input) < 2:
        return False
    weight = made.constants.get(node.input[1])
    if weight is None or weight.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return False
    if not _bias_name(node):
        return True
    bias = made.constants.get(_bias_name(node))
    # A Gemm may add a whole matrix; only a row per channel can take a shift.
    return bias is not None and (not bias.dims or bias.dims[-1] == tensor_elements(bias))


def _bias_name(node: NodeProto) -> str:
    return node.input[2] if len(node.input) > 2 else ""


def _channels(node: NodeProto, weight: TensorProto) -> int:
    if node.op_type == "Conv":
        return int(weight.dims[0])
    if node.op_type == "ConvTranspose":
        return int(weight.dims[1]) * int_attribute(node, "group", 1)
    return int(weight.dims[0 if int_attribute(node, "transB", 0) else 1])


def _affine_of(
    after: NodeProto, layer: NodeProto, made: Index, types: dict[str, tuple[int, Shape | None]]
) -> _Affine | None:
    channels = _channels(layer, made.constants[layer.input[1]])
    if after.domain:
        return None
    if after.op_type == "BatchNormalization":
        return _batchnorm(after, made, channels)
    if after.op_type not in ("Add", "Sub", "Mul", "Div") or len(after.input) != 2:
        return None
    return _arithmetic(after, layer, made, channels, types)


def _batchnorm(node: NodeProto, made: Index, channels: int) -> _Affine | None:
    if int_attribute(node, "training_mode", 0) or len(node.output) > 1:
        return None
    arrays = [made.array(name) for name in node.input[1:5]]
    parts = [array.astype(np.float64).reshape(-1) for array in arrays if array is not None]
    if len(parts) != 4 or any(part.size != channels for part in parts):
        return None
    scale, bias, mean, variance = parts
    a = scale / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
    return _Affine(a, bias - a * mean) if np.isfinite(a).all() else None


def _arithmetic(
    after: NodeProto,
    layer: NodeProto,
    made: Index,
    channels: int,
    types: dict[str, tuple[int, Shape | None]],
) -> _Affine | None:
    slot = 1 if after.input[0] == layer.output[0] else 0
    if slot == 0 and after.op_type in ("Sub", "Div"):
        return None
    constant = made.array(after.input[slot])
    _kind, shape = types.get(layer.output[0], (0, None))
    if constant is None or shape is None:
        return None
    vector = _per_channel(constant, len(shape), channels)
    if vector is None:
        return None
    ones, zeros = np.ones(channels), np.zeros(channels)
    match after.op_type:
        case "Add":
            return _Affine(ones, vector)
        case "Sub":
            return _Affine(ones, -vector)
        case "Mul":
            return _Affine(vector, zeros)
        case _:
            return _Affine(1 / vector, zeros) if (vector != 0).all() else None


def _per_channel(constant: NDArray[np.generic], rank: int, channels: int) -> Vector | None:
    """Values along the channel axis if the constant varies along no other and does not grow the result."""
    if constant.ndim > rank:
        return None
    full = (1,) * (rank - constant.ndim) + constant.shape
    if any(size != 1 for axis, size in enumerate(full) if axis != 1) or full[1] not in (1, channels):
        return None
    values: Vector = np.broadcast_to(constant.astype(np.float64).reshape(-1), (channels,)).copy()
    return values if np.isfinite(values).all() else None


def _absorb(node: NodeProto, affine: _Affine, body: GraphProto, made: Index, taken: set[str]) -> None:
    tensor = made.constants[node.input[1]]
    weight = as_array(tensor)
    dtype = weight.dtype
    bias_tensor = made.constants.get(_bias_name(node))
    old_bias = np.zeros(1) if bias_tensor is None else as_array(bias_tensor).astype(np.float64)
    if node.op_type == "Gemm":
        old_bias = old_bias * float_attribute(node, "beta", 1.0)
        set_attribute(node, "beta", 1.0)
    if (affine.a != 1).any():
        scaled = weight.astype(np.float64) * _along_channels(node, tensor, affine.a)
        _put(node, 1, scaled.astype(dtype), f"{node.name}.weight", body, made, taken)
    new_bias = (old_bias * affine.a + affine.b).astype(dtype)
    _put(node, 2, new_bias, f"{node.name}.bias", body, made, taken)


def _along_channels(node: NodeProto, weight: TensorProto, a: Vector) -> NDArray[np.float64]:
    dims = tuple(weight.dims)
    if node.op_type == "Conv":
        return a.reshape(-1, *[1] * (len(dims) - 1))
    if node.op_type == "Gemm":
        return a.reshape(-1, 1) if int_attribute(node, "transB", 0) else a.reshape(1, -1)
    # ConvTranspose weight is [C_in, C_out / group, ...]: the rows of group g make the channels of group g.
    groups = int_attribute(node, "group", 1)
    per_group = np.repeat(a.reshape(groups, -1), dims[0] // groups, axis=0)
    return per_group.reshape(dims[0], dims[1], *[1] * (len(dims) - 2))


def _put(
    node: NodeProto,
    slot: int,
    values: NDArray[np.generic],
    wanted: str,
    body: GraphProto,
    made: Index,
    taken: set[str],
) -> None:
    """Give the node a new operand, in place where it alone uses the old one."""
    old = node.input[slot] if len(node.input) > slot else ""
    if old and made.uses(old) == 1:
        made.constants[old].CopyFrom(as_tensor(old, values))
        return
    name = fresh_name(wanted, taken)
    body.initializer.append(as_tensor(name, values))
    made.constants[name] = body.initializer[-1]
    made.homes[name] = body
    if len(node.input) > slot:
        node.input[slot] = name
    else:
        node.input.append(name)
    made.consumers.setdefault(name, []).append(node)
    if old:
        made.consumers[old] = [n for n in made.consumers[old] if n is not node]


def _take_output(node: NodeProto, after: NodeProto, made: Index) -> None:
    made.consumers.pop(node.output[0], None)
    made.producers.pop(node.output[0], None)
    node.output[0] = after.output[0]
    made.producers[node.output[0]] = node
