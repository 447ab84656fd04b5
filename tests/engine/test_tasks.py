"""Entry points of jobs and the command line: devices, labels against the model's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.errors import DataError, JobCancelled, MeasureError, RecipeError
from quantstudio.core.events import CancelToken
from quantstudio.core.task_results import Devices
from quantstudio.engine.tasks.calibration import calibrate
from quantstudio.engine.tasks.compare import compare
from quantstudio.engine.tasks.data import data_summary
from quantstudio.engine.tasks.devices import devices
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.sensitivity import sensitivity
from quantstudio.engine.torch_graph.device import available_devices, resolve_device, torch_settings

RNG = np.random.default_rng(3)


def saved_model(folder: Path, columns: int, *, elem_type: int = TensorProto.FLOAT) -> str:
    """A linear model with so many output columns, opened; the path of its graph."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    if elem_type != TensorProto.FLOAT:
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
            helper.make_node("Cast", ["h"], ["y"], name="cast", to=elem_type),
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("y", elem_type, ["n", columns])],
        [numpy_helper.from_array(RNG.standard_normal((5, columns)).astype(np.float32), "w")],
    )
    path = folder / f"model{columns}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return open_model(path=str(path)).graph_path


def saved_data(folder: Path, labels: np.ndarray) -> dict[str, Any]:
    path = folder / "data.npz"
    np.savez(path, x=RNG.standard_normal((len(labels), 5)).astype(np.float32), labels=labels)
    return {"path": str(path)}


def test_that_a_label_beyond_the_models_classes_is_refused_before_any_work(tmp_path: Path) -> None:
    graph_path = saved_model(tmp_path, 3)
    data = saved_data(tmp_path, np.array([0, 1, 2, 3, 1]))
    for call in (
        lambda: calibrate(graph_path=graph_path, data=data),
        lambda: sensitivity(graph_path=graph_path, data=data),
        lambda: data_summary(graph_path=graph_path, data=data),
        lambda: compare(base=graph_path, variants=[graph_path], data=data, graph_path=graph_path),
    ):
        with pytest.raises(DataError, match=r"label 3 of sample 3.*0 to 2"):
            call()


@pytest.mark.parametrize(
    ("columns", "labels", "classes"),
    [
        pytest.param(3, np.array([0, 1, 2, 0, 1]), 3, id="numbers without names"),
        pytest.param(1, RNG.standard_normal(5).astype(np.float32), 0, id="targets"),
    ],
)
def test_that_a_summary_counts_the_classes_of_labels(tmp_path: Path, columns: int, labels, classes) -> None:
    found = data_summary(graph_path=saved_model(tmp_path, columns), data=saved_data(tmp_path, labels))
    assert (found.samples, found.labelled, found.classes, found.class_names) == (5, True, classes, ())


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        pytest.param(1, RNG.standard_normal(20).astype(np.float32), id="one column of targets"),
        pytest.param(1, RNG.integers(0, 50, 20).astype(np.float32), id="one column of whole targets"),
        pytest.param(1, RNG.integers(0, 2, 20), id="yes or no"),
        pytest.param(4, RNG.standard_normal((20, 4)).astype(np.float32), id="several targets"),
    ],
)
def test_that_regression_and_yes_or_no_labels_are_left_alone(
    tmp_path: Path, columns: int, labels: np.ndarray
) -> None:
    graph_path = saved_model(tmp_path, columns)
    summary = data_summary(graph_path=graph_path, data=saved_data(tmp_path, labels))
    assert summary.labelled
    compared = compare(
        base=graph_path,
        variants=[graph_path],
        data=saved_data(tmp_path, labels),
        graph_path=graph_path,
        latency=False,
        footprint=False,
    )
    assert compared.task == ("classification" if labels.dtype.kind == "i" else "regression")


def test_that_class_numbers_stored_as_floats_are_classes(tmp_path: Path) -> None:
    graph_path = saved_model(tmp_path, 3)
    data = saved_data(tmp_path, np.array([0.0, 1.0, 2.0, 1.0]))
    compared = compare(
        base=graph_path,
        variants=[graph_path],
        data=data,
        graph_path=graph_path,
        base_bytes=12_345,
        latency=False,
        footprint=False,
    )
    assert compared.task == "classification"
    assert set(compared.variants[0].metrics) == {"top1"}
    # Of the file that was opened: many may share one graph.
    assert compared.variants[0].size_bytes == 12_345
    assert compared.variants[1].size_bytes == Path(graph_path).stat().st_size


def test_that_an_integer_output_says_nothing_about_classes(tmp_path: Path) -> None:
    graph_path = saved_model(tmp_path, 3, elem_type=TensorProto.INT64)
    data = saved_data(tmp_path, np.array([0, 9, 2]))
    assert data_summary(graph_path=graph_path, data=data).labelled


def test_that_only_what_is_installed_is_listed(tmp_path: Path) -> None:
    found = devices()
    assert found.providers[-1] == "CPUExecutionProvider"
    assert found.torch_devices[0] == "cpu"
    assert ("cuda:0" in found.torch_devices) == torch.cuda.is_available()
    assert from_json(Devices, to_json(found)) == found
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        devices(cancel=token)


def test_that_devices_are_found_by_name() -> None:
    assert resolve_device("") == resolve_device("CPU") == torch.device("cpu")
    with pytest.raises(MeasureError, match=r"torch device 'npu'.*Installed here: cpu"):
        resolve_device("npu")


def test_that_a_device_without_number_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert available_devices()[:3] == ("cpu", "cuda:0", "cuda:1")
    assert str(resolve_device("cuda")) == "cuda:0"
    assert str(resolve_device("cuda:1")) == "cuda:1"
    with pytest.raises(MeasureError, match=r"cuda:0, cuda:1"):
        resolve_device("cuda:2")


def test_that_torch_settings_are_put_back() -> None:
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    with torch_settings(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == before


def test_that_calibration_names_its_provider_and_refuses_others(tmp_path: Path) -> None:
    graph_path = saved_model(tmp_path, 3)
    data = saved_data(tmp_path, np.array([0, 1, 2, 1]))
    found = calibrate(graph_path=graph_path, data=data, provider="cpu")
    assert found.provider == "CPUExecutionProvider"
    with pytest.raises(MeasureError, match=r"'openvino' is not installed"):
        calibrate(graph_path=graph_path, data=data, provider="openvino")


def test_that_an_estimate_takes_a_device(tmp_path: Path) -> None:
    graph_path = saved_model(tmp_path, 3)
    data = saved_data(tmp_path, np.array([0, 1, 2, 1]))
    assert sensitivity(graph_path=graph_path, data=data, device="cpu").device == "cpu"
    with pytest.raises(MeasureError, match="mps"):
        sensitivity(graph_path=graph_path, data=data, device="mps:3")


def test_that_layers_are_chosen_for_measurements_only(tmp_path: Path) -> None:
    graph_path = saved_model(tmp_path, 3)
    data = saved_data(tmp_path, np.array([0, 1, 2, 1]))
    found = sensitivity(graph_path=graph_path, data=data, method="exact", layers=["product"])
    assert [layer.name for layer in found.layers] == ["product"]
    with pytest.raises(RecipeError, match="all layers at once"):
        sensitivity(graph_path=graph_path, data=data, method="fisher", layers=["product"])
