"""What one output channel of a weight becomes in a scheme: its levels, and how many weights take each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import sqnr_db
from quantstudio.core.errors import RecipeError
from quantstudio.core.layers import LayerInfo
from quantstudio.core.levels import ChannelLevels
from quantstudio.core.precision import Granularity, LayerScheme, integer_levels
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.graph.view import index
from quantstudio.engine.quantization.weights import narrow_levels, quantize_weight

BINS = 64
FloatArray = NDArray[np.float32]


def channel_levels(
    graph: Graph,
    name: str,
    scheme: LayerScheme,
    channel: int,
    *,
    max_bits: int = 8,
    clip: tuple[float, float] | None = None,
    is_narrow: bool = False,
    written: Graph | None = None,
) -> ChannelLevels:
    """Levels of one channel, from the very quantizer that builds files.

    Args:
        graph: The model.
        name: A layer that owns a float weight.
        scheme: What it has; scales finer than a channel have no levels of a channel.
        channel: Output channel, from 0.
        max_bits: See `quantize_weight`.
        clip: Range set by hand.
        is_narrow: See `quantize_weight`.
        written: The model behind steps that chose its weights, and so its levels; those of `graph` are what
            was rounded.

    Raises:
        RecipeError: the layer has no such weight, channel or levels, or another shape behind the steps.
        BuildError: the weight holds NaN or infinity.
    """
    layer, weight, axis = _weight(graph, name)
    chosen = weight if written is None else _weight(written, name)[1]
    if chosen.shape != weight.shape:
        raise RecipeError("its weight has another shape behind the steps", where=f"layer {name}")
    channels = weight.shape[axis]
    if not 0 <= channel < channels:
        raise RecipeError(f"it has {channels} output channels", where=f"layer {name}", hint="Count from 0")
    if not scheme.weights.is_integer or scheme.granularity is Granularity.PER_GROUP:
        raise RecipeError("a channel has levels of its own only on an integer grid", where=f"layer {name}")
    values = np.take(weight, channel, axis=axis).ravel()
    codes, scale = _quantized(chosen, scheme, axis, channel, clip, max_bits, is_narrow=is_narrow)
    return _levels(layer, channel, channels, values, codes, scale, scheme, max_bits, is_narrow=is_narrow)


def _weight(graph: Graph, name: str) -> tuple[LayerInfo, FloatArray, int]:
    """A layer, its weight, and the axis of its output channels."""
    layer = next((one for one in graph.layers if one.name == name), None)
    constants = index(graph.proto.graph).constants
    if layer is None or layer.weight_name not in constants or layer.channel_axis is None:
        raise RecipeError(f"layer {name!r} has no weight with output channels", hint="Choose another layer")
    weight = np.asarray(as_array(constants[layer.weight_name]), dtype=np.float32)
    return layer, weight, layer.channel_axis % weight.ndim


def _quantized(
    weight: FloatArray,
    scheme: LayerScheme,
    axis: int,
    channel: int,
    clip: tuple[float, float] | None,
    max_bits: int,
    *,
    is_narrow: bool,
) -> tuple[NDArray[np.int8], float]:
    """Integers of the channel's weights, and their scale; others matter where they share."""
    if scheme.granularity is Granularity.PER_TENSOR or scheme.weights.shares_table:
        found = quantize_weight(weight, scheme, axis, clip, max_bits, is_narrow=is_narrow)
        scale = found.scales if found.axis is None else found.scales[channel]
        return np.take(found.values, channel, axis=axis).ravel(), float(scale)
    row = np.take(weight, [channel], axis=axis)
    found = quantize_weight(row, scheme, axis, clip, max_bits, is_narrow=is_narrow)
    return found.values.ravel(), float(found.scales.ravel()[0])


def _levels(
    layer: LayerInfo,
    channel: int,
    channels: int,
    values: FloatArray,
    codes: NDArray[np.int8],
    scale: float,
    scheme: LayerScheme,
    max_bits: int,
    *,
    is_narrow: bool,
) -> ChannelLevels:
    if scheme.weights.has_codebook:
        steps = np.unique(codes).astype(np.int64)
    else:
        narrow = is_narrow and scheme.weights.has_range_rule
        low, high = (narrow_levels if narrow else _all_levels)(scheme, max_bits)
        steps = np.arange(low, high + 1)
    found, count = np.unique(codes, return_counts=True)
    taken = dict(zip(found.tolist(), count.tolist(), strict=True))
    noise = float(np.square(values - codes * np.float32(scale), dtype=np.float64).mean())
    counts, _ = np.histogram(values, bins=BINS)
    return ChannelLevels(
        layer.name,
        channel,
        channels,
        tuple(counts.tolist()),
        float(values.min()),
        float(values.max()),
        tuple((steps * np.float32(scale)).astype(float).tolist()),
        tuple(int(step) for step in steps),
        tuple(taken.get(int(step), 0) for step in steps),
        sqnr_db(float(np.square(values, dtype=np.float64).mean()), noise),
    )


def _all_levels(scheme: LayerScheme, max_bits: int) -> tuple[int, int]:
    return integer_levels(scheme.weights, max_bits)
