"""Where a table of codes, one an output channel or one for the layer, is worth its bytes."""

from __future__ import annotations

import math

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import Grid, WeightFormat

# Weights a channel must have for each entry of its table; with fewer, the table all but lists them.
_WEIGHTS_PER_ENTRY = 1.5
# Indices and table together are at most this part of the bytes of INT8 weights.
_LARGEST_SHARE = 0.75
# The same with the operators that unpack them, which weigh in a small layer.
_LARGEST_WHOLE = 0.9
UNPACKING_BYTES = 260


def codebook_pays(layer: LayerInfo, weights: WeightFormat) -> bool:
    """Whether a layer gets smaller with a codebook, so that it is worth what rounding costs.

    Layers where it does not get INT8 instead. A depthwise or otherwise grouped convolution has a handful of
    weights a channel, each of which matters: a table they share is small, and is worth it. A product of two
    activations has none, and keeps what was asked.

    Args:
        layer: The layer.
        weights: A format with a codebook; of any other the answer is yes.
    """
    if not weights.has_codebook or not layer.weight_name:
        return True
    if layer.groups > 1 and not weights.shares_table:
        return False
    count, entries = _weights_per_table(layer, weights), 1 << weights.bits
    if weights.grid is Grid.GROUP and weights_per_channel(layer) < _WEIGHTS_PER_ENTRY * entries:
        return False  # few channels with few weights each do not show what their table is
    packed = math.ceil(count * weights.bits / 8) + entries
    if count < _WEIGHTS_PER_ENTRY * entries or packed > _LARGEST_SHARE * count:
        return False
    total = math.prod(layer.weight_shape)
    return packed * total // count + UNPACKING_BYTES <= _LARGEST_WHOLE * total


def why_no_codebook(layer: LayerInfo, weights: WeightFormat) -> str:
    """Why `codebook_pays` says no, in words."""
    if weights.shares_table:
        return f"a table would take more than it saves of {_weights_per_table(layer, weights)} weights"
    if layer.groups > 1:
        return "a table a channel would take more than it saves of a grouped convolution"
    count, total = weights_per_channel(layer), math.prod(layer.weight_shape)
    return f"tables would take more than they save of {total // count} channels of {count} weights"


def _weights_per_table(layer: LayerInfo, weights: WeightFormat) -> int:
    total = math.prod(layer.weight_shape)
    return total // weights.tables_of(total // max(weights_per_channel(layer), 1))


def weights_per_channel(layer: LayerInfo) -> int:
    """Weights that share one table: those of an output channel."""
    if layer.channel_axis is None or not layer.weight_shape:
        return math.prod(layer.weight_shape)
    return math.prod(layer.weight_shape) // max(layer.weight_shape[layer.channel_axis], 1)
