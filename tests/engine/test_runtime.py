"""Sessions and runs: providers by name, runs that end when they are cancelled, errors in one line."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.errors import JobCancelled, MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.engine.graph.runtime import (
    available_providers,
    first_line,
    open_session,
    resolve_provider,
    run,
    worker_threads,
)
from tests.engine.builders import loop_model, mlp, save


def product_model(products: int = 2, size: int = 4) -> bytes:
    """A chain of products with the identity."""
    names = [f"t{i}" for i in range(products)] + ["y"]
    nodes = [
        helper.make_node("MatMul", [a, "w"], [b], name=f"product{i}")
        for i, (a, b) in enumerate(pairwise(names))
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size, size])],
        [numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def test_that_a_run_in_progress_ends_when_it_is_cancelled() -> None:
    endless = loop_model(steps=1 << 50).SerializeToString()
    session = open_session(endless, threads=1)
    token = CancelToken()
    threading.Timer(0.1, token.set).start()
    with pytest.raises(JobCancelled):
        run(session, {"x": np.zeros((1, 4), np.float32)}, cancel=token)


def test_that_a_cancelled_token_starts_no_run_and_others_are_left_alone() -> None:
    session = open_session(product_model(), threads=1)
    feed = {"t0": np.ones((4, 4), np.float32)}
    token = CancelToken()
    assert np.array_equal(run(session, feed, cancel=token)[0], feed["t0"])
    token.set()
    with pytest.raises(JobCancelled):
        run(session, feed, cancel=token)
    assert np.array_equal(run(session, feed)[0], feed["t0"])


def test_that_a_failing_run_says_so_in_one_line() -> None:
    session = open_session(product_model(), threads=1)
    with pytest.raises(MeasureError, match="does not run on this data") as caught:
        run(session, {"t0": np.ones((4, 5), np.float32)}, cancel=CancelToken())
    assert "\n" not in caught.value.one_line


def test_that_a_shape_that_does_not_fit_is_told_whole() -> None:
    error = RuntimeError(
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x for the following "
        "indices\n index: 2 Got: 8 Expected: 16\n index: 3 Got: 8 Expected: 16\n Please fix either."
    )
    assert first_line(error) == (
        "its input 'x' got 8 where it wants 16 along axis 2, 8 where it wants 16 along axis 3"
    )


def test_that_only_providers_of_this_machine_are_offered() -> None:
    offered = available_providers()
    assert offered[-1] == "CPUExecutionProvider"
    assert "AzureExecutionProvider" not in offered
    assert resolve_provider("CPU") == resolve_provider("") == "CPUExecutionProvider"
    with pytest.raises(MeasureError, match=r"azure.*not installed.*Installed here: .*cpu"):
        resolve_provider("azure")


@pytest.mark.parametrize(
    ("physical", "allowed", "threads"), [(8, 8, 7), (8, 3, 2), (8, 16, 7), (1, 1, 1), (None, 4, 3)]
)
def test_that_one_core_of_those_allowed_is_left_free(
    monkeypatch: pytest.MonkeyPatch, physical: int | None, allowed: int, threads: int
) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 16 if logical else physical)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr("quantstudio.core.cores._quota", lambda: None)
    assert worker_threads() == threads


def test_that_a_load_ends_when_cancelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = save(mlp(), tmp_path)
    token = CancelToken()
    flags: list[bool] = []
    options = ort.SessionOptions

    class Watched(options):  # type: ignore[valid-type, misc]  # a class of the runtime's own
        def set_load_cancellation_flag(self, value: bool) -> None:
            flags.append(value)
            super().set_load_cancellation_flag(value)

    def loading(*_: object, **__: object) -> None:
        token.set()  # as another thread does in the middle of it
        raise RuntimeError("[ONNXRuntimeError] : 12 : MODEL_LOAD_CANCELED")

    monkeypatch.setattr(ort, "SessionOptions", Watched)
    with monkeypatch.context() as patch:
        patch.setattr(ort, "InferenceSession", loading)
        with pytest.raises(JobCancelled):
            open_session(path, cancel=token)
    assert flags == [True]
    with pytest.raises(JobCancelled):
        open_session(path, cancel=token)
    assert open_session(path, cancel=CancelToken()).get_inputs()[0].name == "x"
