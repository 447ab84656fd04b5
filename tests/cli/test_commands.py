"""The command line on a bundled network: documents, files, exit codes."""

import errno
import io
import json
import sys

import numpy as np
import onnx
import pytest

from quantstudio import __version__
from quantstudio.cli.main import invoke
from quantstudio.core.samples import sample
from quantstudio.engine.tasks.models import open_model
from quantstudio.project.store import Project

SAMPLE = sample("digits_resnet")
DATA = ["--data", str(SAMPLE.train), "--transform", SAMPLE.transform]
pytestmark = pytest.mark.usefixtures("one_cache")


def read_json(capsys):
    return json.loads(capsys.readouterr().out)


def test_that_version_prints_the_version(capsys):
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out == f"quantstudio {__version__}\n"


def test_that_inspect_lists_every_layer_with_the_fixed_names(capsys):
    assert invoke(["inspect", str(SAMPLE.model), "--json", "-"]) == 0
    document = read_json(capsys)
    assert document["schema"] == "quantstudio.inspect/1"
    model = onnx.load(SAMPLE.model)
    weights = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in model.graph.node)
    assert len(document["layers"]) == weights
    fields = {"name", "op_type", "weight_shape", "parameters", "weight_bytes", "quantizable", "reason"}
    assert fields <= set(document["layers"][0])


def test_that_quantize_writes_a_model_and_a_recipe_that_reproduces_it(tmp_path, capsys):
    first = tmp_path / "first.onnx"
    arguments = ["quantize", str(SAMPLE.model), *DATA, "--samples", "128", "--preset", "static-int8"]
    assert invoke([*arguments, "-o", str(first), "--json", "-"]) == 0
    document = read_json(capsys)
    assert document["size_bytes"] == first.stat().st_size
    assert all(row["kernel"] for row in document["layers"])
    assert {"output", "size_bytes", "seconds", "recipe", "layers"} <= set(document)
    again = tmp_path / "again.onnx"
    assert invoke(["run", document["recipe_path"], "-o", str(again)]) == 0
    assert again.read_bytes() == first.read_bytes()


def test_that_the_recipe_in_the_json_can_be_saved_and_run(tmp_path, capsys):
    made = tmp_path / "made.onnx"
    arguments = ["quantize", str(SAMPLE.model), *DATA, "--samples", "64", "--preset", "static-int8"]
    assert invoke([*arguments, "-o", str(made), "--json", "-"]) == 0
    recipe = tmp_path / "elsewhere" / "recipe.json"
    recipe.parent.mkdir()
    recipe.write_text(json.dumps(read_json(capsys)["recipe"]))
    assert invoke(["run", str(recipe)]) == 0
    assert (recipe.parent / "made.onnx").read_bytes() == made.read_bytes()


def test_that_set_keeps_a_layer_in_float(tmp_path, capsys):
    assert invoke(["inspect", str(SAMPLE.model), "--json", "-"]) == 0
    name = read_json(capsys)["layers"][1]["name"]
    arguments = ["quantize", str(SAMPLE.model), *DATA, "--samples", "64", "--preset", "static-int8"]
    out = str(tmp_path / "m.onnx")
    assert invoke([*arguments, "--set", f"{name}=fp32", "-o", out, "--json", "-"]) == 0
    layers = {row["name"]: row for row in read_json(capsys)["layers"]}
    assert not layers[name]["is_integer_kernel"]
    assert sum(row["is_integer_kernel"] for row in layers.values()) == len(layers) - 1


def test_that_calibrate_writes_statistics(tmp_path, capsys):
    out = tmp_path / "stats.npz"
    assert (
        invoke(["calibrate", str(SAMPLE.model), *DATA, "--samples", "64", "-o", str(out), "--json", "-"]) == 0
    )
    document = read_json(capsys)
    assert document["samples"] == 64
    assert document["tensors"] > 5
    with np.load(out, allow_pickle=False) as stored:
        assert stored.files


def test_that_sensitivity_ranks_every_quantizable_layer(capsys):
    assert invoke(["sensitivity", str(SAMPLE.model), *DATA, "--samples", "64", "--json", "-"]) == 0
    document = read_json(capsys)
    assert document["method"] == "fisher"
    model = onnx.load(SAMPLE.model)
    assert len(document["layers"]) == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
    for row in document["layers"]:
        assert row["kl_low"] <= row["kl"] <= row["kl_high"]
        assert {"int8", "int4"} <= set(row["by_precision"])


def test_that_devices_lists_what_can_be_chosen(capsys):
    assert invoke(["devices", "--json", "-"]) == 0
    document = read_json(capsys)
    assert document["schema"] == "quantstudio.devices/1"
    assert document["providers"][-1] == "CPUExecutionProvider"
    assert document["torch_devices"][0] == "cpu"
    assert invoke(["devices"]) == 0
    assert "--provider" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "option"), [("sensitivity", ["--device", "cuda:9"]), ("calibrate", ["--provider", "tpu"])]
)
def test_that_a_device_that_is_not_installed_is_refused(command, option, tmp_path, capsys):
    extra = ["-o", str(tmp_path / "s.npz")] if command == "calibrate" else []
    assert invoke([command, str(SAMPLE.model), *DATA, *option, *extra]) == 2
    says = capsys.readouterr().err
    assert "not installed" in says
    assert "Installed here: cpu" in says


def test_that_compare_measures_a_variant_against_its_base(tmp_path, capsys):
    out = tmp_path / "m.onnx"
    arguments = ["quantize", str(SAMPLE.model), *DATA, "--samples", "128", "--preset", "static-int8"]
    assert invoke([*arguments, "-o", str(out)]) == 0
    capsys.readouterr()
    test_data = ["--data", str(SAMPLE.test), "--transform", SAMPLE.transform, "--samples", "200"]
    assert invoke(["compare", str(SAMPLE.model), str(out), *test_data, "--json", "-"]) == 0
    base, variant = read_json(capsys)["variants"]
    assert base["metrics"]["top1"] > 0.97
    assert abs(variant["drop"]["value"]) < 2
    assert variant["size_bytes"] < base["size_bytes"] / 3
    assert {"p50", "p90", "p99", "mean"} <= set(variant["latency_ms"])
    assert {"label", "support", "base", "variant"} <= set(variant["per_class"][0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["inspect", "missing.onnx"], "missing.onnx", id="missing model"),
        pytest.param(["inspect"], "MODEL", id="missing argument"),
        pytest.param(
            ["quantize", str(SAMPLE.model), "-o", "/no/such/folder/m.onnx"], "/no/such/folder", id="no folder"
        ),
        pytest.param(
            ["quantize", str(SAMPLE.model), "-o", "m.onnx", "--preset", "int7"], "int7", id="unknown preset"
        ),
        pytest.param(
            ["quantize", str(SAMPLE.model), "-o", "m.onnx", "--target", "abacus"],
            "abacus",
            id="unknown target",
        ),
        pytest.param(
            ["quantize", str(SAMPLE.model), "-o", "m.onnx", "--preset", "static-int8"],
            "calibration data",
            id="static without data",
        ),
        pytest.param(
            ["sensitivity", str(SAMPLE.model), *DATA[:2], "--transform", "scale=nought"],
            "nought",
            id="bad transform",
        ),
        pytest.param(["run", "missing.json"], "missing.json", id="missing recipe"),
    ],
)
def test_that_a_mistake_is_one_line_and_exit_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quantstudio: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert not list(tmp_path.iterdir())


def test_that_run_refuses_a_changed_model(tmp_path, capsys):
    model = tmp_path / "net.onnx"
    model.write_bytes(SAMPLE.model.read_bytes())
    out = str(tmp_path / "m.onnx")
    assert invoke(["quantize", str(model), "--preset", "weight-int8", "-o", out]) == 0
    changed = onnx.load(model)
    changed.producer_name = "somebody else"
    onnx.save(changed, model)
    assert invoke(["run", str(tmp_path / "m.recipe.json")]) == 2
    assert "not the one the recipe was made for" in capsys.readouterr().err


def test_that_run_refuses_other_data(tmp_path, capsys):
    data = tmp_path / "train.npz"
    data.write_bytes(SAMPLE.train.read_bytes())
    out = str(tmp_path / "m.onnx")
    arguments = ["quantize", str(SAMPLE.model), "--data", str(data), "--transform", SAMPLE.transform]
    assert invoke([*arguments, "--samples", "64", "--preset", "static-int8", "-o", out]) == 0
    with np.load(SAMPLE.train) as stored:
        arrays = {"images": stored["images"][::-1], "labels": stored["labels"][::-1]}
    np.savez(data, **arrays)
    assert invoke(["run", str(tmp_path / "m.recipe.json")]) == 2
    assert "not what the recipe was made with" in capsys.readouterr().err


def test_that_an_internal_fault_exits_1_and_saves_a_report(monkeypatch, capsys):
    def broken(**_):
        raise ZeroDivisionError("nobody's mistake but ours")

    monkeypatch.setattr("quantstudio.engine.tasks.models.open_model", broken)
    assert invoke(["inspect", str(SAMPLE.model)]) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    path = message.rsplit(" ", 1)[-1].strip()
    with open(path, encoding="utf-8") as report:  # noqa: PTH123
        assert "nobody's mistake but ours" in report.read()


class Unread(io.StringIO):
    """Standard output into a pipe whose reader, such as `head`, has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("arguments", [["inspect", str(SAMPLE.model)], ["search", "--help"]])
def test_that_output_that_nobody_reads_on_is_no_fault(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", Unread())
    monkeypatch.setattr("rich.console.Console.on_broken_pipe", lambda _: sys.exit(1))  # closes the real one
    assert invoke(arguments) == 141
    assert capsys.readouterr().err == ""


def test_that_ctrl_c_exits_130(monkeypatch, capsys):
    def interrupted(*, cancel, **_):
        cancel.set()
        cancel.raise_if_set()

    monkeypatch.setattr("quantstudio.engine.tasks.models.open_model", interrupted)
    assert invoke(["inspect", str(SAMPLE.model)]) == 130
    assert "cancelled" in capsys.readouterr().err


def test_that_report_writes_what_a_project_knows(tmp_path, capsys):
    project_path, out = tmp_path / "net.qstudio", tmp_path / "report.html"
    with Project.create(project_path) as project:
        project.set_model(open_model(path=str(SAMPLE.model)))
    assert invoke(["report", str(project_path), "-o", str(out), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"].startswith("quantstudio.report/")
    assert "net" in out.read_text(encoding="utf-8")


def test_that_report_writes_its_tables_for_a_spreadsheet(tmp_path, capsys):
    project_path, out = tmp_path / "net.qstudio", tmp_path / "report.html"
    with Project.create(project_path) as project:
        project.set_model(open_model(path=str(SAMPLE.model)))
    assert invoke(["report", str(project_path), "-o", str(out), "--csv", str(tmp_path / "tables")]) == 0
    layers = (tmp_path / "tables" / "layers.csv").read_text(encoding="utf-8").splitlines()
    assert layers[0].startswith("index,layer,op_type")
    assert "layers.csv" in capsys.readouterr().out
    assert invoke(["report", str(project_path), "-o", str(out), "--csv", str(project_path)]) == 2
    assert "the folder cannot be made" in capsys.readouterr().err


def test_that_report_refuses_a_project_without_a_model_and_a_format_it_cannot_write(tmp_path, capsys):
    project_path = tmp_path / "empty.qstudio"
    Project.create(project_path).close()
    assert invoke(["report", str(project_path), "-o", str(tmp_path / "r.html")]) == 2
    assert "nothing to report" in capsys.readouterr().err
    assert invoke(["report", str(project_path), "-o", str(tmp_path / "r.pdf")]) == 2
    assert "HTML" in capsys.readouterr().err
    assert not list(tmp_path.glob("r.*"))


def test_that_names_that_look_like_markup_are_shown_as_they_are(tmp_path, capsys):
    model = onnx.load(SAMPLE.model)
    for index, node in enumerate(model.graph.node):
        node.name = f"[b]{index}:fire:[/l]"
        # Weights that tell no path of a module: the layer is called by its node.
        node.input[:] = [name.replace(".", "_") for name in node.input]
    for weight in model.graph.initializer:
        weight.name = weight.name.replace(".", "_")
    path = str(tmp_path / "[b]net.onnx")
    onnx.save(model, path)
    assert invoke(["inspect", path, "--json", str(tmp_path / "j.json")]) == 0
    names = [row["name"] for row in json.loads((tmp_path / "j.json").read_text())["layers"]]
    text = capsys.readouterr().out
    assert "[b]net.onnx" in text
    assert names
    assert all(name in text for name in names)
    out = str(tmp_path / "m.onnx")
    assert invoke(["quantize", path, "--preset", "weight-int8", "--set", f"{names[1]}=fp32", "-o", out]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(names[1]))
    assert line.split()[1] == "fp32"
