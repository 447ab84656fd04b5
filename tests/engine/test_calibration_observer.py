from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import CalibrationError, JobCancelled, MeasureError
from quantstudio.core.events import CancelToken, NullReporter, Severity
from quantstudio.core.recipe import RangeMethod
from quantstudio.core.statistics import Statistics
from quantstudio.engine.calibration import observer as observer_module
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.calibration.ranges import all_ranges
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.graph.graph import Graph
from tests.engine.builders import model, node, outputs_of, random, value
from tests.engine.calibration_graphs import dataset_of, graph_of
from tests.shared_data import MODELS, TRAIN, TRANSFORM, needs_shared

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (50, 3, 8, 8)).astype(np.float32)
WEIGHTS = {"w1": random(4, 3, 3, 3), "w2": random(4, 4, 3, 3)}


def conv_net(batch: int | str = "n") -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"]),
    ]
    return model(nodes, [value("x", [batch, 3, 8, 8])], [value("c", [batch, 4, 6, 6])], WEIGHTS)


def observed(made: onnx.ModelProto, name: str, x: np.ndarray) -> np.ndarray:
    """Values of an inner tensor by a plain run."""
    more = onnx.ModelProto()
    more.CopyFrom(made)
    if name not in {o.name for o in more.graph.output}:
        more.graph.output.append(onnx.ValueInfoProto(name=name))
    return outputs_of(more, {"x": x})[[o.name for o in more.graph.output].index(name)]


def same(a: Statistics, b: Statistics) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(
        np.array_equal(a.tensors[n].counts, b.tensors[n].counts)
        and (a.tensors[n].minimum, a.tensors[n].maximum) == (b.tensors[n].minimum, b.tensors[n].maximum)
        for n in a.tensors
    )


def test_that_ends_and_counts_are_those_of_the_values(tmp_path: Path) -> None:
    made = conv_net()
    graph = graph_of(made)
    statistics = calibrate(graph, dataset_of(graph, tmp_path, x=X), samples=0)
    assert statistics.samples == 50
    assert statistics.graph_digest == "graph-digest"
    assert statistics.masked == ()
    for name in ("x", "b", "c"):
        values = X if name == "x" else observed(made, name, X)
        histogram = statistics.tensors[name]
        # The optimized kernel sums in another order.
        assert histogram.minimum == pytest.approx(float(values.min()), rel=1e-5)
        assert histogram.maximum == pytest.approx(float(values.max()), rel=1e-5)
        assert histogram.total == values.size
        counts, _ = np.histogram(values, bins=4096, range=(histogram.low, histogram.high))
        assert np.abs(np.cumsum(histogram.counts) - np.cumsum(counts)).max() <= values.size / 500
    assert statistics.tensors["a"] is statistics.tensors["b"]


def test_that_only_the_first_samples_count(tmp_path: Path) -> None:
    graph = graph_of(conv_net())
    data = dataset_of(graph, tmp_path, x=X)
    statistics = calibrate(graph, data, samples=7)
    assert statistics.samples == 7
    assert statistics.tensors["x"].maximum == X[:7].max()
    assert calibrate(graph, data, samples=1000).samples == 50


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 64])
def test_that_any_batch_size_gives_the_same_input_statistics(tmp_path: Path, batch_size: int) -> None:
    graph = graph_of(conv_net())
    data = dataset_of(graph, tmp_path, x=X)
    made = calibrate(graph, data, samples=45, batch_size=batch_size).tensors
    reference = calibrate(graph, data, samples=45, batch_size=45).tensors
    assert np.array_equal(made["x"].counts, reference["x"].counts)
    for name in ("b", "c"):  # kernels may sum in another order at another batch size
        assert made[name].total == reference[name].total
        assert made[name].maximum == pytest.approx(reference[name].maximum, rel=1e-5)


def test_that_a_fixed_batch_counts_each_sample_once(tmp_path: Path) -> None:
    graph = graph_of(conv_net(8))
    statistics = calibrate(graph, dataset_of(graph, tmp_path, x=X), samples=0)
    assert statistics.tensors["x"].total == X.size
    assert statistics.tensors["c"].total == 50 * 4 * 6 * 6


def test_that_threads_do_not_change_the_result(tmp_path: Path) -> None:
    graph = graph_of(conv_net())
    data = dataset_of(graph, tmp_path, x=X)
    one, two = (calibrate(graph, data, batch_size=10, threads=t) for t in (1, 2))
    assert same(one, two)


def test_that_repeating_gives_the_same_statistics(tmp_path: Path) -> None:
    graph = graph_of(conv_net())
    data = dataset_of(graph, tmp_path, x=X)
    assert same(calibrate(graph, data), calibrate(graph, data))


def test_that_counting_part_of_the_elements_keeps_the_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(conv_net())
    data = dataset_of(graph, tmp_path, x=X)
    full = calibrate(graph, data).tensors
    monkeypatch.setattr(observer_module, "COUNTED_ELEMENTS", 1000)
    part = calibrate(graph, data).tensors
    for name in full:
        assert (part[name].minimum, part[name].maximum) == (full[name].minimum, full[name].maximum)
        # A prime of 11: every eighth asked for, in step with no dimension.
        assert part[name].total == pytest.approx(full[name].total / 11, abs=1)


def single(op_nodes: list[Any], weights: dict[str, Any] | None = None) -> Graph:
    return graph_of(
        model(op_nodes, [value("x", ["n", 4])], [value("y", None)], weights or {"m": random(4, 4)})
    )


def test_that_nan_in_the_model_names_the_tensor(tmp_path: Path) -> None:
    graph = single([node("Log", ["x"], ["bad"]), node("MatMul", ["bad", "m"], ["y"])])
    with pytest.raises(CalibrationError, match="tensor bad"):
        calibrate(graph, dataset_of(graph, tmp_path, x=-np.ones((5, 4), np.float32)))


@pytest.mark.parametrize("threads", [1, 2])
def test_that_an_infinity_names_the_tensor(tmp_path: Path, threads: int) -> None:
    graph = single([node("Log", ["x"], ["bad"]), node("MatMul", ["bad", "m"], ["y"])])
    data = dataset_of(graph, tmp_path, x=np.zeros((5, 4), np.float32))
    with pytest.raises(CalibrationError, match=r"tensor bad: .*infinity"):
        calibrate(graph, data, threads=threads)


def test_that_a_mask_is_noted_and_does_not_ruin_the_range(tmp_path: Path) -> None:
    mask = np.array([0, 0, 0, -3.4028235e38], np.float32)
    nodes = [
        node("MatMul", ["x", "m"], ["a"]),
        node("Add", ["a", "mask"], ["b"]),
        node("Transpose", ["b"], ["t"], perm=[0, 1]),
        node("MatMul", ["t", "eye"], ["y"]),
    ]
    weights = {"m": random(4, 4), "mask": mask, "eye": np.eye(4, dtype=np.float32) * 1e-30}
    graph = single(nodes, weights)
    x = RNG.normal(0, 1, (20, 4)).astype(np.float32)
    statistics = calibrate(graph, dataset_of(graph, tmp_path, x=x))
    assert set(statistics.masked) == {"b", "t"}
    scores = x @ weights["m"]
    assert statistics.tensors["b"].maximum == pytest.approx(float(scores[:, :3].max()), rel=1e-5)
    assert statistics.tensors["b"].minimum == pytest.approx(float(scores[:, :3].min()), rel=1e-5)
    low, high = all_ranges(statistics.tensors["b"], 8)[RangeMethod.MSE]
    assert high - low < 20


def test_that_a_constant_tensor_has_a_histogram(tmp_path: Path) -> None:
    graph = single(
        [node("Mul", ["x", "zero"], ["z"]), node("MatMul", ["z", "m"], ["y"])],
        {"m": random(4, 4), "zero": np.zeros(1, np.float32)},
    )
    statistics = calibrate(graph, dataset_of(graph, tmp_path, x=np.ones((5, 4), np.float32)))
    assert statistics.tensors["z"].is_constant
    assert statistics.tensors["z"].maximum == 0


class Recorder(NullReporter):
    def __init__(self, cancel: CancelToken | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.warnings: list[str] = []
        self.cancel = cancel

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        assert (unit, label) == ("samples", "Calibrating")
        self.steps.append((done, total))
        if self.cancel is not None and len(self.steps) == 2:
            self.cancel.set()

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        assert severity is Severity.WARNING
        self.warnings.append(text)


def test_that_progress_counts_samples_and_cancel_stops_at_a_batch(tmp_path: Path) -> None:
    graph = graph_of(conv_net())
    data = dataset_of(graph, tmp_path, x=X)
    recorder = Recorder()
    calibrate(graph, data, samples=25, batch_size=10, reporter=recorder)
    assert recorder.steps == [(10, 25), (20, 25), (25, 25)]
    cancel = CancelToken()
    recorder = Recorder(cancel)
    with pytest.raises(JobCancelled):
        calibrate(graph, data, batch_size=10, reporter=recorder, cancel=cancel)
    assert len(recorder.steps) == 2


def test_that_samples_of_few_classes_bring_a_warning(tmp_path: Path) -> None:
    graph = graph_of(conv_net())
    sorted_labels = np.repeat(np.arange(5), 10)
    recorder = Recorder()
    data = dataset_of(graph, tmp_path, x=X, labels=sorted_labels)
    calibrate(graph, data, samples=20, reporter=recorder)
    assert recorder.warnings == [
        "The first 20 samples hold only 2 of 5 classes: shuffle the data, or ranges will not fit "
        "the other classes"
    ]
    recorder = Recorder()
    calibrate(graph, data, samples=0, reporter=recorder)
    assert recorder.warnings == []


def test_that_a_model_that_does_not_run_on_the_data_is_a_clear_error(tmp_path: Path) -> None:
    made = model(
        [node("Reshape", ["x", "shape"], ["r"]), node("MatMul", ["r", "m"], ["y"])],
        [value("x", ["n", "k"])],
        [value("y", None)],
        {"shape": np.array([-1, 7]), "m": random(7, 2)},
    )
    graph = graph_of(made)
    with pytest.raises(MeasureError, match="does not run on this data"):
        calibrate(graph, dataset_of(graph, tmp_path, x=np.ones((3, 5), np.float32)))


@needs_shared
def test_that_memory_does_not_grow_with_the_samples() -> None:
    resource = pytest.importorskip("resource")
    proto = onnx.load(MODELS / "fmnist_mobilenet.onnx")
    graph = graph_of(proto)
    spec = DataSpec(str(TRAIN), parse_transform(TRANSFORM))
    data = open_dataset(spec, graph.summary.inputs, classes=10)
    calibrate(graph, data, samples=64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calibrate(graph, data, samples=1024)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after <= before * 1.1
