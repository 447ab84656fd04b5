"""Variants are named after their plan; no name says a precision that is not there."""

from dataclasses import replace

import pytest

from quantstudio.core.precision import FP16, FP32, STATIC_INT4, STATIC_INT8
from quantstudio.core.recipe import CalibrationSettings, LayerRule, RangeMethod, RangeOverride, Recipe
from quantstudio.core.steps import Step
from quantstudio.workspace.names import base_name, contents_text, file_name, following_name, variant_name
from tests.workspace.samples import model_summary

LAYERS = model_summary(6).layers  # two of them can only be stored in fewer bits, one stays in floats
CAN = [layer for layer in LAYERS if "static-int8" in layer.schemes]


def recipe_of(base, *odd):
    rules = [LayerRule(base), *(LayerRule(scheme, names=(name,)) for name, scheme in odd)]
    return Recipe(tuple(rules))


def test_that_one_precision_is_the_whole_name():
    assert contents_text(recipe_of(STATIC_INT8), CAN) == "INT8"
    assert contents_text(recipe_of(FP16), CAN) == "FP16"


def test_that_layers_that_differ_are_counted():
    odd = [(CAN[0].name, STATIC_INT4), (CAN[1].name, FP32)]
    assert contents_text(recipe_of(STATIC_INT8, *odd), CAN) == "INT8 · 1 W4A8 · 1 FP32"


def test_that_a_recipe_that_changes_nothing_says_so():
    assert contents_text(Recipe(), LAYERS) == "FP32 rebuilt"
    assert contents_text(Recipe(), ()) == "FP32 rebuilt"


@pytest.mark.parametrize("method", [m for m in RangeMethod if m is not CalibrationSettings().method])
def test_that_another_range_method_and_ranges_by_hand_are_told(method):
    made = replace(
        recipe_of(STATIC_INT8),
        calibration=CalibrationSettings(method=method),
        weight_ranges=(RangeOverride(CAN[0].name, -0.1, 0.1),),
    )
    name = contents_text(made, CAN)
    assert name.startswith("INT8 · ")
    assert name.endswith("· 1 clipped")
    assert len(name.split(" · ")) == 3


def test_that_a_variant_has_its_plans_name_and_a_number():
    assert variant_name("Careful") == "Careful"
    assert variant_name("Careful", {"Careful", "Careful #2"}) == "Careful #3"


@pytest.mark.parametrize(
    ("name", "scheme", "now"),
    [
        ("INT8", STATIC_INT4, "W4A8"),
        ("INT8 copy", STATIC_INT4, "W4A8"),
        ("INT8 2", STATIC_INT8, "INT8 2"),
        ("W4A8", STATIC_INT8, "INT8"),
        ("FP32", STATIC_INT8, "INT8"),
        ("Careful", STATIC_INT4, "Careful"),
        ("Plan 1", STATIC_INT4, "Plan 1"),
    ],
)
def test_that_a_name_that_says_a_precision_says_the_one_there_is(name, scheme, now):
    assert following_name(name, recipe_of(scheme), CAN) == now


def test_that_a_plan_that_differs_layer_by_layer_is_called_mixed():
    mixed = recipe_of(STATIC_INT8, (CAN[0].name, STATIC_INT4))
    assert following_name("INT8", mixed, CAN) == "INT8 mixed"
    assert following_name("INT8", mixed, CAN, {"INT8 mixed"}) == "INT8 mixed 2"
    assert following_name("INT8 mixed", mixed, CAN) == "INT8 mixed"
    assert following_name("INT8 mixed", recipe_of(STATIC_INT8), CAN) == "INT8"


def test_that_a_file_is_named_after_the_plan():
    assert [file_name(name) for name in ("INT8 mixed", "Search ≤ 0.5 pp", "…")] == [
        "int8-mixed",
        "search-0.5-pp",
        "quantized",
    ]


def test_that_the_base_is_what_its_file_holds():
    stored = [replace(layer, stored_as="INT8") for layer in CAN]
    assert base_name(CAN) == "FP32"
    assert base_name(stored) == "INT8 stored"
    assert base_name([*stored, CAN[0]]) == "INT8 stored, 1 FP32"


def test_that_steps_that_are_on_are_named():
    steps = (Step("equalize"), Step("smooth", is_on=False), Step("bias"))
    assert contents_text(replace(recipe_of(STATIC_INT8), steps=steps), CAN) == "INT8 · equalize · bias"
