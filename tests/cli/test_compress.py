"""`compress` on the command line: groups listed, channels gone, recipes that give the same file."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from quantstudio.cli.main import invoke
from quantstudio.project.recipe_file import read_recipe_file
from tests.engine.quantization_cases import NetBuilder, normal, outputs_of

pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A classifier of three layers, and samples it labelled itself."""
    folder = tmp_path_factory.mktemp("files")
    net = NetBuilder(4)
    x = net.op("Relu", net.gemm("x", "a", 16, 32), name="relu_a")
    x = net.op("Relu", net.gemm(x, "b", 32, 32), name="relu_b")
    model = net.model({"x": ["n", 16]}, [net.gemm(x, "c", 32, 5)])
    onnx.save(model, folder / "net.onnx")
    x = normal(64, 16, seed=2)
    np.savez(folder / "data.npz", x=x, labels=outputs_of(model, {"x": x})[0].argmax(1))
    return str(folder / "net.onnx"), str(folder / "data.npz")


@pytest.fixture
def prune(files):
    def run(output, *options):
        model, data = files
        return invoke(["compress", "prune", model, "--data", data, "-o", str(output), *options])

    return run


def test_that_groups_are_listed(files, capsys):
    assert invoke(["compress", "groups", files[0], "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "quantstudio.compress groups/1"
    assert [(group["name"], group["units"]) for group in document["groups"]] == [
        ("a", 32),
        ("b", 32),
        ("c", 5),
    ]
    assert document["groups"][2]["reason"] == "an output of the network"
    assert invoke(["compress", "groups", files[0]]) == 0
    assert "3 groups of channels, of which 2 can be pruned" in capsys.readouterr().out


def test_that_pruned_channels_are_gone_and_the_recipe_gives_the_same_bytes(prune, tmp_path, capsys):
    out = tmp_path / "out.onnx"
    assert prune(out, "--macs", "0.5", "--rounds", "2", "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["steps"][0]["details"]["macs_share"] <= 0.5
    shapes = {t.name: tuple(t.dims) for t in onnx.load(out).graph.initializer}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) < 0.6 * (16 * 32 + 32 * 32 + 32 * 5 + 69)
    recipe = read_recipe_file(tmp_path / "out.recipe.json").recipe
    assert recipe.steps[0].settings["amount"] == 0.5
    assert recipe.steps[0].settings["rounds"] == 2
    assert invoke(["run", str(tmp_path / "out.recipe.json"), "-o", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()


def test_that_a_pruned_network_is_quantized_where_that_is_asked(prune, tmp_path, capsys):
    assert prune(tmp_path / "out.onnx", "--bytes", "0.6", "--preset", "static-int8", "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["weights"] for row in document["layers"]] == ["int8"] * 3
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) > 5


def test_that_a_budget_of_time_is_written_down_as_work(prune, tmp_path, monkeypatch):
    from quantstudio.core.results import Interval
    from quantstudio.engine.compression import pruning

    timed = type("Timed", (), {"speedups": (Interval(1, 1, 1), Interval(2, 2, 2))})
    monkeypatch.setattr(pruning, "interleaved_latency", lambda *_args, **_options: timed)
    assert prune(tmp_path / "out.onnx", "--latency", "0.6", "--rounds", "1") == 0
    settings = read_recipe_file(tmp_path / "out.recipe.json").recipe.steps[0].settings
    assert settings["budget"] == "macs"
    assert 0 < float(settings["amount"]) < 1


def test_that_pruning_and_training_take_turns(prune, tmp_path, capsys):
    options = ["--macs", "0.5", "--passes", "2", "--epochs", "1", "--rounds", "1", "--round-to", "1"]
    assert prune(tmp_path / "out.onnx", *options, "--json", "-") == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["name"] for step in steps] == ["prune", "finetune", "prune", "finetune"]
    assert steps[1]["settings"]["epochs"] == 0.5
    left = steps[0]["details"]["macs_share"], steps[2]["details"]["macs_share"]
    assert all(0.6 < share <= 0.71 for share in left)
    assert left[0] * left[1] <= 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "there is no budget to keep"),
        (["--macs", "0.5", "--bytes", "0.5"], "only one budget can be kept"),
        (["--macs", "0"], "is not a number from 0.01 to 1"),
        (["--macs", "0.02", "--rounds", "1"], "the nearest is"),
        (["--macs", "0.5", "--criterion", "luck"], "one of fisher, taylor, magnitude"),
        (["--macs", "0.5", "--keep", "nothing"], "matches no layer"),
        (["--macs", "0.5", "--preset", "auto"], "preset auto measures networks as they are"),
        (["--macs", "0.5", "--samples", "0"], "--samples"),
        (["--latency", "0.5", "--passes", "2"], "a budget of time is found in one pass"),
    ],
)
def test_that_bad_options_get_one_line_and_leave_the_file(prune, out, options, says, capsys):
    before = (out / "m.onnx").read_bytes(), (out / "m.recipe.json").read_bytes()
    assert prune(out / "m.onnx", *options) == 2
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told
    assert ((out / "m.onnx").read_bytes(), (out / "m.recipe.json").read_bytes()) == before


def test_that_pruning_without_data_says_what_to_do(files, out, capsys):
    assert invoke(["compress", "prune", files[0], "--macs", "0.5", "-o", str(out / "m.onnx")]) == 2
    assert "--data" in capsys.readouterr().err
