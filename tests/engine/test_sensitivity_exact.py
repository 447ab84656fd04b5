"""Exact sensitivity: graphs cut at a layer, memory limits, cancelling, outputs that cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantstudio.core.codec import to_json
from quantstudio.core.errors import CalibrationError, JobCancelled, MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.core.judgement import Task
from quantstudio.engine.analysis import exact
from quantstudio.engine.analysis.divergence import SpreadTally, divergence, objective_of
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.graph.cut import CutGraph
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import run
from tests.engine.sensitivity_cases import (
    W1,
    W2,
    Events,
    X,
    Y,
    by_name,
    data_of,
    normal,
    opened,
    perceptron,
)


def two_branches(tmp_path: Path) -> Graph:
    """A residual block, so that two tensors cross the cut in front of its second layer."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w"], ["s"], name="inner"),
        helper.make_node("Add", ["s", "h"], ["a"], name="join"),
        helper.make_node("MatMul", ["a", "w2"], ["y"], name="last"),
        helper.make_node("MatMul", ["a", "w3"], ["z"], name="unread"),
    ]
    weights = {"w1": W1, "w": normal(12, 12, scale=0.3), "w2": W2, "w3": normal(12, 2)}
    return opened(
        tmp_path, nodes, weights, {"x": (TensorProto.FLOAT, ["n", 6])}, {"y": ["n", 4], "z": ["n", 2]}
    )


def test_that_a_cut_gives_out_what_is_read_behind_it(tmp_path: Path) -> None:
    graph = two_branches(tmp_path)
    cut = CutGraph(graph, ["y"], threads=1, provider="CPUExecutionProvider")
    assert cut.live_at(0) == ("x",)
    inner = cut.position("inner")
    assert inner is not None
    assert set(cut.live_at(inner)) == {"h", "r"}
    assert cut.position("unread") is None
    assert cut.live_at(cut.end) == ("y",)


def test_that_a_layer_no_compared_output_reads_costs_nothing(tmp_path: Path) -> None:
    graph = two_branches(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    layers = by_name(exact_sensitivity(graph, data, precisions=("int4",)).layers)
    assert layers["unread"].kl == 0
    assert layers["unread"].accuracy_drop == 0
    assert layers["inner"].kl > 0


@pytest.mark.parametrize("kept", [0, 3000, 20_000], ids=["nothing", "outputs only", "some"])
def test_that_what_is_kept_in_memory_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    graph = two_branches(tmp_path)
    data = data_of(tmp_path, graph, x=X[:170], labels=Y[:170])
    precisions = ("int4", "int8-activations")
    free = exact_sensitivity(graph, data, precisions=precisions)
    monkeypatch.setattr(exact, "KEPT_BYTES", kept)
    tight = exact_sensitivity(graph, data, precisions=precisions)
    for a, b in zip(free.layers, tight.layers, strict=True):
        assert a.accuracy_drop == b.accuracy_drop
        assert a.by_precision == pytest.approx(b.by_precision, rel=1e-4)


def test_that_a_sequence_across_the_cut_is_not_cut(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["seq"], name="split", axis=1, keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("SequenceAt", ["seq", "one"], ["column"], name="at"),
        helper.make_node("Unsqueeze", ["column", "one"], ["wide"], name="unsqueeze"),
        helper.make_node("Add", ["h", "wide"], ["y"], name="add"),
    ]
    w = normal(6, 4)
    weights: dict[str, np.ndarray] = {"w": w, "one": np.array(1, np.int64)}
    graph = opened(tmp_path, nodes, weights, {"x": (TensorProto.FLOAT, ["n", 6])}, {"y": ["n", 4]})
    data = data_of(tmp_path, graph, x=X)
    layer = exact_sensitivity(graph, data, precisions=("int4",)).layers[0]
    assert layer.name == "product"
    assert layer.kl > 0


@pytest.mark.parametrize("at", range(6))
def test_that_a_cancel_ends_the_run_it_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    token = CancelToken()
    runs: list[CancelToken] = []

    def cancelled_meanwhile(*given: Any, cancel: CancelToken) -> Any:
        runs.append(cancel)
        if len(runs) > at:
            token.set()
        return run(*given, cancel=cancel)

    monkeypatch.setattr(exact, "run", cancelled_meanwhile)
    graph = perceptron(tmp_path)
    with pytest.raises(JobCancelled):
        exact_sensitivity(
            graph, data_of(tmp_path, graph, x=X), samples=300, precisions=("int8",), cancel=token
        )
    # Each run is given the token that ends it, and none is begun after the one that was ended.
    assert runs == [token] * (at + 1)


@pytest.mark.parametrize("method", [fisher_sensitivity, exact_sensitivity], ids=["fisher", "exact"])
def test_that_outputs_that_are_no_numbers_are_refused(tmp_path: Path, method: object) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Sqrt", ["h"], ["y"], name="root"),
    ]
    graph = opened(
        tmp_path, nodes, {"w": normal(6, 4)}, {"x": (TensorProto.FLOAT, ["n", 6])}, {"y": ["n", 4]}
    )
    data = data_of(tmp_path, graph, x=X)
    with pytest.raises(MeasureError, match="NaN"):
        method(graph, data, precisions=("int4",))  # type: ignore[operator]


def test_that_a_class_that_is_switched_off_adds_nothing(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    objective = objective_of(graph, data_of(tmp_path, graph, Task.CLASSIFY, x=X))
    base, other = normal(5, 4), normal(5, 4)
    off = np.float32(-np.inf)
    masked = [np.concatenate([a, np.full((5, 1), off)], axis=1) for a in (base, other)]
    plain = divergence([base], [other], objective)
    np.testing.assert_allclose(divergence([masked[0]], [masked[1]], objective), plain)


def test_that_the_spread_over_batches_is_that_of_all_values() -> None:
    values = (1e4 + normal(1000, 3)).astype(np.float32)
    tally = SpreadTally(2)
    for start in range(0, 1000, 37):
        tally.add([values[start : start + 37], np.zeros((5, 2), np.float32)])
    assert tally.deviations() == pytest.approx((float(values.astype(np.float64).std()), 1.0))


def test_that_progress_never_goes_back_and_ends_complete(tmp_path: Path) -> None:
    graph = two_branches(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    events = Events()
    exact_sensitivity(graph, data, precisions=("int4",), reporter=events)
    seen = [done for done, _ in events.steps]
    assert seen == sorted(seen)
    assert set(events.steps[-1]) == {events.steps[0][1]}
    # Also within one layer: three layers over 300 samples come in more than three steps.
    assert len(set(seen)) > 3


def test_that_a_measurement_names_its_provider_and_an_estimate_its_device(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    assert exact_sensitivity(graph, data, precisions=("int4",)).device == "CPUExecutionProvider"
    estimate = fisher_sensitivity(graph, data, precisions=("int4",), device="CPU")
    assert estimate.device == "cpu"
    assert to_json(estimate)["device"] == "cpu"
    with pytest.raises(MeasureError, match=r"torch device 'cuda:7' is not installed.*Installed here: cpu"):
        fisher_sensitivity(graph, data, device="cuda:7")
    with pytest.raises(MeasureError, match=r"execution provider 'tpu' is not installed"):
        exact_sensitivity(graph, data, device="tpu")


def test_that_a_model_without_a_derivative_is_measured_instead(tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("derivative for aten::thing is not implemented\nat line 1")

    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    events = Events()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.autograd.grad", refuse)
        result = fisher_sensitivity(graph, data, precisions=("int4",), reporter=events)
    assert (result.method, result.device) == ("exact", "CPUExecutionProvider")
    assert any("derivative for aten::thing is not implemented" in text for text in events.texts)


def test_that_a_quantized_model_is_compared_with_itself(tmp_path: Path) -> None:
    """Full optimization would run the float layer of one copy on integers and not that of the other."""
    nodes: list[onnx.NodeProto] = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("QuantizeLinear", ["h", "s", "zp"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "zp"], ["d"], name="dq"),
        helper.make_node("MatMul", ["d", "w2"], ["y"], name="last"),
    ]
    weights: dict[str, np.ndarray] = {
        "w1": W1,
        "w2": W2,
        "s": np.array(0.03, np.float32),
        "zp": np.array(128, np.uint8),
    }
    graph = opened(tmp_path, nodes, weights, {"x": (TensorProto.FLOAT, ["n", 6])}, {"y": ["n", 4]})
    data = data_of(tmp_path, graph, x=X)
    for layer in exact_sensitivity(graph, data, precisions=("int8", "int4")).layers:
        assert 0 < layer.by_precision["int8"] < layer.by_precision["int4"]


@pytest.mark.parametrize("method", [fisher_sensitivity, exact_sensitivity], ids=["fisher", "exact"])
def test_that_an_infinite_activation_is_named(tmp_path: Path, method: object) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Log", ["r"], ["l"], name="log"),
        helper.make_node("MatMul", ["l", "w"], ["h"], name="product"),
        helper.make_node("Tanh", ["h"], ["y"], name="tanh"),
    ]
    w = np.abs(normal(6, 4))
    graph = opened(tmp_path, nodes, {"w": w}, {"x": (TensorProto.FLOAT, ["n", 6])}, {"y": ["n", 4]})
    data = data_of(tmp_path, graph, x=X)
    with pytest.raises(CalibrationError, match=r"tensor l: .*NaN or infinity"):
        method(graph, data)  # type: ignore[operator]


def test_that_a_layer_that_reads_mask_values_is_measured(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["x", "mask"], ["c"], name="join", axis=1),
        helper.make_node("MatMul", ["c", "w"], ["y"], name="product"),
    ]
    w = normal(7, 4)
    # What the mask meets counts for nothing, as behind a softmax.
    w[6] = 0
    graph = opened(
        tmp_path,
        nodes,
        {"w": w},
        {"x": (TensorProto.FLOAT, ["n", 6]), "mask": (TensorProto.FLOAT, ["n", 1])},
        {"y": ["n", 4]},
    )
    lowest = np.full((len(X), 1), np.finfo(np.float32).min)
    masked = data_of(tmp_path, graph, x=X, mask=lowest)
    options: dict[str, Any] = {"precisions": ("int8-activations",), "reference": "int8-activations"}
    found = fisher_sensitivity(graph, masked, **options).layers[0]
    plain = data_of(tmp_path, graph, x=X, mask=np.zeros((len(X), 1), np.float32))
    wanted = exact_sensitivity(graph, plain, **options).layers[0]
    assert found.method == "exact"
    assert found.kl == pytest.approx(wanted.kl, rel=1e-3)


def test_that_a_layer_none_of_the_precisions_fits_is_said_and_left_out(tmp_path: Path) -> None:
    def body(name: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", "w1"], [f"{name}_y"], name=f"{name}_product")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n", 12])],
        )

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
        helper.make_node("Greater", ["total", "never"], ["c"], name="test"),
        helper.make_node("If", ["c"], ["h"], name="branch", then_branch=body("a"), else_branch=body("b")),
        helper.make_node("MatMul", ["h", "w2"], ["y"], name="last"),
    ]
    weights: dict[str, np.ndarray] = {"w1": W1, "w2": W2, "never": np.array(1e9, np.float32)}
    graph = opened(tmp_path, nodes, weights, {"x": (TensorProto.FLOAT, ["n", 6])}, {"y": ["n", 4]})
    data = data_of(tmp_path, graph, x=X)
    events = Events()
    result = exact_sensitivity(
        graph, data, precisions=("int8-activations",), reference="int8-activations", reporter=events
    )
    assert [layer.name for layer in result.layers] == ["last"]
    assert any("product" in text and "none of the precisions" in text for text in events.texts)
    done = [step for step in events.steps if step[1] != len(X)]
    assert done[-1][0] == done[-1][1]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_that_a_provider_that_does_not_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed provider without its driver: the runtime would quietly use the CPU."""
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X)
    offered = ("CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr("quantstudio.engine.graph.runtime.available_providers", lambda: offered)
    with pytest.raises(MeasureError, match="CUDAExecutionProvider is installed but could not start"):
        exact_sensitivity(graph, data, precisions=("int4",), device="cuda:0")
    with pytest.raises(MeasureError, match="could not start"):
        calibrate(graph, data, provider="cuda")
