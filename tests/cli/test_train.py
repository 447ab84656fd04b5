"""`train` on the command line: files that were trained, recipes that give the same file, mistakes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from quantstudio.cli.main import invoke
from quantstudio.project.recipe_file import read_recipe_file
from tests.engine.quantization_cases import normal, outputs_of
from tests.engine.training_cases import network

pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network and labelled samples to train and to test it on."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(network(), folder / "net.onnx")
    for name, count, seed in (("train", 160, 5), ("test", 48, 6)):
        x = normal(count, 6, 6, 6, seed=seed)
        bright = x.mean((2, 3)) > 0
        np.savez(folder / f"{name}.npz", x=x, y=2 * bright[:, 0] + bright[:, 1])
    return folder


@pytest.fixture
def train(files):
    def run(kind, output, *options):
        common = [str(files / "net.onnx"), "--data", str(files / "train.npz"), "-o", str(output)]
        return invoke(["train", kind, *common, "--epochs", "2", "--batch", "16", *options])

    return run


def test_that_a_file_is_trained_compared_and_made_again(train, files, tmp_path, capsys):
    out = tmp_path / "out.onnx"
    options = ["--preset", "static-int4", "--method", "round", "--rate", "0.02"]
    assert train("qat", out, *options, "--test", str(files / "test.npz"), "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "quantstudio.train/1"
    assert [step["name"] for step in document["steps"]] == ["round", "qat"]
    details = document["steps"][1]["details"]
    assert details["after"] < details["before"]
    assert details["curve"][0]["done"] == 0
    assert document["test"]["variants"][1]["metrics"]["top1"] > 0
    assert invoke(["run", str(tmp_path / "out.recipe.json"), "-o", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()


def test_that_the_summary_and_the_comparison_are_printed(train, files, tmp_path, capsys):
    assert train("qat", tmp_path / "out.onnx", "--test", str(files / "test.npz")) == 0
    told = capsys.readouterr().out
    assert "qat: " in told
    assert "measured on 48 samples" in told


def test_that_fine_tuning_quantizes_nothing_unless_asked(train, tmp_path, capsys):
    assert train("finetune", tmp_path / "out.onnx", "--teacher", "0", "--rate", "0.02", "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["weights"] for row in document["layers"]} == {"fp32"}
    assert document["steps"][0]["details"]["after"] < document["steps"][0]["details"]["before"]


def test_that_a_network_of_ones_own_learns_from_another(files, tmp_path, capsys):
    """The student starts from nothing, and comes nearer to the teacher's answers."""
    student = network()
    generator = np.random.default_rng(1)
    for tensor in student.graph.initializer:
        if len(tensor.dims) > 1:
            value = generator.standard_normal(tuple(tensor.dims)).astype(np.float32) * 0.2
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    onnx.save(student, tmp_path / "student.onnx")
    out = tmp_path / "out.onnx"
    options = [
        "--student",
        str(tmp_path / "student.onnx"),
        "--epochs",
        "10",
        "--batch",
        "16",
        "--rate",
        "0.05",
    ]
    common = [str(files / "net.onnx"), "--data", str(files / "train.npz"), "-o", str(out)]
    assert invoke(["train", "distill", *common, *options]) == 0
    x = np.load(files / "test.npz")["x"]
    wanted = outputs_of(onnx.load(files / "net.onnx"), {"x": x})[0]
    before, after = (
        np.square(outputs_of(onnx.load(tmp_path / name), {"x": x})[0] - wanted).mean()
        for name in ("student.onnx", "out.onnx")
    )
    assert after < 0.8 * before
    assert invoke(["run", str(tmp_path / "out.recipe.json"), "-o", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()
    capsys.readouterr()
    recipe = read_recipe_file(tmp_path / "out.recipe.json").recipe
    assert recipe.steps[0].settings["original"] == str(files / "net.onnx")


def test_that_a_student_with_other_outputs_is_refused(files, tmp_path, capsys):
    student = onnx.load(files / "net.onnx")
    student.graph.node[-1].output[0] = student.graph.output[0].name = "scores"
    onnx.save(student, tmp_path / "student.onnx")
    common = [str(files / "net.onnx"), "--data", str(files / "train.npz"), "-o", str(tmp_path / "out.onnx")]
    assert invoke(["train", "distill", *common, "--student", str(tmp_path / "student.onnx")]) == 2
    assert "the two networks have other outputs" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--epochs", "0"], "is not a number from 0.001 to 10000"),
        (["--rate", "-1"], "is not a number from 1e-07 to 1"),
        (["--teacher", "2"], "is not a number from 0 to 1"),
        (["--method", "melt"], "there is no step 'melt'"),
        (["--loss", "own:loss"], "this loss is a program"),
        (["--preset", "auto"], "preset auto measures networks as they are"),
    ],
)
def test_that_bad_options_get_one_line_and_leave_the_file(train, tmp_path, options, says, capsys):
    out = tmp_path / "m.onnx"
    out.write_bytes(b"kept")
    assert train("qat", out, *options) == 2
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told
    assert out.read_bytes() == b"kept"


def test_that_training_without_data_says_what_to_do(files, tmp_path, capsys):
    assert invoke(["train", "qat", str(files / "net.onnx"), "-o", str(tmp_path / "m.onnx")]) == 2
    assert "Give --data" in capsys.readouterr().err
