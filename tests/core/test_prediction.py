import math
from dataclasses import replace

import pytest

from quantstudio.core.costs import BorderCost, CostTable, LayerCost, LayerEdge, LiveTensor
from quantstudio.core.effective_plan import resolve
from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import WeightCount
from quantstudio.core.precision import (
    FP16,
    FP32,
    STATIC_INT4,
    STATIC_INT8,
    WEIGHT_INT8,
    LayerScheme,
    Precision,
)
from quantstudio.core.predict.kl_model import ACTIVATIONS, layer_kl, part_names
from quantstudio.core.predict.model import Judged, MeasuredPlan
from quantstudio.core.predict.table import PredictionTable, fit_prediction, predict
from quantstudio.core.recipe import ActivationScope, LayerRule, Recipe, uniform_recipe
from quantstudio.core.results import AccuracyCurve, ClassAccuracy, LayerSensitivity
from quantstudio.core.steps import Step

SCHEMES = ("fp32", "fp16", "static-int8", "weight-int8", "static-int4")
LAYERS = (
    LayerInfo("a", "Conv", schemes=SCHEMES, inputs=("x",), outputs=("y",)),
    LayerInfo("b", "Gemm", schemes=SCHEMES, inputs=("y",), outputs=("z",)),
    LayerInfo("norm", "LayerNormalization", schemes=("fp32",), quantizable=False, reason="normalisation"),
)
SENSITIVITY = {
    "a": LayerSensitivity(
        "a", 0.5, 0.4, 0.6, 20.0, by_precision={"int8": 0.01, "int4": 0.5, "int8-activations": 0.02}
    ),
    "b": LayerSensitivity(
        "b", 0.1, 0.1, 0.1, 30.0, by_precision={"int8": 0.001, "int4": 0.1, "int8-activations": 0.003}
    ),
}
COSTS = CostTable(
    layers={
        "a": LayerCost(
            {"fp32": 400, "static-int8": 110, "static-int8/packed": 10, "fp16": 200},
            0.6,
            {"static-int8": 0.5},
            count=WeightCount(1000, 10),
        ),
        "b": LayerCost(
            {"fp32": 800, "static-int8": 210, "static-int8/packed": 10, "fp16": 400},
            0.3,
            {"static-int8": 0.25},
            count=WeightCount(200, 10),
        ),
        "norm": LayerCost({"fp32": 8}),
    },
    structure_bytes=100,
    fp32_ms=10.0,
    provider="CPUExecutionProvider",
)
CURVE = AccuracyCurve((0.0, 0.1, 1.0), (0.9, 0.8, 0.5), (0.88, 0.77, 0.4), (0.92, 0.83, 0.6), labelled=True)


def plan_of(recipe):
    return resolve(recipe, LAYERS)


def test_that_size_is_the_sum_of_the_layers_bytes_in_their_schemes():
    recipe = uniform_recipe("static-int8").assign(["b"], FP16)
    prediction = predict(LAYERS, plan_of(recipe), costs=COSTS, sensitivity={}, curve=None)
    assert prediction.weight_bytes == 110 + 400 + 8
    assert prediction.size_bytes == 110 + 400 + 8 + 100


def test_that_latency_replaces_only_the_share_of_quantized_layers():
    prediction = predict(
        LAYERS, plan_of(uniform_recipe("static-int8")), costs=COSTS, sensitivity={}, curve=None
    )
    assert prediction.latency_ms == pytest.approx(10 * (1 - 0.6 * 0.5 - 0.3 * 0.75))


def test_that_latency_is_unknown_where_a_scheme_was_never_timed():
    recipe = uniform_recipe("static-int8").assign(["a"], WEIGHT_INT8)
    assert predict(LAYERS, plan_of(recipe), costs=COSTS, sensitivity={}, curve=None).latency_ms is None


def test_that_products_of_activations_stay_float_where_only_weighted_layers_are_quantized():
    layers = (replace(LAYERS[0], weight_name="w"), *LAYERS[1:])
    table = PredictionTable(layers, costs=COSTS)
    recipe = uniform_recipe("static-int8", activation_scope=ActivationScope.WEIGHTED)
    assert table.predict(resolve(recipe, layers)).weight_bytes == 110 + 800 + 8
    named = resolve(recipe.assign(["b"], STATIC_INT8), layers)
    assert table.predict(named).weight_bytes == 110 + 210 + 8


def test_that_the_parts_are_sums_over_layers_by_precision():
    table = PredictionTable(LAYERS, sensitivity=SENSITIVITY, curve=CURVE)
    recipe = uniform_recipe("static-int8").assign(["b"], STATIC_INT4)
    parts = table.raw(plan_of(recipe)).parts
    assert parts is not None
    assert dict(zip(part_names(), parts.tolist(), strict=True)) == pytest.approx(
        dict.fromkeys(part_names(), 0.0) | {"int8": 0.01, "int4": 0.1, ACTIVATIONS: 0.023}
    )
    prediction = table.predict(plan_of(recipe))
    assert prediction.quantized == 2
    assert prediction.unpriced == 0
    assert prediction.kl == pytest.approx(table_kl(0.01 + 0.1 + 0.023))


def table_kl(linear):
    # Level and bend of the prior: exp(0.4) S (1 + S / 0.003)^0.25.
    return math.exp(0.4) * linear * (1 + linear / 0.003) ** 0.25


def test_that_accuracy_starts_from_what_was_measured_of_fp32():
    table = PredictionTable(LAYERS, sensitivity=SENSITIVITY, curve=CURVE)
    recipe = uniform_recipe("weight-int8")
    before = table.predict(plan_of(recipe)).accuracy
    model = fit_prediction(table, (), Judged(0.8, 10_000))
    after = table.predict(plan_of(recipe), model).accuracy
    assert before is not None
    assert after is not None
    assert before.low < before.value < 0.9
    assert after.low < after.value < 0.8
    assert after.high - after.low > 0


def test_that_measured_plans_move_the_prediction_and_narrow_it():
    table = PredictionTable(LAYERS, sensitivity=SENSITIVITY, curve=CURVE)
    recipe = uniform_recipe("static-int8")
    plans = [
        MeasuredPlan("p", plan_of(recipe), 10_000, kl=0.017, changed=0.02, accuracy=0.897, base=0.9),
        MeasuredPlan(
            "q",
            plan_of(uniform_recipe("weight-int8")),
            10_000,
            kl=0.0055,
            changed=0.01,
            accuracy=0.899,
            base=0.9,
        ),
    ]
    judged = Judged(0.9, 10_000)
    prior, model = fit_prediction(table, (), judged), fit_prediction(table, plans, judged)
    first, second = (
        table.predict(plan_of(recipe), prior),
        table.predict(plan_of(recipe), model),
    )
    assert second.plans == 2
    # Both measured half of the summed estimates (0.034 and 0.011).
    assert second.kl is not None
    assert first.kl is not None
    assert abs(math.log(second.kl / 0.017)) < 0.3 < abs(math.log(first.kl / 0.017))
    assert first.accuracy is not None
    assert second.accuracy is not None
    assert second.accuracy.high - second.accuracy.low < first.accuracy.high - first.accuracy.low


def test_that_the_worst_class_is_the_one_the_layers_hurt():
    rows = {
        "a": LayerSensitivity(
            "a", 0.5, 0, 1, 20.0, by_precision=SENSITIVITY["a"].by_precision, by_class=(0.1, 0.9)
        ),
        "b": LayerSensitivity(
            "b", 0.1, 0, 1, 20.0, by_precision=SENSITIVITY["b"].by_precision, by_class=(0.2, 0.0)
        ),
    }
    table = PredictionTable(LAYERS, sensitivity=rows, curve=CURVE, classes=("shirt", "coat"))
    model = fit_prediction(table, (), Judged(0.9, 1000, classes={"shirt": (0.9, 500), "coat": (0.9, 500)}))
    only_a = Recipe().assign(["a"], STATIC_INT8)
    worst = table.predict(plan_of(only_a), model).worst_class
    assert worst is not None
    assert (worst.name, worst.base) == ("coat", 0.9)
    assert worst.accuracy.low < worst.accuracy.value < 0.9
    other = table.predict(plan_of(Recipe().assign(["b"], STATIC_INT8)), model).worst_class
    assert other is not None
    assert other.name == "shirt"
    assert table.predict(plan_of(Recipe()), model).worst_class is None


def test_that_classes_lose_what_they_lost_where_the_same_layers_suffered():
    rows = {
        name: replace(SENSITIVITY[name], by_class=(SENSITIVITY[name].kl, SENSITIVITY[name].kl))
        for name in "ab"
    }
    table = PredictionTable(LAYERS, sensitivity=rows, curve=CURVE, classes=("shirt", "coat"))
    judged = Judged(0.9, 10_000, classes={"shirt": (0.9, 5000), "coat": (0.9, 5000)})
    recipes = {name: Recipe().assign([name], STATIC_INT8) for name in "ab"}
    losses = {"a": (0.05, 0.0), "b": (0.0, 0.05)}
    plans = [
        MeasuredPlan(
            name,
            plan_of(recipes[name]),
            10_000,
            kl=0.05,
            changed=0.05,
            accuracy=0.875,
            base=0.9,
            classes=tuple(
                ClassAccuracy(label, 5000, 0.9, 0.9 - lost, 0.8, 1.0)
                for label, lost in zip(("shirt", "coat"), losses[name], strict=True)
            ),
        )
        for name in "ab"
    ]
    model = fit_prediction(table, plans, judged)
    for name, label in (("a", "shirt"), ("b", "coat")):
        worst = table.predict(plan_of(recipes[name]), model).worst_class
        assert worst is not None
        assert worst.name == label


def test_that_no_class_is_named_while_classes_are_unknown():
    recipe = uniform_recipe("static-int8")
    found = predict(
        LAYERS, plan_of(recipe), costs=None, sensitivity=SENSITIVITY, curve=CURVE, classes=("a", "b")
    )
    assert found.worst_class is None
    assert (
        predict(LAYERS, plan_of(recipe), costs=None, sensitivity=SENSITIVITY, curve=CURVE).worst_class is None
    )


def test_that_a_layer_without_an_estimate_leaves_the_prediction_open():
    partial = {"a": SENSITIVITY["a"]}
    prediction = predict(
        LAYERS, plan_of(uniform_recipe("static-int8")), costs=None, sensitivity=partial, curve=CURVE
    )
    assert prediction.kl is None
    assert prediction.accuracy is None
    assert prediction.unpriced == 1


def test_that_an_empty_recipe_costs_nothing():
    prediction = predict(LAYERS, plan_of(Recipe()), costs=COSTS, sensitivity=SENSITIVITY, curve=CURVE)
    assert prediction.kl == 0.0
    assert prediction.latency_ms == 10.0
    assert prediction.size_bytes == 400 + 800 + 8 + 100
    assert prediction.quantized == 0


def test_that_weight_only_pays_for_the_weights_alone():
    assert layer_kl(WEIGHT_INT8, SENSITIVITY["a"]) == 0.01
    assert layer_kl(STATIC_INT8, SENSITIVITY["a"]) == pytest.approx(0.03)
    assert layer_kl(FP16, None) == 0.0


def test_that_an_activation_product_pays_for_its_activations():
    row = LayerSensitivity("m", math.nan, 0, 0, 30.0, by_precision={"int8-activations": 0.004})
    assert layer_kl(STATIC_INT8, row) == 0.004


def test_that_the_last_rule_decides_and_what_is_illegal_stays_float():
    table = PredictionTable(LAYERS, costs=COSTS)
    recipe = Recipe((LayerRule(STATIC_INT8), LayerRule(FP16, op_types=("Gemm",)), LayerRule(FP32, ("norm",))))
    for one, size in (
        (recipe, 110 + 400 + 8),
        (uniform_recipe("dynamic-int8"), 400 + 800 + 8),
        (recipe.assign(["a"], STATIC_INT4), 10 + 500 + 400 + 8),
        (Recipe(), 400 + 800 + 8),
    ):
        plan = plan_of(one)
        assert list(plan.schemes.values()) == [one.scheme_for(layer) for layer in LAYERS]
        assert table.predict(plan).weight_bytes == size


def test_that_steps_behind_those_of_the_tables_are_said_to_be_left_out():
    equalize, bias = Step("equalize"), Step("bias")
    table = PredictionTable(LAYERS, costs=COSTS, sensitivity=SENSITIVITY, curve=CURVE, steps=(equalize,))
    recipe = uniform_recipe("static-int8")
    known = table.predict(plan_of(replace(recipe, steps=(equalize,))))
    assert known.left_out == ()
    later = table.predict(plan_of(replace(recipe, steps=(equalize, bias))))
    assert later == replace(known, left_out=("bias",))
    assert later.to_dict()["left_out"] == ["bias"]


def test_that_what_a_step_itself_changes_is_said_to_be_left_out():
    steps = (Step("equalize"), Step("prune"))
    table = PredictionTable(LAYERS, costs=COSTS, steps=steps, changing=["prune"])
    plan = plan_of(replace(uniform_recipe("static-int8"), steps=(*steps, Step("bias"))))
    assert table.predict(plan).left_out == ("prune", "bias")


@pytest.mark.parametrize("steps", [(), (Step("bias"),), (Step("equalize", {"rounds": 2}),)])
def test_that_nothing_is_said_of_a_plan_for_another_graph_than_the_tables(steps):
    table = PredictionTable(
        LAYERS, costs=COSTS, sensitivity=SENSITIVITY, curve=CURVE, steps=(Step("equalize"),)
    )
    plan = plan_of(replace(uniform_recipe("static-int8"), steps=steps))
    found = table.predict(plan)
    assert (found.size_bytes, found.kl, found.accuracy, found.latency_ms) == (None, None, None, None)
    assert found.quantized == 2
    assert table.raw(plan).parts is None


def test_that_weights_of_few_bits_take_their_bits():
    two_bits = LayerScheme(Precision.INT2, STATIC_INT8.activations)
    recipe = uniform_recipe("static-int8").assign(["a"], two_bits)
    found = predict(LAYERS, plan_of(recipe), costs=COSTS, sensitivity={}, curve=None)
    assert found.weight_bytes == 10 + 1000 // 4 + 210 + 8
    assert found.latency_ms == pytest.approx(10 * (1 - 0.6 * 0.5 - 0.3 * 0.75))


def test_that_borders_between_unlike_neighbours_cost_time():
    border = BorderCost(0.1, 0.001, 0.2, 0.002)
    edges = (LayerEdge("a", "b", 100), LayerEdge("b", "norm", 50))
    costs = CostTable(COSTS.layers, 100, fp32_ms=10.0, edges=edges, border=border)
    table = PredictionTable(LAYERS, costs=costs)
    out = 10 * (1 - 0.6 * 0.5) + 0.2 + 100 * 0.002
    assert table.predict(plan_of(Recipe().assign(["a"], STATIC_INT8))).latency_ms == pytest.approx(out)
    into_and_out = 10 * (1 - 0.3 * 0.75) + 0.1 + 100 * 0.001 + 0.2 + 50 * 0.002
    assert table.predict(plan_of(Recipe().assign(["b"], STATIC_INT8))).latency_ms == pytest.approx(
        into_and_out
    )


def test_that_memory_counts_weights_and_activations_held_at_one_time():
    layers = {
        "a": LayerCost({}, memory_bytes={"fp32": 4000, "static-int8": 1000}),
        "b": LayerCost({}, memory_bytes={"fp32": 8000, "static-int8": 2000}),
        "norm": LayerCost({}, memory_bytes={"fp32": 0}),
    }
    # The input (500 elements) and a's output (1000) are held together, then a's and b's (100).
    tensors = (LiveTensor("", 500, -1, 0), LiveTensor("a", 1000, 0, 1), LiveTensor("b", 100, 1, 2))
    costs = CostTable(layers, 0, tensors=tensors, fp32_memory_bytes=100_000)
    table = PredictionTable(LAYERS, costs=costs)
    assert table.predict(plan_of(Recipe())).memory_bytes == 100_000
    first = table.predict(plan_of(Recipe().assign(["a"], STATIC_INT8))).memory_bytes
    assert first == 100_000 - 3000 - (1500 * 4) + (500 * 4 + 1000)
    model = fit_prediction(table, (), Judged(0.9, 100, memory_bytes=200_000))
    assert table.predict(plan_of(Recipe()), model).memory_bytes == 200_000


def test_that_memory_is_unknown_where_a_scheme_was_not_priced():
    costs = CostTable({"a": LayerCost({}, memory_bytes={"fp32": 1})}, 0, fp32_memory_bytes=1000)
    assert (
        predict(
            LAYERS, plan_of(uniform_recipe("static-int8")), costs=costs, sensitivity={}, curve=None
        ).memory_bytes
        is None
    )


def test_that_measured_latencies_correct_the_table():
    table = PredictionTable(LAYERS, costs=COSTS)
    recipe = uniform_recipe("static-int8")
    ratio = 1 - 0.6 * 0.5 - 0.3 * 0.75
    plans = [MeasuredPlan(str(i), plan_of(recipe), 0, latency_ratio=ratio * 1.3) for i in range(20)]
    found = table.predict(plan_of(recipe), fit_prediction(table, plans)).latency_ms
    assert found == pytest.approx(10 * ratio * 1.3, rel=0.05)
    assert table.predict(plan_of(Recipe()), fit_prediction(table, plans)).latency_ms == 10.0
