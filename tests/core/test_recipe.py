"""The recipe: which layer gets what, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import RecipeError
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP16,
    FP32,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    ActivationPrecision,
    Granularity,
    LayerScheme,
    Precision,
    WeightRange,
)
from quantstudio.core.recipe import (
    ActivationScope,
    CalibrationSettings,
    LayerRule,
    RangeMethod,
    RangeOverride,
    Recipe,
    is_legal,
    uniform_recipe,
)
from quantstudio.core.schemes import NAMED_SCHEMES, scheme_name
from quantstudio.core.target import DEFAULT_TARGET

CONV_SCHEMES = ("fp32", "fp16", "static-int8", "weight-int8", "static-int4")
LAYERS = (
    LayerInfo("stem/conv", "Conv", schemes=CONV_SCHEMES),
    LayerInfo("block[0].conv", "Conv", schemes=CONV_SCHEMES),
    LayerInfo("head", "Gemm", schemes=("fp32", "static-int8", "dynamic-int8", "weight-int4")),
    LayerInfo("norm", "LayerNormalization", quantizable=False, reason="only a scale", schemes=("fp32",)),
)
NAMES = tuple(layer.name for layer in LAYERS)

schemes = st.sampled_from([*NAMED_SCHEMES.values(), STATIC_INT8.with_weight_range(WeightRange.MSE)])
patterns = st.sampled_from([*NAMES, "*", "stem/*", "block[?].conv", "nothing"])
finite = st.floats(-1e6, 1e6) | st.integers(-100, 100)
overrides = st.builds(RangeOverride, st.sampled_from(NAMES), finite, finite)
rules = st.builds(
    LayerRule,
    schemes,
    st.lists(patterns, max_size=3).map(tuple),
    st.lists(st.sampled_from(["Conv", "Gemm"]), max_size=2).map(tuple),
)
recipes = st.builds(
    Recipe,
    st.lists(rules, max_size=4).map(tuple),
    st.builds(
        CalibrationSettings,
        st.sampled_from(RangeMethod),
        st.sampled_from([99, 99.0, 99.99]),
        st.integers(1, 10_000),
    ),
    st.sampled_from(ActivationScope),
    st.lists(overrides, max_size=2).map(tuple),
    st.lists(overrides, max_size=2).map(tuple),
)


def test_that_the_last_matching_rule_decides() -> None:
    recipe = Recipe(
        (LayerRule(STATIC_INT8), LayerRule(FP32, op_types=("Conv",)), LayerRule(FP16, ("stem*",)))
    )
    assert resolve(recipe, LAYERS).schemes == {
        "stem/conv": FP16,
        "block[0].conv": FP32,
        "head": STATIC_INT8,
        "norm": FP32,
    }


@given(recipes)
def test_that_all_layers_together_are_asked_what_each_is_alone(recipe: Recipe) -> None:
    alone = {layer.name: recipe.asked_scheme(layer) for layer in LAYERS}
    assert list(recipe.asked_schemes(LAYERS).items()) == list(alone.items())


def test_that_a_layer_no_rule_speaks_about_stays_float() -> None:
    assert set(resolve(Recipe(), LAYERS).schemes.values()) == {FP32}


def test_that_a_rule_matches_names_and_operators_together() -> None:
    rule = LayerRule(STATIC_INT8, ("block*", "head"), ("Conv",))
    assert [rule.matches(layer) for layer in LAYERS] == [False, True, False, False]


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        pytest.param("block[0].conv", "block[0].conv", True, id="brackets are plain"),
        pytest.param("block[0].conv", "block0.conv", False, id="brackets are no set"),
        pytest.param("conv?", "conv1", True, id="one character"),
        pytest.param("conv?", "conv12", False, id="not two"),
        pytest.param("a.b", "axb", False, id="a dot is plain"),
        pytest.param("*/conv", "a/b\nc/conv", True, id="a star crosses lines"),
        pytest.param("conv", "conv1", False, id="whole name"),
    ],
)
def test_that_only_star_and_question_mark_are_special(pattern: str, name: str, matches: bool) -> None:
    assert LayerRule(FP32, (pattern,)).matches(LayerInfo(name, "Conv")) is matches


def test_that_a_pattern_leaves_layers_that_cannot_follow_float() -> None:
    recipe = Recipe((LayerRule(DYNAMIC_INT8),))
    assert resolve(recipe, LAYERS).schemes["stem/conv"] == FP32
    assert resolve(recipe, LAYERS).schemes["head"] == DYNAMIC_INT8
    assert recipe.asked_scheme(LAYERS[0]) == DYNAMIC_INT8


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        pytest.param(Recipe((LayerRule(FP32, ("conv9",)),)), "'conv9', which is not in this", id="unknown"),
        pytest.param(
            Recipe((LayerRule(STATIC_INT8, ("norm",)),)), "norm: the layer cannot be INT8", id="illegal"
        ),
        pytest.param(
            Recipe(weight_ranges=(RangeOverride("conv9", 0, 1),)), "clips the weights of", id="clip"
        ),
    ],
)
def test_that_an_exact_rule_that_cannot_be_met_is_an_error(recipe: Recipe, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        resolve(recipe, LAYERS)


def test_that_the_refusal_says_why_and_what_instead() -> None:
    with pytest.raises(RecipeError, match="only a scale") as caught:
        resolve(Recipe((LayerRule(STATIC_INT8, ("norm",)),)), LAYERS)
    assert caught.value.hint.text == "It can be: fp32"


def test_that_an_exact_rule_for_float_is_always_legal() -> None:
    assert resolve(Recipe((LayerRule(FP32, NAMES),)), LAYERS).schemes == dict.fromkeys(NAMES, FP32)


def test_that_assigning_replaces_older_exact_rules() -> None:
    recipe = Recipe((LayerRule(STATIC_INT8),)).assign(["stem/conv", "head"], FP32).assign(["head"], FP16)
    assert recipe.rules == (
        LayerRule(STATIC_INT8),
        LayerRule(FP32, ("stem/conv",)),
        LayerRule(FP16, ("head",)),
    )
    merged = recipe.assign(["norm"], FP16)
    assert merged.rules[-1] == LayerRule(FP16, ("head", "norm"))
    assert recipe.assign(["stem/conv"], FP16).rules[1:] == (LayerRule(FP16, ("head", "stem/conv")),)


def test_that_assigning_nothing_changes_nothing() -> None:
    recipe = uniform_recipe(STATIC_INT8)
    assert recipe.assign([], FP32) is recipe


@given(recipes, st.lists(st.sampled_from(NAMES), min_size=1, unique=True), schemes)
def test_that_assigning_speaks_about_the_chosen_layers_only(
    recipe: Recipe, names: list[str], scheme: LayerScheme
) -> None:
    changed = recipe.assign(names, scheme)
    for layer in LAYERS:
        expected = scheme if layer.name in names else recipe.asked_scheme(layer)
        assert changed.asked_scheme(layer) == expected
    again = changed.assign(names, scheme)
    assert [again.asked_scheme(layer) for layer in LAYERS] == [
        changed.asked_scheme(layer) for layer in LAYERS
    ]


@given(recipes)
def test_that_a_recipe_survives_json_with_its_digest(recipe: Recipe) -> None:
    back = from_json(Recipe, json.loads(json.dumps(to_json(recipe))))
    assert back == recipe
    assert back.digest == recipe.digest


def test_that_equal_recipes_have_equal_digests_and_others_do_not() -> None:
    integer = Recipe(weight_ranges=(RangeOverride("a", 0, 1),))
    real = Recipe(weight_ranges=(RangeOverride("a", -0.0, 1.0),))
    assert integer == real
    assert integer.digest == real.digest
    assert len(integer.digest) == 64
    changes = [
        Recipe(),
        replace(integer, target="gpu"),
        replace(integer, calibration=CalibrationSettings(samples=513)),
        integer.with_rule(LayerRule(FP32)),
    ]
    assert len({recipe.digest for recipe in changes} | {integer.digest}) == 5


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        pytest.param(LayerRule(STATIC_INT8), "every layer → INT8", id="every"),
        pytest.param(LayerRule(FP16, ("a", "b")), "a, b → FP16", id="names"),
        pytest.param(LayerRule(WEIGHT_INT4, ("enc.*",), ("MatMul",)), "MatMul in enc.* → W4", id="both"),
        pytest.param(LayerRule(FP32, tuple("abcde")), "a, b, c and 2 more → FP32", id="many"),
    ],
)
def test_that_a_rule_reads_as_one_line(rule: LayerRule, label: str) -> None:
    assert rule.label == label


def test_that_other_bit_widths_are_legal_where_their_container_is() -> None:
    conv, head = LAYERS[0], LAYERS[2]
    static = LayerScheme(Precision.INT3, ActivationPrecision.INT8)
    weights = LayerScheme(Precision.INT3)
    dynamic = LayerScheme(Precision.INT6, ActivationPrecision.INT8_DYNAMIC)
    assert [scheme_name(s) for s in (static, weights, dynamic)] == ["static-int3", "custom", "dynamic-int6"]
    assert [is_legal(conv, s, DEFAULT_TARGET) for s in (static, weights, dynamic)] == [True, True, False]
    assert [is_legal(head, s, DEFAULT_TARGET) for s in (static, weights, dynamic)] == [True, False, True]
    assert is_legal(LAYERS[3], LayerScheme(granularity=Granularity.PER_TENSOR), DEFAULT_TARGET)


def test_that_a_uniform_recipe_takes_a_name_and_a_weight_rule() -> None:
    recipe = uniform_recipe(
        "weight-int8", weight_range=WeightRange.MSE, activation_scope=ActivationScope.WEIGHTED
    )
    assert recipe.rules == (LayerRule(WEIGHT_INT8.with_weight_range(WeightRange.MSE)),)
    assert recipe.activation_scope is ActivationScope.WEIGHTED
    assert uniform_recipe(STATIC_INT8).calibration == CalibrationSettings()
    with pytest.raises(RecipeError, match="unknown precision 'int9'"):
        uniform_recipe("int9")
