"""Writes a layer's integer weights into a variant: constants, and the nodes that bring them back to float."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from quantstudio.core.errors import BuildError
from quantstudio.core.precision import (
    Container,
    Granularity,
    Grid,
    LayerScheme,
    WeightFormat,
    integer_levels,
)
from quantstudio.engine.graph.builder import NodeList
from quantstudio.engine.quantization.packed_weights import packed_values
from quantstudio.engine.quantization.shared_tables import on_tables
from quantstudio.engine.quantization.weights import QuantizedWeight, narrow_levels, quantize_weight

FloatArray = NDArray[np.float32]
# Integers of weights by `WeightSource.key`, for whoever writes a graph again and again with the same weights.
KnownWeights = dict[Hashable, QuantizedWeight]
LARGEST_BIAS = 2**30


@dataclass(frozen=True, slots=True)
class WeightSource:
    """One weight of a layer and how it is to be quantized.

    Attributes:
        name: Initializer it comes from.
        value: The float values, already scaled or transposed where the layer needs that.
        form: What was done to the values, so that layers sharing an initializer share its quantized form only
            if it is the same.
        scheme: Scheme of the layer.
        channel_axis: Axis of the output channels of `value`; None for one scale.
        clip: Range set by hand, or None.
        known: Integers of an earlier writing of the same weights; what is new is added. None to keep none.
        max_bits: Bits of a weight the kernel may take.
        is_narrow: Whether integers are those of the first two emissions (see `quantize_weight`).
    """

    name: str
    value: FloatArray
    form: str
    scheme: LayerScheme
    channel_axis: int | None
    clip: tuple[float, float] | None
    known: KnownWeights | None = None
    max_bits: int = 8
    is_narrow: bool = False

    @property
    def key(self) -> Hashable:
        """Equal keys give equal integers."""
        return (
            self.name,
            self.form,
            self.scheme,
            self.channel_axis,
            self.clip,
            self.max_bits,
            self.is_narrow,
        )

    @property
    def levels(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        if self.is_narrow and self.scheme.weights.grid is Grid.UNIFORM:
            return narrow_levels(self.scheme, self.max_bits)
        return integer_levels(self.scheme.weights, self.max_bits)

    def quantized(self) -> QuantizedWeight:
        """The integers.

        Raises:
            BuildError: the weight holds NaN or infinity; the message names it.
        """
        if self.known is not None and self.key in self.known:
            return self.known[self.key]
        if not np.isfinite(self.value).all():
            raise BuildError(
                f"its weight {self.name!r} holds NaN or infinity",
                hint="Keep the layer in FP32, or repair the model",
            )
        made = quantize_weight(
            self.value, self.scheme, self.channel_axis, self.clip, self.max_bits, is_narrow=self.is_narrow
        )
        if self.known is not None:
            self.known[self.key] = made
        return made


def without_groups(scheme: LayerScheme) -> LayerScheme:
    """The scheme as integer kernels take it: one scale per channel where groups were asked."""
    if scheme.granularity is Granularity.PER_GROUP:
        return replace(scheme, granularity=Granularity.PER_CHANNEL)
    return scheme


def with_room_for_bias(
    source: WeightSource, weight: QuantizedWeight, bias: FloatArray | None, input_scale: np.float32
) -> tuple[QuantizedWeight, bool]:
    """The weight, with scales enlarged where the int32 bias would overflow, and whether any was.

    The bias has the scale input scale times weight scale, so a channel with (nearly) no weights and a real
    bias needs a weight scale that leaves the bias room; its weights are then rounded on the coarser grid.
    """
    if bias is None:
        return weight, False
    needed = np.abs(bias).astype(np.float64) / (float(input_scale) * LARGEST_BIAS)
    if weight.axis is None:
        needed = needed.max(initial=0.0)
    smallest = np.float64(np.finfo(np.float32).tiny) * 2**10 / float(input_scale)
    scales = np.maximum(weight.scales, np.maximum(needed, smallest)).astype(np.float32)
    if np.array_equal(scales, weight.scales):
        return weight, False
    shape = [1] * source.value.ndim
    if weight.axis is not None:
        shape[weight.axis] = -1
    spread = scales.reshape(shape)
    values = weight.values
    # A sign stays one: there is no zero to round to.
    if source.is_narrow or source.scheme.weights.grid is not Grid.SIGN:
        steps = weight.dequantized / spread
        if source.scheme.weights.shares_table:  # other integers would have no place in the table
            values = _on_own_tables(steps, weight, source.scheme.weights)
        else:
            values = np.clip(np.rint(steps), *source.levels).astype(np.int8)
    changed = replace(weight, values=values, scales=scales, dequantized=values * spread)
    return changed, True


def _on_own_tables(steps: FloatArray, weight: QuantizedWeight, format_: WeightFormat) -> NDArray[np.int8]:
    """The integers nearest to some steps that the tables of a weight hold."""
    axis = weight.axis or 0
    count = 1 if weight.axis is None else steps.shape[axis]
    wanted, held = np.moveaxis(steps.astype(np.float64), axis, 0), np.moveaxis(weight.values, axis, 0)
    found = on_tables(wanted.reshape(count, -1), held.reshape(count, -1), format_.tables_of(count))
    return np.ascontiguousarray(np.moveaxis(found.reshape(held.shape), 0, axis))


def add_dequantized(nodes: NodeList, weight: QuantizedWeight, name: str, key: Hashable) -> str:
    """INT8 constants and a DequantizeLinear; the name of its output."""
    made = nodes.made(("dequantized", key))
    if made is not None:
        return made
    attributes: dict[str, Any] = {} if weight.axis is None else {"axis": weight.axis}
    if weight.group_size:
        attributes["block_size"] = weight.group_size
    output = nodes.add(
        "DequantizeLinear",
        [*int8_constants(nodes, weight, name, key), zero_points(nodes, weight, name, key)],
        f"{name}_DequantizeLinear",
        outputs=[nodes.names.fresh(f"{name}_dequantized")],
        **attributes,
    )
    return nodes.keep(("dequantized", key), output)


def int8_constants(nodes: NodeList, weight: QuantizedWeight, name: str, key: Hashable) -> tuple[str, str]:
    """Names of the INT8 values and of their scales."""
    made = nodes.made(("int8", key))
    if made is None:
        made = nodes.keep(("int8", key), int8_values(nodes, weight, name))
    kept = nodes.constants.shared(("int8", key)) or nodes.constants.share(
        ("int8", key), (nodes.constants.add(f"{name}_scale", weight.scales),)
    )
    return made, kept[0]


def zero_points(nodes: NodeList, weight: QuantizedWeight, name: str, key: Hashable) -> str:
    """Zero points of weights.

    They are the default, but ONNX Runtime 1.31 fails where sessions ask for `session.x64quantprecision` and
    they are missing, or shared.
    """
    kept = nodes.constants.shared(("zero", key))
    if kept is None:
        value = np.zeros(weight.scales.shape, np.int8) if weight.zeros is None else weight.zeros
        zeros = nodes.constants.add(f"{name}_zero_point", value)
        kept = nodes.constants.share(("zero", key), (zeros,))
    return kept[0]


def int8_values(nodes: NodeList, weight: QuantizedWeight, name: str) -> str:
    """Name of the INT8 values of a weight, packed where the file packs."""
    channels = () if weight.axis is None or weight.group_size else (weight.axis,)
    return packed_values(nodes, weight.values, weight.format, name, channels)


def add_dequantized_int4(nodes: NodeList, weight: QuantizedWeight, name: str, key: Hashable) -> str:
    """Packed INT4 constants and a DequantizeLinear; the name of its output."""
    made = nodes.made(("int4", key))
    if made is not None:
        return made
    constants = nodes.constants
    kept = constants.shared(("int4", key)) or constants.share(
        ("int4", key),
        (
            _int4_constant(nodes, weight, name),
            constants.add(f"{name}_scale", weight.scales),
            *int4_zeros(nodes, weight, name),
        ),
    )
    attributes: dict[str, Any] = {} if weight.axis is None else {"axis": weight.axis}
    if weight.group_size:
        attributes["block_size"] = weight.group_size
    output = nodes.add(
        "DequantizeLinear",
        list(kept),
        f"{name}_DequantizeLinear",
        outputs=[nodes.names.fresh(f"{name}_dequantized")],
        **attributes,
    )
    return nodes.keep(("int4", key), output)


def int4_zeros(nodes: NodeList, weight: QuantizedWeight, name: str) -> tuple[str, ...]:
    """Name of the INT4 zero points; none where zero stands for itself."""
    if weight.zeros is None:
        return ()
    return (nodes.constants.add_int4(f"{name}_zero_point", weight.zeros),)


def add_unpacked(nodes: NodeList, weight: QuantizedWeight, name: str, key: Hashable, *, is_int4: bool) -> str:
    """Integer constants, a Cast and a Mul, which runtimes fold at load; the name of its output."""
    made = nodes.made(("unpacked", key))
    if made is not None:
        return made
    constants = nodes.constants
    kept = constants.shared(("unpacked", key))
    if kept is None:
        shape = [1] * weight.values.ndim
        if weight.axis is not None:
            shape[weight.axis] = -1
        values = _int4_constant(nodes, weight, name) if is_int4 else int8_values(nodes, weight, name)
        scales = constants.add(f"{name}_scale", weight.scales.reshape(shape))
        kept = constants.share(("unpacked", key), (values, scales))
    real = nodes.add("Cast", [kept[0]], f"{name}_Cast", to=TensorProto.FLOAT)
    output = nodes.add(
        "Mul", [real, kept[1]], f"{name}_Mul", outputs=[nodes.names.fresh(f"{name}_dequantized")]
    )
    return nodes.keep(("unpacked", key), output)


def _int4_constant(nodes: NodeList, weight: QuantizedWeight, name: str) -> str:
    if nodes.names.is_short:
        return nodes.constants.add_int4_weight(name, weight.values)
    return nodes.constants.add_int4(f"{name}_quantized", weight.values)


def fits_int4(scheme: LayerScheme) -> bool:
    """Whether integers of the scheme fit a nibble."""
    return scheme.weights.packed is Container.INT4
