"""A recipe resolved once: plans are equal where they come to the same thing."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
    Granularity,
    WeightRange,
)
from quantstudio.core.recipe import (
    ActivationScope,
    CalibrationSettings,
    LayerRule,
    RangeMethod,
    RangeOverride,
    Recipe,
    uniform_recipe,
)
from quantstudio.core.steps import Need, SettingInfo, SettingType, Step, StepInfo

SCHEMES = ("fp32", "fp16", "static-int8", "dynamic-int8", "weight-int8", "weight-int4", "static-int4")
LAYERS = (
    LayerInfo("stem", "Conv", "stem.w", (4, 1, 3, 3), schemes=SCHEMES),
    LayerInfo("head", "Gemm", "head.w", (10, 4), schemes=SCHEMES),
    LayerInfo("scores", "MatMul", schemes=("fp32", "static-int8")),
)
STATIC = uniform_recipe(STATIC_INT8)
WEIGHTS = uniform_recipe(WEIGHT_INT8)
INFOS = (
    StepInfo(
        "smooth",
        "Smooth",
        "Moves outliers into weights.",
        settings=(SettingInfo("alpha", "Share", SettingType.FLOAT, 0.5, 0, 1),),
    ),
    StepInfo("prune", "Prune", "Takes channels out.", needs=(Need.SEED,)),
)


def digest(recipe: Recipe) -> str:
    return resolve(recipe, LAYERS, INFOS).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            STATIC,
            Recipe((LayerRule(FP32), LayerRule(STATIC_INT8))),
            id="an overruled rule",
        ),
        pytest.param(
            STATIC, STATIC.assign(["stem"], FP16).assign(["stem"], STATIC_INT8), id="there and back"
        ),
        pytest.param(
            WEIGHTS, replace(WEIGHTS, calibration=CalibrationSettings(RangeMethod.MINMAX)), id="no ranges"
        ),
        pytest.param(
            WEIGHTS, replace(WEIGHTS, activation_scope=ActivationScope.WEIGHTED), id="nothing to scope"
        ),
        pytest.param(
            WEIGHTS,
            replace(WEIGHTS, activation_ranges=(RangeOverride("x", 0, 1),)),
            id="a range nothing reads",
        ),
        pytest.param(
            uniform_recipe(FP16),
            replace(uniform_recipe(FP16), weight_ranges=(RangeOverride("stem", -1, 1),)),
            id="a clip of float weights",
        ),
        pytest.param(
            STATIC,
            replace(STATIC, calibration=CalibrationSettings(percentile=90.0)),
            id="a percentile MSE does not read",
        ),
        pytest.param(
            STATIC, uniform_recipe(replace(STATIC_INT8, group_size=64)), id="a group size without groups"
        ),
        pytest.param(
            STATIC,
            uniform_recipe(replace(STATIC_INT8, granularity=Granularity.PER_GROUP)),
            id="groups that integer kernels do not take",
        ),
        pytest.param(
            replace(STATIC, weight_ranges=(RangeOverride("stem", -1, 1), RangeOverride("head", -1, 1))),
            replace(
                uniform_recipe(STATIC_INT8.with_weight_range(WeightRange.MSE)).assign(
                    ["scores"], STATIC_INT8
                ),
                weight_ranges=(RangeOverride("head", -1, 1), RangeOverride("stem", -1, 1)),
            ),
            id="clips leave no range to search",
        ),
        pytest.param(STATIC, replace(STATIC, steps=(Step("smooth", is_on=False),)), id="a step that is off"),
        pytest.param(STATIC, replace(STATIC, seed=7), id="a seed nothing draws from"),
        pytest.param(
            replace(STATIC, steps=(Step("smooth"),)),
            replace(STATIC, steps=(Step("smooth", {"alpha": 0.5}),), seed=3),
            id="a default written out",
        ),
    ],
)
def test_that_recipes_that_come_to_the_same_thing_are_one_plan(one: Recipe, other: Recipe) -> None:
    assert one != other
    assert digest(one) == digest(other)
    assert resolve(one, LAYERS, INFOS) == resolve(other, LAYERS, INFOS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(STATIC, STATIC.assign(["head"], FP32), id="a layer"),
        pytest.param(STATIC, replace(STATIC, activation_scope=ActivationScope.WEIGHTED), id="scope"),
        pytest.param(STATIC, replace(STATIC, calibration=CalibrationSettings(samples=8)), id="samples"),
        pytest.param(
            STATIC, replace(STATIC, calibration=CalibrationSettings(RangeMethod.MINMAX)), id="method"
        ),
        pytest.param(STATIC, replace(STATIC, activation_ranges=(RangeOverride("x", 0, 1),)), id="a range"),
        pytest.param(WEIGHTS, replace(WEIGHTS, weight_ranges=(RangeOverride("stem", -1, 1),)), id="a clip"),
        pytest.param(
            uniform_recipe(WEIGHT_INT4), uniform_recipe(replace(WEIGHT_INT4, group_size=64)), id="groups"
        ),
        pytest.param(STATIC, replace(STATIC, steps=(Step("smooth"),)), id="a step"),
        pytest.param(
            replace(STATIC, steps=(Step("smooth"),)),
            replace(STATIC, steps=(Step("smooth", {"alpha": 0.6}),)),
            id="a setting",
        ),
        pytest.param(
            replace(STATIC, steps=(Step("smooth"), Step("prune"))),
            replace(STATIC, steps=(Step("prune"), Step("smooth"))),
            id="the order of steps",
        ),
        pytest.param(
            replace(STATIC, steps=(Step("prune"),)),
            replace(STATIC, steps=(Step("prune"),), seed=1),
            id="a seed that is drawn from",
        ),
    ],
)
def test_that_recipes_that_differ_in_effect_are_two_plans(one: Recipe, other: Recipe) -> None:
    assert digest(one) != digest(other)


def test_that_products_of_activations_stay_float_under_the_weighted_scope_unless_named() -> None:
    weighted = replace(STATIC, activation_scope=ActivationScope.WEIGHTED)
    plan = resolve(weighted, LAYERS)
    assert plan.schemes["scores"] == FP32
    assert plan.notes == {"scores": "stays FP32: only layers with weights are quantized in this recipe"}
    named = resolve(weighted.assign(["scores"], STATIC_INT8), LAYERS)
    assert named.schemes["scores"] == STATIC_INT8
    assert not named.notes


def test_that_a_plan_says_why_a_layer_has_not_what_was_asked() -> None:
    plan = resolve(uniform_recipe(DYNAMIC_INT8), LAYERS)
    assert plan.asked["scores"] == DYNAMIC_INT8
    assert plan.notes["scores"] == (
        "INT8 dyn asked; stays FP32: it multiplies two activations, and there is no INT8 dyn form of that"
    )


def test_that_a_recipe_without_steps_names_itself_as_version_1_did() -> None:
    old = Recipe(target="cpu-x86-vnni")
    assert old.digest == replace(old, steps=(), seed=0).digest
    assert old.digest.startswith("d76a75ffb6ffcbac")
    assert replace(old, seed=1).digest != old.digest


def test_that_a_default_written_out_makes_the_same_file() -> None:
    short = replace(STATIC, steps=(Step("smooth"),))
    long = replace(STATIC, steps=(Step("smooth", {"alpha": 0.5}),))
    assert resolve(short, LAYERS, INFOS).recipe_digest == resolve(long, LAYERS, INFOS).recipe_digest


def test_that_an_unknown_step_is_refused_where_steps_are_known() -> None:
    recipe = replace(STATIC, steps=(Step("melt", is_on=False),))
    with pytest.raises(RecipeError, match=r"there is no step 'melt'. Known steps: smooth, prune"):
        resolve(recipe, LAYERS, INFOS)
    assert resolve(recipe, LAYERS).steps == ()


def test_that_a_layer_that_the_file_holds_quantized_stays_as_it_is() -> None:
    why = "already quantized (INT8)"
    stored = LayerInfo("stem", "Conv", "stem.w", schemes=("fp32",), reason=why, stored_as="INT8")
    assert resolve(WEIGHTS, (stored,)).notes == {"stem": f"W8 asked; stays as it is: {why}"}


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_that_a_seed_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(RecipeError, match=f"the seed {seed} is none"):
        resolve(replace(STATIC, seed=seed), LAYERS)
