"""Costs behind steps that leave other layers: of those, with what tables of floats take in the file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.predict.table import PredictionTable
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.steps import Step
from quantstudio.engine.analysis.costs import cost_table
from quantstudio.engine.graph.writing import model_size
from quantstudio.engine.quantization.emit import emit
from quantstudio.workspace.evidence import Evidence
from quantstudio.workspace.resolved import Ground
from quantstudio.workspace.what_if import WhatIf
from tests.engine.quantization_cases import opened
from tests.engine.test_compression_low_rank import HAND, classifier, factored
from tests.engine.test_compression_share import shared


@pytest.fixture
def untimed(monkeypatch):
    """Nothing is timed: bytes alone."""
    monkeypatch.setattr("quantstudio.engine.analysis.costs._timed_feed", lambda *args: None)


@pytest.mark.parametrize("way", ["low-rank", "share"])
def test_that_sizes_are_predicted_of_what_a_step_leaves(tmp_path, untimed, way):
    graph = opened(classifier(), tmp_path)
    left = factored(graph, tmp_path, rank=8, **HAND).graph if way == "low-rank" else shared(graph).graph
    costs = cost_table(left, None, None, opened=graph)
    if way == "share":
        assert costs.network is None
    else:
        assert costs.network is not None
        assert [layer.name for layer in costs.network.layers] == ["a::factor", "a", "b::factor", "b", "c"]
    table = PredictionTable(left.layers, costs=costs, steps=(Step(way),), changing=(way,))
    for rules in ((), (LayerRule(NAMED_SCHEMES["weight-int8"], ("b",)),)):
        plan = resolve(Recipe(rules, steps=(Step(way),)), left.layers)
        found = table.predict(plan)
        size = model_size(emit(left, None, plan))
        assert found.size_bytes == pytest.approx(size, rel=0.06 if rules else 0.01)
        assert found.quantized == (0 if not rules else 2 if way == "low-rank" else 1)


def test_that_a_plan_for_the_opened_layers_is_predicted_for_those_that_are_left(tmp_path, untimed):
    graph, step = opened(classifier(), tmp_path), Step("low-rank")
    left = factored(graph, tmp_path, rank=8, **HAND).graph
    costs = cost_table(left, None, None, opened=graph)
    ground = Ground("behind", (step,), changing=("low-rank",), target=Recipe().target)
    known = Evidence(graph.summary, ground, costs, None, {}, 0, (), None, None, ())
    made = WhatIf(lambda recipe: resolve(recipe, graph.layers), dict, lambda: None)
    recipe = Recipe((LayerRule(NAMED_SCHEMES["weight-int8"], ("b",)),), steps=(step,))
    found = made.predict(known, resolve(recipe, graph.layers))
    assert found.quantized == 2
    assert found.size_bytes == pytest.approx(
        model_size(emit(left, None, resolve(recipe, left.layers))), rel=0.06
    )
    assert made.predict(known, resolve(replace(recipe, rules=()), graph.layers)).quantized == 0


def test_that_costs_of_the_opened_model_know_of_no_other_layers(tmp_path, untimed):
    graph = opened(classifier(), tmp_path)
    assert cost_table(graph, None, None).network is None
    assert cost_table(graph, None, None, opened=graph).network is None
