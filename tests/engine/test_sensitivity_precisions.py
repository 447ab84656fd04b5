"""Every precision a layer can have: names, legality, and both methods on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.errors import RecipeError
from quantstudio.core.judgement import Task
from quantstudio.core.precision import Granularity, LayerScheme, Precision, WeightRange, weight_formats
from quantstudio.engine.analysis.precisions import trial
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.quantization.weights import quantize_weight
from tests.affine_reference import fake_quantize
from tests.engine.sensitivity_cases import (
    W1,
    W2,
    Events,
    X,
    Y,
    by_name,
    data_of,
    logits_of,
    mean_kl,
    normal,
    opened,
    perceptron,
)

EVERY = (
    *(row.name for row in weight_formats() if row != Precision.FP32),
    "int8-activations",
    "int4-activations",
    "int8+int8-activations",
    "int4/tensor",
    "int4/group4",
    "int4/group4+int8-activations",
)


def test_that_both_methods_give_every_precision_and_agree(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    fisher = by_name(fisher_sensitivity(graph, data, precisions=EVERY).layers)
    exact = by_name(exact_sensitivity(graph, data, precisions=EVERY).layers)
    for name, layer in exact.items():
        assert set(layer.by_precision) == set(fisher[name].by_precision) == set(EVERY)
        for precision in set(EVERY) - {"fp16", "binary", "int2", "int3"}:
            ratio = fisher[name].by_precision[precision] / layer.by_precision[precision]
            assert 0.6 < ratio < 1.7
        by = layer.by_precision
        assert by["fp16"] < by["int8"] < by["int6"] < by["int4"] < by["int3"] < by["int2"] < by["binary"]
        assert by["int4/group4"] < by["int4/tensor"]
        # Second-order: far below what float32 outputs can tell, but an estimate has no such floor.
        assert 0 < fisher[name].by_precision["fp16"] < fisher[name].by_precision["int8"]


def test_that_weights_and_inputs_together_are_measured_together(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    name = "int4+int4-activations"
    result = exact_sensitivity(
        graph, data_of(tmp_path, graph, Task.CLASSIFY, x=X), precisions=(name,), reference=name
    )
    grid = IntegerGrid(4, signed=False)
    scale, zero_point = affine_qparams(float(X.min()), float(X.max()), grid)
    int4 = LayerScheme(Precision.INT4, weight_range=WeightRange.MSE)
    changed = logits_of(
        fake_quantize(X, scale, zero_point, grid), w1=quantize_weight(W1, int4, 1).dequantized
    )
    layer = by_name(result.layers)["first"]
    assert layer.kl == pytest.approx(mean_kl(logits_of(X), changed), rel=1e-3)
    signal, noise = (
        X @ W1,
        fake_quantize(X, scale, zero_point, grid) @ quantize_weight(W1, int4, 1).dequantized,
    )
    wanted = 10 * np.log10(np.square(signal).sum() / np.square(noise - signal).sum())
    # The SQNR comes from the first batch only.
    assert layer.sqnr_db == pytest.approx(wanted, abs=1.5)


@pytest.mark.parametrize(
    ("name", "granularity"),
    [("int4/tensor", Granularity.PER_TENSOR), ("int4/group8", Granularity.PER_GROUP)],
)
def test_that_granularity_is_what_is_measured(tmp_path: Path, name: str, granularity: Granularity) -> None:
    graph = perceptron(tmp_path)
    result = exact_sensitivity(
        graph, data_of(tmp_path, graph, Task.CLASSIFY, x=X), precisions=(name,), reference=name
    )
    scheme = LayerScheme(Precision.INT4, granularity=granularity, group_size=8, weight_range=WeightRange.MSE)
    w2 = quantize_weight(W2, scheme, 1).dequantized
    wanted = mean_kl(logits_of(X), logits_of(X, w2=w2))
    assert by_name(result.layers)["second"].kl == pytest.approx(wanted, rel=1e-3)


def test_that_names_have_one_spelling() -> None:
    assert trial("int4/channel").name == "int4"
    assert trial("int4/group").name == "int4/group32"
    assert trial("int8-activations+int4").name == "int4+int8-activations"
    assert trial("binary/tensor+int8-activations").parts == ("binary/tensor", "int8-activations")


@pytest.mark.parametrize(
    "name",
    ["fp32", "fp16/tensor", "int7", "int4/row", "int4/group1", "int8+int4", "int9-activations", "a+b+c", ""],
)
def test_that_other_names_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="does not know"):
        trial(name)


def test_that_a_convolution_has_no_groups_and_says_so(tmp_path: Path) -> None:
    graph = opened(
        tmp_path,
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flat"),
            helper.make_node("MatMul", ["f", "v"], ["y"], name="head"),
        ],
        {"w": normal(8, 3, 3, 3), "v": normal(8, 3)},
        {"x": (TensorProto.FLOAT, ["n", 3, 6, 6])},
        {"y": ["n", 3]},
    )
    data = data_of(tmp_path, graph, x=normal(40, 3, 6, 6))
    events = Events()
    found = by_name(fisher_sensitivity(graph, data, precisions=("int4/group4",), reporter=events).layers)
    assert set(found["conv"].by_precision) == {"int4"}
    assert set(found["head"].by_precision) == {"int4", "int4/group4"}
    assert any("int4/group4 is not tried on conv" in text and "matrix" in text for text in events.texts)


def test_that_weights_beyond_half_precision_stay_out_of_it(tmp_path: Path) -> None:
    w1 = W1.copy()
    w1[0, 0] = 1e5
    graph = opened(
        tmp_path,
        [helper.make_node("MatMul", ["x", "w1"], ["y"], name="only")],
        {"w1": w1},
        {"x": (TensorProto.FLOAT, ["n", 6])},
        {"y": ["n", 12]},
    )
    found = fisher_sensitivity(
        graph, data_of(tmp_path, graph, Task.CLASSIFY, x=X), precisions=("fp16", "int8")
    )
    assert "fp16" not in found.layers[0].by_precision
    assert "int8" in found.layers[0].by_precision


@pytest.mark.parametrize("score", [fisher_sensitivity, exact_sensitivity])
def test_that_the_reference_is_spelled_as_the_figures_are(tmp_path: Path, score: Callable[..., Any]) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    found = score(graph, data, precisions=("int8",), reference="int4/channel")
    assert found.reference == "int4"
    assert all(layer.by_precision[found.reference] == layer.kl for layer in found.layers)


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("static-int4", "int4+int8-activations"),
        ("static-int4-a4", "int4+int4-activations"),
        ("dynamic-int8", "int8+int8-activations"),
        ("weight-int4", "int4/group128"),
        ("weight-int6", "int6"),
        ("fp16", "fp16"),
    ],
)
def test_that_a_scheme_is_tried_as_what_it_consists_of(scheme, name):
    assert trial(scheme).name == name
