"""The second opening reads the cache; nothing in the cache is believed blindly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantstudio.core.codec import from_json
from quantstudio.core.errors import ModelLoadError, OutputError
from quantstudio.core.folders import cache_folder
from quantstudio.core.layers import ModelSummary
from quantstudio.engine.graph import mapped
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model import cache
from quantstudio.engine.model import open as opening
from quantstudio.engine.model.open import load_graph, open_model
from tests.engine.builders import conv_net, mlp, outputs_of, random, save


class CountingReporter:
    """Remembers what a task said."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        self.labels.append(label)

    def found(self, part) -> None:
        raise AssertionError("opening has no parts")

    def message(self, text, severity=None) -> None:
        raise AssertionError("opening says nothing for the log")


def normalised(path: Path) -> tuple[Graph, bool]:
    """Open, and tell whether the normaliser ran."""
    reporter = CountingReporter()
    return open_model(path, reporter=reporter), "Normalising" in reporter.labels


def test_that_a_second_opening_does_no_work_and_gives_the_same(tmp_path):
    path = save(conv_net(), tmp_path)
    first, worked = normalised(path)
    second, again = normalised(path)
    assert (worked, again) == (True, False)
    assert second.summary == first.summary
    assert second.proto == first.proto


def test_that_another_copy_of_the_file_is_recognised_under_its_own_path(tmp_path):
    first, _ = normalised(save(conv_net(), tmp_path, "a.onnx"))
    second, worked = normalised(save(conv_net(), tmp_path, "b.onnx"))
    assert not worked
    assert second.summary.source_path.endswith("b.onnx")
    assert second.digest == first.digest
    assert load_graph(second.summary.graph_path).summary.source_path.endswith("b.onnx")


def test_that_a_changed_file_is_normalised_anew(tmp_path):
    path = save(conv_net(), tmp_path)
    first, _ = normalised(path)
    made = conv_net()
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(random(4, 3, 3, 3, seed=5), "conv.weight"))
    second, worked = normalised(save(made, tmp_path))
    assert worked
    assert second.digest != first.digest


@pytest.mark.parametrize("damage", ["graph", "index", "index of another kind", "missing graph", "summary"])
def test_that_damaged_entries_are_made_again(tmp_path, damage):
    path = save(conv_net(), tmp_path)
    first, _ = normalised(path)
    stored = Path(first.summary.graph_path)
    (index,) = (cache_folder() / "sources").iterdir()
    match damage:
        case "graph":
            stored.write_bytes(stored.read_bytes()[:-1] + b"\0")
        case "index":
            index.write_text("{ not json")
        case "index of another kind":
            index.write_text('{"external": {}, "summary": {"digest": 5}}')
        case "missing graph":
            stored.unlink()
        case _:
            stored.with_suffix(".json").write_text("[]")
    second, _worked = normalised(path)
    assert second.summary == first.summary
    assert second.proto == first.proto
    assert load_graph(stored).summary == first.summary


def test_that_load_graph_gives_back_what_open_gave(tmp_path):
    first = open_model(save(mlp(), tmp_path))
    second = load_graph(first.summary.graph_path)
    assert second.summary == first.summary
    assert second.proto == first.proto


def test_that_the_summary_beside_the_graph_is_plain_json(tmp_path):
    graph = open_model(save(mlp(), tmp_path))
    text = Path(graph.summary.graph_path).with_suffix(".json").read_text()
    assert from_json(ModelSummary, json.loads(text)) == graph.summary


def test_that_load_graph_lists_layers_again_without_a_summary(tmp_path):
    first = open_model(save(mlp(), tmp_path))
    stored = Path(first.summary.graph_path)
    stored.with_suffix(".json").unlink()
    second = load_graph(stored)
    assert second.layers == first.layers
    assert stored.with_suffix(".json").is_file()


def test_that_load_graph_refuses_an_altered_file(tmp_path):
    stored = Path(open_model(save(mlp(), tmp_path)).summary.graph_path)
    stored.write_bytes(stored.read_bytes() + b"x")
    with pytest.raises(ModelLoadError, match="Open the model file again"):
        load_graph(stored)
    with pytest.raises(ModelLoadError):
        load_graph(tmp_path / "nothing.onnx")


def test_that_the_digest_is_that_of_the_stored_file_and_the_size_that_of_the_users(tmp_path):
    path = save(mlp(), tmp_path)
    summary = open_model(path).summary
    import hashlib

    content = Path(summary.graph_path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == summary.digest
    assert summary.file_bytes == path.stat().st_size
    assert open_model(path).summary.file_bytes == path.stat().st_size


def test_that_the_size_of_a_model_counts_its_data_files(tmp_path):
    path = tmp_path / "parts" / "m.onnx"
    path.parent.mkdir()
    onnx.save(mlp(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    files = sum(one.stat().st_size for one in path.parent.iterdir())
    assert len(list(path.parent.iterdir())) == 2
    assert open_model(path).summary.file_bytes == files


def test_that_files_that_share_a_graph_have_a_size_each(tmp_path):
    made = mlp()
    lean = save(made, tmp_path)
    made.graph.initializer.append(numpy_helper.from_array(np.ones((50, 50), np.float32), "forgotten"))
    fat = tmp_path / "fat.onnx"
    onnx.save(made, fat)
    first, second = open_model(fat).summary, open_model(lean).summary
    assert first.digest == second.digest
    for path in (fat, lean, fat):
        assert open_model(path).summary.file_bytes == path.stat().st_size
        assert load_graph(first.graph_path).summary.file_bytes == path.stat().st_size  # the last one's


def test_that_a_stored_graph_without_summary_counts_its_weights_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 1000)
    stored = Path(open_model(save(mlp(hidden=100), tmp_path)).summary.graph_path)
    stored.with_suffix(".json").unlink()
    (weights,) = stored.parent.glob("*.bin")
    assert load_graph(stored).summary.file_bytes == stored.stat().st_size + weights.stat().st_size


def test_that_a_model_too_large_for_one_file_keeps_its_weights_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 1000)
    x = {"x": random(2, 8)}
    path = save(mlp(hidden=100), tmp_path)
    graph = open_model(path)
    stored = Path(graph.summary.graph_path)
    assert stored.stat().st_size < 2000
    (weights,) = stored.parent.glob("*.bin")
    assert weights.stat().st_size == 4 * (8 * 100 + 100 * 3)
    np.testing.assert_allclose(outputs_of(stored, x)[0], outputs_of(path, x)[0], rtol=1e-5)
    again = load_graph(stored)
    assert again.proto == graph.proto
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(ModelLoadError):
        load_graph(stored)
    repaired, worked = normalised(path)
    assert worked
    assert repaired.proto == graph.proto


def test_that_an_unwritable_cache_is_an_output_error(tmp_path, monkeypatch):
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match="no space left"):
        cache.store_graph(mlp(), 0)


def test_that_a_failed_proof_leaves_no_graph_behind(tmp_path, monkeypatch):
    def fail(*_args: object, **_more: object) -> None:
        raise ModelLoadError("does not run")

    monkeypatch.setattr(opening, "verify", fail)
    with pytest.raises(ModelLoadError):
        open_model(save(mlp(), tmp_path))
    assert not list(cache_folder().rglob("*.onnx"))


def test_that_opening_onnx_imports_no_torch(tmp_path):
    path = save(mlp(), tmp_path)
    code = (
        "import sys; from quantstudio.engine.model.open import open_model; "
        f"open_model({str(path)!r}); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
