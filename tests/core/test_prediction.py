import math

import pytest

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP16, STATIC_INT4, STATIC_INT8, WEIGHT_INT8
from quantstudio.core.prediction import CostTable, LayerCost, accuracy_at, layer_kl, predict
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.results import AccuracyCurve, LayerSensitivity

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
            {"fp32": 400, "static-int8": 110, "static-int4": 110, "fp16": 200}, 0.6, {"static-int8": 0.5}
        ),
        "b": LayerCost(
            {"fp32": 800, "static-int8": 210, "static-int4": 210, "fp16": 400}, 0.3, {"static-int8": 0.25}
        ),
        "norm": LayerCost({"fp32": 8}),
    },
    structure_bytes=100,
    fp32_ms=10.0,
    provider="CPUExecutionProvider",
)
CURVE = AccuracyCurve((0.0, 0.1, 1.0), (0.9, 0.8, 0.5), (0.88, 0.77, 0.4), (0.92, 0.83, 0.6), labelled=True)


def test_that_size_is_the_sum_of_the_layers_bytes_in_their_schemes():
    recipe = uniform_recipe("static-int8").assign(["b"], FP16)
    prediction = predict(LAYERS, recipe, costs=COSTS, sensitivity={}, curve=None)
    assert prediction.weight_bytes == 110 + 400 + 8
    assert prediction.size_bytes == 110 + 400 + 8 + 100


def test_that_latency_replaces_only_the_share_of_quantized_layers():
    prediction = predict(LAYERS, uniform_recipe("static-int8"), costs=COSTS, sensitivity={}, curve=None)
    assert prediction.latency_ms == pytest.approx(10 * (1 - 0.6 * 0.5 - 0.3 * 0.75))


def test_that_latency_is_unknown_where_a_scheme_was_never_timed():
    recipe = uniform_recipe("static-int8").assign(["a"], STATIC_INT4)
    assert predict(LAYERS, recipe, costs=COSTS, sensitivity={}, curve=None).latency_ms is None


def test_that_kl_adds_weights_and_activations_of_every_layer():
    prediction = predict(
        LAYERS, uniform_recipe("static-int8"), costs=None, sensitivity=SENSITIVITY, curve=CURVE
    )
    assert prediction.kl == pytest.approx(0.01 + 0.02 + 0.001 + 0.003)
    assert prediction.accuracy is not None
    assert prediction.accuracy.value == pytest.approx(0.9 - 0.1 * 0.34)
    assert prediction.quantized == 2
    assert prediction.unpriced == 0


def test_that_a_layer_without_an_estimate_leaves_the_prediction_open():
    partial = {"a": SENSITIVITY["a"]}
    prediction = predict(LAYERS, uniform_recipe("static-int8"), costs=None, sensitivity=partial, curve=CURVE)
    assert prediction.kl is None
    assert prediction.accuracy is None
    assert prediction.unpriced == 1


def test_that_an_empty_recipe_costs_nothing():
    prediction = predict(LAYERS, Recipe(), costs=COSTS, sensitivity=SENSITIVITY, curve=CURVE)
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


def test_that_accuracy_beyond_the_curve_is_its_last_point():
    assert accuracy_at(CURVE, 50.0).value == 0.5
    assert accuracy_at(CURVE, 0.0).low == 0.88
