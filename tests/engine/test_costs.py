"""Costs of a bundled network against what its variants really take."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.costs import BorderCost, CostTable, LayerCost, LayerEdge
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.effective_plan import resolve
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, STATIC_INT8, Granularity
from quantstudio.core.predict.table import predict
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.samples import sample
from quantstudio.core.statistics_file import load_statistics
from quantstudio.engine.analysis import costs
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.quantization.packed_prices import PackedPrices
from quantstudio.engine.tasks.calibration import calibrate
from quantstudio.engine.tasks.costs import costs as costs_task
from quantstudio.engine.tasks.models import open_model
from tests.engine.recipe_builds import build_variant

SAMPLE = sample("digits_resnet")
# Tables of times and bytes alone: nothing here reads the emission or the file.
_uniform: Any = costs._Uniform


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("costs")
    data = to_json(DataSpec(str(SAMPLE.train), parse_transform(SAMPLE.transform)))
    graph_path = open_model(path=str(SAMPLE.model)).graph_path
    statistics = calibrate(
        graph_path=graph_path, data=data, samples=64, output=str(tmp_path / "statistics.npz")
    ).path
    table = costs_task(graph_path=graph_path, data=data, statistics=statistics)
    return load_graph(graph_path), load_statistics(tmp_path / "statistics.npz"), table


def predicted(graph, recipe, table):
    plan = resolve(recipe, graph.layers)
    return predict(graph.layers, plan, costs=table, sensitivity={}, curve=None)


def test_that_predicted_sizes_are_those_of_the_files(prepared, tmp_path):
    graph, statistics, table = prepared
    first = graph.layers[1].name
    one_scale = replace(STATIC_INT8, granularity=Granularity.PER_TENSOR)
    for name, recipe, is_exact in (
        ("fp32", Recipe(), True),
        ("static-int8", uniform_recipe("static-int8"), True),
        ("weight-int8", uniform_recipe("weight-int8"), True),
        ("one-scale", uniform_recipe(one_scale), True),
        ("mixed", uniform_recipe("static-int8").assign([first], FP32), False),
    ):
        built = build_variant(graph, statistics, recipe, tmp_path / f"{name}.onnx")
        prediction = predict(
            graph.layers, resolve(recipe, graph.layers), costs=table, sensitivity={}, curve=None
        )
        assert prediction.weight_bytes == sum(row.weight_bytes for row in built.layers), name
        assert prediction.is_size_exact == is_exact, name
        tolerance = 0 if is_exact else 0.01 * built.size_bytes
        assert prediction.size_bytes == pytest.approx(built.size_bytes, rel=0, abs=tolerance), name


def test_that_shares_of_time_add_up_and_integer_layers_are_priced(prepared):
    graph, _, table = prepared
    assert table.fp32_ms > 0
    assert sum(row.time_share for row in table.layers.values()) == pytest.approx(1.0)
    assert table.provider == "CPUExecutionProvider"
    assert table.threads >= 1
    assert table.other_load is None or 0 <= table.other_load <= 1
    heaviest = max(graph.layers, key=lambda layer: layer.macs or 0)
    assert table.layers[heaviest.name].time_ratio["static-int8"] > 0


def test_that_static_schemes_have_no_costs_without_statistics(prepared):
    graph, _, _ = prepared
    table = costs_task(graph_path=graph.summary.graph_path)
    row = table.layers[graph.layers[0].name]
    assert "static-int8" not in row.weight_bytes
    assert row.weight_bytes["weight-int8"] < row.weight_bytes["fp32"]
    prediction = predict(
        graph.layers,
        resolve(uniform_recipe("static-int8"), graph.layers),
        costs=table,
        sensitivity={},
        curve=None,
    )
    assert prediction.size_bytes is None
    assert prediction.latency_ms is None


def test_that_borders_memory_and_lifetimes_are_priced(prepared):
    graph, _, table = prepared
    assert [(e.producer, e.consumer) for e in table.edges] == [
        (graph.layers[a].name, graph.layers[b].name) for a, b in graph.summary.edges
    ]
    assert min(table.border.quantize_ms, table.border.quantize_element_ms) >= 0
    assert table.written_ratio > 0
    assert table.fp32_memory_bytes > 2**20
    fp32 = predicted(graph, Recipe(), table)
    int8 = predict(
        graph.layers,
        resolve(uniform_recipe("static-int8"), graph.layers),
        costs=table,
        sensitivity={},
        curve=None,
    )
    assert fp32.memory_bytes == table.fp32_memory_bytes
    assert int8.memory_bytes is not None
    assert int8.memory_bytes < table.fp32_memory_bytes


def test_that_times_of_a_scheme_add_up_to_its_measured_total():
    rows = {
        "fp32": _uniform(
            None, None, {"a": 4, "b": 4, "norm": 4}, {"a": 1.0, "b": 2.0, "norm": 1.0}, 0.0, 8.0
        ),
        "static-int8": _uniform(
            None, None, {"a": 1, "b": 1, "norm": 4}, {"a": 1.0, "b": 1.0, "norm": 9.0}, 0.0, 5.0
        ),
    }
    graph: Any = SimpleNamespace(
        layers=[
            LayerInfo("a", "Conv", schemes=("fp32", "static-int8")),
            LayerInfo("b", "Conv", schemes=("fp32", "static-int8")),
            LayerInfo("norm", "LayerNormalization", schemes=("fp32",)),
        ]
    )
    unpacked = PackedPrices({layer.name: {} for layer in graph.layers}, {})
    found = costs._layer_costs(graph, rows, {}, unpacked, None)
    # 8 ms go 1:2:1; of the 5 ms the norm keeps its 2, the rest goes 1:1.
    assert {name: cost.time_share for name, cost in found.items()} == {"a": 0.25, "b": 0.5, "norm": 0.25}
    assert found["a"].time_ratio == {"static-int8": pytest.approx(1.5 / 2)}
    assert found["b"].time_ratio == {"static-int8": pytest.approx(1.5 / 4)}
    assert found["norm"].time_ratio == {}


def test_that_the_price_of_borders_is_what_plans_of_unlike_neighbours_take_more():
    layers = {name: LayerCost({}, 1 / 4, {"static-int8": 0.5}) for name in "abcd"}
    edges = (LayerEdge("a", "b", 100), LayerEdge("b", "c", 1000), LayerEdge("c", "d", 10))
    table = CostTable(layers, 0, fp32_ms=4.0, edges=edges)
    plans = [costs._Border(frozenset(names), Path(names)) for names in ("ac", "a", "ab")]
    # 0.05 ms per tensor and 0.0001 ms per element, on top of 4 ms less half a millisecond an integer layer.
    crossing = {"ac": (3, 1110), "a": (1, 100), "ab": (1, 1000)}
    ratios = {
        Path(names): (4 - 0.5 * len(names) + 0.05 * count + 0.0001 * elements) / 4
        for names, (count, elements) in crossing.items()
    }
    found = costs._border_cost(table, plans, ratios)
    assert found.quantize_ms == pytest.approx(0.05)
    assert found.dequantize_element_ms == pytest.approx(0.0001)
    assert costs._border_cost(table, plans, {}) == BorderCost()


def test_that_memory_of_a_large_model_is_what_processes_of_each_scheme_took():
    rows = {
        "fp32": _uniform(None, None, {"a": 4000, "b": 4000}, {}, 0.0, 0.0, 50_000),
        "static-int8": _uniform(None, None, {"a": 1000, "b": 1000}, {}, 0.0, 0.0, 34_000),
        "weight-int8": _uniform(None, None, {"a": 1000, "b": 1000}),
    }
    schemes = ("fp32", "static-int8", "weight-int8")
    graph: Any = SimpleNamespace(layers=[LayerInfo(name, "Conv", schemes=schemes) for name in "ab"])
    found = costs._memory(graph, rows, (), 34_000)
    # 16,000 bytes above the runtime are two copies of 8,000; integers take nothing more than the runtime.
    assert found["a"] == {"fp32": 8000, "static-int8": 0, "weight-int8": 9000}
