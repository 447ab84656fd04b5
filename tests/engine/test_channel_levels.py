"""Levels of one output channel: those of the quantizer that builds files, and how many weights take each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import FP32, STATIC_INT8, Granularity, LayerScheme, Precision, WeightRange
from quantstudio.engine.analysis.levels import channel_levels as levels_behind
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.quantization.weights import quantize_weight
from quantstudio.engine.tasks.levels import channel_levels
from tests.engine.quantization_cases import NetBuilder, opened


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    net = NetBuilder()
    return opened(
        net.model({"x": ["n", 3, 8, 8]}, [net.conv("x", "stem", 3, 8)]), tmp_path_factory.mktemp("net")
    )


def found(graph, scheme, channel=2, **more):
    path = graph.summary.graph_path
    return channel_levels(graph_path=path, layer="stem", scheme=to_json(scheme), channel=channel, **more)


def weight_of(graph):
    (layer,) = [one for one in graph.layers if one.name == "stem"]
    tensors = graph.proto.graph.initializer
    return layer, next(as_array(one) for one in tensors if one.name == layer.weight_name)


@pytest.mark.parametrize(
    ("weights", "granularity", "count"),
    [
        (Precision.INT2, Granularity.PER_CHANNEL, 4),
        (Precision.INT3, Granularity.PER_TENSOR, 8),
        (Precision.CODEBOOK2, Granularity.PER_CHANNEL, 4),
        (Precision.TERNARY, Granularity.PER_CHANNEL, 3),
    ],
)
def test_that_levels_are_those_weights_have_in_the_file(graph, weights, granularity, count):
    scheme = LayerScheme(weights, granularity=granularity, weight_range=WeightRange.MSE)
    levels = found(graph, scheme)
    layer, weight = weight_of(graph)
    values = quantize_weight(weight, scheme, layer.channel_axis).dequantized[2].ravel()
    assert len(levels.levels) == len(levels.codes) == count
    np.testing.assert_allclose(sorted({*values.tolist()}), [
        level for level, taken in zip(levels.levels, levels.taken, strict=True) if taken
    ], rtol=1e-6)  # fmt: skip
    assert sum(levels.taken) == sum(levels.counts) == values.size
    noise = np.square(weight[2].ravel() - values).mean() / np.square(weight[2]).mean()
    assert levels.sqnr_db == pytest.approx(-10 * np.log10(noise), rel=1e-5)
    assert levels.channels == 8
    assert levels.histogram.total == values.size


def test_that_behind_steps_levels_are_those_the_steps_wrote(graph):
    scheme = LayerScheme(Precision.INT2, granularity=Granularity.PER_CHANNEL, weight_range=WeightRange.MSE)
    layer, weight = weight_of(graph)
    chosen = np.float32(0.25) * np.clip(np.round(weight / 0.5), -2, 1).astype(np.float32)
    chosen[2].flat[0] = -0.5
    proto = type(graph.proto)()
    proto.CopyFrom(graph.proto)
    (tensor,) = [one for one in proto.graph.initializer if one.name == layer.weight_name]
    tensor.raw_data = chosen.tobytes()
    written = Graph(proto, graph.summary)
    levels = levels_behind(graph, "stem", scheme, 2, written=written)
    np.testing.assert_allclose(levels.levels, [-0.5, -0.25, 0.0, 0.25], rtol=1e-6)
    assert levels.counts == found(graph, scheme).counts, "the weights are those that were rounded"


def test_that_a_kernel_of_fewer_bits_has_fewer_levels(graph):
    assert len(found(graph, STATIC_INT8).levels) == 255
    assert len(found(graph, STATIC_INT8, max_bits=7).levels) == 127


def test_that_what_has_no_levels_says_so(graph):
    grouped = replace(STATIC_INT8, granularity=Granularity.PER_GROUP)
    for scheme, channel, text in (
        (FP32, 0, "only on an integer grid"),
        (grouped, 0, "only on an integer grid"),
        (STATIC_INT8, 8, "8 output channels"),
    ):
        with pytest.raises(RecipeError, match=text):
            found(graph, scheme, channel)
