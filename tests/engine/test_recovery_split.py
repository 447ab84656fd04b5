"""Splitting of outlier channels: outputs that stay, halves that round apart, growth within its bound."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import FP32, Granularity, LayerScheme, Precision, WeightRange
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.recovery.split import SplitSettings, split_outliers
from tests.engine.quantization_cases import NetBuilder, normal, opened, outputs_of, relative_error
from tests.engine.test_recovery_bias import constant

INT4_PER_TENSOR = LayerScheme(
    Precision.INT4, granularity=Granularity.PER_TENSOR, weight_range=WeightRange.MINMAX
)


def split(graph, scheme=INT4_PER_TENSOR, cancel=None, **options):
    context = StepContext(resolve(uniform_recipe(scheme), graph.layers))
    return split_outliers(
        graph, context, SplitSettings(**options), reporter=NULL_REPORTER, cancel=cancel or CancelToken()
    )


def with_outlier(net, name, channel, axis, factor=6.0):
    """Make one input channel of a weight stand out."""
    tensor = next(one for one in net.initializers if one.name == name)
    value = onnx.numpy_helper.to_array(tensor).copy()
    place = [0] * value.ndim
    place[axis] = channel
    value[tuple(place)] = factor * np.abs(value).max()
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))


def products(transposed=0):
    net = NetBuilder(2)
    x = net.op("Relu", net.gemm("x", "first", 8, 20), name="relu")
    y = net.gemm(x, "second", 20, 12, transB=transposed)
    with_outlier(net, "second.w", 7, 1 if transposed else 0)
    return net.model({"x": ["n", 8]}, [y]), {"x": normal(40, 8)}


def convolutions():
    net = NetBuilder(2)
    x = net.op("Relu", net.conv("x", "first", 3, 20), name="relu")
    x = net.op("MaxPool", net.conv(x, "second", 20, 6), name="pool", kernel_shape=[2, 2], strides=[2, 2])
    y = net.gemm(net.op("Flatten", x, name="flat"), "head", 54, 5, transB=1)
    with_outlier(net, "second.w", 7, 1)
    with_outlier(net, "head.w", 20, 1, factor=20.0)
    return net.model({"x": [2, 3, 6, 6]}, [y]), {"x": normal(2, 3, 6, 6)}


@pytest.mark.parametrize(
    ("case", "least"),
    [(products(), 0.75), (products(transposed=1), 0.75), (convolutions(), 0.9)],
    ids=["products", "transposed", "convolutions"],
)
def test_that_outputs_stay_and_err_less_where_a_weight_stands_out(tmp_path, case, least):
    model, feed = case
    graph = opened(model, tmp_path)
    outcome = split(graph)
    assert outcome.details["layers"] >= 1
    expected = outputs_of(graph.proto, feed)[0]
    np.testing.assert_allclose(outputs_of(outcome.graph.proto, feed)[0], expected, rtol=1e-5, atol=2e-5)
    before, after = (
        relative_error(
            expected,
            outputs_of(emit(one, None, resolve(uniform_recipe(INT4_PER_TENSOR), one.layers)), feed)[0],
        )
        for one in (graph, outcome.graph)
    )
    assert after < least * before
    assert split(graph).graph.digest == outcome.graph.digest


def test_that_a_channel_is_written_twice_and_read_in_halves(tmp_path):
    model, _ = products()
    graph = opened(model, tmp_path)
    outcome = split(graph)
    assert outcome.details["added"] == {"second": 1}
    old, new = (constant(one, "second.w") for one in (graph, outcome.graph))
    np.testing.assert_allclose(new[7] + new[20], old[7], rtol=1e-5, atol=1e-6)
    # A quarter of a step either way: the step after the first halving is what was largest over 7.
    np.testing.assert_allclose(new[20] - new[7], np.full(12, np.abs(old).max() / 7 / 2), rtol=1e-4)
    assert np.array_equal(constant(outcome.graph, "first.w")[:, 20], constant(graph, "first.w")[:, 7])
    assert constant(outcome.graph, "first.b")[20] == constant(graph, "first.b")[7]


def test_that_growth_keeps_to_its_bound(tmp_path):
    model, _ = convolutions()
    outcome = split(opened(model, tmp_path), ratio=0.2)
    assert 1 <= outcome.details["added"]["second"] <= 4


def test_that_float_layers_and_even_weights_are_left_alone(tmp_path):
    model, _ = products()
    graph = opened(model, tmp_path)
    assert split(graph, FP32).graph is graph
    net = NetBuilder(2)
    net.constant("ones", np.ones((20, 12), np.float32))
    x = net.op("Relu", net.gemm("x", "first", 8, 20), name="relu")
    even = opened(net.model({"x": ["n", 8]}, [net.op("MatMul", x, "ones", name="second")]), tmp_path)
    outcome = split(even)
    assert outcome.graph is even
    assert outcome.summary == "Of 1 layer none gains from splitting: the graph is as it was."


def test_that_a_set_token_ends_it(tmp_path):
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        split(opened(products()[0], tmp_path), cancel=token)
