"""Which initializers are weights a training step may change, and which are constants."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto

from quantstudio.engine.graph.protos import as_array

# Positions of the operands that hold learned values, by operator.
_WEIGHT_OPERANDS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Gather": (0,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Einsum": (0, 1, 2),
    # A bias behind a MatMul, the scale of a norm written out, a position embedding.
    "Add": (0, 1),
    "Mul": (0, 1),
}

_ELEMENTWISE = frozenset({"Add", "Mul"})
_TRAINABLE_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)

# Attention masks hold 0 and a huge negative number (-3.4e38, -1e9, -10000); no learned bias comes near.
_MASK_VALUE = -9_000.0


def weight_names(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Initializers with the role of a weight, in the order of first use.

    Only these become trainable: Resize scales, Clip bounds, attention masks and normalisation constants of
    the input are numbers of the program, not of the training.
    """
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    fed = {value.name for value in graph.input}
    found: dict[str, None] = {}
    for node in graph.node:
        for position in _WEIGHT_OPERANDS.get(node.op_type, ()):
            if position >= len(node.input) or node.input[position] not in initializers:
                continue
            name = node.input[position]
            if node.op_type in _ELEMENTWISE and not _is_learned_operand(node, initializers[name], fed):
                continue
            if initializers[name].data_type in _TRAINABLE_TYPES:
                found[name] = None
    return tuple(found)


def _is_learned_operand(node: onnx.NodeProto, tensor: TensorProto, fed: Iterable[str]) -> bool:
    if not tensor.dims or int(np.prod(tensor.dims)) <= 1:
        return False
    if any(name in fed for name in node.input):
        return False
    values = np.asarray(as_array(tensor), dtype=np.float32)
    return bool(np.isfinite(values).all()) and float(values.min()) > _MASK_VALUE
