"""Costs of a bundled network against what its variants really take."""

import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.precision import FP32
from quantstudio.core.prediction import predict
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.samples import sample
from quantstudio.core.statistics_file import load_statistics
from quantstudio.engine import tasks
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.quantization.build import build_variant

SAMPLE = sample("digits_resnet")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("costs")
    data = to_json(DataSpec(str(SAMPLE.train), parse_transform(SAMPLE.transform)))
    graph_path = tasks.open_model(path=str(SAMPLE.model)).graph_path
    statistics = tasks.calibrate(
        graph_path=graph_path, data=data, samples=64, output=str(tmp_path / "statistics.npz")
    ).path
    table = tasks.costs(graph_path=graph_path, data=data, statistics=statistics)
    return load_graph(graph_path), load_statistics(tmp_path / "statistics.npz"), table


def test_that_predicted_sizes_are_those_of_the_files(prepared, tmp_path):
    graph, statistics, table = prepared
    first = graph.layers[1].name
    for name, recipe, tolerance in (
        ("fp32", Recipe(), 0.0),
        ("static-int8", uniform_recipe("static-int8"), 0.005),
        ("weight-int8", uniform_recipe("weight-int8"), 0.005),
        ("mixed", uniform_recipe("static-int8").assign([first], FP32), 0.01),
    ):
        built = build_variant(graph, statistics, recipe, tmp_path / f"{name}.onnx")
        prediction = predict(graph.layers, recipe, costs=table, sensitivity={}, curve=None)
        assert prediction.weight_bytes == sum(row.weight_bytes for row in built.layers), name
        # A variant carries its recipe's digest in its metadata: some hundred bytes the graph has not.
        assert prediction.size_bytes == pytest.approx(built.size_bytes, rel=tolerance, abs=600), name


def test_that_shares_of_time_add_up_and_integer_layers_are_priced(prepared):
    graph, _, table = prepared
    assert table.fp32_ms > 0
    assert sum(row.time_share for row in table.layers.values()) == pytest.approx(1.0)
    assert table.provider == "CPUExecutionProvider"
    heaviest = max(graph.layers, key=lambda layer: layer.macs or 0)
    assert 0 < table.layers[heaviest.name].time_ratio["static-int8"] < 1.5


def test_that_static_schemes_have_no_costs_without_statistics(prepared):
    graph, _, _ = prepared
    table = tasks.costs(graph_path=graph.summary.graph_path)
    row = table.layers[graph.layers[0].name]
    assert "static-int8" not in row.weight_bytes
    assert row.weight_bytes["weight-int8"] < row.weight_bytes["fp32"]
    prediction = predict(graph.layers, uniform_recipe("static-int8"), costs=table, sensitivity={}, curve=None)
    assert prediction.size_bytes is None
    assert prediction.latency_ms is None
