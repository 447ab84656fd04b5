"""Multiply-accumulates of one layer, from inferred shapes."""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from quantstudio.engine.graph.shapes import Shape

_ELEMENTWISE = frozenset(
    {
        "LayerNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "BatchNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "PRelu",
    }
)
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def multiply_accumulates(
    node: NodeProto,
    weight_shape: tuple[int, ...],
    types: dict[str, tuple[int, Shape | None]],
    *,
    has_weight: bool,
) -> int | None:
    """Multiply-accumulates of one run at the shapes given.

    Convolutions: output elements times weights an output element reads. Products: output elements times the
    summed axis. Recurrent: steps times both weight matrices. Normalizations: one per element.

    Args:
        node: The layer's node.
        weight_shape: Shape of its weight.
        types: Inferred types by tensor name.
        has_weight: Whether the node has a constant weight.

    Returns:
        The count, or None where a shape is not known.
    """
    if node.op_type == "Gather":
        return 0
    source = _numbers(node.input[0], types)
    result = _numbers(node.output[0], types)
    if node.op_type == "ConvTranspose":
        return None if source is None else prod(source) * prod(weight_shape[1:])
    if node.op_type in _RECURRENT:
        recurrent = _numbers(node.input[2], types)
        if source is None or recurrent is None:
            return None
        return source[0] * source[1] * (prod(weight_shape) + prod(recurrent))
    if result is None:
        return None
    if node.op_type in ("Conv", "ConvInteger", "QLinearConv"):
        return prod(result) * prod(weight_shape[1:])
    if node.op_type in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return None if not source else prod(result) * source[-1]
    if node.op_type in ("Gemm", "QGemm"):
        return _gemm(node, source, result)
    return prod(result) if node.op_type in _ELEMENTWISE and has_weight else None


def _gemm(node: NodeProto, source: tuple[int, ...] | None, result: tuple[int, ...]) -> int | None:
    if source is None or len(source) != 2:
        return None
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(result) * source[0 if transposed else 1]


def _numbers(name: str, types: dict[str, tuple[int, Shape | None]]) -> tuple[int, ...] | None:
    _kind, shape = types.get(name, (0, None))
    if shape is None:
        return None
    numbers = tuple(dim for dim in shape if isinstance(dim, int))
    return numbers if len(numbers) == len(shape) else None
