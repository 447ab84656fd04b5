"""The sums a search solves are those predictions are made of: one law, held on plans drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.costs import CostTable
from quantstudio.core.effective_plan import resolve
from quantstudio.core.packing import packs, plan_bits
from quantstudio.core.predict.kl_model import KlModel
from quantstudio.core.predict.table import PredictionTable
from quantstudio.core.recipe import ActivationScope, Recipe
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.search_results import ActivationFamily, searched_precisions
from quantstudio.core.target import DEFAULT_TARGET
from quantstudio.engine.search.allocation import Quantity, allocation_of
from quantstudio.engine.search.groups import find_groups
from quantstudio.engine.search.space import SearchSpace, base_recipe, byte_costs
from tests.engine.quantization_cases import attention_net, normal, opened, residual_net, statistics_of
from tests.engine.step_cases import uneven

CONTAINERS = ("static-int8", "dynamic-int8", "weight-int8", "weight-int4")


def timed(costs: CostTable, rng: np.random.Generator) -> CostTable:
    """The same bytes with times made up, of which layers own nine tenths."""
    share = 0.9 / max(len(costs.layers), 1)
    layers = {
        name: replace(row, time_share=share, time_ratio={kind: rng.uniform(0.3, 1.4) for kind in CONTAINERS})
        for name, row in costs.layers.items()
    }
    return replace(costs, layers=layers, fp32_ms=2.0, written_ratio=1.07)


def rows_of(graph, rng) -> dict[str, LayerSensitivity]:
    names = searched_precisions()
    return {
        layer.name: LayerSensitivity(
            layer.name,
            0.1,
            0.1,
            0.1,
            20.0,
            by_precision={name: float(rng.uniform(0, 0.01)) for name in names},
        )
        for layer in graph.layers
    }


def residual(folder):
    graph = opened(residual_net(), folder)
    return graph, statistics_of(graph, {"x": normal(4, 3, 12, 12)})


def attention(folder):
    graph = opened(attention_net(), folder)
    return graph, statistics_of(graph, {"x": normal(4, 6, 32)})


def chain(folder):
    graph = uneven(folder).graph
    return graph, statistics_of(graph, {"x": normal(4, 6)})


@pytest.mark.parametrize(
    ("net", "family"),
    [
        (residual, ActivationFamily.STATIC),
        (attention, ActivationFamily.WEIGHTED),
        (attention, ActivationFamily.DYNAMIC),
        (chain, ActivationFamily.STATIC),
        (chain, ActivationFamily.WEIGHT_ONLY),
    ],
)
def test_that_what_is_solved_is_what_is_predicted(net, family, tmp_path):
    rng = np.random.default_rng(7)
    graph, statistics = net(tmp_path)
    scope = ActivationScope.WEIGHTED if family is ActivationFamily.WEIGHTED else ActivationScope.ALL
    costs = timed(byte_costs(graph, statistics, CONTAINERS, scope), rng)
    rows, model = rows_of(graph, rng), KlModel()
    space = SearchSpace(
        graph, family, rows, find_groups(graph), costs, costs, pinned={}, target=DEFAULT_TARGET
    )
    table = PredictionTable(
        graph.layers, costs=costs, sensitivity=rows, weight_bits=DEFAULT_TARGET.weight_bits
    )
    problem = space.problem(model, floats=True)
    start = base_recipe(graph, family, Recipe())
    for _ in range(12):
        drawn = allocation_of(problem, [int(rng.integers(len(unit.options))) for unit in problem.units])
        recipe = start
        for scheme in dict.fromkeys(drawn.schemes.values()):
            recipe = recipe.assign([n for n, own in drawn.schemes.items() if own == scheme], scheme)
        plan = resolve(recipe, graph.layers)
        if not any(map(packs, plan.schemes.values())):
            continue  # a file of INT8 alone has another form, and is measured by every search
        found, bits = table.predict(plan), plan_bits(graph.layers, plan.schemes)
        for totals in (drawn.totals, space.totals(plan.schemes, model)):
            assert found.size_bytes == round(totals[Quantity.FILE_BYTES])
            assert found.latency_ms == pytest.approx(2.0 * totals[Quantity.LATENCY_RATIO])
            assert model.factors @ table.known_parts(plan) == pytest.approx(totals[Quantity.KL])
            assert bits.average == pytest.approx(totals[Quantity.AVERAGE_BITS])
            assert bits.share_above_8 == pytest.approx(totals[Quantity.SHARE_ABOVE_8])
