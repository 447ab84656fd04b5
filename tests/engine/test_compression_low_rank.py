"""Layers written as two: forms, names, budgets, what recipes say of them, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import CalibrationError, JobCancelled, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import FP32, Precision
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.steps import Step
from quantstudio.engine.compression.low_rank import factor_layers
from quantstudio.engine.compression.low_rank_settings import LowRankSettings, Metric, RankBy
from quantstudio.engine.pipeline.runner import StepInputs, prepare
from quantstudio.engine.quantization.emit import emit
from tests.engine.quantization_cases import NetBuilder, normal, opened, outputs_of, relative_error
from tests.engine.recovery_cases import Told, context_of

HAND = {"by": RankBy.RANK, "metric": Metric.OUTPUTS, "round_to": 1}


def low(rows, columns, rank, seed):
    return normal(rows, rank, seed=seed) @ normal(rank, columns, seed=seed + 1) / np.float32(rank)


def products():
    """x [n, 5, 12] -> MatMul of rank 3 -> Add -> Relu -> MatMul in front of the data -> Gemm of rank 2."""
    net = NetBuilder(3)
    net.constant("a.weight", low(12, 16, 3, 1))
    x = net.op("Add", net.op("MatMul", "x", "a.weight", name="a"), net.weight("a.bias", 16), name="a_bias")
    x = net.op("Relu", x, name="relu")
    net.constant("left", low(9, 5, 2, 3))
    x = net.op("MatMul", "left", x, name="left")
    x = net.op("Flatten", x, name="flat", axis=1)
    net.constant("c.weight", low(10, 144, 2, 5))
    y = net.op("Gemm", x, "c.weight", net.weight("c.bias", 10), name="c", transB=1, alpha=0.5, beta=2.0)
    return net.model({"x": ["n", 5, 12]}, [y])


def convolutions(**attributes):
    """x [n, 8, 9, 9] -> Conv 3x3 of two lines -> Conv 1x1 of rank 3 -> Conv 3x3 of rank 2."""
    net = NetBuilder(5)
    lines = np.einsum("rci,orj->ocij", normal(2, 8, 3, seed=1), normal(12, 2, 3, seed=2))
    net.constant("a.weight", lines.astype(np.float32))
    x = net.op("Conv", "x", "a.weight", net.weight("a.bias", 12), name="a", kernel_shape=[3, 3], **attributes)
    net.constant("b.weight", low(16, 12, 3, 3)[..., None, None])
    x = net.op("Conv", x, "b.weight", name="b")
    net.constant("c.weight", low(10, 144, 2, 5).reshape(10, 16, 3, 3))
    y = net.op("Conv", x, "c.weight", name="c", pads=[1, 1, 1, 1], dilations=[1, 1])
    return net.model({"x": ["n", 8, 9, 9]}, [y])


def factored(graph, folder, told=NULL_REPORTER, cancel=None, samples=24, **settings):
    context = context_of(graph, folder, "weight-int8", samples)
    token = cancel or CancelToken()
    return factor_layers(graph, context, LowRankSettings(**settings), reporter=told, cancel=token)


def shapes(graph):
    return {layer.name: layer.weight_shape for layer in graph.layers}


def test_that_products_of_known_rank_compute_the_same_as_two(tmp_path):
    graph = opened(products(), tmp_path)
    told = Told()
    outcome = factored(graph, tmp_path, told, rank=3, **HAND)
    assert shapes(outcome.graph) == {
        "a::factor": (12, 3),
        "a": (3, 16),
        "left::factor": (3, 5),
        "left": (9, 3),
        "c::factor": (3, 144),
        "c": (10, 3),
    }
    feed = {"x": normal(7, 5, 12, seed=9)}
    assert relative_error(outputs_of(graph.proto, feed)[0], outputs_of(outcome.graph.proto, feed)[0]) < 1e-5
    assert {one.layer for one in told.layers} == set(outcome.details["layers"])
    assert all(one.after is not None and one.after < 1e-6 for one in told.layers)
    assert factored(graph, tmp_path, rank=3, **HAND).graph.digest == outcome.graph.digest


@pytest.mark.parametrize(
    "attributes",
    [{}, {"pads": [1, 0, 2, 1], "strides": [2, 1]}, {"auto_pad": "SAME_UPPER"}, {"dilations": [2, 3]}],
    ids=["plain", "pads and strides", "auto pad", "dilations"],
)
def test_that_convolutions_of_known_rank_compute_the_same_as_two(tmp_path, attributes):
    graph = opened(convolutions(**attributes), tmp_path)
    outcome = factored(graph, tmp_path, by=RankBy.ENERGY, energy=0.999999, metric=Metric.OUTPUTS, round_to=1)
    found = {name: (one["form"], one["rank"]) for name, one in outcome.details["layers"].items()}
    assert found == {"a": ("lines", 2), "b": ("matrix", 3), "c": ("matrix", 2)}
    assert shapes(outcome.graph)["a::factor"] == (2, 8, 3, 1)
    assert shapes(outcome.graph)["a"] == (12, 2, 1, 3)
    assert shapes(outcome.graph)["c::factor"] == (2, 16, 3, 3)
    assert shapes(outcome.graph)["c"] == (10, 2, 1, 1)
    feed = {"x": normal(3, 8, 9, 9, seed=9)}
    assert relative_error(outputs_of(graph.proto, feed)[0], outputs_of(outcome.graph.proto, feed)[0]) < 1e-4


def classifier():
    net = NetBuilder(11)
    x = net.op("Relu", net.gemm("x", "a", 24, 48), name="relu_a")
    x = net.op("Relu", net.gemm(x, "b", 48, 40), name="relu_b")
    return net.model({"x": ["n", 24]}, [net.gemm(x, "c", 40, 6)])


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield opened(classifier(), folder), folder


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("by", [RankBy.PARAMETERS, RankBy.MACS])
def test_that_a_budget_is_kept_and_nearly_used_up(net, by, metric):
    graph, folder = net
    outcome = factored(graph, folder, by=by, share=0.7, metric=metric, round_to=1)
    weights = [layer.weight_shape[0] * layer.weight_shape[1] for layer in outcome.graph.layers]
    whole = 24 * 48 + 48 * 40 + 40 * 6
    assert 0.66 * whole < sum(weights) <= 0.7 * whole
    assert sum(weights) == outcome.details["parameters"][1]
    layers = graph.layers
    assert sum(one.macs for one in outcome.graph.layers) == sum(weights) < sum(one.macs for one in layers)


def test_that_whitened_factors_err_less_than_singular_values_alone(net):
    graph, folder = net
    told = Told()
    factored(graph, folder, told, rank=8, by=RankBy.RANK)
    assert all(one.after is not None and one.after < one.before for one in told.layers)
    assert [one.layer for one in told.layers] == ["a", "b"]  # `c` would have 8 (40 + 6) weights, not 240


def test_that_layers_too_wide_to_be_weighed_count_by_their_outputs(net, monkeypatch):
    graph, folder = net
    monkeypatch.setattr("quantstudio.engine.compression.low_rank_run._METRIC_BYTES", 1000)
    outcome = factored(graph, folder, share=0.7, round_to=1)
    assert "Errors count by the power of outputs" in outcome.summary
    plain = factored(graph, folder, share=0.7, round_to=1, metric=Metric.OUTPUTS)
    assert plain.details["layers"] == outcome.details["layers"]


def test_that_layers_are_named_or_kept_by_hand(net):
    graph, folder = net
    assert list(factored(graph, folder, rank=4, layers="b, c*", **HAND).details["layers"]) == ["b", "c"]
    assert list(factored(graph, folder, rank=4, keep="b", **HAND).details["layers"]) == ["a", "c"]
    unchanged = factored(graph, folder, rank=40, **HAND)
    assert unchanged.graph is graph
    assert "nowhere cheaper" in unchanged.summary


def test_that_rules_naming_a_layer_hold_for_both_of_its_factors(net):
    graph, folder = net
    graph = factored(graph, folder, rank=4, layers="a", **HAND).graph
    int8, int4 = NAMED_SCHEMES["weight-int8"], NAMED_SCHEMES["weight-int4"]
    for name in ("a", "a*", "?"):
        recipe = Recipe((LayerRule(int8), LayerRule(int4, (name,))))
        plan = resolve(recipe, graph.layers)
        assert plan.schemes["a"] == plan.schemes["a::factor"] == int4
        assert {layer.name: recipe.asked_scheme(layer) for layer in graph.layers} == dict(plan.asked)
    # One of the two by its own name, before the step has made it, and behind it.
    apart = Recipe((LayerRule(int8), LayerRule(int4, ("a",)), LayerRule(FP32, ("a::factor",))))
    assert resolve(apart, graph.layers).schemes["a::factor"] == FP32
    assert resolve(apart, net[0].layers).schemes["a"] == int4
    with pytest.raises(RecipeError, match="'d::factor', which is not in this model"):
        resolve(Recipe((LayerRule(int4, ("d::factor",)),)), graph.layers)


def test_that_a_recipe_quantizes_what_the_step_leaves(net):
    graph, folder = net
    context = context_of(graph, folder, "weight-int8", 24)
    step = Step("low-rank", {"by": "rank", "rank": 4, "round_to": 1})
    recipe = Recipe((LayerRule(NAMED_SCHEMES["static-int8"], ("a",)),), steps=(step,))
    prepared = prepare(graph, recipe, StepInputs(context.dataset))
    assert prepared.plan.schemes["a::factor"].weights == prepared.plan.schemes["a"].weights == Precision.INT8
    assert prepared.plan.schemes["b"] == FP32
    model = emit(prepared.graph, context.statistics(prepared.graph), prepared.plan)
    feed = {"x": normal(6, 24, seed=4)}
    assert relative_error(outputs_of(prepared.graph.proto, feed)[0], outputs_of(model, feed)[0]) < 0.05


def test_that_a_layer_factored_twice_is_still_one_layer_to_a_rule(net):
    graph, folder = net
    once = factored(graph, folder, rank=12, layers="b", **HAND).graph
    twice = factored(once, folder, rank=3, layers="b", **HAND).graph
    plan = resolve(Recipe((LayerRule(NAMED_SCHEMES["weight-int4"], ("b",)),)), twice.layers)
    assert len(twice.layers) == 6
    assert sum(scheme.weights == Precision.INT4 for scheme in plan.schemes.values()) == 4


def test_that_the_label_of_a_part_is_that_of_its_layer(tmp_path):
    graph = opened(products(), tmp_path)
    labels = {one.name: one.label for one in factored(graph, tmp_path, rank=3, **HAND).graph.layers}
    assert (labels["c"], labels["c::factor"]) == ("c", "c::factor")


def with_weight(value):
    model = classifier()
    for tensor in model.graph.initializer:
        if tensor.name == "b.w":
            changed = onnx.numpy_helper.to_array(tensor).copy()
            changed[3, 3] = value
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, "b.w"))
    return model


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"share": 0.001}, RecipeError, r"0.1 % of the weights cannot be reached; [\d.]+ % can"),
        ({"share": 0.0, "by": RankBy.MACS}, RecipeError, "operations cannot be reached"),
        ({"layers": "nothing"}, RecipeError, "no layer 'nothing' can be factored"),
        ({"keep": "x*"}, RecipeError, "no layer 'x\\*' can be factored"),
        ({"samples": 1}, CalibrationError, "one sample"),
    ],
    ids=["share", "macs", "layers", "keep", "samples"],
)
def test_that_what_cannot_be_is_refused_in_one_line(net, settings, error, says):
    graph, folder = net
    with pytest.raises(error, match=says):
        factored(graph, folder, **settings)


def test_that_the_nearest_budget_named_can_be_reached(net):
    graph, folder = net
    with pytest.raises(RecipeError) as refused:
        factored(graph, folder, share=0.01)
    nearest = float(str(refused.value.hint).split("at least ")[1].split(",")[0])
    assert factored(graph, folder, share=nearest).details["layers"]


def test_that_a_weight_with_nan_is_named(tmp_path):
    graph = opened(with_weight(np.nan), tmp_path)
    with pytest.raises(CalibrationError, match="b: its weights hold NaN"):
        factored(graph, tmp_path)


def test_that_a_cancelled_run_ends(net):
    graph, folder = net
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        factored(graph, folder, cancel=token)
