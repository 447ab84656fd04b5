"""Where a table of codes a channel pays, and what a layer gets where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantstudio.core.codebooks import codebook_pays, why_no_codebook
from quantstudio.core.effective_plan import resolve
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import STATIC_INT8, Precision, weight_format
from quantstudio.core.recipe import PACKED_FILES, LayerRule, Recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.steps import Step

CONV = LayerInfo(
    "conv", "Conv", "w", (64, 64, 3, 3), 64 * 577, schemes=tuple(NAMED_SCHEMES), channel_axis=0, inputs=("x",)
)
FIRST = replace(CONV, name="first", weight_shape=(32, 1, 3, 3))
DEPTHWISE = replace(CONV, name="depthwise", weight_shape=(64, 1, 3, 3), groups=64)
GROUPED = replace(CONV, name="grouped", weight_shape=(64, 32, 3, 3), groups=2)
PRODUCT = LayerInfo("scores", "MatMul", schemes=("fp32", "static-int8"), inputs=("q", "k"))


@pytest.mark.parametrize(
    ("layer", "widths"),
    [
        (CONV, (4, 3, 2, 1)),
        (FIRST, ()),
        (DEPTHWISE, ()),
        (GROUPED, ()),
        (replace(CONV, weight_shape=(64, 40, 1, 1)), (3, 2, 1)),
        (replace(CONV, op_type="MatMul", weight_shape=(20, 512), channel_axis=1), (2, 1)),
        (PRODUCT, (4, 3, 2, 1)),
    ],
    ids=["conv", "nine weights", "depthwise", "grouped", "pointwise", "matmul", "product"],
)
def test_that_a_table_pays_where_it_saves_a_good_part(layer: LayerInfo, widths: tuple[int, ...]) -> None:
    assert tuple(b for b in (4, 3, 2, 1) if codebook_pays(layer, weight_format(f"codebook{b}"))) == widths
    assert codebook_pays(layer, Precision.INT4)


def test_that_a_table_pays_where_channels_have_too_few_weights_for_one_each():
    depthwise = replace(DEPTHWISE, weight_shape=(96, 1, 3, 3), groups=96)
    assert not codebook_pays(depthwise, Precision.CODEBOOK2)
    assert codebook_pays(depthwise, Precision.TABLE2)
    assert not codebook_pays(replace(depthwise, weight_shape=(16, 1, 3, 3), groups=16), Precision.TABLE2)
    assert "144 weights" in why_no_codebook(replace(depthwise, weight_shape=(16, 1, 3, 3)), Precision.TABLE2)


def test_that_channels_of_few_weights_have_no_table_in_groups():
    depthwise = replace(DEPTHWISE, weight_shape=(96, 1, 3, 3), groups=96)
    assert [codebook_pays(depthwise, weight_format(f"group{bits}")) for bits in (4, 3, 2)] == [
        False,
        False,
        True,
    ]
    assert codebook_pays(CONV, Precision.GROUP4)
    assert "72 weights" in why_no_codebook(depthwise, Precision.GROUP4)


@pytest.mark.parametrize(
    ("channels", "groups"), [(64, 8), (33, 3), (20, 2), (10, 1), (24, 3), (7, 1), (34, 2), (1, 1)]
)
def test_that_groups_are_of_equal_size_and_at_least_eight_channels(channels: int, groups: int) -> None:
    assert Precision.GROUP2.tables_of(channels) == groups
    assert Precision.CODEBOOK2.tables_of(channels) == channels
    assert Precision.TABLE2.tables_of(channels) == 1
    assert Precision.INT2.tables_of(channels) == 0


def test_that_a_layer_whose_table_does_not_pay_gets_int8_and_a_note() -> None:
    recipe = Recipe((LayerRule(NAMED_SCHEMES["static-codebook2"]),))
    plan = resolve(recipe, [CONV, DEPTHWISE, FIRST])
    assert plan.schemes["conv"].weights == Precision.CODEBOOK2
    assert plan.schemes["depthwise"] == plan.schemes["first"] == STATIC_INT8
    assert "grouped convolution" in plan.notes["depthwise"]
    assert plan.notes["first"] == (
        "W2A8 codebook asked; INT8: tables would take more than they save of 32 channels of 9 weights"
    )
    named = recipe.assign(["depthwise"], NAMED_SCHEMES["static-codebook2"])
    assert resolve(named, [CONV, DEPTHWISE]).schemes["depthwise"] == STATIC_INT8


def test_that_the_form_of_the_file_is_part_of_a_plan_where_it_matters() -> None:
    def form(name: str, steps: tuple[Step, ...] = (), emission: int = PACKED_FILES) -> int:
        recipe = Recipe((LayerRule(NAMED_SCHEMES[name]),), steps=steps, emission=emission)
        return resolve(recipe, [CONV]).emission

    assert form("static-int8") == form("fp32", (Step("equalize"),)) == 1
    assert form("static-int4") == form("weight-int3") == form("static-codebook2") == PACKED_FILES
    # A step may have chosen the integers.
    assert form("static-int8", (Step("equalize"),)) == PACKED_FILES
    # Without a product of activations the second form was the first.
    assert form("static-int4", emission=2) == 1


def test_that_a_recipe_says_what_a_layer_gets_where_no_codebook_pays() -> None:
    recipe = Recipe((LayerRule(NAMED_SCHEMES["static-codebook3"]),))
    assert recipe.scheme_for(DEPTHWISE).weights == Precision.INT8
    assert recipe.scheme_for(CONV).weights == weight_format("codebook3")
    plan = resolve(recipe, [CONV, DEPTHWISE])
    assert recipe.schemes([CONV, DEPTHWISE]) == dict(plan.schemes)
