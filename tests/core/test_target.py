from __future__ import annotations

import pytest

from quantstudio.core.errors import RecipeError
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP32,
    STATIC_INT4,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Precision,
    at_weights,
)
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.target import (
    DEFAULT_TARGET,
    register_target,
    target_named,
    target_or_default,
    targets,
)

EVERY = tuple(NAMED_SCHEMES)
CONV = LayerInfo("conv", "Conv", "w", (8, 3, 3, 3), schemes=EVERY)
GEMM = LayerInfo("fc", "Gemm", "v", (8, 4), schemes=EVERY)
LSTM = LayerInfo("lstm", "LSTM", "u", (1, 8, 4), schemes=EVERY)
NORM = LayerInfo("norm", "LayerNormalization", reason="only a scale", schemes=("fp32",))
PRODUCT = LayerInfo("scores", "MatMul", schemes=("fp32", "static-int8"))


def test_that_a_table_says_what_is_legal_what_is_fast_and_why_not() -> None:
    assert DEFAULT_TARGET.support(CONV, STATIC_INT8).is_fast
    weights = DEFAULT_TARGET.support(CONV, WEIGHT_INT8)
    assert weights.is_legal
    assert not weights.is_fast
    assert "computed in float" in weights.reason
    dynamic = DEFAULT_TARGET.support(CONV, DYNAMIC_INT8)
    assert not dynamic.is_legal
    assert "slower than FP32" in dynamic.reason
    assert DEFAULT_TARGET.support(GEMM, DYNAMIC_INT8).is_fast
    assert not DEFAULT_TARGET.support(LSTM, STATIC_INT8).is_legal
    assert DEFAULT_TARGET.support(NORM, STATIC_INT8).reason == "only a scale"


@pytest.mark.parametrize("layer", [CONV, GEMM, LSTM, NORM, PRODUCT], ids=lambda layer: layer.op_type)
def test_that_every_layer_may_be_fp32_and_every_refusal_has_a_reason(layer: LayerInfo) -> None:
    for one in targets():
        assert one.support(layer, FP32).is_legal
        for name, scheme in NAMED_SCHEMES.items():
            support = one.support(layer, scheme)
            assert support.is_legal or support.reason, (one.name, name)


def test_that_a_list_written_before_a_format_existed_holds_it_all_the_same() -> None:
    before = ("fp32", "fp16", "static-int8", "weight-int8", "weight-int4", "static-int4")
    layer = LayerInfo("conv", "Conv", "w", (8, 3, 3, 3), schemes=before)
    assert DEFAULT_TARGET.support(layer, at_weights(STATIC_INT8, Precision.INT6)).is_legal
    assert "static-int6" in DEFAULT_TARGET.schemes(layer)
    packed = LayerInfo("gru", "GRU", "w", (1, 8, 3), schemes=("fp32", "weight-int8"))
    assert not DEFAULT_TARGET.support(packed, WEIGHT_INT4).is_legal


def test_that_products_of_two_activations_are_listed_once_per_format_of_activations() -> None:
    assert DEFAULT_TARGET.schemes(PRODUCT) == ("fp32", "static-int8")
    assert not DEFAULT_TARGET.support(PRODUCT, STATIC_INT4).is_legal


def test_that_unknown_targets_are_told_what_there_is() -> None:
    with pytest.raises(RecipeError, match="unknown target 'npu'") as unknown:
        target_named("npu")
    assert all(one.name in unknown.value.hint.text for one in targets())
    assert target_or_default("npu") is DEFAULT_TARGET
    assert uniform_recipe("static-int8").on_target is DEFAULT_TARGET
    assert Recipe(target="cpu-x86").on_target.weight_bits == 7


def test_that_a_target_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="already"):
        register_target(DEFAULT_TARGET)
