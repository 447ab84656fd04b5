"""One layer while it is being written: its node, its constants, its scheme."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme
from quantstudio.engine.graph.builder import NodeList
from quantstudio.engine.graph.protos import as_array, attribute_value, remove_attribute, set_attribute
from quantstudio.engine.graph.view import Scope
from quantstudio.engine.quantization.activations import ActivationParams
from quantstudio.engine.quantization.quantized_weights import FloatArray, KnownWeights, WeightSource

# Which inputs may hold weights; MatMul and Einsum hold theirs wherever the constant is.
_WEIGHT_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}


@dataclass(slots=True)
class LayerNode:
    """A layer on its way into a variant.

    Attributes:
        node: Copy of the node with its activations already renamed; free to change.
        layer: The layer's row.
        scheme: What it becomes.
        scope: Where its constants are looked up.
        nodes: Where it is written.
        clip: Weight range set by hand, or None.
        inputs: Scale and zero point of each input that comes out of a Q/DQ pair, by input index.
        index_rank: Dimensions of the second input; None where they are not recorded.
        known: Integers of weights that an earlier writing made, or None.
        max_bits: Bits of a weight an integer kernel of the target may take.
        is_narrow: Whether weights take the integers of the first two emissions.
        table: Table of rows whose transpose the layer's matrix is, stored once for both; empty for none.
    """

    node: onnx.NodeProto
    layer: LayerInfo
    scheme: LayerScheme
    scope: Scope
    nodes: NodeList
    clip: tuple[float, float] | None = None
    inputs: dict[int, ActivationParams] = field(default_factory=dict)
    index_rank: int | None = None
    known: KnownWeights | None = None
    max_bits: int = 8
    is_narrow: bool = False
    table: str = ""

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    def attribute(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """An attribute of the node, or the default."""
        return attribute_value(self.node, name, default)

    def input(self, index: int) -> str:
        """Name of an input; empty where it is left out."""
        return self.node.input[index] if len(self.node.input) > index else ""

    def constant(self, index: int) -> NDArray[Any] | None:
        """Value of a constant input, or None."""
        proto = self.scope.constant(self.input(index)) if self.input(index) else None
        return None if proto is None else as_array(proto)

    def weight_indices(self) -> tuple[int, ...]:
        """Inputs that hold float32 weights."""
        indices = _WEIGHT_INPUTS.get(self.node.op_type, range(len(self.node.input)))
        found = []
        for index in indices:
            proto = self.scope.constant(self.input(index))
            if proto is not None and proto.data_type == onnx.TensorProto.FLOAT:
                found.append(index)
        return tuple(found)

    def weight(self, index: int) -> FloatArray:
        """Value of a weight input."""
        return cast("FloatArray", np.asarray(self.constant(index), dtype=np.float32))

    def channel_axis(self, index: int) -> int | None:
        """Axis of the output channels of a weight input."""
        rank = self.weight(index).ndim
        if rank < 2:
            return None
        match self.node.op_type:
            case "MatMul":
                return rank - 1 if index == 1 else rank - 2
            case "Gemm" if index == 1:
                return 0 if self.attribute("transB", 0) else 1
            case "Gemm":
                return 1 if self.attribute("transA", 0) else 0
            case "Conv":
                return 0
            case "ConvTranspose" | "LSTM" | "GRU" | "RNN":
                return 1
            case _:
                return self.layer.channel_axis

    def source(self, index: int, scheme: LayerScheme) -> WeightSource:
        """A weight input as the file holds it."""
        return WeightSource(
            self.input(index),
            self.weight(index),
            "",
            scheme,
            self.channel_axis(index),
            self.clip,
            self.known,
            self.max_bits,
            self.is_narrow,
        )

    def table_source(self) -> WeightSource:
        """The table that is the layer's matrix, transposed."""
        value = np.asarray(as_array(self.scope.constants[self.table]), dtype=np.float32)
        return WeightSource(
            self.table, value, "", self.scheme, 0, self.clip, self.known, self.max_bits, self.is_narrow
        )

    def product_source(self, scheme: LayerScheme) -> WeightSource:
        """The second operand of a Gemm or MatMul as a [..., K, N] matrix, Gemm's alpha multiplied in."""
        value, form = self.weight(1), ""
        if self.node.op_type == "Gemm":
            if self.attribute("transB", 0):
                value, form = np.ascontiguousarray(value.T), "transposed"
            value, form = _times_alpha(value, form, self.attribute("alpha", 1.0))
        return self._source_of(value, form, scheme, value.ndim - 1)

    def gemm_source(self, scheme: LayerScheme) -> WeightSource:
        """The second operand of a Gemm as it lies, alpha multiplied in."""
        value, form = _times_alpha(self.weight(1), "", self.attribute("alpha", 1.0))
        return self._source_of(value, form, scheme, self.channel_axis(1))

    def _source_of(self, value: FloatArray, form: str, scheme: LayerScheme, axis: int | None) -> WeightSource:
        return WeightSource(
            self.input(1), value, form, scheme, axis, self.clip, self.known, self.max_bits, self.is_narrow
        )

    def add_gemm_bias(self, product: str, output: str) -> None:
        """Write `output` = `product` + beta * C for a Gemm taken apart; C may be any input or absent."""
        bias = self.input(2)
        beta = float(self.attribute("beta", 1.0))
        if beta != 1.0:
            value = self.constant(2)
            if value is not None:
                scaled = np.asarray(value * np.float32(beta), dtype=np.float32)
                bias = self.nodes.constants.add(f"{self.name}_bias", scaled)
            else:
                factor = self.nodes.constants.add(f"{self.name}_beta", np.float32(beta))
                bias = self.nodes.add("Mul", [bias, factor], f"{self.name}_scale_bias")
        self.nodes.add("Add", [product, bias], f"{self.name}_bias_Add", outputs=[output])

    def replace_attributes(self, **values: Any) -> None:  # noqa: ANN401
        """Set or (with None) drop attributes of the node."""
        remove_attribute(self.node, *values)
        for name, value in values.items():
            if value is not None:
                set_attribute(self.node, name, value)


def _times_alpha(value: FloatArray, form: str, alpha: float) -> tuple[FloatArray, str]:
    if alpha == 1.0:
        return value, form
    return value * np.float32(alpha), f"{form} times {alpha!r}".strip()
