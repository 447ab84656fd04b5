"""`compress low-rank` and `compress share` on the command line: files, recipes, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.errors import MeasureError
from quantstudio.project.recipe_file import read_recipe_file
from tests.engine.quantization_cases import NetBuilder, normal, outputs_of

pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A classifier of three layers, and samples it labelled itself."""
    folder = tmp_path_factory.mktemp("files")
    net = NetBuilder(4)
    x = net.op("Relu", net.gemm("x", "a", 32, 48), name="relu_a")
    x = net.op("Relu", net.gemm(x, "b", 48, 48), name="relu_b")
    model = net.model({"x": ["n", 32]}, [net.gemm(x, "c", 48, 5)])
    onnx.save(model, folder / "net.onnx")
    x = normal(64, 32, seed=2)
    np.savez(folder / "data.npz", x=x, labels=outputs_of(model, {"x": x})[0].argmax(1))
    return str(folder / "net.onnx"), str(folder / "data.npz")


@pytest.fixture
def compress(files, tmp_path, monkeypatch):
    def unmeasured(*args, **kwargs):
        raise MeasureError("not measured here")

    # Load times are taken in processes of their own.
    monkeypatch.setattr("quantstudio.engine.quantization.packed_check.footprint", unmeasured)

    def run(way, *options, data=True):
        given = ["--data", files[1]] if data else []
        return invoke(["compress", way, files[0], *given, "-o", str(tmp_path / "out.onnx"), *options])

    return run


def ran_again(folder):
    """Whether the recipe beside a file gives its bytes."""
    assert invoke(["run", str(folder / "out.recipe.json"), "-o", str(folder / "again.onnx")]) == 0
    return (folder / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()


def test_that_factored_layers_are_written_and_the_recipe_gives_the_same_bytes(compress, tmp_path, capsys):
    assert compress("low-rank", "--parameters", "0.6", "--keep", "c", "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    before, after = document["steps"][0]["details"]["parameters"]
    assert before == 32 * 48 + 48 * 48
    assert after <= 0.6 * before
    assert [layer["name"] for layer in document["layers"]] == ["a", "b::factor", "b", "c"]
    assert read_recipe_file(tmp_path / "out.recipe.json").recipe.steps[0].settings["share"] == 0.6
    assert ran_again(tmp_path)


def test_that_factors_are_quantized_by_rules_that_name_the_layer(compress, tmp_path, capsys):
    options = ["--rank", "8", "--preset", "static-int8", "--set", "b=fp32", "--json", "-"]
    assert compress("low-rank", *options) == 0
    layers = {layer["name"]: layer["weights"] for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert layers == {"a::factor": "int8", "a": "int8", "b::factor": "fp32", "b": "fp32", "c": "int8"}
    assert ran_again(tmp_path)
    assert compress("low-rank", "--rank", "8", "--preset", "static-int8") == 0
    table = capsys.readouterr().out
    assert "a::factor" in table
    assert "low-rank: Wrote 2 of 3 layers as two, with 8 channels in between" in " ".join(table.split())


@pytest.mark.parametrize("data", [False, True], ids=["plain", "data"])
def test_that_shared_weights_are_written_as_tables(compress, files, tmp_path, capsys, data):
    assert compress("share", "--entries", "4", "--json", "-", data=data) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["packed"]["size_bytes"] == document["size_bytes"] < document["packed"]["unpacked_bytes"]
    assert invoke(["inspect", str(tmp_path / "out.onnx"), "--json", "-"]) == 0
    layers = {one["name"]: one["stored_as"] for one in json.loads(capsys.readouterr().out)["layers"]}
    assert layers["b"] == "4 shared values"
    assert ran_again(tmp_path)
    assert compress("share", "--entries", "4", data=data) == 0
    assert "shrink below FP32, memory and time while it runs are FP32's" in " ".join(
        capsys.readouterr().out.split()
    )
    assert compress("share", "--entries", "4", "--json", "-", "--set", "b=weight-int8", data=data) == 0
    layers = {one["name"]: one["weights"] for one in json.loads(capsys.readouterr().out)["layers"]}
    assert layers == {"a": "fp32", "b": "int8", "c": "fp32"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("low-rank",), "nothing says how ranks are chosen"),
        (("low-rank", "--rank", "4", "--macs", "0.5"), "--macs, --rank are given"),
        (("low-rank", "--rank", "0"), "setting 'rank': 0 is not a whole number of at least 1"),
        (("low-rank", "--parameters", "0.001"), "0.1 % of the weights cannot be reached"),
        (("low-rank", "--parameters", "1.5"), "setting 'share': 1.5 is not a number from 0 to 1"),
        (("low-rank", "--rank", "4", "--layers", "q*"), "no layer 'q*' can be factored"),
        (("share", "--entries", "1"), "setting 'entries': 1 is not a whole number from 2 to 256"),
        (("share", "--per", "row"), "setting 'per': 'row' is not one of network, tensor, group, channel"),
        (("share", "--layers", "q*"), "no layer 'q*' has weights that a table would make smaller"),
    ],
)
def test_that_what_cannot_be_gets_one_line_and_leaves_no_file(compress, tmp_path, capsys, options, says):
    assert compress(*options) == 2
    captured = capsys.readouterr().err
    assert says in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "out.onnx").exists()


def test_that_low_rank_without_data_asks_for_it(compress, capsys):
    assert compress("low-rank", "--rank", "4", data=False) == 2
    assert "the step needs data" in capsys.readouterr().err
