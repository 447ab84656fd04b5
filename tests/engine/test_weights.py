from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from scipy import stats

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken, NullReporter, Severity
from quantstudio.core.layers import LayerInfo
from quantstudio.engine.analysis import weights as weights_module
from quantstudio.engine.analysis.weights import layer_statistics, weight_histogram, weight_statistics
from quantstudio.engine.graph.graph import Graph
from tests.engine.builders import model, node, value
from tests.engine.calibration_graphs import graph_of

RNG = np.random.default_rng(0)
CONV = RNG.normal(0, 0.2, (16, 8, 3, 3)).astype(np.float32)
SCHEMES = ("fp32", "fp16", "static-int8", "dynamic-int8", "weight-int8", "weight-int4")


def layer(axis: int | None = 0, schemes: tuple[str, ...] = SCHEMES, name: str = "conv") -> LayerInfo:
    return LayerInfo(name, "Conv", "w", channel_axis=axis, schemes=schemes)


def graph_with(weights: Mapping[str, np.ndarray], layers: list[LayerInfo]) -> Graph:
    nodes = [node("Identity", ["x"], ["y"])]
    made = model(nodes, [value("x", ["n"])], [value("y", ["n"])], weights)
    return graph_of(made, layers)


def test_that_moments_match_scipy() -> None:
    weight = RNG.standard_t(5, (32, 1000)).astype(np.float32)
    made = layer_statistics(layer(), weight)
    flat = weight.ravel().astype(np.float64)
    assert made.mean == pytest.approx(flat.mean(), rel=1e-6)
    assert made.std == pytest.approx(flat.std(), rel=1e-6)
    assert made.kurtosis == pytest.approx(stats.kurtosis(flat), rel=1e-6)
    assert made.outlier_share == float((np.abs(flat - flat.mean()) > 4 * flat.std()).mean())
    assert made.outlier_share > 0


def test_that_the_histogram_has_exact_ends_and_all_weights() -> None:
    made = weight_histogram(CONV)
    counts, edges = np.histogram(CONV.astype(np.float64), bins=2048)
    assert np.array_equal(made.counts, counts)
    assert np.allclose(made.edges, edges)
    assert (made.minimum, made.maximum) == (CONV.min(), CONV.max())
    assert made.total == CONV.size


def test_that_a_constant_weight_has_one_bin_and_no_spread() -> None:
    made = layer_statistics(layer(), np.full((4, 4), 0.25, np.float32))
    assert made.histogram.is_constant
    assert made.histogram.total == 16
    assert made.histogram.low < 0.25 < made.histogram.high
    assert (made.std, made.kurtosis, made.outlier_share) == (0, 0, 0)


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_that_channel_figures_match_numpy(axis: int) -> None:
    made = layer_statistics(layer(axis, ()), CONV)
    rows = np.moveaxis(CONV, axis, 0).reshape(CONV.shape[axis], -1)
    assert np.array_equal(made.channel_low, rows.min(1))
    assert np.array_equal(made.channel_high, rows.max(1))
    for name, share in (("channel_p1", 1), ("channel_median", 50), ("channel_p99", 99)):
        assert np.allclose(getattr(made, name), np.percentile(rows, share, axis=1), atol=1e-6)


def test_that_a_weight_without_channels_has_one_row() -> None:
    made = layer_statistics(layer(None, ()), CONV)
    assert made.channel_low.tolist() == [CONV.min()]
    assert layer_statistics(layer(0, ()), CONV[0, 0, 0]).channel_high.shape == (1,)


def test_that_sqnr_is_that_of_rounding_each_channel() -> None:
    found = layer_statistics(layer(), CONV).sqnr_db
    rows = CONV.reshape(16, -1).astype(np.float64)
    scale = np.abs(rows).max(1, keepdims=True) / IntegerGrid(8, signed=True).high
    noise = np.square(rows - np.rint(rows / scale) * scale).sum()
    expected = 10 * math.log10(np.square(rows).sum() / noise)
    assert found["static-int8"] == pytest.approx(expected, abs=0.01)
    assert found["static-int8"] == found["dynamic-int8"] == found["weight-int8"]
    half = CONV.astype(np.float16).astype(np.float64)
    expected = 10 * math.log10(np.square(rows).sum() / np.square(rows - half.reshape(16, -1)).sum())
    assert found["fp16"] == pytest.approx(expected, abs=0.01)
    assert 10 < found["weight-int4"] < found["weight-int8"]
    assert "fp32" not in found


def test_that_large_weights_are_judged_by_evenly_spread_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = RNG.normal(0, 1, (64, 512)).astype(np.float32)
    full = layer_statistics(layer(), weight).sqnr_db
    monkeypatch.setattr(weights_module, "SQNR_ELEMENTS", 8 * 512)
    part = layer_statistics(layer(), weight).sqnr_db
    assert part.keys() == full.keys()
    assert part["weight-int8"] != full["weight-int8"]
    assert part["weight-int8"] == pytest.approx(full["weight-int8"], abs=2)


def test_that_half_precision_beyond_its_range_is_clipped_not_infinite() -> None:
    found = layer_statistics(layer(schemes=("fp16",)), np.array([[1e6, 1.0]], np.float32)).sqnr_db
    assert np.isfinite(found["fp16"])


class Recorder(NullReporter):
    def __init__(self, cancel: CancelToken | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.warnings: list[str] = []
        self.cancel = cancel

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        self.steps.append((done, total))
        if self.cancel is not None:
            self.cancel.set()

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        assert severity is Severity.WARNING
        self.warnings.append(text)


def three_layers() -> Graph:
    weights: dict[str, Any] = {"a": CONV, "bad": np.full((2, 2), np.nan, np.float32), "ids": np.arange(4)}
    weights["half"] = CONV.astype(np.float16)
    layers = [
        LayerInfo("first", "Conv", "a", channel_axis=0, schemes=("weight-int8",)),
        LayerInfo("broken", "Conv", "bad", channel_axis=0),
        LayerInfo("table", "Gather", "ids"),
        LayerInfo("half", "Conv", "half", channel_axis=0),
        LayerInfo("scores", "MatMul"),
    ]
    return graph_with(weights, layers)


def test_that_every_float_weight_is_returned_in_order() -> None:
    recorder = Recorder()
    rows = weight_statistics(three_layers(), reporter=recorder)
    assert [r.layer for r in rows] == ["first", "half"]
    assert rows[0].histogram.minimum == float(CONV.min())
    assert rows[0].sqnr_db.keys() == {"weight-int8"}
    assert recorder.steps == [(1, 3), (2, 3), (3, 3)]
    assert recorder.warnings == ["Weights of broken hold NaN or infinity"]


def test_that_cancel_stops_before_the_next_layer() -> None:
    cancel = CancelToken()
    recorder = Recorder(cancel)
    with pytest.raises(JobCancelled):
        weight_statistics(three_layers(), reporter=recorder, cancel=cancel)
    assert recorder.steps == [(1, 3)]


def test_that_weights_inside_bodies_are_found() -> None:
    inner = onnx.helper.make_graph(
        [node("MatMul", ["x", "deep"], ["out"])],
        "body",
        [],
        [value("out", None)],
        [onnx.numpy_helper.from_array(CONV[0, 0], "deep")],
    )
    made = model(
        [node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner)],
        [value("flag", [], 9), value("x", [2, 3])],
        [value("y", None)],
    )
    graph = graph_of(made, [LayerInfo("deep", "MatMul", "deep", channel_axis=1, scope="if.then_branch")])
    assert [r.layer for r in weight_statistics(graph)] == ["deep"]
