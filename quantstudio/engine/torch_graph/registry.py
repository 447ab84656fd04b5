"""Operators by name: each ONNX operator is one function of its attributes and its input tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from quantstudio.core.errors import UnsupportedOpError
from quantstudio.engine.graph.protos import as_array

Result = torch.Tensor | tuple[torch.Tensor, ...]
Kernel = Callable[..., Result]

OPERATORS: dict[str, Kernel] = {}

TORCH_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT16: torch.int16,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    # torch has no packed integers: they live in the next wider type, as their values.
    TensorProto.INT4: torch.int8,
    TensorProto.UINT4: torch.uint8,
}

INTEGER_BOUNDS: dict[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
}


class Attributes:
    """Attributes of one node, read once, with defaults at the point of use.

    Attributes:
        output_count: Outputs the node declares, trailing unnamed ones dropped.
        element_types: ONNX element type of the node's constant inputs, by position.
    """

    __slots__ = ("_values", "element_types", "output_count")

    def __init__(self, node: onnx.NodeProto, element_types: dict[int, int] | None = None) -> None:
        self._values: dict[str, Any] = {a.name: _attribute_value(a) for a in node.attribute}
        self.output_count = max((i + 1 for i, name in enumerate(node.output) if name), default=0)
        self.element_types = element_types or {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self._values.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute that means yes or no."""
        return bool(self._values.get(name, default))

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self._values.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self._values.get(name, default))

    def integers(self, name: str) -> list[int] | None:
        """A list of integers, or None where the node has none."""
        value = self._values.get(name)
        return None if value is None else [int(v) for v in value]

    def value(self, name: str) -> Any:  # noqa: ANN401  whatever type the attribute has
        """The attribute as it is, or None."""
        return self._values.get(name)


def _attribute_value(attribute: onnx.AttributeProto) -> Any:  # noqa: ANN401
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, TensorProto):
        return tensor_from_proto(value)
    return value


FALLBACK_HINT = "Analysis falls back to ONNX Runtime; training this network is not possible"


def operator(*names: str) -> Callable[[Kernel], Kernel]:
    """Register a function as the kernel of these ONNX operators; other domains stand before the name."""

    def register(kernel: Kernel) -> Kernel:
        for name in names:
            OPERATORS[name] = kernel
        return kernel

    return register


def register_plain(kernels: dict[str, Callable[..., torch.Tensor]]) -> None:
    """Register torch functions that need no attributes."""
    for name, function in kernels.items():
        OPERATORS[name] = _without_attributes(function)


def _without_attributes(function: Callable[..., torch.Tensor]) -> Kernel:
    def kernel(_: Attributes, *inputs: torch.Tensor) -> torch.Tensor:
        return function(*inputs)

    return kernel


def tensor_from_proto(proto: TensorProto) -> torch.Tensor:
    """The tensor's values; packed and 8-bit float types become the next wider type torch computes with.

    Raises:
        UnsupportedOpError: strings, which torch cannot hold.
    """
    if proto.data_type == TensorProto.STRING:
        raise UnsupportedOpError("a string tensor has no torch form", where=proto.name, hint=FALLBACK_HINT)
    array = np.asarray(as_array(proto))
    if proto.data_type not in TORCH_TYPES:
        array = array.astype(np.float32)
    elif proto.data_type in (TensorProto.INT4, TensorProto.UINT4):
        array = array.astype(np.int8 if proto.data_type == TensorProto.INT4 else np.uint8)
    elif proto.data_type == TensorProto.BFLOAT16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    # from_numpy refuses read-only memory, and the protobuf's must not be written through.
    return torch.from_numpy(np.array(array, copy=True, order="C"))


def integer_list(tensor: torch.Tensor) -> list[int]:
    """Values of a shape-like tensor, flattened."""
    return [int(v) for v in tensor.reshape(-1).tolist()]


def optional_integers(
    attributes: Attributes, name: str, tensor: torch.Tensor | None = None
) -> list[int] | None:
    """A list that older opsets write as an attribute and newer ones as an input."""
    if tensor is not None:
        return integer_list(tensor)
    return attributes.integers(name)


def unsupported(what: str) -> UnsupportedOpError:
    """The error a kernel raises for a mode it does not have; the node's name is added by the module."""
    return UnsupportedOpError(what, hint=FALLBACK_HINT)


def positive_axes(axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front."""
    return [axis % rank if rank else 0 for axis in axes]
