"""The session with the real worker process, on a network of three layers."""

import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import JobState
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.search_results import SearchBudget
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.quantize import quantize
from quantstudio.gui.session import Session
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.project.store import Project
from quantstudio.workspace.names import contents_text
from quantstudio.workspace.search_terms import SearchTerms
from tests.engine.test_pipeline_registry import PLUGIN, plug_in
from tests.gui.settling import settled


@pytest.fixture
def model(tmp_path) -> Path:
    """Conv, Relu, global pool, Gemm on 8x8 images."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "head", transB=1),
    ]
    shapes = {"w1": (8, 1, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (4, 8), "b3": (4,)}
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        weights,
    )
    path: Path = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.fixture
def data(tmp_path) -> DataSpec:
    rng = np.random.default_rng(1)
    path = tmp_path / "data.npz"
    np.savez(
        path,
        x=rng.normal(0, 1, (64, 1, 8, 8)).astype(np.float32),
        labels=rng.integers(0, 4, 64).astype(np.int64),
    )
    return DataSpec(str(path))


def finish(qtbot, session):
    qtbot.waitUntil(lambda: not session.workspace.jobs.is_busy)
    assert session.workspace.background.wait()
    settled(session)


def test_that_a_model_is_opened_calibrated_and_built_and_found_again(qtbot, model, data, tmp_path):
    session = Session(ProcessBackend, project=Project.create(tmp_path / "work.qstudio"))
    try:
        session.workspace.documents.open_path(str(model))
        finish(qtbot, session)
        assert [layer.name for layer in session.workspace.layers] == ["conv1", "conv2", "head"]
        assert set(session.workspace.weights) == {"conv1", "conv2", "head"}
        session.workspace.opening.set_data(data, None)
        session.workspace.runs.quantize()
        finish(qtbot, session)
        variant = session.workspace.current_variant
        assert variant is not None
        assert variant.build is not None
        assert all(layer.is_integer_kernel for layer in variant.build.layers)
        assert Path(variant.path).stat().st_size == variant.build.size_bytes
    finally:
        session.close()

    again = Session(ProcessBackend, project=Project.open(tmp_path / "work.qstudio"))
    try:
        again.workspace.opening.open_project(again.workspace.project)
        again.workspace.documents.resume()
        finish(qtbot, again)
        assert again.workspace.current_variant == variant
        assert again.workspace.activations is not None
        assert set(again.workspace.weights) == {"conv1", "conv2", "head"}
        assert again.workspace.jobs.rows == ()
    finally:
        again.close()


def test_that_a_search_draws_its_front_and_builds_what_it_chose(qtbot, model, data, tmp_path):
    session = Session(ProcessBackend, project=Project.create(tmp_path / "work.qstudio"))
    drafts: list[int] = []

    def note() -> None:
        front = session.workspace.searches.front
        if front is not None and session.workspace.searches.result is None:
            drafts.append(len(front.tried))

    session.search_changed.connect(note)
    try:
        session.workspace.documents.open_path(str(model))
        finish(qtbot, session)
        session.workspace.opening.set_data(data, None)
        # Labels are drawn by lot here: nothing is known of accuracy.
        session.workspace.searches.start(SearchTerms(SearchBudget(average_bits=5.0)))
        finish(qtbot, session)
        chosen = session.workspace.searches.chosen
        assert chosen is not None, session.workspace.jobs.rows
        assert chosen.measured is not None
        assert chosen.measured.average_bits <= 5.0
        assert drafts  # it was seen while it ran
        variant = session.workspace.current_variant
        assert variant is not None
        assert variant.recipe == chosen.recipe
        assert variant.result is not None
        assert Path(variant.path).stat().st_size == variant.result.size_bytes
        assert [row.title for row in session.workspace.jobs.rows if row.state is not JobState.SUCCEEDED] == []
        session.workspace.searches.start(SearchTerms(SearchBudget(average_bits=1.0)))
        finish(qtbot, session)
        obstacle = session.workspace.searches.obstacle
        assert obstacle is not None
        assert obstacle.bound == "average_bits"
        assert obstacle.nearest > 1.0
    finally:
        session.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_that_a_killed_worker_is_a_failed_job_and_the_next_one_works(qtbot, model):
    runners: list[ProcessBackend] = []

    def make(on_event):
        runners.append(ProcessBackend(on_event))
        return runners[0]

    session = Session(make)
    said: list[object] = []
    session.notified.connect(said.append)
    try:
        session.workspace.documents.open_path(str(model))
        qtbot.waitUntil(lambda: runners[0].health.pid is not None)
        pid = runners[0].health.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        finish(qtbot, session)
        if session.workspace.jobs.rows[0].state is JobState.FAILED:
            assert session.workspace.model is None
            assert said
        session.workspace.documents.open_path(str(model))
        finish(qtbot, session)
        assert session.workspace.model is not None
    finally:
        session.close()


def test_that_steps_in_the_window_give_the_bytes_of_the_task(qtbot, model, data, tmp_path, monkeypatch):
    session = Session(ProcessBackend, project=Project.temporary())
    workspace = session.workspace
    try:
        workspace.documents.open_path(str(model))
        finish(qtbot, session)
        workspace.opening.set_data(data, None)
        workspace.runs.describe_steps()
        workspace.runs.calibrate()
        finish(qtbot, session)
        assert {"equalize", "bias"} <= {info.name for info in workspace.steps}
        workspace.edits.add_step("equalize")
        workspace.edits.add_step("bias", samples=32)
        workspace.runs.quantize()
        finish(qtbot, session)
        variant = workspace.current_variant
        assert variant is not None
        assert variant.build is not None
        assert [step.name for step in variant.build.steps] == ["equalize", "bias"]
        assert variant.name == "INT8"
        assert contents_text(variant.recipe, workspace.layers) == "INT8 · equalize · bias"
        made = Path(variant.path).read_bytes()
        recipe = workspace.recipe
    finally:
        session.close()
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "another cache"))
    path = tmp_path / "task.onnx"
    graph = open_model(path=str(model))
    quantize(graph_path=graph.graph_path, output=str(path), recipe=to_json(recipe), data=to_json(data))
    assert path.read_bytes() == made


def test_that_one_installed_module_adds_a_step_to_the_window(qtbot, model, tmp_path, monkeypatch):
    folder = plug_in(tmp_path, "logging_step", PLUGIN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path.cwd())]))
    session = Session(ProcessBackend, project=Project.temporary())
    workspace = session.workspace
    try:
        workspace.documents.open_path(str(model))
        workspace.runs.describe_steps()
        finish(qtbot, session)
        names = [info.name for info in workspace.steps]
        assert names.index("equalize") < names.index("log") < names.index("bias")
        workspace.edits.set_recipe(uniform_recipe("weight-int8"), "Weights alone")
        workspace.edits.add_step("log")
        workspace.runs.quantize()
        finish(qtbot, session)
        variant = workspace.current_variant
        assert variant is not None
        assert variant.build is not None
        assert variant.build.steps[0].summary == "Looked at the graph and left it as it was."
    finally:
        session.close()
