from __future__ import annotations

import pytest

from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.targets.legality import NORMALIZATIONS, legal_schemes


@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_that_constant_products_can_have_every_named_scheme(op_type):
    names, reason = legal_schemes(op_type, (8, 4), has_weight=True, in_body=False)
    assert set(names) == set(NAMED_SCHEMES)
    assert reason == ""


def test_that_convolutions_have_no_dynamic_scheme():
    names, reason = legal_schemes("Conv", (8, 4, 3, 3), has_weight=True, in_body=False)
    assert "dynamic-int8" not in names
    assert "static-int8" in names
    assert reason == ""


@pytest.mark.parametrize("op_type", sorted(NORMALIZATIONS))
def test_that_normalizations_stay_float_with_a_reason(op_type):
    names, reason = legal_schemes(op_type, (8,), has_weight=True, in_body=False)
    assert names == ("fp32",)
    assert op_type in reason


def test_that_products_of_two_activations_are_static_or_float():
    assert legal_schemes("MatMul", (), has_weight=False, in_body=False) == (
        ("fp32", "static-int8", "static-int8-a4"),
        "",
    )
    names, reason = legal_schemes("MatMul", (), has_weight=False, in_body=True)
    assert names == ("fp32",)
    assert "control-flow" in reason
    assert legal_schemes("Conv", (), has_weight=False, in_body=False)[1]


def test_that_layers_in_bodies_have_nothing_static():
    names, reason = legal_schemes("MatMul", (8, 4), has_weight=True, in_body=True)
    assert {"weight-int8", "weight-int4", "fp16"} <= set(names)
    assert not {"static-int8", "static-int4"} & set(names)
    assert reason == ""


def test_that_other_element_types_ranks_and_operators_are_refused_with_the_reason():
    assert (
        "float16"
        in legal_schemes("MatMul", (4, 4), has_weight=True, in_body=False, weight_dtype="float16")[1]
    )
    assert "single row" in legal_schemes("MatMul", (4,), has_weight=True, in_body=False)[1]
    assert "PRelu" in legal_schemes("PRelu", (4, 1, 1), has_weight=True, in_body=False)[1]


def test_that_every_name_is_a_named_scheme():
    for op_type in ("Conv", "ConvTranspose", "Gather", "LSTM", "Einsum"):
        names, _ = legal_schemes(op_type, (4, 4, 4), has_weight=True, in_body=False)
        assert set(names) <= set(NAMED_SCHEMES)
