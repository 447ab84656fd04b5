"""Only this layer quantized against all but this one; its own error against the accumulated one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.errors import RecipeError
from quantstudio.core.judgement import Task
from quantstudio.engine.analysis import exact
from quantstudio.engine.analysis.exact import ExactScorer
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.analysis.store import ResultStore
from quantstudio.engine.quantization.weights import quantize_weight
from tests.affine_reference import fake_quantize
from tests.engine.sensitivity_cases import (
    INT4,
    W1,
    W2,
    X,
    Y,
    by_name,
    data_of,
    logits_of,
    mean_kl,
    perceptron,
)

Q1, Q2 = quantize_weight(W1, INT4, 1).dequantized, quantize_weight(W2, INT4, 1).dequantized


def test_that_all_but_one_is_the_rest_quantized(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    result = exact_sensitivity(graph, data, precisions=("int4",), all_but=True)
    layers, base = by_name(result.layers), logits_of(X)
    assert layers["first"].kl_all_but == pytest.approx(mean_kl(base, logits_of(X, w2=Q2)), rel=1e-3)
    assert layers["second"].kl_all_but == pytest.approx(mean_kl(base, logits_of(X, w1=Q1)), rel=1e-3)
    assert result.kl_all == pytest.approx(mean_kl(base, logits_of(X, Q1, Q2)), rel=1e-3)
    # With two layers, all but one is only the other.
    assert layers["first"].kl_all_but == pytest.approx(layers["second"].kl, rel=1e-5)


def test_that_all_but_one_holds_for_activations_too(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    name = "int4+int4-activations"
    data = data_of(tmp_path, graph, Task.CLASSIFY, x=X)
    layers = by_name(exact_sensitivity(graph, data, precisions=(), reference=name, all_but=True).layers)
    grid = IntegerGrid(4, signed=False)
    hidden = np.maximum(X @ W1, 0)
    rounded_x = fake_quantize(X, *affine_qparams(float(X.min()), float(X.max()), grid), grid)
    rounded_h = fake_quantize(hidden, *affine_qparams(0.0, float(hidden.max()), grid), grid)
    bias = logits_of(np.zeros((1, 6)))
    base = logits_of(X)
    assert layers["second"].kl_all_but == pytest.approx(mean_kl(base, logits_of(rounded_x, w1=Q1)), rel=2e-3)
    assert layers["first"].kl_all_but == pytest.approx(mean_kl(base, rounded_h @ Q2 + bias), rel=2e-2)


def test_that_outputs_too_large_to_keep_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    kept = exact_sensitivity(graph, data, all_but=True)
    monkeypatch.setattr(exact, "KEPT_BYTES", 0)
    recomputed = exact_sensitivity(graph, data, all_but=True)
    for a, b in zip(kept.layers, recomputed.layers, strict=True):
        assert a.kl_all_but == pytest.approx(b.kl_all_but, rel=1e-5)


def test_that_accumulated_error_is_that_of_everything_up_to_the_layer(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    layers = by_name(exact_sensitivity(graph, data, precisions=("int4",), accumulated=True).layers)
    first, second = X @ W1, logits_of(X)
    expected = {"first": (first, X @ Q1), "second": (second, logits_of(X, Q1, Q2))}
    for name, (exactly, changed) in expected.items():
        wanted = 10 * np.log10(np.square(exactly).sum() / np.square(changed - exactly).sum())
        assert layers[name].accumulated_sqnr_db == pytest.approx(wanted, abs=0.01)
    assert (layers["second"].accumulated_sqnr_db or np.inf) < layers["second"].sqnr_db


def test_that_both_directions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    with ResultStore(tmp_path / "kept.sqlite") as store:
        first = exact_sensitivity(graph, data, all_but=True, accumulated=True, store=store)
        monkeypatch.setattr(ExactScorer, "__init__", None)
        again = exact_sensitivity(graph, data, all_but=True, accumulated=True, store=store)
    assert first.layers == again.layers
    assert first.kl_all == again.kl_all


def test_that_the_top_layers_are_those_with_the_highest_estimate(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    estimates = fisher_sensitivity(graph, data).layers
    worst = max(estimates, key=lambda layer: layer.kl).name
    assert [layer.name for layer in exact_sensitivity(graph, data, top=1).layers] == [worst]
    assert len(exact_sensitivity(graph, data, top=9).layers) == 2
    with pytest.raises(RecipeError, match="0 layers"):
        exact_sensitivity(graph, data, top=0)
