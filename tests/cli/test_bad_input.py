"""Models and data that a command cannot use: one clear line, exit 2, nothing written, nothing lost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from quantstudio.cli.main import invoke
from tests.cli.refusals import DATA, NET, SAMPLE, TRAIN
from tests.engine.builders import mlp, model, node, random, value

pytestmark = pytest.mark.usefixtures("one_cache")


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
