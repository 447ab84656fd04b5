from __future__ import annotations

import pytest

from quantstudio.core.aim import Aim, aim_named
from quantstudio.core.errors import RecipeError
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP16,
    FP32,
    STATIC_INT4,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
)
from quantstudio.core.preset_recipes import preset_recipe
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.target import DEFAULT_TARGET, writable_schemes


def layer(name, op_type, *, scope="", weight="w"):
    kinds = DEFAULT_TARGET.kinds(op_type, in_body=bool(scope))
    schemes = writable_schemes(kinds) if weight else ("fp32", "static-int8")
    return LayerInfo(name, op_type, weight, schemes=schemes, scope=scope)


LAYERS = (
    layer("words", "Gather"),
    layer("memory", "LSTM"),
    layer("conv", "Conv"),
    layer("dense", "MatMul"),
    layer("scores", "MatMul", weight=""),
    layer("inner", "MatMul", scope="loop"),
    layer("up", "ConvTranspose"),
)


def forms(scheme):
    return preset_recipe(scheme, LAYERS).schemes(LAYERS)


def test_that_a_preset_leaves_no_layer_float_that_has_an_integer_form():
    assert forms(STATIC_INT8) == {
        "words": WEIGHT_INT8,
        "memory": DYNAMIC_INT8,
        "conv": STATIC_INT8,
        "dense": STATIC_INT8,
        "scores": STATIC_INT8,
        "inner": DYNAMIC_INT8,
        "up": WEIGHT_INT8,
    }
    assert forms(DYNAMIC_INT8)["conv"] == WEIGHT_INT8
    assert forms(DYNAMIC_INT8)["scores"] == FP32


def test_that_fewer_bits_are_kept_where_a_form_has_them():
    assert forms(STATIC_INT4)["words"] == WEIGHT_INT4
    assert forms(STATIC_INT4)["memory"].weights == STATIC_INT4.weights
    assert forms(WEIGHT_INT4)["memory"] == WEIGHT_INT8
    assert set(forms(FP16).values()) >= {FP16}


def test_that_where_every_layer_can_have_the_scheme_the_recipe_is_the_plain_one():
    plain = (LAYERS[2], LAYERS[3], LAYERS[4])
    assert preset_recipe(STATIC_INT8, plain) == uniform_recipe(STATIC_INT8)
    assert preset_recipe(STATIC_INT8, ()) == uniform_recipe(STATIC_INT8)


def test_that_nothing_takes_the_place_of_a_scheme_no_layer_can_have():
    assert preset_recipe(DYNAMIC_INT8, LAYERS[2:3]) == uniform_recipe(DYNAMIC_INT8)


def test_that_steps_and_target_are_kept():
    start = Recipe(target="cpu-x86-vnni", seed=7)
    made = preset_recipe(STATIC_INT8, LAYERS, start)
    assert (made.target, made.seed) == ("cpu-x86-vnni", 7)


def test_that_an_unknown_aim_is_told_what_there_is():
    assert aim_named("") is Aim.FAST
    assert aim_named("small") is Aim.SMALL
    with pytest.raises(RecipeError, match="unknown aim") as raised:
        aim_named("quick")
    assert "fast, small, accurate" in str(raised.value.hint)
