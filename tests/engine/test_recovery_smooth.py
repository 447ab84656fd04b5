"""Smoothing: factors go where nothing else sees them, outputs stay, and channels that stand out cost less."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.errors import CalibrationError, JobCancelled
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import DYNAMIC_INT8, FP32, STATIC_INT8, LayerScheme, Precision
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.recovery.smooth import SmoothSettings, smooth
from quantstudio.engine.recovery.smooth_sites import find_sites
from tests.engine.quantization_cases import NetBuilder, normal, opened, outputs_of, relative_error
from tests.engine.test_recovery_bias import context_of

WIDTH = 24
WEIGHT_INT4 = LayerScheme(Precision.INT4)


def smoothed(graph, context, cancel=None, **options):
    return smooth(
        graph, context, SmoothSettings(**options), reporter=NULL_REPORTER, cancel=cancel or CancelToken()
    )


def norm(net, x, name, outlier=1.0, shared=""):
    gain = np.ones(WIDTH, np.float32)
    gain[[3, 11]] = outlier
    scale = shared or net.constant(f"{name}.gain", gain)
    shift = net.constant(f"{name}.shift", (normal(WIDTH, seed=5) * 0.1).astype(np.float32))
    return net.op("LayerNormalization", x, scale, shift, name=name)


def block(outlier=60.0):
    """One head of attention and a perceptron behind norms whose channels 3 and 11 stand out."""
    net = NetBuilder(2)
    h = norm(net, "x", "norm1", outlier)
    query, key, value = (net.matmul(h, name, WIDTH, WIDTH) for name in ("query", "key", "value"))
    scores = net.op("MatMul", query, net.op("Transpose", key, name="swap", perm=[0, 2, 1]), name="scores")
    mixed = net.op("MatMul", net.op("Softmax", scores, name="softmax"), value, name="mix")
    x = net.op("Add", net.matmul(mixed, "out", WIDTH, WIDTH), "x", name="add1")
    up = net.matmul(norm(net, x, "norm2", outlier), "up", WIDTH, 40)
    hidden = net.op("Relu", net.op("Add", up, net.weight("up.b", 40), name="up_bias"), name="relu")
    x = net.op("Add", net.matmul(hidden, "down", 40, WIDTH), x, name="add2")
    for tensor in net.initializers:
        if tensor.name in ("query.w", "key.w", "value.w", "up.w"):
            # What reads a channel that stands out has small weights for it, as in trained networks.
            weight = np.frombuffer(tensor.raw_data, np.float32).reshape(tensor.dims).copy()
            weight[[3, 11]] *= 2 / outlier
            tensor.raw_data = weight.tobytes()
    return net.model({"x": ["n", 6, WIDTH]}, [x])


FEED = {"x": normal(24, 6, WIDTH)}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield opened(block(), tmp_path_factory.mktemp("net"))


def test_that_sites_are_what_nothing_but_products_reads(graph):
    sites = {site.tensor: site for site in find_sites(graph)}
    found = {name: [layer.name for layer, _ in site.readers] for name, site in sites.items()}
    assert found == {
        "norm1_out": ["query", "key", "value"], "mix_out": ["out"], "norm2_out": ["up"], "relu_out": ["down"]
    }  # fmt: skip
    producers = {name: {slot.node for slot in site.producers} for name, site in sites.items()}
    assert producers == {
        "norm1_out": {"norm1"}, "mix_out": set(), "norm2_out": {"norm2"}, "relu_out": {"up", "up_bias"}
    }  # fmt: skip
    assert sites["relu_out"].source == "up"


@pytest.mark.parametrize("scheme", [DYNAMIC_INT8, STATIC_INT8], ids=["dynamic", "static"])
def test_that_channels_that_stand_out_cost_less_than_a_third(graph, tmp_path, scheme):
    context = context_of(graph, tmp_path, uniform_recipe(scheme), **FEED)
    outcome = smoothed(graph, context)
    assert outcome.details["smoothed"] >= 2
    assert outcome.details["skipped"] == 1
    expected = outputs_of(graph.proto, FEED)[0]
    np.testing.assert_allclose(outputs_of(outcome.graph.proto, FEED)[0], expected, rtol=1e-4, atol=1e-4)
    error = {}
    for one in (graph, outcome.graph):
        statistics = context.statistics(one) if scheme.is_static else None
        error[one] = relative_error(expected, outputs_of(emit(one, statistics, context.plan), FEED)[0])
    assert error[outcome.graph] < error[graph] / 1.7  # of amplitudes: a third of the power
    for name, before in outcome.details["error_before"].items():
        assert outcome.details["error_after"][name] <= before


def test_that_the_rows_of_large_activations_are_protected_where_weights_alone_are_rounded(graph, tmp_path):
    context = context_of(graph, tmp_path, uniform_recipe(WEIGHT_INT4), **FEED)
    outcome = smoothed(graph, context)
    expected = outputs_of(graph.proto, FEED)[0]
    before, after = (
        relative_error(expected, outputs_of(emit(one, None, context.plan), FEED)[0])
        for one in (graph, outcome.graph)
    )
    assert after < 0.8 * before


def test_that_a_gate_a_mul_and_a_transposed_product_take_factors(tmp_path):
    net = NetBuilder(4)
    scale = np.ones(WIDTH, np.float32)
    scale[5] = 80
    x = net.op("Mul", "x", net.constant("scale", scale), name="scaled")
    gate = net.op("Sigmoid", net.matmul(x, "gate", WIDTH, 16), name="sigmoid")
    x = net.op("Mul", gate, net.matmul(x, "up", WIDTH, 16), name="gated")
    y = net.op("Reshape", x, net.constant("shape", np.array([-1, 16])), name="flat")
    del y
    graph = opened(net.model({"x": ["n", WIDTH]}, [net.gemm(x, "down", 16, 4, transB=1)]), tmp_path)
    sites = {site.tensor: site for site in find_sites(graph)}
    assert {slot.node for slot in sites["scaled_out"].producers} == {"scaled"}
    assert sites["gated_out"].source == "up"
    feed = {"x": normal(32, WIDTH)}
    outcome = smoothed(graph, context_of(graph, tmp_path, uniform_recipe(DYNAMIC_INT8), **feed))
    assert outcome.details["strength"]["scaled_out"] > 0
    expected = outputs_of(graph.proto, feed)[0]
    np.testing.assert_allclose(outputs_of(outcome.graph.proto, feed)[0], expected, rtol=1e-4, atol=1e-4)


def test_that_a_gain_two_norms_share_is_parted(tmp_path):
    net = NetBuilder(4)
    gain = np.ones(WIDTH, np.float32)
    gain[2] = 60
    net.constant("gain", gain)
    first = net.matmul(norm(net, "x", "norm1", shared="gain"), "first", WIDTH, WIDTH)
    second = net.matmul(norm(net, first, "norm2", shared="gain"), "second", WIDTH, 4)
    graph = opened(net.model({"x": ["n", WIDTH]}, [second]), tmp_path)
    feed = {"x": normal(32, WIDTH)}
    outcome = smoothed(graph, context_of(graph, tmp_path, uniform_recipe(DYNAMIC_INT8), **feed))
    assert outcome.details["smoothed"] == 2
    expected = outputs_of(graph.proto, feed)[0]
    np.testing.assert_allclose(outputs_of(outcome.graph.proto, feed)[0], expected, rtol=1e-4, atol=1e-4)


def test_that_even_channels_and_float_layers_are_left_alone(graph, tmp_path):
    even = opened(block(outlier=1.0), tmp_path)
    outcome = smoothed(even, context_of(even, tmp_path, uniform_recipe(FP32), **FEED))
    assert outcome.graph is even
    assert outcome.summary == "Found no activation of a quantized product to smooth."
    again = smoothed(graph, context_of(graph, tmp_path, uniform_recipe(DYNAMIC_INT8), **FEED))
    twice = smoothed(graph, context_of(graph, tmp_path, uniform_recipe(DYNAMIC_INT8), **FEED))
    assert again.graph.digest == twice.graph.digest


def test_that_an_activation_that_is_nan_is_named(tmp_path):
    net = NetBuilder()
    logs = norm(net, net.op("Log", "x", name="log"), "norm1")
    graph = opened(net.model({"x": ["n", WIDTH]}, [net.matmul(logs, "last", WIDTH, 4)]), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(DYNAMIC_INT8), x=normal(8, WIDTH))
    with pytest.raises(CalibrationError, match="activation 'norm1_out' holds NaN or infinity"):
        smoothed(graph, context)


def test_that_a_set_token_ends_it(graph, tmp_path):
    context = context_of(graph, tmp_path, uniform_recipe(DYNAMIC_INT8), **FEED)
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        smoothed(graph, context, token)
