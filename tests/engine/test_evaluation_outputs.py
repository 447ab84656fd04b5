"""What a figure is about: the outputs that are judged, the samples that are shared, the classes there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import CancelToken
from quantstudio.core.judgement import Judging, Task
from quantstudio.engine.analysis.sensitivity import fisher_sensitivity
from quantstudio.engine.analysis.store import ResultStore
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.doctor.overlap import overlap
from quantstudio.engine.evaluation.compare import compare
from quantstudio.engine.model.open import open_model
from quantstudio.engine.tasks.inputs import class_count
from tests.engine.network_kinds import Builder, Kind, detector, graph_network, normal, stateful, time_major

QUICK: dict[str, Any] = {"latency": False, "footprint": False}


def twins() -> Kind:
    """Two outputs that nothing speaks for."""
    b = Builder()
    hidden = b.add("Relu", [b.add("MatMul", ["x", b.weight(8, 16)])])
    b.add("MatMul", [hidden, b.weight(16, 3)], "left")
    b.add("MatMul", [hidden, b.weight(16, 6)], "right")
    return Kind(
        b.model({"x": ["batch", 8]}, {"left": ["batch", 3], "right": ["batch", 6]}), {"x": normal(12, 8)}
    )


def opened(kind: Kind, folder: Path) -> tuple[Path, Dataset]:
    path, data = kind.saved(folder)
    return path, open_dataset(DataSpec(str(data)), open_model(path).summary.inputs)


def test_that_a_named_output_alone_is_judged_as_values(tmp_path: Path) -> None:
    kind = twins()
    path, data = kind.saved(tmp_path)
    ruined = onnx.ModelProto()
    ruined.CopyFrom(kind.model)
    weight = ruined.graph.initializer[2]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(ruined, str(tmp_path / "other.onnx"))
    losses = []
    for output in ("left", "right", ""):
        judging = Judging(Task.UNKNOWN, output)
        dataset = open_dataset(DataSpec(str(data), judging=judging), open_model(path).summary.inputs)
        headline = compare(path, [tmp_path / "other.onnx"], dataset, **QUICK).variants[1].headline
        assert headline is not None
        losses.append(headline.loss.value)
    assert losses == [0, 100, 100]


def test_that_a_variant_that_finds_as_little_as_the_base_keeps_all_of_it(tmp_path: Path) -> None:
    kind = detector()
    base = onnx.ModelProto()
    base.CopyFrom(kind.model)
    base.graph.node[-1].output[0] = "boxes"
    base.graph.initializer.append(
        numpy_helper.from_array(np.array([1, 1, 1, 1, 0.1, 0.1, 0.1], np.float32)[None, :, None], "faint")
    )
    base.graph.node.append(helper.make_node("Mul", ["boxes", "faint"], ["output0"], "fainter"))
    path, dataset = opened(Kind(base, kind.arrays), tmp_path)
    onnx.save(base, str(tmp_path / "same.onnx"))
    onnx.save(kind.model, str(tmp_path / "sure.onnx"))
    result = compare(path, [tmp_path / "same.onnx", tmp_path / "sure.onnx"], dataset, **QUICK)
    assert result.judgement is not None
    assert result.judgement.task is Task.DETECT
    figures = [one.headline and (one.headline.metric, one.headline.value) for one in result.variants]
    assert figures == [("f1", 1.0), ("f1", 1.0), ("f1", 0.0)]


def test_that_what_is_kept_of_sensitivity_is_told_apart_by_what_is_judged(tmp_path: Path) -> None:
    path, data = twins().saved(tmp_path)
    graph = open_model(path)
    found = {}
    for number in range(2):  # the second time all of it is there already
        for judging in (Judging(Task.CLASSIFY, "left"), Judging(Task.UNKNOWN, "left"), Judging(Task.UNKNOWN)):
            dataset = open_dataset(DataSpec(str(data), judging=judging), graph.summary.inputs)
            with ResultStore(tmp_path / "results.sqlite") as store:
                result = fisher_sensitivity(graph, dataset, precisions=("int4",), store=store)
            found[number, judging] = result.layers[0].kl
    assert len(set(found.values())) == 3
    assert all(value == found[0, judging] for (_, judging), value in found.items())


@pytest.mark.parametrize("make", [time_major, stateful])
def test_that_shared_samples_are_counted_wherever_the_samples_lie(tmp_path: Path, make: Any) -> None:
    kind = make()
    _, calibration = opened(kind, tmp_path / "calibration")
    own = {"x": kind.arrays["x"]}
    axis = 1 if "state" not in kind.arrays else 0
    mixed = {"x": np.take(own["x"], [3, 1, 7, 5], axis=axis)}
    if "state" in kind.arrays:
        mixed["state"] = kind.arrays["state"][:, [3, 1, 7, 5]]
    mixed["x"].reshape(-1)[-1] += 1  # the last sample is another
    _, test = opened(replace(kind, arrays=mixed), tmp_path / "test")
    found = overlap(test, calibration, CancelToken())
    assert (found.shared, found.looked_at, found.is_whole) == (3, 4, True)


def test_that_feeds_without_a_sample_axis_are_told_apart(tmp_path: Path) -> None:
    kind = graph_network()
    assert isinstance(kind.arrays, list)
    _, calibration = opened(kind, tmp_path / "calibration")
    other = {**kind.arrays[3], "nodes": kind.arrays[3]["nodes"] + 1}
    _, test = opened(replace(kind, arrays=[kind.arrays[5], other]), tmp_path / "test")
    assert overlap(test, calibration, CancelToken()).shared == 1


def test_that_labels_may_be_about_a_later_output(tmp_path: Path) -> None:
    graph = open_model(twins().saved(tmp_path)[0])
    assert class_count(graph.summary) == 6
