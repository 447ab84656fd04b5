"""Whatever a person gets wrong on the command line: one clear line, exit 2, nothing written, nothing lost."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from quantstudio.cli.main import invoke
from quantstudio.core.findings import FindingKind, costs_key
from quantstudio.core.samples import sample
from quantstudio.engine.tasks.models import open_model
from quantstudio.project.store import Project
from tests.engine.builders import mlp, model, node, random, value

SAMPLE = sample("digits_resnet")
NET, TRAIN = str(SAMPLE.model), str(SAMPLE.train)
DATA = ["--data", TRAIN, "--transform", SAMPLE.transform]
OLD = b"what was here before"

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def _module_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_cache(_module_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalising the same model once is enough."""
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(_module_cache))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of results from before."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("m.onnx", "m.recipe.json", "s.npz", "r.html", "j.json"):
        (folder / name).write_bytes(OLD)
    return folder


@pytest.fixture
def refused(out: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused; gives its one line."""

    def run(arguments: list[str], *, may_succeed: bool = False) -> str:
        capfd.readouterr()
        code = invoke(arguments)
        captured = capfd.readouterr()
        if code == 0 and may_succeed:
            return ""
        assert code == 2, captured.err
        assert captured.out == ""
        assert captured.err.startswith("quantstudio: ")
        assert captured.err.count("\n") == 1
        assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == dict.fromkeys(
            ("m.onnx", "m.recipe.json", "s.npz", "r.html", "j.json"), OLD
        )
        return captured.err

    return run


def commands(network: str, data: list[str], out: Path) -> dict[str, list[str]]:
    """Each command that reads a model and data."""
    return {
        "calibrate": ["calibrate", network, *data, "--samples", "16", "-o", str(out / "s.npz")],
        "sensitivity": ["sensitivity", network, *data, "--samples", "16"],
        "quantize": ["quantize", network, *data, "--preset", "static-int8", "-o", str(out / "m.onnx")],
        "search": [
            *("search", network, *data, "--samples", "16", "--average-bits", "6"),
            *("-o", str(out / "m.onnx")),
        ],
        "compare": ["compare", network, network, *data, "--no-latency"],
    }


CONTENTS = {
    "empty": b"",
    "text": b"just some text\n" * 20,
    "random": np.random.default_rng(0).bytes(4000),
    "zeros": bytes(4000),
    "archive": b"PK\x03\x04" + bytes(200),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "json": b'{"a": 1}',
}


@pytest.mark.parametrize("kind", ["missing", "folder", *CONTENTS])
def test_that_a_file_that_is_something_else_is_refused_everywhere(kind, tmp_path, out, refused):
    bad = tmp_path / "bad.file"
    if kind == "folder":
        bad.mkdir()
    elif kind != "missing":
        bad.write_bytes(CONTENTS[kind])
    where = str(bad)
    assert where in refused(["inspect", where, "--trust"])
    for name, arguments in commands(where, DATA, out).items():
        assert where in refused(arguments), name
    for name, arguments in commands(NET, ["--data", where], out).items():
        assert where in refused(arguments), name
    assert where in refused(["compare", NET, where, *DATA])
    assert where in refused(["run", where, "-o", str(out / "m.onnx")])
    assert where in refused(["quantize", NET, *DATA, "--recipe", where, "-o", str(out / "m.onnx")])
    statistics = ["--preset", "static-int8", "--statistics", where]
    assert where in refused(["quantize", NET, *statistics, "-o", str(out / "m.onnx")])
    assert where in refused(["report", where, "-o", str(out / "r.html")])
    search = ["search", NET, *DATA, "--samples", "16", "--average-bits", "6", "-o", str(out / "m.onnx")]
    assert where in refused([*search, "--test-data", where])


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.7, 0.99, 0.99999])
def test_that_files_cut_off_anywhere_are_refused(share, tmp_path, out, refused):
    cut = tmp_path / "cut"
    content = SAMPLE.model.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    refused(["inspect", str(cut)])
    refused(["compare", NET, str(cut), *DATA, "--samples", "8"])
    content = SAMPLE.train.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    refused(commands(NET, ["--data", str(cut), "--transform", SAMPLE.transform], out)["calibrate"])


@pytest.mark.parametrize("seed", range(4))
def test_that_damaged_bytes_never_end_in_a_fault(seed, tmp_path, refused):
    generator = np.random.default_rng(seed)
    bad = tmp_path / "bad"
    for original in (SAMPLE.model, SAMPLE.train):
        content = bytearray(original.read_bytes())
        for place in generator.integers(0, len(content) if seed % 2 else 400, 5):
            content[place] = int(generator.integers(0, 256))
        bad.write_bytes(content)
        data = ["--data", str(bad), "--transform", SAMPLE.transform, "--samples", "8", "--no-latency"]
        refused(["inspect", str(bad)], may_succeed=True)
        refused(["compare", NET, NET, *data], may_succeed=True)


def _cycle(made: onnx.ModelProto) -> None:
    made.graph.node[0].input[0] = "r"


def _no_initializer(made: onnx.ModelProto) -> None:
    del made.graph.initializer[0]


def _wrong_bytes(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].dims[0] = 9


def _wrong_shape(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].dims[:] = [4, 32]


def _wrong_input(made: onnx.ModelProto) -> None:
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7


def _unknown_operator(made: onnx.ModelProto) -> None:
    made.graph.node[2].op_type = "Blorp"


def _newer_opset(made: onnx.ModelProto) -> None:
    made.opset_import[0].version = 99


def _gone_data(made: onnx.ModelProto) -> None:
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="gone.bin")


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (_cycle, "cycle"),
        (_no_initializer, "'w1'"),
        (_wrong_bytes, "'w1'"),
        (_wrong_shape, "first"),
        (_wrong_input, "first"),
        (_unknown_operator, "'Blorp'"),
        (_newer_opset, "opset 99"),
        (_gone_data, "'gone.bin'"),
    ],
)
def test_that_a_model_that_is_not_whole_is_refused(break_it, says, tmp_path, out, refused):
    made = mlp()
    break_it(made)
    path = tmp_path / "broken.onnx"
    onnx.save(made, path)
    np.savez(tmp_path / "d.npz", x=random(16, 8))
    for arguments in commands(str(path), ["--data", str(tmp_path / "d.npz")], out).values():
        line = refused(arguments)
        assert str(path) in line
        assert says in line


def test_that_a_dynamic_axis_written_as_minus_one_is_opened(tmp_path, refused, capfd):
    made = mlp()
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(made, tmp_path / "m.onnx")
    assert invoke(["inspect", str(tmp_path / "m.onnx")]) == 0
    assert "input x: float32 [?, 8]" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (model([node("Relu", ["x"], ["y"], "r")], [value("x", ["N", 8])], [value("y", ["N", 8])]), "nothing"),
        (
            model(
                [
                    node("DequantizeLinear", ["q", "s"], ["w"], "weight"),
                    node("MatMul", ["x", "w"], ["y"], "product"),
                ],
                [value("x", ["N", 8])],
                [value("y", ["N", 4])],
                {"q": np.arange(32, dtype=np.int8).reshape(8, 4), "s": np.array(0.1, np.float32)},
            ),
            "already quantized (1 of 1 layers, INT8). Give the float model",
        ),
    ],
    ids=["no layers", "quantized before"],
)
@pytest.mark.parametrize("preset", ["static-int8", "dynamic-int8", "weight-int4", "float16", "auto"])
def test_that_a_build_that_would_change_nothing_is_refused(made, says, preset, tmp_path, out, refused):
    onnx.save(made, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=random(16, 8))
    data = ["--data", str(tmp_path / "d.npz"), "--preset", preset, "-o", str(out / "m.onnx")]
    assert says in refused(["quantize", str(tmp_path / "m.onnx"), *data])


@pytest.mark.parametrize(
    ("weights", "preset", "says"),
    [
        (np.full((8, 4), np.nan, np.float32), "weight-int8", "NaN"),
        (np.full((8, 4), 1e5, np.float32), "float16", "FP16 ends at 65504"),
    ],
)
def test_that_weights_the_precision_cannot_hold_are_refused(weights, preset, says, tmp_path, out, refused):
    nodes = [node("MatMul", ["x", "w"], ["y"], "only")]
    made = model(nodes, [value("x", ["N", 8])], [value("y", ["N", 4])], {"w": weights})
    onnx.save(made, tmp_path / "m.onnx")
    line = refused(["quantize", str(tmp_path / "m.onnx"), "--preset", preset, "-o", str(out / "m.onnx")])
    assert says in line


def _digits() -> tuple[NDArray[Any], NDArray[Any]]:
    with np.load(TRAIN) as stored:
        return stored["images"][:40], stored["labels"][:40]


IMAGES, LABELS = _digits()
FLOATS = IMAGES.astype(np.float64)
EVERY = ("calibrate", "sensitivity", "quantize", "compare")


@pytest.mark.parametrize(
    ("arrays", "says", "names"),
    [
        pytest.param({"a": IMAGES}, "'input'", EVERY, id="other name"),
        pytest.param({"labels": LABELS}, "'input'", EVERY, id="labels alone"),
        pytest.param({}, "no arrays", EVERY, id="no arrays"),
        pytest.param({"images": IMAGES, "x": IMAGES}, "both", EVERY, id="two inputs"),
        pytest.param({"images": IMAGES, "labels": LABELS, "y": LABELS}, "both", EVERY, id="two labels"),
        pytest.param({"images": IMAGES[:, :5]}, "resize=8x8", EVERY, id="other shape"),
        pytest.param({"images": IMAGES.reshape(40, -1)}, "[N, 64]", EVERY, id="flat"),
        pytest.param({"images": np.float32(3)}, "single number", EVERY, id="scalar"),
        pytest.param({"images": IMAGES.astype(str)}, "not numbers", EVERY, id="text"),
        pytest.param({"images": IMAGES.astype(complex)}, "not numbers", EVERY, id="complex"),
        pytest.param({"images": np.array([None] * 40)}, "Python objects", EVERY, id="objects"),
        pytest.param({"images": IMAGES[:0]}, "no samples", EVERY, id="no samples"),
        pytest.param({"images": np.where(FLOATS > 14, np.nan, FLOATS)}, "NaN", EVERY, id="nan"),
        pytest.param({"images": FLOATS * 1e300}, "infinity", EVERY, id="beyond float32"),
        pytest.param({"images": IMAGES, "labels": LABELS[:9]}, "9 labels for 40", EVERY, id="too few labels"),
        pytest.param({"images": IMAGES, "labels": LABELS + 90}, "out of range", ("compare",), id="classes"),
        pytest.param({"images": IMAGES, "labels": LABELS - 50.0}, "", ("compare",), id="negative floats"),
        pytest.param(
            {"images": IMAGES, "labels": LABELS.astype(int) - 9}, "out of range", EVERY, id="negative"
        ),
        pytest.param({"images": IMAGES, "labels": LABELS + 0.5}, "label", ("compare",), id="float labels"),
        pytest.param({"images": IMAGES, "labels": LABELS + np.nan}, "NaN", EVERY, id="nan labels"),
        pytest.param({"images": IMAGES, "labels": LABELS.astype(str)}, "text", EVERY, id="text labels"),
        pytest.param(
            {"images": IMAGES, "labels": np.full(40, 2**63 + 5, np.uint64)}, str(2**63 + 5), EVERY, id="huge"
        ),
    ],
)
def test_that_arrays_that_do_not_fit_are_refused(arrays, says, names, tmp_path, out, refused):
    np.savez(tmp_path / "d.npz", **arrays)
    data = ["--data", str(tmp_path / "d.npz"), "--transform", SAMPLE.transform]
    for name in names:
        assert says in refused(commands(NET, data, out)[name])


@pytest.mark.parametrize(
    "transform",
    [
        "scale",
        "scale=",
        "=3",
        "scale=x",
        "scale=1/0",
        "scale=inf",
        "std=0",
        "std=nan",
        "mean=,",
        "layout=up",
        "resize=0",
        "resize=9x9x9",
        "resize=1000000x1000000",
        "crop=99",
        "foo=1",
        "layout=NHWC",
    ],
)
def test_that_a_wrong_transform_is_refused(transform, out, refused):
    refused(commands(NET, ["--data", TRAIN, "--transform", transform], out)["calibrate"])


def _png(size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(size * size, dtype=np.uint8).reshape(size, size)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param({}, "no images", id="empty"),
        pytest.param({"a/readme.txt": b"hello"}, "no images", id="no images"),
        pytest.param({"a/1.png": _png(), "b": None}, "'b'", id="empty class"),
        pytest.param({"a/1.png": _png(), "a/2.png": b"hello"}, "2.png", id="text as png"),
        pytest.param({"a/1.png": _png(), "a/2.png": b""}, "2.png", id="empty png"),
        pytest.param({"a/1.png": _png(), "a/2.png": _png()[:50]}, "2.png", id="cut png"),
        pytest.param({"a/1.png": _png(), "a/2.png": _png(9)}, "9x9", id="other size"),
        pytest.param({"a/1.png": _png(), "2.png": _png()}, "2.png", id="beside class folders"),
        pytest.param({"a/1.png": _png(9)}, "resize=8x8", id="wrong size"),
    ],
)
def test_that_images_that_do_not_fit_are_refused(files, says, tmp_path, out, refused):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
    for arguments in commands(NET, ["--data", str(folder), "--transform", "layout=NCHW"], out).values():
        assert says in refused(arguments)


@pytest.fixture(scope="module")
def good_recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe file that works, as a dictionary."""
    folder = tmp_path_factory.mktemp("good")
    arguments = ["quantize", NET, *DATA, "--samples", "32", "--preset", "static-int8"]
    assert invoke([*arguments, "-o", str(folder / "m.onnx")]) == 0
    return dict(json.loads((folder / "m.recipe.json").read_text(encoding="utf-8")))


STATIC = {
    "weights": "int8",
    "activations": "int8",
    "granularity": "per-channel",
    "group_size": 32,
    "weight_range": "minmax",
}
DYNAMIC = {**STATIC, "activations": "int8-dynamic"}


def _recipe(**change: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda good: {**good, "recipe": {**good["recipe"], **change}}


def _rule(scheme: dict[str, Any], *names: str) -> dict[str, Any]:
    return {"scheme": scheme, "names": list(names), "op_types": []}


def _range(tensor: str, low: float, high: float) -> list[dict[str, Any]]:
    return [{"tensor": tensor, "low": low, "high": high}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(_recipe(rules=[_rule(STATIC, "nope")]), "'nope'", id="unknown layer"),
        pytest.param(_recipe(rules=[_rule(DYNAMIC, "node_Conv_152")]), "cannot be INT8 dyn", id="illegal"),
        pytest.param(_recipe(rules=[_rule(DYNAMIC, "node_Conv*")]), "no layer of this model", id="no effect"),
        pytest.param(_recipe(rules=[_rule({**STATIC, "weights": "int17"})]), "int17", id="unknown bits"),
        pytest.param(_recipe(rules=None), "recipe.rules", id="no list"),
        pytest.param(_recipe(target="abacus"), "abacus", id="unknown target"),
        pytest.param(_recipe(activation_scope="some"), "activation_scope", id="unknown scope"),
        pytest.param(_recipe(colour="red"), "colour", id="unknown field"),
        pytest.param(_recipe(calibration={"method": "guess"}), "guess", id="unknown method"),
        pytest.param(_recipe(calibration={"samples": -3}), "negative", id="negative samples"),
        pytest.param(
            _recipe(calibration={"method": "percentile", "percentile": 1000}), "1000", id="percentile"
        ),
        pytest.param(_recipe(activation_ranges=_range("nope", -1, 1)), "'nope'", id="unknown tensor"),
        pytest.param(_recipe(activation_ranges=_range("input", 1, -1)), "reversed", id="reversed range"),
        pytest.param(_recipe(weight_ranges=_range("nope", -1, 1)), "'nope'", id="unknown weight"),
        pytest.param(_recipe(weight_ranges=_range("node_Conv_152", 1, -1)), "[1, -1]", id="reversed clip"),
        pytest.param(_recipe(weight_ranges=_range("node_Conv_152", -1, 1e300)), "1e+300", id="endless clip"),
        pytest.param(lambda good: {**good, "schema": "quantstudio.recipe/9"}, "Update", id="newer version"),
        pytest.param(lambda good: {k: good[k] for k in good if k != "recipe"}, "recipe", id="no recipe"),
        pytest.param(lambda good: [good], "schema", id="list"),
    ],
)
def test_that_a_wrong_recipe_is_refused(change, says, good_recipe, tmp_path, out, refused):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(change(good_recipe)), encoding="utf-8")
    assert says in refused(["run", str(path), "-o", str(out / "m.onnx")])
    target = ["--recipe", str(path), "-o", str(out / "m.onnx")]
    assert says in refused(["quantize", NET, *DATA, *target])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"model": None}, "names no model", id="no model"),
        pytest.param({"model": {"path": "gone.onnx"}}, "gone.onnx", id="model gone"),
        pytest.param({"model": {"path": NET, "digest": "0" * 64}}, "not the one", id="other model"),
        pytest.param({"data": None}, "calibration data", id="no data"),
        pytest.param({"data": {"path": "gone.npz"}}, "gone.npz", id="data gone"),
        pytest.param({"output": {"name": "m.onnx", "digest": "0" * 64}}, "differs", id="other bytes"),
        pytest.param({"statistics": {"path": "gone.npz"}}, "gone.npz", id="statistics gone"),
    ],
)
def test_that_run_refuses_what_it_cannot_reproduce(change, says, good_recipe, tmp_path, out, refused):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**good_recipe, **change}), encoding="utf-8")
    assert says in refused(["run", str(path), "-o", str(out / "m.onnx")])


def test_that_a_recipe_cannot_write_elsewhere(good_recipe, tmp_path, refused):
    folder = tmp_path / "of the recipe"
    folder.mkdir()
    recipe = {**good_recipe, "output": {**good_recipe["output"], "name": "../../m.onnx"}}
    (folder / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    assert invoke(["run", str(folder / "r.json")]) == 0
    assert (folder / "m.onnx").is_file()
    recipe["output"]["name"] = "r.json"
    (folder / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    before = (folder / "r.json").read_bytes()
    refused(["run", str(folder / "r.json")])
    assert (folder / "r.json").read_bytes() == before


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("nope=fp32", "'nope'"),
        ("zzz*=fp32", "matches no layer"),
        ("node_Conv*=dynamic-int8", "no layer it matches"),
        ("*=int7", "Choose one of fp32"),
        ("node_Conv_152", "PATTERN=SCHEME"),
        ("node_Conv_152=fp33", "unknown precision 'fp33'"),
        ("x=weight-int4/7", "blocks of '7' weights: no kernel takes them"),
    ],
)
def test_that_a_wrong_rule_is_refused(rule, says, out, refused):
    arguments = ["quantize", NET, *DATA, "--preset", "static-int8", "--set", rule]
    assert says in refused([*arguments, "-o", str(out / "m.onnx")])


def test_that_statistics_of_another_model_are_refused(tmp_path, out, refused):
    other = sample("digits_mobilenet")
    statistics = str(tmp_path / "s.npz")
    assert invoke(["calibrate", str(other.model), *DATA, "--samples", "16", "-o", statistics]) == 0
    arguments = ["quantize", NET, "--statistics", statistics, "--preset", "static-int8"]
    assert "another model" in refused([*arguments, "-o", str(out / "m.onnx")])


def outputs(folder: Path, project: Path, recipe: Path) -> Iterator[list[str]]:
    """Each command that writes, into a folder."""
    quantize = ["quantize", NET, "--preset", "weight-int8"]
    yield [*quantize, "-o", str(folder / "m.onnx")]
    yield ["calibrate", NET, *DATA, "--samples", "16", "-o", str(folder / "s.npz")]
    yield ["run", str(recipe), "-o", str(folder / "m.onnx")]
    yield ["report", str(project), "-o", str(folder / "r.html")]
    yield ["inspect", NET, "--json", str(folder / "j.json")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "p.qstudio"
    with Project.create(path) as made:
        made.set_model(open_model(path=NET))
    return path


def test_that_folders_that_are_not_there_or_no_folders_are_refused(
    tmp_path, out, project, good_recipe, refused
):
    recipe = tmp_path / "r.json"
    recipe.write_text(json.dumps(good_recipe), encoding="utf-8")
    for folder in (tmp_path / "nowhere", project):
        for arguments in outputs(folder, project, recipe):
            assert str(folder) in refused(arguments)
    assert str(tmp_path / "nowhere") in refused(["search", NET, *DATA, "-o", str(tmp_path / "nowhere" / "m")])
    assert str(project) in refused(["demo", "--out", str(project / "demo")])
    for name in ("", "x" * 300, str(out)):
        refused(["quantize", NET, "--preset", "weight-int8", "-o", name])
        refused(["search", NET, *DATA, "-o", name])
        refused(["calibrate", NET, *DATA, "-o", name])


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="folders have no owner")
def test_that_a_read_only_folder_is_refused(tmp_path, out, project, good_recipe, refused):
    recipe = tmp_path / "r.json"
    recipe.write_text(json.dumps(good_recipe), encoding="utf-8")
    out.chmod(0o555)
    try:
        if os.access(out, os.W_OK):
            pytest.skip("the superuser may write anywhere")
        for arguments in outputs(out, project, recipe):
            assert "read-only" in refused(arguments)
    finally:
        out.chmod(0o755)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting needs the superuser"
)
@pytest.mark.parametrize("options", ["size=64k", "size=4m,ro"], ids=["full", "read-only"])
def test_that_a_full_or_read_only_disk_keeps_the_old_files(
    options, out, tmp_path, project, good_recipe, capfd
):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = options.partition(",")[0]
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        names = ("m.onnx", "m.recipe.json", "s.npz", "r.html", "j.json")
        for name in names:
            (disk / name).write_bytes(OLD)
        if "ro" in options:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            (disk / "filling").write_bytes(bytes(44 * 1024))
            (disk / "rest").open("wb").close()
        recipe = tmp_path / "r.json"
        recipe.write_text(json.dumps(good_recipe), encoding="utf-8")
        before = {path.name: path.read_bytes() for path in disk.iterdir()}
        capfd.readouterr()
        for arguments in outputs(disk, project, recipe):
            if arguments[0] == "inspect" and "ro" not in options:
                continue  # its few kilobytes may still fit
            assert invoke(arguments) == 2
            captured = capfd.readouterr()
            assert captured.out == ""
            assert captured.err.count("\n") == 1
            assert str(disk) in captured.err
            assert {path.name: path.read_bytes() for path in disk.iterdir()} == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_that_no_output_replaces_an_input(tmp_path, out, refused):
    network, data = tmp_path / "net.onnx", tmp_path / "d.npz"
    network.write_bytes(SAMPLE.model.read_bytes())
    data.write_bytes(SAMPLE.train.read_bytes())
    options = ["--data", str(data), "--transform", SAMPLE.transform, "--preset", "static-int8"]
    refused(["quantize", str(network), *options, "-o", str(network)])
    refused(["quantize", str(network), *options, "-o", str(data)])
    refused(["calibrate", str(network), *options[:4], "-o", str(data)])
    refused(["inspect", str(network), "--json", str(network)])
    refused(["quantize", NET, *options, "-o", str(out / "m.onnx"), "--json", str(out / "m.onnx")])
    refused(["search", str(network), *options[:4], "-o", str(network)])
    refused(["search", NET, *options[:4], "-o", str(data)])
    refused(["search", NET, *options[:4], "-o", str(out / "m.onnx"), "--json", str(out / "m.recipe.json")])
    assert network.read_bytes() == SAMPLE.model.read_bytes()
    assert data.read_bytes() == SAMPLE.train.read_bytes()


def test_that_a_cache_that_cannot_be_made_says_how_to_move_it(tmp_path, monkeypatch, refused):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "file" / "cache"))
    assert "QUANTSTUDIO_CACHE" in refused(["inspect", NET])


def _sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return change


SEARCH = ["search", NET, *DATA, "-o", "m.onnx"]
DEVICES = ["devices", "--json"]


def _cut(share: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(_sql("pragma user_version=999"), "newer", id="newer version"),
        pytest.param(_sql("pragma application_id=7"), "not a QuantStudio project", id="other application"),
        pytest.param(_cut(0.001), "project", id="cut at the start"),
        pytest.param(_cut(0.3), "project", id="cut"),
        pytest.param(_cut(0.9), "project", id="cut at the end"),
    ],
)
def test_that_a_project_that_is_not_whole_is_refused_and_kept(change, says, project, out, refused):
    change(project)
    before = project.read_bytes()
    assert says in refused(["report", str(project), "-o", str(out / "r.html")])
    assert project.read_bytes() == before


@pytest.mark.parametrize("seed", range(6))
def test_that_a_damaged_project_never_ends_in_a_fault(seed, project, out, refused, capfd):
    generator = np.random.default_rng(seed)
    content = bytearray(project.read_bytes())
    for place in generator.integers(100, len(content), 80):
        content[place] = int(generator.integers(0, 256))
    project.write_bytes(content)
    if refused(["report", str(project), "-o", str(out / "r.html")], may_succeed=True):
        assert project.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "Commands:"),
        (["quantise", NET], "did you mean 'quantize'"),
        (["--frob"], "--frob"),
        (["compare", NET, *DATA], "VARIANT"),
        (["compare", NET, NET, *DATA, "--threads", "100000"], "--threads"),
        (["compare", NET, NET, *DATA, "--provider", "abacus"], "'abacus'"),
        (["inspect", ""], "MODEL"),
        (["inspect", "os:system"], "--trust"),
        (["calibrate", NET, "--data", "", "-o", "s.npz"], "--data"),
        (["calibrate", NET, "--data", "os:system", "-o", "s.npz"], "--trust"),
        (["quantize", NET, "-o", "m.onnx", "--samples", "0"], "--samples"),
        (["quantize", NET, *DATA, "-o", "m.onnx", "--range-method", "x"], "minmax"),
        (["quantize", NET, "-o", "m.onnx", "--set", "*=fp32"], "--preset"),
        (["quantize", NET, "-o", "m.onnx", "--preset", "auto", "--recipe", "r.json"], "not both"),
        (["sensitivity", NET, *DATA, "--method", "magic"], "fisher"),
        (["sensitivity", NET, *DATA, "--reference", "int7"], "int7"),
        (["demo", "--sample", "nope", "--out", "demo"], "digits_resnet"),
        ([*SEARCH, "--average-bits", "nan"], "--average-bits nan cannot be a bound"),
        ([*SEARCH, "--max-size-mb", "inf"], "--max-size-mb inf cannot be a bound"),
        ([*SEARCH, "--recover", "nope"], "nope"),
        ([*SEARCH, "--max-size-mb", "0"], "Give 1 or more"),
        ([*SEARCH, "--average-bits", "40"], "Give 1 to 32"),
        ([*SEARCH, "--max-drop", "-1"], "accuracy drop"),
        ([*SEARCH, "--share-above-8", "2"], "Give 0 to 1"),
        ([*SEARCH, "--activations", "some"], "weight-only"),
        ([*SEARCH, "--pin", "node_Conv_152"], "PATTERN=SCHEME"),
        ([*SEARCH, "--pin", "nope=fp32"], "nope"),
        ([*SEARCH, "--samples", "0"], "--samples"),
        (["search", NET, "--average-bits", "6", "-o", "m.onnx"], "--data"),
        ([*DEVICES, "nowhere/d.json"], "nowhere"),
    ],
)
def test_that_a_mistyped_command_is_one_line(arguments, says, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    assert says in refused(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a display")
def test_that_a_window_without_a_display_is_refused(monkeypatch, refused):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert "quantstudio demo" in refused(["gui"])


def test_that_an_initializer_of_nan_is_named_by_every_precision(tmp_path, out, refused):
    made = mlp()
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.full((16, 3), np.inf, np.float32), "w2"))
    onnx.save(made, tmp_path / "m.onnx")
    for preset in ("dynamic-int8", "weight-int8", "weight-int4"):
        arguments = ["quantize", str(tmp_path / "m.onnx"), "--preset", preset]
        says = refused([*arguments, "-o", str(out / "m.onnx")])
        assert "second: its weight 'w2' holds NaN or infinity" in says
    assert "FP16 ends" in refused([*arguments[:3], "float16", "-o", str(out / "m.onnx")])


def test_that_a_base_of_nan_is_no_base(tmp_path, refused):
    made = mlp()
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.full((16, 3), np.nan, np.float32), "w2"))
    onnx.save(made, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((4, 8), np.float32))
    network = str(tmp_path / "m.onnx")
    assert "computes no numbers" in refused(
        ["compare", network, network, "--data", str(tmp_path / "d.npz"), "--no-latency"]
    )


def test_that_warnings_come_after_what_a_command_gives(tmp_path, capfd):
    made = mlp()
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.full((16, 3), np.nan, np.float32), "w2"))
    onnx.save(made, tmp_path / "m.onnx")
    capfd.readouterr()
    for _again in range(2):
        assert invoke(["inspect", str(tmp_path / "m.onnx"), "--json", "-"]) == 0
        captured = capfd.readouterr()
        assert captured.err.startswith("warning: Tensor 'w2' of layer 'second'")
        assert captured.err.count("\n") == 1
        assert json.loads(captured.out)["warnings"][0] in captured.err


def test_that_a_result_that_cannot_be_read_is_left_out_of_the_report(project, tmp_path, capfd):
    with Project.open(project) as opened:
        assert opened.model is not None
        key = costs_key(opened.model.summary.digest, has_data=False)
        opened.findings.put(FindingKind("costs", dict), key, {"": {"of": "another version"}})
    before = project.read_bytes()
    capfd.readouterr()
    assert invoke(["report", str(project), "-o", str(tmp_path / "r.html")]) == 0
    assert capfd.readouterr().err.startswith("warning: p.qstudio: result 'costs' was left out")
    assert (tmp_path / "r.html").is_file()
    assert project.read_bytes() == before


def test_that_a_refusal_after_a_warning_is_one_line(tmp_path, out, refused, capfd):
    network = str(sample("digits_transformer").model)
    assert invoke(["quantize", network, "--preset", "weight-int8", "-o", str(tmp_path / "m.onnx")]) == 0
    assert capfd.readouterr().err.startswith("warning: 8 of 43 layers stay float")
    recipe = json.loads((tmp_path / "m.recipe.json").read_text(encoding="utf-8"))
    recipe["output"]["digest"] = "0" * 64
    (tmp_path / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    before = (tmp_path / "m.onnx").read_bytes()
    assert "differs" in refused(["run", str(tmp_path / "r.json")])
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
