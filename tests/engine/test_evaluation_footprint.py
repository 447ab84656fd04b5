import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.errors import JobCancelled, MeasureError, ModelLoadError
from quantstudio.core.events import CancelToken
from quantstudio.engine.evaluation import footprint_probe
from quantstudio.engine.evaluation.footprint import file_bytes, footprint
from tests.engine.evaluation_models import linear_model


def _feed(width: int) -> dict[str, np.ndarray]:
    return {"x": np.ones((1, width), dtype=np.float32)}


def test_that_a_fresh_process_measures_memory_and_load_time(tmp_path: Path) -> None:
    small = linear_model(tmp_path / "small.onnx", np.ones((16, 16), dtype=np.float32))
    large = linear_model(tmp_path / "large.onnx", np.ones((2048, 4096), dtype=np.float32))
    little = footprint(small, _feed(16), threads=1, probes=1)
    much = footprint(large, _feed(2048), threads=1, probes=1)
    assert little.size_bytes == small.stat().st_size
    assert much.weight_bytes == 2048 * 4096 * 4
    # The weights are at least once in memory, whatever this process holds.
    assert much.peak_memory_bytes - little.peak_memory_bytes > 0.9 * much.weight_bytes
    assert 10e6 < much.runtime_memory_bytes < much.peak_memory_bytes < 1e9
    assert much.load_ms > 0


def test_that_the_memory_of_this_process_does_not_count(tmp_path: Path) -> None:
    ballast = np.ones(60_000_000, dtype=np.float32)
    model = linear_model(tmp_path / "small.onnx", np.ones((16, 16), dtype=np.float32))
    assert footprint(model, _feed(16), threads=1, probes=1).peak_memory_bytes < ballast.nbytes


def test_that_packed_and_external_tensors_count_what_they_take(tmp_path: Path) -> None:
    packed = helper.make_tensor("packed", TensorProto.INT4, [3, 5], list(range(-7, 8)))
    weight = numpy_helper.from_array(np.ones((64, 64), dtype=np.float32), "w")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(8, np.float16), "k"))],
        "inner",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT16, [8])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("If", ["flag"], ["z"], then_branch=inner, else_branch=inner),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [packed, weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="m.bin", size_threshold=1024)
    size, weight_bytes = file_bytes(path)
    assert weight_bytes == 8 + 64 * 64 * 4 + 2 * 16
    assert size == path.stat().st_size + (tmp_path / "m.bin").stat().st_size


def test_that_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("hello, not a model")
    with pytest.raises(ModelLoadError, match=r"text\.onnx"):
        file_bytes(path)


def test_that_a_failing_run_is_told_with_its_reason(tmp_path: Path) -> None:
    model = linear_model(tmp_path / "small.onnx", np.ones((16, 16), dtype=np.float32))
    with pytest.raises(MeasureError, match="does not run on this data"):
        footprint(model, _feed(15), threads=1, probes=1)


def test_that_cancel_ends_the_probe(tmp_path: Path) -> None:
    model = linear_model(tmp_path / "small.onnx", np.ones((16, 16), dtype=np.float32))
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        footprint(model, _feed(16), threads=1, cancel=token)


def test_that_a_probe_that_dies_is_an_error_not_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear_model(tmp_path / "small.onnx", np.ones((16, 16), dtype=np.float32))
    start = subprocess.Popen

    def dying(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return start([command[0], "-c", "import sys; sys.exit(7)"], **options)

    monkeypatch.setattr(subprocess, "Popen", dying)
    with pytest.raises(MeasureError, match="ended with code 7"):
        footprint(model, _feed(16), threads=1, probes=1)


def test_that_a_process_that_cannot_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear_model(tmp_path / "small.onnx", np.ones((16, 16), dtype=np.float32))
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere"))
    with pytest.raises(MeasureError, match="cannot start a process"):
        footprint(model, _feed(16), threads=1, probes=1)


def test_that_the_probe_answers_in_one_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = linear_model(tmp_path / "small.onnx", np.ones((16, 16), dtype=np.float32))
    feed = tmp_path / "feed.npz"
    np.savez(feed, np.ones((1, 16), dtype=np.float32))
    asked = {
        "model": str(model),
        "feed": str(feed),
        "inputs": ["x"],
        "threads": 1,
        "provider": "CPUExecutionProvider",
    }
    assert footprint_probe.main(json.dumps(asked)) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["load_ms"] > 0
    assert answer["peak_bytes"] >= answer["before_bytes"] > 0
    asked["model"] = str(tmp_path / "missing.onnx")
    assert footprint_probe.main(json.dumps(asked)) == 0
    assert "error" in json.loads(capsys.readouterr().out)


def test_that_peak_memory_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    with_proc = footprint_probe.peak_bytes()
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert footprint_probe.peak_bytes() == pytest.approx(with_proc, rel=0.5)


def test_that_an_input_may_have_any_name(tmp_path: Path) -> None:
    path = linear_model(tmp_path / "m.onnx", np.ones((4, 4), dtype=np.float32))
    model = onnx.load(str(path))
    model.graph.input[0].name = model.graph.node[0].input[0] = "file"
    onnx.save(model, str(path))
    feed = {"file": np.ones((1, 4), dtype=np.float32)}
    assert footprint(path, feed, threads=1, probes=1).load_ms > 0
