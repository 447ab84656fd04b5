"""Models larger than one protocol buffer: weights stay in files, one layer at a time is in memory."""

from __future__ import annotations

import errno
import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from quantstudio.core import figures
from quantstudio.core.errors import BuildError, MeasureError
from quantstudio.core.folders import cache_folder
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.schemes import preset_scheme
from quantstudio.engine.analysis.weights import weight_histogram
from quantstudio.engine.evaluation.footprint import file_bytes
from quantstudio.engine.graph import mapped, writing
from quantstudio.engine.graph.mapped import constants_in_file, holds_mapped, is_mapped
from quantstudio.engine.graph.protos import as_array, as_tensor
from quantstudio.engine.graph.writing import model_size, write_model
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.model.open import load_graph, open_model
from quantstudio.engine.quantization import build as build_module
from quantstudio.engine.tasks.sensitivity import sensitivity
from quantstudio.workspace.exports import ChangedBuildError, write_export
from tests.engine.builders import outputs_of, random
from tests.engine.large_models import write_products
from tests.engine.recipe_builds import build_variant, emit

WIDTH, LAYERS = 64, 6


@pytest.fixture
def small_limit(monkeypatch):
    """Everything from 60 kB on is too large for one file."""
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 60_000)
    monkeypatch.setattr(mapped, "SMALLEST_MAPPED_BYTES", 1 << 12)


@pytest.fixture
def source(tmp_path) -> Path:
    return write_products(tmp_path / "net.onnx", layers=LAYERS, width=WIDTH)


@pytest.fixture
def large(source, small_limit):
    return open_model(source)


def recipe(name: str):
    return uniform_recipe(preset_scheme(name))


def test_that_weights_of_a_large_model_stay_in_their_file(large, source):
    weights = large.proto.graph.initializer
    assert len(weights) == LAYERS
    assert all(is_mapped(tensor) and not tensor.raw_data for tensor in weights)
    whole = onnx.load(source)
    for tensor in whole.graph.initializer:
        held = next(one for one in weights if one.name == tensor.name)
        np.testing.assert_array_equal(as_array(held), numpy_helper.to_array(tensor))
    assert large.summary.verified_error < 1e-5
    assert [layer.weight_shape for layer in large.layers] == [(WIDTH, WIDTH)] * LAYERS
    assert load_graph(large.summary.graph_path).proto == large.proto
    histogram = weight_histogram(np.asarray(as_array(weights[0]), np.float32))
    assert histogram.counts.sum() == WIDTH * WIDTH


def test_that_opening_a_large_model_says_how_much_is_read(source, small_limit):
    told: list[str] = []
    reporter = SimpleNamespace(
        progress=lambda _done, _total, _unit, label: told.append(label), message=lambda *_: None
    )
    large = open_model(source, reporter=reporter)
    files = sum(one.stat().st_size for one in source.parent.glob("net.onnx*"))
    assert large.summary.file_bytes == files
    assert told[1] == f"Normalising {figures.size(files)}, one weight at a time"


def test_that_what_normalisation_makes_of_large_weights_is_kept_in_files(tmp_path, small_limit):
    graph = open_model(write_products(tmp_path / "half.onnx", layers=LAYERS, width=WIDTH, half=True))
    assert all(map(is_mapped, graph.proto.graph.initializer))
    assert {tensor.data_type for tensor in graph.proto.graph.initializer} == {onnx.TensorProto.FLOAT}
    folder = Path(graph.summary.graph_path).parent
    assert not list(folder.glob(".constants-*"))


@pytest.mark.parametrize(
    "name",
    ["weight-int8", "weight-int4/32", "weight-int3/32", "dynamic-int8"],
)
def test_that_a_large_model_is_quantized_as_a_small_one(name, tmp_path, monkeypatch):
    path = write_products(tmp_path / "net.onnx", layers=2, width=WIDTH)
    small = build_variant(open_model(path), None, recipe(name), tmp_path / "small.onnx")
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 30_000)
    monkeypatch.setattr(mapped, "SMALLEST_MAPPED_BYTES", 1 << 12)
    shutil.rmtree(cache_folder("sources"))
    graph = open_model(path)
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 1 << 20)
    built = build_variant(graph, None, recipe(name), tmp_path / "large.onnx")
    assert holds_mapped(graph.proto)
    ours, theirs = onnx.load(tmp_path / "large.onnx"), onnx.load(tmp_path / "small.onnx")
    assert ours.graph == theirs.graph
    assert not built.weights_file
    assert built.size_bytes == (tmp_path / "large.onnx").stat().st_size
    assert [one.kernel for one in built.layers] == [one.kernel for one in small.layers]
    assert [one.weight_bytes for one in built.layers] == [one.weight_bytes for one in small.layers]


def test_that_a_result_too_large_for_one_file_has_its_weights_beside(large, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 20_000)
    out = tmp_path / "out"
    out.mkdir()
    built = build_variant(large, None, recipe("weight-int8"), out / "v.onnx")
    assert sorted(path.name for path in out.iterdir()) == ["v.onnx", built.weights_file]
    assert built.size_bytes == file_bytes(out / "v.onnx")[0] == sum(p.stat().st_size for p in out.iterdir())
    x = {"x": random(2, WIDTH)}
    whole = onnx.load(out / "v.onnx")
    np.testing.assert_array_equal(outputs_of(out / "v.onnx", x)[0], outputs_of(whole, x)[0])
    again = build_variant(large, None, recipe("weight-int8"), tmp_path / "again.onnx")
    assert (again.digest, again.weights_file) == (built.digest, built.weights_file)


def test_that_a_rebuild_over_a_file_leaves_no_weights_behind(large, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 20_000)
    out = tmp_path / "out"
    out.mkdir()
    first = build_variant(large, None, recipe("weight-int8"), out / "v.onnx")
    second = build_variant(large, None, recipe("weight-int6"), out / "v.onnx")
    assert first.weights_file != second.weights_file
    assert sorted(path.name for path in out.iterdir()) == ["v.onnx", second.weights_file]

    def refuse(*_):
        raise BuildError("no")

    monkeypatch.setattr(build_module, "_compared", refuse)
    with pytest.raises(BuildError):
        build_variant(large, None, recipe("weight-int8"), out / "v.onnx")
    assert sorted(path.name for path in out.iterdir()) == ["v.onnx", second.weights_file]


def test_that_a_model_that_could_not_be_written_leaves_no_weights(large, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 20_000)
    (tmp_path / "out").mkdir()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "_blocks", full)
    with pytest.raises(OSError, match="No space"):
        write_model(large.proto, tmp_path / "out" / "v.onnx")
    assert not list((tmp_path / "out").iterdir())


def test_that_weights_beside_go_along_when_a_file_is_exported(large, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 20_000)
    built = build_variant(large, None, recipe("weight-int8"), tmp_path / "v.onnx")
    target = tmp_path / "away"
    target.mkdir()
    write_export(tmp_path / "v.onnx", built.digest, target / "mine.onnx", None, built.weights_file)
    assert file_bytes(target / "mine.onnx")[0] == built.size_bytes
    assert (target / built.weights_file).read_bytes() == (tmp_path / built.weights_file).read_bytes()
    (tmp_path / built.weights_file).write_bytes(b"other")
    with pytest.raises(ChangedBuildError, match="weights of the built file were changed"):
        write_export(tmp_path / "v.onnx", built.digest, target / "mine.onnx", None, built.weights_file)


def test_that_a_failed_build_leaves_no_weights_behind(large, tmp_path, monkeypatch):
    def fail(*_args: object, **_more: object) -> None:
        raise BuildError("no")

    monkeypatch.setattr(mapped, "LARGEST_INLINE_BYTES", 20_000)
    monkeypatch.setattr(build_module, "map_kernels", fail)
    before = set(tmp_path.iterdir())
    with pytest.raises(BuildError):
        build_variant(large, None, recipe("weight-int8"), tmp_path / "v.onnx")
    assert set(tmp_path.iterdir()) == before


def test_that_a_model_written_piece_by_piece_has_the_bytes_of_one_written_whole(large, source, tmp_path):
    model = editable_copy(large)
    model.producer_name, model.doc_string = "someone", "text"
    model.metadata_props.add(key="a", value="b")
    model.graph.initializer.append(as_tensor("scalar", np.array(3, np.float32)))
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for tensor in filter(is_mapped, whole.graph.initializer):
        tensor.CopyFrom(as_tensor(tensor.name, np.array(as_array(tensor))))
    content = whole.SerializeToString(deterministic=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "LARGEST_INLINE_BYTES", 1 << 20)
        written = write_model(model, tmp_path / "pieces.onnx")
    assert (tmp_path / "pieces.onnx").read_bytes() == content
    assert written.size_bytes == model_size(model) == len(content)


def test_that_a_large_graph_with_other_weights_is_another_graph(large):
    assert derived_graph(large, editable_copy(large), "nothing").digest == large.digest
    model = editable_copy(large)
    model.graph.initializer[0].CopyFrom(as_tensor("w0", np.ones((WIDTH, WIDTH), np.float32)))
    changed = derived_graph(large, model, "ones")
    assert changed.digest != large.digest
    assert all(map(is_mapped, changed.proto.graph.initializer))


def test_that_memory_does_not_grow_with_the_number_of_layers(tmp_path, small_limit, monkeypatch):
    peaks = []
    for layers in (3, 9):
        graph = open_model(write_products(tmp_path / f"net{layers}.onnx", layers=layers, width=128))
        tracemalloc.start()
        with constants_in_file(tmp_path):
            write_model(emit(graph, None, recipe("dynamic-int8")), tmp_path / "v.onnx")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Nodes and names grow; the INT8 weights of a layer are twice as much.
    assert peaks[1] - peaks[0] < 6 * 128 * 128 / 2


def test_that_sensitivity_says_when_a_large_model_needs_more_memory_than_is_free(large, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000))
    with pytest.raises(MeasureError, match=r"needs about 295 kB of memory .* 100 kB are free"):
        sensitivity(graph_path=large.summary.graph_path, data={})
