"""Sensitivity class by class, and the standard error of every mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.judgement import Task
from quantstudio.core.results import LayerSensitivity
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.quantization.weights import quantize_weight
from tests.engine.sensitivity_cases import (
    INT4,
    W1,
    Events,
    X,
    Y,
    by_name,
    data_of,
    log_softmax,
    logits_of,
    perceptron,
)


def kl_of_first_layer() -> np.ndarray:
    p = log_softmax(logits_of(X))
    q = log_softmax(logits_of(X, w1=quantize_weight(W1, INT4, 1).dequantized))
    return np.asarray((np.exp(p) * (p - q)).sum(-1))


def test_that_the_exact_divergence_is_told_by_true_class(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    labels = np.arange(len(X)) % 3
    result = exact_sensitivity(graph, data_of(tmp_path, graph, x=X, labels=labels))
    wanted = [kl_of_first_layer()[labels == k].mean() for k in range(3)]
    found = by_name(result.layers)["first"].by_class
    assert result.classes == ("0", "1", "2", "3")
    assert found[:3] == pytest.approx(wanted, rel=1e-3)
    # Nobody is of the last class.
    assert np.isnan(found[3])


def test_that_without_labels_the_predicted_class_counts(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, Task.CLASSIFY, x=X)
    wanted = [kl_of_first_layer()[k == Y].mean() for k in range(4)]
    exact = by_name(exact_sensitivity(graph, data).layers)["first"]
    assert exact.by_class == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("method", [fisher_sensitivity, exact_sensitivity])
def test_that_classes_weighted_by_size_add_up_to_the_whole(tmp_path: Path, method: object) -> None:
    graph = perceptron(tmp_path)
    names = np.array(["ant", "bee", "cat", "dog"])
    data = data_of(tmp_path, graph, x=X, labels=Y, class_names=names)
    result = method(graph, data)  # type: ignore[operator]
    assert result.classes == tuple(names)
    sizes = np.bincount(Y, minlength=4)
    for layer in result.layers:
        assert (np.array(layer.by_class) * sizes).sum() / len(Y) == pytest.approx(layer.kl)
        assert layer.error_by_precision.keys() == layer.by_precision.keys()
        # A skewed sample: the interval reaches further up than twice the standard error, and less far down.
        reach = 1.96 * layer.error_by_precision["int4"]
        assert layer.kl - layer.kl_low < reach < layer.kl_high - layer.kl < 3 * reach


def test_that_streamed_rows_bring_classes_and_errors_and_survive_the_codec(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    events = Events()
    fisher_sensitivity(graph, data_of(tmp_path, graph, x=X, labels=Y), reporter=events)
    rows = [row for row in events.layers if row.name == "first"]
    assert len(rows) > 1
    assert all(len(row.by_class) == 4 for row in rows)
    assert rows[-1].error_by_precision["int4"] < rows[0].error_by_precision["int4"]
    assert from_json(LayerSensitivity, json.loads(json.dumps(to_json(rows[-1])))) == rows[-1]
