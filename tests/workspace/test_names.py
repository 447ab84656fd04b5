"""Variants are named by what they are."""

from dataclasses import replace

import pytest

from quantstudio.core.precision import FP16, FP32, STATIC_INT4, STATIC_INT8
from quantstudio.core.recipe import CalibrationSettings, LayerRule, RangeMethod, RangeOverride, Recipe
from quantstudio.core.steps import Step
from quantstudio.workspace.names import variant_name
from tests.workspace.samples import model_summary

LAYERS = model_summary(6).layers  # two of them can only be stored in fewer bits, one stays in floats
CAN = [layer for layer in LAYERS if "static-int8" in layer.schemes]


def recipe_of(base, *odd):
    rules = [LayerRule(base), *(LayerRule(scheme, names=(name,)) for name, scheme in odd)]
    return Recipe(tuple(rules))


def test_that_one_precision_is_the_whole_name():
    assert variant_name(recipe_of(STATIC_INT8), CAN) == "INT8"
    assert variant_name(recipe_of(FP16), CAN) == "FP16"


def test_that_layers_that_differ_are_counted():
    odd = [(CAN[0].name, STATIC_INT4), (CAN[1].name, FP32)]
    assert variant_name(recipe_of(STATIC_INT8, *odd), CAN) == "INT8 · 1 W4A8 · 1 FP32"


def test_that_a_recipe_that_changes_nothing_says_so():
    assert variant_name(Recipe(), LAYERS) == "FP32 rebuilt"
    assert variant_name(Recipe(), ()) == "FP32 rebuilt"


@pytest.mark.parametrize("method", [m for m in RangeMethod if m is not CalibrationSettings().method])
def test_that_another_range_method_and_ranges_by_hand_are_told(method):
    made = replace(
        recipe_of(STATIC_INT8),
        calibration=CalibrationSettings(method=method),
        weight_ranges=(RangeOverride(CAN[0].name, -0.1, 0.1),),
    )
    name = variant_name(made, CAN)
    assert name.startswith("INT8 · ")
    assert name.endswith("· 1 clipped")
    assert len(name.split(" · ")) == 3


def test_that_names_are_unique():
    assert variant_name(recipe_of(STATIC_INT8), CAN, {"INT8", "INT8 #2"}) == "INT8 #3"


def test_that_steps_that_are_on_are_named():
    steps = (Step("equalize"), Step("smooth", is_on=False), Step("bias"))
    assert variant_name(replace(recipe_of(STATIC_INT8), steps=steps), CAN) == "INT8 · equalize · bias"
