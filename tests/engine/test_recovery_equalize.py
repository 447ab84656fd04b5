"""Equalization: numbers worked out by hand, and networks that compute the same afterwards."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.graph.channel_limits import is_limit
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.recovery.equalize import EqualizeSettings, equalize
from quantstudio.engine.recovery.pairs import find_pairs
from tests.engine.quantization_cases import (
    NetBuilder,
    normal,
    opened,
    optimized_ops,
    outputs_of,
    statistics_of,
)
from tests.engine.recipe_builds import emit_with_plan

CONTEXT = StepContext(EffectivePlan({}))


def equalized(graph, **options):
    return equalize(graph, CONTEXT, EqualizeSettings(**options), reporter=NULL_REPORTER, cancel=CancelToken())


def weight(graph, name):
    return next(as_array(t) for t in graph.proto.graph.initializer if t.name == name)


def two_products():
    """x [., 1] -> Gemm [1, 2] -> Relu -> Gemm [2, 1]."""
    net = NetBuilder()
    net.constant("w1", np.array([[8.0, 0.5]], np.float32))
    net.constant("b1", np.array([4.0, 1.0], np.float32))
    net.constant("w2", np.array([[2.0], [2.0]], np.float32))
    hidden = net.op("Gemm", "x", "w1", "b1", name="first")
    net.op("Gemm", net.op("Relu", hidden, name="relu"), "w2", name="second")
    return net.model({"x": ["n", 1]}, ["second_out"])


def test_that_the_factors_are_those_of_equation_11(tmp_path):
    # r1 = (8, 0.5), r2 = (2, 2): s = sqrt(r1 r2) / r2 = (2, 0.5), both ranges become (4, 1).
    outcome = equalized(opened(two_products(), tmp_path))
    assert weight(outcome.graph, "w1").tolist() == [[4.0, 1.0]]
    assert weight(outcome.graph, "b1").tolist() == [2.0, 2.0]
    assert weight(outcome.graph, "w2").tolist() == [[4.0], [1.0]]
    assert outcome.details["largest_factor"] == pytest.approx(2.0)
    assert outcome.summary == (
        "Evened out 1 pair of layers: the widest channel was 16 times the narrowest, "
        "and is 4 times now (median)."
    )


def test_that_a_factor_stays_within_its_bound(tmp_path):
    outcome = equalized(opened(two_products(), tmp_path), max_factor=1.25)
    np.testing.assert_allclose(weight(outcome.graph, "w1"), [[6.4, 0.625]], rtol=1e-6)


def test_that_a_channel_that_is_zero_stays_as_it_is(tmp_path):
    model = two_products()
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.array([[8.0, 0.0]], np.float32), "w1")
    )
    outcome = equalized(opened(model, tmp_path))
    assert weight(outcome.graph, "w1").tolist() == [[4.0, 0.0]]
    assert weight(outcome.graph, "b1").tolist() == [2.0, 1.0]
    assert weight(outcome.graph, "w2").tolist() == [[4.0], [2.0]]


def test_that_an_equal_network_is_the_same_graph(tmp_path):
    once = equalized(opened(two_products(), tmp_path)).graph
    again = equalized(once)
    assert again.graph is once
    assert again.summary == "Found nothing to even out: the graph is as it was."


def uneven(rng, *shape, axis=0):
    """Weights whose channels differ by orders of magnitude."""
    spread = [1] * len(shape)
    spread[axis] = shape[axis]
    factors = np.exp(rng.normal(size=spread) * 1.5)
    return (rng.normal(size=shape) * factors / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def scaled_weights(net, seed=0):
    """The weights of a net with uneven channels."""
    rng = np.random.default_rng(seed)
    for tensor in net.initializers:
        if tensor.name.endswith(".w"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(uneven(rng, *tensor.dims), tensor.name))


def clipped(net, x, name, high=6.0):
    low = f"{name}.low"
    net.constant(low, np.float32(0))
    return net.op("Clip", x, low, net.constant(f"{name}.high", np.float32(high)), name=name)


def mobile_net(tail="Conv"):
    """Convolution, depthwise convolution, convolution, with limits between: an inverted residual's inside."""
    net = NetBuilder()
    x = clipped(net, net.conv("x", "expand", 3, 8, kernel=1), "six1")
    x = clipped(net, net.conv(x, "depth", 8, 8, group=8), "six2", high=2.0)
    x = net.conv(x, "project", 8, 4, kernel=1)
    scaled_weights(net)
    return net.model({"x": ["n", 3, 6, 6]}, [x]), {"x": normal(2, 3, 6, 6)}, 2


def pooled_head():
    net = NetBuilder()
    x = net.op("Relu", net.conv("x", "last", 3, 6), name="relu")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="pool"), name="flatten")
    x = net.gemm(x, "head", 6, 5, transB=1)
    scaled_weights(net)
    return net.model({"x": ["n", 3, 6, 6]}, [x]), {"x": normal(2, 3, 6, 6)}, 1


def flattened_maps():
    net = NetBuilder()
    x = net.op("LeakyRelu", net.conv("x", "last", 3, 6), name="leaky", alpha=0.1)
    x = net.op("MaxPool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = net.gemm(net.op("Flatten", x, name="flatten"), "head", 54, 5)
    scaled_weights(net)
    return net.model({"x": [2, 3, 6, 6]}, [x]), {"x": normal(2, 3, 6, 6)}, 1


def products():
    net = NetBuilder()
    x = net.op("Add", net.matmul("x", "up", 8, 16), net.weight("up.bias", 16), name="add")
    slope = net.constant("slope", np.array([0.2], np.float32))
    x = net.matmul(net.op("PRelu", x, slope, name="prelu"), "down", 16, 8)
    scaled_weights(net)
    return net.model({"x": ["n", 5, 8]}, [x]), {"x": normal(2, 5, 8)}, 1


def grouped():
    net = NetBuilder()
    x = net.op("Relu", net.conv("x", "first", 4, 8), name="relu")
    x = net.conv(x, "second", 8, 6, group=2)
    scaled_weights(net)
    return net.model({"x": ["n", 4, 5, 5]}, [x]), {"x": normal(2, 4, 5, 5)}, 1


def transposed():
    net = NetBuilder()
    x = net.op("Relu", net.conv("x", "first", 4, 8), name="relu")
    x = net.op("ConvTranspose", x, net.weight("up.w", 8, 6, 3, 3), net.weight("up.b", 6), name="up")
    x = net.conv(net.op("Relu", x, name="relu2"), "second", 6, 5)
    scaled_weights(net)
    return net.model({"x": ["n", 4, 5, 5]}, [x]), {"x": normal(2, 4, 5, 5)}, 2


CASES = [mobile_net, pooled_head, flattened_maps, products, grouped, transposed]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_that_the_float_network_computes_the_same(tmp_path, make):
    model, feed, pairs = make()
    graph = opened(model, tmp_path)
    outcome = equalized(graph)
    assert outcome.details["pairs"] == pairs
    expected, found = outputs_of(graph.proto, feed)[0], outputs_of(outcome.graph.proto, feed)[0]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    onnx.checker.check_model(outcome.graph.proto, full_check=True)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_that_both_sides_of_every_pair_end_with_the_same_ranges(tmp_path, make):
    graph = equalized(opened(make()[0], tmp_path), tolerance=1e-6).graph
    # A limit per channel hides the pair from a second look.
    for node in [node for node in graph.proto.graph.node if is_limit(node)]:
        node.op_type = "Relu"
        del node.input[1:]
    for pair in find_pairs(graph):
        first = pair.out.ranges(weight(graph, pair.out.weight).astype(np.float64))
        second = pair.into.ranges(weight(graph, pair.into.weight).astype(np.float64))
        np.testing.assert_allclose(first, second, rtol=1e-4)


@given(st.integers(0, 10_000), st.floats(0.1, 30.0))
@settings(max_examples=15)
def test_that_limits_move_with_their_channels(tmp_path_factory, seed, high):
    net = NetBuilder(seed)
    x = clipped(net, net.conv("x", "a", 3, 4), "clip", high)
    x = net.conv(x, "b", 4, 2)
    scaled_weights(net, seed)
    graph = opened(net.model({"x": ["n", 3, 4, 4]}, [x]), tmp_path_factory.mktemp("net"))
    feed = {"x": 4 * normal(3, 3, 4, 4)}
    outcome = equalized(graph)
    expected, found = outputs_of(graph.proto, feed)[0], outputs_of(outcome.graph.proto, feed)[0]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def shared_between(net):
    hidden = net.op("Relu", net.conv("x", "a", 3, 4), name="relu")
    return net.op("Add", net.conv(hidden, "b", 4, 4), hidden, name="sum")


def output_between(net):
    net.op("Relu", net.conv("x", "a", 3, 4), name="relu")
    return net.conv("relu_out", "b", 4, 4)


def curved_between(net):
    return net.conv(net.op("Sigmoid", net.conv("x", "a", 3, 4), name="s"), "b", 4, 4)


def limits_off_zero(net):
    low, high = net.constant("low", np.float32(-1)), net.constant("high", np.float32(1))
    return net.conv(net.op("Clip", net.conv("x", "a", 3, 4), low, high, name="clip"), "b", 4, 4)


def tied_weights(net):
    x = net.op("Relu", net.conv("x", "a", 3, 3), name="relu")
    return net.op("Conv", x, "a.w", name="b", pads=[1, 1, 1, 1])


@pytest.mark.parametrize(
    "make",
    [shared_between, output_between, curved_between, limits_off_zero, tied_weights],
    ids=lambda make: make.__name__,
)
def test_that_nothing_moves_where_somebody_would_notice(tmp_path, make):
    net = NetBuilder()
    outputs = [make(net)] + (["relu_out"] if make is output_between else [])
    graph = opened(net.model({"x": ["n", 3, 4, 4]}, outputs), tmp_path)
    assert find_pairs(graph) == ()
    assert equalized(graph).graph is graph


def test_that_a_bias_that_another_layer_reads_is_copied(tmp_path):
    net = NetBuilder()
    hidden = net.op("Relu", net.conv("x", "a", 3, 4), name="relu")
    x = net.op("Conv", hidden, net.weight("b.w", 4, 4, 3, 3), "a.b", name="b", pads=[1] * 4)
    scaled_weights(net)
    graph = opened(net.model({"x": ["n", 3, 4, 4]}, [x]), tmp_path)
    feed = {"x": normal(2, 3, 4, 4)}
    found = outputs_of(equalized(graph).graph.proto, feed)[0]
    np.testing.assert_allclose(found, outputs_of(graph.proto, feed)[0], rtol=1e-4, atol=1e-4)


def test_that_integer_kernels_are_the_same_without_the_limits(tmp_path):
    model, feed, _ = mobile_net()
    graph = opened(model, tmp_path)
    plain = emit_with_plan(graph, statistics_of(graph, feed), uniform_recipe(STATIC_INT8))
    after = equalized(graph).graph
    emission = emit_with_plan(after, statistics_of(after, feed), uniform_recipe(STATIC_INT8))
    assert emission.unlimited == ("expand", "depth")
    assert optimized_ops(emission.model, tmp_path) == optimized_ops(plain.model, tmp_path)


def test_that_exact_limits_stay_in_the_integer_form(tmp_path):
    model, feed, _ = mobile_net()
    after = equalized(opened(model, tmp_path), exact_limits=True).graph
    emission = emit_with_plan(after, statistics_of(after, feed), uniform_recipe(STATIC_INT8))
    assert emission.unlimited == ()
    assert optimized_ops(emission.model, tmp_path).count("Min") == 2


def test_that_a_limit_before_a_float_layer_stays(tmp_path):
    model, feed, _ = mobile_net()
    after = equalized(opened(model, tmp_path)).graph
    recipe = uniform_recipe(STATIC_INT8).assign(["project"], uniform_recipe("fp32").rules[0].scheme)
    emission = emit_with_plan(after, statistics_of(after, feed), recipe)
    assert emission.unlimited == ("expand",)


def test_that_the_derived_graph_says_what_was_done(tmp_path):
    graph = opened(two_products(), tmp_path)
    outcome = equalized(graph)
    assert outcome.graph.digest != graph.digest
    assert outcome.graph.summary.source_path == graph.summary.source_path
    assert outcome.graph.summary.notes[-1] == outcome.summary
    assert [layer.name for layer in outcome.graph.layers] == [layer.name for layer in graph.layers]


def test_that_a_layer_without_a_bias_is_scaled_as_well(tmp_path):
    net = NetBuilder()
    x = net.op("Relu", net.conv("x", "a", 3, 4, bias=False), name="relu")
    x = net.conv(x, "b", 4, 2)
    scaled_weights(net)
    graph = opened(net.model({"x": ["n", 3, 4, 4]}, [x]), tmp_path)
    feed = {"x": normal(2, 3, 4, 4)}
    found = outputs_of(equalized(graph).graph.proto, feed)[0]
    np.testing.assert_allclose(found, outputs_of(graph.proto, feed)[0], rtol=1e-4, atol=1e-4)
