"""Distribution of every layer's weights, and what each precision does to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.affine import sqnr_db
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.statistics import WEIGHT_BINS, Histogram, WeightStatistics
from quantstudio.core.target import targets
from quantstudio.core.weight_error import rounding_key, weight_bits
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.graph.view import index
from quantstudio.engine.quantization.weights import quantize_weight

OUTLIER_SIGMAS = 4.0
# SQNR of larger weights is that of evenly spread channels with so many weights: quantizing all of a 100 MB
# network by least squares takes ten seconds, and channels are many and alike.
SQNR_ELEMENTS = 1 << 20
# The same for formats that no key sets: menus hold several, and most are never chosen.
RARE_ELEMENTS = 1 << 15
_BLOCK = 1 << 18

FloatArray = NDArray[np.float32]


def weight_statistics(
    graph: Graph, *, reporter: Reporter = NULL_REPORTER, cancel: CancelToken | None = None
) -> tuple[WeightStatistics, ...]:
    """Statistics of every layer that owns a float weight, in execution order.

    Args:
        graph: The model.
        reporter: Gets progress in layers, and a warning for a weight that holds NaN or infinity, which is
            left out.
        cancel: Looked at before every layer.
    """
    cancel = cancel or never_cancelled()
    constants = index(graph.proto.graph).constants
    layers = [
        layer
        for layer in graph.layers
        if layer.weight_name in constants
        and constants[layer.weight_name].data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    ]
    rows: list[WeightStatistics] = []
    for done, layer in enumerate(layers, start=1):
        cancel.raise_if_set()
        weight = np.asarray(as_array(constants[layer.weight_name]), dtype=np.float32)
        if weight.size and np.isfinite(weight).all():
            rows.append(layer_statistics(layer, weight))
        elif weight.size:
            reporter.message(f"Weights of {layer.name} hold NaN or infinity", Severity.WARNING)
        reporter.progress(done, len(layers), "layers", "Weight statistics")
    return tuple(rows)


def layer_statistics(layer: LayerInfo, weight: FloatArray) -> WeightStatistics:
    """Statistics of one weight.

    Args:
        layer: The layer; its channel axis and schemes are used.
        weight: Its weight, finite and not empty.
    """
    rows = _channel_rows(weight, layer.channel_axis)
    mean, std, kurtosis, outlier_share = _moments(weight.reshape(-1))
    low, p1, median, p99, high = _channel_quantiles(rows)
    return WeightStatistics(
        layer=layer.name,
        histogram=weight_histogram(weight),
        mean=mean,
        std=std,
        kurtosis=kurtosis,
        outlier_share=outlier_share,
        channel_low=low,
        channel_high=high,
        channel_p1=p1,
        channel_p99=p99,
        channel_median=median,
        sqnr_db=_sqnr_by_scheme(layer, weight),
    )


def weight_histogram(weight: FloatArray, bins: int = WEIGHT_BINS) -> Histogram:
    """Histogram from the smallest to the largest weight; a constant weight gets one bin of width 1 around it.

    Args:
        weight: Any shape, finite, not empty.
        bins: Number of bins.
    """
    flat = weight.reshape(-1)
    low, high = float(flat.min()), float(flat.max())
    left, right = (low, high) if high > low else (low - 0.5, low + 0.5)
    per_unit = bins / (right - left)
    counts = np.zeros(bins, dtype=np.int64)
    for block in _blocks(flat):
        places = ((block - np.float64(left)) * per_unit).astype(np.int64)
        counts += np.bincount(np.minimum(places, bins - 1), minlength=bins)
    return Histogram(counts, left, right, low, high)


def _moments(flat: FloatArray) -> tuple[float, float, float, float]:
    """Mean, standard deviation, excess kurtosis and share of outliers, in float64."""
    mean = float(flat.mean(dtype=np.float64))
    second = fourth = 0.0
    for block in _blocks(flat):
        square = (block - mean) ** 2
        second += float(square.sum())
        fourth += float((square**2).sum())
    variance = second / flat.size
    if variance <= 0:
        return mean, 0.0, 0.0, 0.0
    std = variance**0.5
    outliers = sum(int((np.abs(block - mean) > OUTLIER_SIGMAS * std).sum()) for block in _blocks(flat))
    return mean, std, fourth / flat.size / variance**2 - 3.0, outliers / flat.size


def _channel_rows(weight: FloatArray, axis: int | None) -> FloatArray:
    """One row of weights per output channel, shape [C, K]; a single row without channels."""
    if axis is None or weight.ndim < 2:
        return weight.reshape(1, -1)
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def _channel_quantiles(rows: FloatArray) -> tuple[FloatArray, ...]:
    """Smallest, 1st percentile, median, 99th percentile and largest weight per row, each [C]."""
    found = np.empty((5, len(rows)), dtype=np.float32)
    step = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):
        part = np.sort(rows[start : start + step], axis=1)
        for i, share in enumerate((0.0, 0.01, 0.5, 0.99, 1.0)):
            place = share * (part.shape[1] - 1)
            left = int(place)
            right = min(left + 1, part.shape[1] - 1)
            weight = np.float32(place - left)
            found[i, start : start + step] = part[:, left] * (1 - weight) + part[:, right] * weight
    return tuple(found)


def _sqnr_by_scheme(layer: LayerInfo, weight: FloatArray) -> dict[str, float]:
    axis = layer.channel_axis
    usual = _spread_channels(weight, axis, SQNR_ELEMENTS)
    rare = _spread_channels(weight, axis, RARE_ELEMENTS)
    by_scheme: dict[tuple[LayerScheme, int], float] = {}
    found: dict[str, float] = {}
    for name, scheme in NAMED_SCHEMES.items():
        if name == "fp32" or name not in layer.schemes:
            continue
        # Schemes that differ in their activations only share one result.
        bare = LayerScheme(
            weights=scheme.weights,
            granularity=scheme.granularity,
            group_size=scheme.group_size,
            weight_range=scheme.weight_range,
        )
        part = usual if scheme.weights.key else rare
        for bits in dict.fromkeys(weight_bits(scheme, target) for target in targets()):
            if (bare, bits) not in by_scheme:
                by_scheme[bare, bits] = _sqnr(part, scheme, axis, bits)
            found[rounding_key(name, bits)] = by_scheme[bare, bits]
    return found


def _sqnr(weight: FloatArray, scheme: LayerScheme, axis: int | None, bits: int) -> float:
    if scheme.weights.is_integer:
        rounded = quantize_weight(weight, scheme, axis, max_bits=bits).dequantized
    else:
        largest = np.float32(np.finfo(np.float16).max)
        rounded = np.clip(weight, -largest, largest).astype(np.float16).astype(np.float32)
    noise = float(np.square(weight - rounded, dtype=np.float64).sum())
    return sqnr_db(float(np.square(weight, dtype=np.float64).sum()), noise)


def _spread_channels(weight: FloatArray, axis: int | None, elements: int) -> FloatArray:
    """The weight, or evenly spread channels of a large one."""
    if axis is None or weight.ndim < 2 or weight.size <= elements:
        return weight
    channels = weight.shape[axis]
    keep = max(1, elements * channels // weight.size)
    chosen = np.unique(np.linspace(0, channels - 1, keep).astype(np.int64))
    return np.take(weight, chosen, axis=axis)


def _blocks(flat: FloatArray) -> Iterator[NDArray[np.float64]]:
    """Parts of a long vector as float64, so that temporaries stay in the cache."""
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK].astype(np.float64)
