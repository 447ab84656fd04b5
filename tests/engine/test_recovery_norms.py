"""Re-estimated normalisation: means and spreads worked out by hand, and given back at 2 and 3 bits."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP32,
    ActivationPrecision,
    Granularity,
    LayerScheme,
    Precision,
)
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.recovery.bias_targets import find_targets
from quantstudio.engine.recovery.norms import NormsSettings, match_norms
from tests.engine.quantization_cases import NetBuilder, normal, opened, outputs_of
from tests.engine.test_recovery_bias import X, branches, constant, context_of, two_products

INT2 = LayerScheme(Precision.INT2, ActivationPrecision.INT8, Granularity.PER_CHANNEL)
INT3 = LayerScheme(Precision.INT3, ActivationPrecision.INT8, Granularity.PER_CHANNEL)
INT3_PER_TENSOR = LayerScheme(Precision.INT3, ActivationPrecision.INT8, Granularity.PER_TENSOR)
WEIGHT_INT2 = LayerScheme(Precision.INT2, granularity=Granularity.PER_TENSOR)


def matched(graph, context, cancel=None, **options):
    return match_norms(
        graph, context, NormsSettings(**options), reporter=NULL_REPORTER, cancel=cancel or CancelToken()
    )


def statistics_of(model, names, feed):
    """Means and standard deviations per channel."""
    for name in names:
        model.graph.output.add(name=name)
    found = outputs_of(model, feed)[-len(names) :]
    rows = [np.moveaxis(one, 1, 0).reshape(one.shape[1], -1).astype(np.float64) for one in found]
    return [row.mean(axis=1) for row in rows], [row.std(axis=1) for row in rows]


def test_that_factor_and_shift_are_those_of_the_moments(tmp_path):
    graph = opened(two_products(), tmp_path)
    outcome = matched(graph, context_of(graph, tmp_path, uniform_recipe(WEIGHT_INT2), x=X), max_factor=100)
    # At 2 bits w1 = (1, 0.25) becomes (1, 0), and channel 1 has no spread to scale: the factor of the
    # tensor is 1. The mean of channel 1 is raised by 0.25 * 4.
    np.testing.assert_allclose(constant(outcome.graph, "w1"), [[1.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(constant(outcome.graph, "b1"), [10.0, 21.0], rtol=1e-5)
    # w2 = (2, 0.5) becomes (2, 0): the spread is 2 of 2.125 times that of x; the mean should be
    # 2 (4 + 10) + 0.5 (1 + 20) = 38.5.
    np.testing.assert_allclose(constant(outcome.graph, "w2"), [[2.125], [0.0]], atol=1e-5)
    np.testing.assert_allclose(constant(outcome.graph, "second_bias"), [38.5 - 2.125 * 14], rtol=1e-4)
    assert outcome.summary.startswith("Matched means and spreads of 2 layers: ")


@pytest.mark.parametrize("scheme", [INT2, INT3, DYNAMIC_INT8], ids=lambda scheme: scheme.label)
def test_that_means_and_spreads_become_those_of_the_float_network(tmp_path, scheme):
    graph = opened(branches(), tmp_path)
    feed = {"x": normal(40, 3, 6, 6) + 1}
    context = context_of(graph, tmp_path, uniform_recipe(scheme), **feed)
    outcome = matched(graph, context, max_factor=100)
    names = [target.output for target in find_targets(graph) if target.layer in outcome.details["spread"]]
    statistics = context.statistics(outcome.graph) if context.plan.is_static else None
    expected = statistics_of(type(graph.proto).FromString(graph.proto.SerializeToString()), names, feed)
    found = statistics_of(emit(outcome.graph, statistics, context.plan), names, feed)
    for (mean, spread), (mean_found, spread_found) in zip(
        zip(*expected, strict=True), zip(*found, strict=True), strict=True
    ):
        # Ranges are taken once more over what comes out: a few steps of eight bits are left.
        assert np.abs(mean_found - mean).max() <= 0.1 * spread.max()
        np.testing.assert_allclose(spread_found, spread, rtol=0.1)


def error(graph, outcome, context, feed):
    """Noise power of the outputs over their power."""
    made = emit(outcome, context.statistics(outcome), context.plan)
    expected = outputs_of(graph.proto, feed)[0]
    return np.sum((outputs_of(made, feed)[0] - expected) ** 2) / np.sum((expected - expected.mean(0)) ** 2)


def deep(depth=4, width=8):
    net = NetBuilder(3)
    x = "x"
    for index in range(depth):
        x = net.op("Relu", net.conv(x, f"conv{index}", 3 if not index else width, width), name=f"relu{index}")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="pool"), name="flatten")
    return net.model({"x": ["n", 3, 8, 8]}, [net.gemm(x, "head", width, 5)])


@pytest.mark.parametrize("scheme", [INT3, INT3_PER_TENSOR], ids=["per channel", "per tensor"])
def test_that_a_deep_network_at_three_bits_errs_less_than_half(tmp_path, scheme):
    graph = opened(deep(), tmp_path)
    feed = {"x": normal(32, 3, 8, 8)}
    context = context_of(graph, tmp_path, uniform_recipe(scheme), **feed)
    outcome = matched(graph, context)
    assert error(graph, outcome.graph, context, feed) < 0.5 * error(graph, graph, context, feed)


def test_that_a_channel_that_never_changes_is_not_blown_up(tmp_path):
    net = NetBuilder()
    net.constant("w", np.array([[1.0, 0.0, 0.3]], np.float32))
    net.constant("b", np.array([0.0, 5.0, 0.0], np.float32))
    graph = opened(net.model({"x": ["n", 1]}, [net.op("Gemm", "x", "w", "b", name="only")]), tmp_path)
    outcome = matched(graph, context_of(graph, tmp_path, uniform_recipe(INT2), x=X))
    np.testing.assert_allclose(constant(outcome.graph, "w"), [[1.0, 0.0, 0.3]], rtol=1e-5)
    np.testing.assert_allclose(constant(outcome.graph, "b"), [0.0, 5.0, 0.0], atol=0.02)


def test_that_a_factor_of_one_leaves_spreads_alone(tmp_path):
    graph = opened(branches(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT2), x=normal(20, 3, 6, 6))
    assert matched(graph, context, max_factor=1).details["scaled"] == 0


def test_that_float_layers_stay_as_they_are(tmp_path):
    graph = opened(two_products(), tmp_path)
    recipe = uniform_recipe(WEIGHT_INT2).assign(["second"], FP32)
    outcome = matched(graph, context_of(graph, tmp_path, recipe, x=X))
    assert list(outcome.details["spread"]) == ["first"]
    assert constant(outcome.graph, "w2").tolist() == [[2.0], [0.5]]
    nothing = matched(graph, context_of(graph, tmp_path, uniform_recipe(FP32), x=X))
    assert nothing.graph is graph
    assert nothing.summary == "No layer with a bias is quantized: nothing to match."


def test_that_the_same_inputs_give_the_same_graph(tmp_path):
    graph = opened(branches(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT3), x=normal(20, 3, 6, 6))
    assert matched(graph, context).graph.digest == matched(graph, context).graph.digest


def test_that_a_set_token_ends_it(tmp_path):
    graph = opened(branches(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT3), x=normal(20, 3, 6, 6))
    context.statistics(graph)
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        matched(graph, context, token)
