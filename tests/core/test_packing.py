"""Packed bytes and mean bits of a recipe, against sums done by hand."""

import pytest

from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import group_axis, packed_bytes, packed_plan, weight_owners
from quantstudio.core.precision import FP16, FP32, STATIC_INT4, STATIC_INT8, WEIGHT_INT4
from quantstudio.core.recipe import LayerRule, Recipe

EVERY = ("fp16", "static-int8", "static-int4", "weight-int4")
CONV = LayerInfo("conv", "Conv", "w", (8, 3, 3, 3), parameters=8 * 27 + 8, schemes=EVERY, channel_axis=0)
HEAD = LayerInfo("head", "Gemm", "v", (10, 64), parameters=640 + 10, schemes=EVERY, channel_axis=0)
NORM = LayerInfo("norm", "LayerNormalization", "n", (16,), parameters=32, quantizable=False)


def test_that_a_layer_takes_its_bits_its_scales_and_its_bias():
    assert packed_bytes(CONV, FP32, owns_weight=True) == 4 * (216 + 8)
    assert packed_bytes(CONV, FP16, owns_weight=True) == 2 * (216 + 8)
    assert packed_bytes(CONV, STATIC_INT8, owns_weight=True) == 216 + 4 * 8 + 4 * 8
    assert packed_bytes(CONV, STATIC_INT4, owns_weight=True) == 108 + 4 * 8 + 4 * 8


def test_that_groups_have_a_scale_each():
    # 64 inputs are two groups of 32 for each of ten outputs.
    assert packed_bytes(HEAD, WEIGHT_INT4, owns_weight=True) == 320 + 4 * 20 + 4 * 10
    assert group_axis((10, 64), 0) == 1


def packed_of(layers, recipe):
    return packed_plan(layers, recipe.schemes(layers))


def test_that_a_recipe_adds_up_and_counts_only_what_can_be_quantized():
    recipe = Recipe((LayerRule(STATIC_INT8), LayerRule(STATIC_INT4, ("head",))))
    found = packed_of((CONV, HEAD, NORM), recipe)
    assert found.weight_bytes == (216 + 64) + (320 + 40 + 40) + 4 * 32
    assert found.average_bits == pytest.approx((216 * 8 + 640 * 4) / 856)
    assert found.share_above_8 == 0.0
    assert packed_of((CONV, HEAD, NORM), Recipe()).share_above_8 == 1.0
    assert packed_of((), Recipe()).weight_bytes == 0


def test_that_a_tied_weight_counts_where_it_is_used_first():
    again = LayerInfo("again", "Gemm", "v", (10, 64), parameters=0, schemes=EVERY, channel_axis=0)
    assert weight_owners((HEAD, again)) == {"head"}
    recipe = Recipe((LayerRule(STATIC_INT8),))
    assert packed_of((HEAD, again), recipe).weight_bytes == packed_of((HEAD,), recipe).weight_bytes
