"""Mean bits of a recipe, against sums done by hand."""

import pytest

from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import group_axis, plan_bits, weight_owners
from quantstudio.core.precision import STATIC_INT4, STATIC_INT8
from quantstudio.core.recipe import LayerRule, Recipe

EVERY = ("fp16", "static-int8", "static-int4", "weight-int4")
CONV = LayerInfo("conv", "Conv", "w", (8, 3, 3, 3), parameters=8 * 27 + 8, schemes=EVERY, channel_axis=0)
HEAD = LayerInfo("head", "Gemm", "v", (10, 64), parameters=640 + 10, schemes=EVERY, channel_axis=0)
NORM = LayerInfo("norm", "LayerNormalization", "n", (16,), parameters=32, quantizable=False)


def test_that_groups_run_along_the_axis_that_is_reduced():
    assert group_axis((10, 64), 0) == 1


def bits_of(layers, recipe):
    return plan_bits(layers, recipe.schemes(layers))


def test_that_mean_bits_count_only_what_can_be_quantized():
    recipe = Recipe((LayerRule(STATIC_INT8), LayerRule(STATIC_INT4, ("head",))))
    found = bits_of((CONV, HEAD, NORM), recipe)
    assert found.average == pytest.approx((216 * 8 + 640 * 4) / 856)
    assert found.share_above_8 == 0.0
    assert bits_of((CONV, HEAD, NORM), Recipe()).share_above_8 == 1.0
    assert bits_of((), Recipe()).average == 0.0


def test_that_a_tied_weight_counts_where_it_is_used_first():
    again = LayerInfo("again", "Gemm", "v", (10, 64), parameters=0, schemes=EVERY, channel_axis=0)
    assert weight_owners((HEAD, again)) == {"head"}
    recipe = Recipe((LayerRule(STATIC_INT8), LayerRule(STATIC_INT4, ("head",))))
    assert bits_of((CONV, HEAD, again), recipe) == bits_of((CONV, HEAD), recipe)
