"""Steps on the command line: the same bytes on every way, settings checked, help made from the registry."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.precision import ActivationPrecision, Granularity, LayerScheme, Precision
from quantstudio.core.recipe import CalibrationSettings, uniform_recipe
from quantstudio.core.steps import Step
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.quantize import quantize
from quantstudio.project.recipe_file import RecipeFile, read_recipe_file, write_recipe_file
from tests.engine.quantization_cases import NetBuilder, normal, outputs_of
from tests.engine.test_pipeline_registry import PLUGIN, plug_in

INT4 = LayerScheme(Precision.INT4, ActivationPrecision.INT8, Granularity.PER_TENSOR)
# A packed file would be loaded in processes of its own, to say what it saves: that is no matter here.
RECIPE = replace(uniform_recipe(INT4, calibration=CalibrationSettings(samples=64)), unpacked=True)
STEPS = (Step("equalize"), Step("bias", {"samples": 64}))
pytestmark = pytest.mark.usefixtures("one_cache")


class Files(NamedTuple):
    """Two networks with the same input, the same cache, and samples labelled by the first."""

    model: Path
    other: Path
    data: Path


def classifier(seed: int, width: int) -> onnx.ModelProto:
    """Channels of the first layer differ much in size, as those behind batch normalizations do."""
    net = NetBuilder(seed)
    sizes = net.rng.lognormal(0, 1, width).astype(np.float32)
    first = (net.rng.normal(size=(16, width)) / 4 * sizes).astype(np.float32)
    second = (net.rng.normal(size=(width, width)) / np.sqrt(width) / sizes[:, None]).astype(np.float32)
    x = net.op("Relu", net.op("Gemm", "x", net.constant("a.w", first), name="a"), name="relu_a")
    x = net.op("Gemm", x, net.constant("b.w", second), net.weight("b.b", width, scale=0.2), name="b")
    x = net.op("Relu", x, name="relu_b")
    x = net.op("Gemm", x, net.weight("c.w", width, 5, scale=0.5), name="c")
    made: onnx.ModelProto = net.model({"x": ["n", 16]}, [x])
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    made = Files(folder / "net.onnx", folder / "other.onnx", folder / "data.npz")
    onnx.save(net := classifier(11, 64), made.model)
    onnx.save(classifier(12, 40), made.other)
    x = normal(256, 16, seed=2)
    np.savez(made.data, x=x, labels=outputs_of(net, {"x": x})[0].argmax(1))
    return made


@pytest.fixture
def start(tmp_path):
    """A recipe file without steps, for any model."""
    path = tmp_path / "start.json"
    write_recipe_file(path, RecipeFile(RECIPE))
    return path


@pytest.fixture
def recover(files, start):
    def run(output, *options):
        command = ["recover", str(files.model), "--data", str(files.data), "--recipe", str(start)]
        return invoke([*command, "-o", str(output), *options])

    return run


def test_that_every_way_gives_the_same_bytes(files, recover, tmp_path, capsys, monkeypatch):
    options = ["--method", "equalize,bias", "--set-step", "bias.samples=64"]
    assert recover(tmp_path / "recovered.onnx", *options) == 0
    expected = (tmp_path / "recovered.onnx").read_bytes()
    # From here on in a cache of its own, so that nothing is only found again.
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "recovered.recipe.json"
    assert invoke(["run", str(recipe), "-o", str(tmp_path / "ran.onnx")]) == 0
    again = [
        "quantize",
        str(files.model),
        "--data",
        str(files.data),
        "--recipe",
        str(recipe),
        "-o",
        str(tmp_path / "again.onnx"),
    ]
    assert invoke(again) == 0
    quantize(
        graph_path=open_model(path=str(files.model)).graph_path,
        output=str(tmp_path / "python.onnx"),
        recipe=to_json(replace(RECIPE, steps=STEPS)),
        data=to_json(DataSpec(str(files.data))),
    )
    capsys.readouterr()
    for name in ("ran", "again", "python"):
        assert (tmp_path / f"{name}.onnx").read_bytes() == expected


def test_that_the_recipe_holds_the_steps_with_all_their_settings(recover, tmp_path, capsys):
    options = ["--method", "equalize, bias", "--set-step", "bias.samples=32", "--seed", "7"]
    assert recover(tmp_path / "out.onnx", *options, "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "quantstudio.recover/1"
    assert [step["name"] for step in document["steps"]] == ["equalize", "bias"]
    assert document["steps"][1]["settings"] == {"inputs": "quantized", "samples": 32}
    assert document["steps"][1]["summary"].startswith("Corrected the biases of ")
    assert document["steps"][1]["seconds"] > 0
    recipe = read_recipe_file(tmp_path / "out.recipe.json").recipe
    assert recipe.steps[1] == Step("bias", {"inputs": "quantized", "samples": 32})
    assert recipe.seed == 7


def test_that_the_table_says_what_each_step_did(recover, tmp_path, capsys):
    assert recover(tmp_path / "out.onnx", "--method", "equalize") == 0
    assert "equalize: Evened out" in capsys.readouterr().out


def test_that_auto_keeps_the_steps_that_measure_best(recover, tmp_path, capsys):
    samples = {"bias": 64, "gptq": 32, "norms": 32, "ranges": 32, "smooth": 32}
    few = [part for step, count in samples.items() for part in ("--set-step", f"{step}.samples={count}")]
    assert recover(tmp_path / "out.onnx", *few, "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    kept = " then ".join(step["name"] for step in document["recipe"]["recipe"]["steps"])
    assert document["preset"].startswith(f"Chose {kept}. ")
    tried = {
        names.strip(): float(loss)
        for names, loss in re.findall(r"([a-z ]+) \([^()]*, KL ([^()]+)\)", document["preset"])
    }
    assert list(tried)[:2] == ["no step", "equalize"], "each is tried behind those that were kept"
    for step in ("gptq", "bias"):
        assert any(step in names.split(" then ") for names in tried)
    assert min(tried.values()) > 0.94 * tried[kept], "nothing that was tried is clearly better"
    assert tried[kept] < 0.5 * tried["no step"], "errors that cancel help this network at 4 bits a tensor"


def test_that_run_applies_the_same_steps_to_another_network(files, recover, tmp_path, capsys):
    assert recover(tmp_path / "out.onnx", "--method", "equalize,bias") == 0
    command = ["run", str(tmp_path / "out.recipe.json"), "--model", str(files.other), "--json", "-"]
    capsys.readouterr()
    assert invoke([*command, "-o", str(tmp_path / "other.onnx")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in document["steps"]] == ["equalize", "bias"]
    made = read_recipe_file(tmp_path / "other.recipe.json")
    assert made.model
    assert Path(made.model.path) == files.other
    assert made.recipe == read_recipe_file(tmp_path / "out.recipe.json").recipe
    assert invoke([*command[:-2]]) == 2
    assert "Give -o OUT.onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--method", "melt"], "there is no step 'melt'. Known steps: "),
        (["--method", " , "], "--method ' , ' names no step"),
        (["--method", "bias", "--seed", "-1"], "the seed -1 is none"),
        (
            ["--method", "equalize", "--set-step", "bias.samples=2"],
            "Add it to --method: equalize,bias.",
        ),
        (["--method", "bias", "--set-step", "bias.samples"], "is not NAME.SETTING=VALUE"),
        (["--method", "bias", "--set-step", "bias.speed=2"], "the step has no setting 'speed'"),
        (
            ["--method", "bias", "--set-step", "bias.samples=none"],
            "'none' is not a whole number of at least 1",
        ),
        (["--task", "guess"], "unknown task 'guess'"),
        (["--batch-axis", "x"], "NAME=K"),
        (["--preset", "auto"], "preset auto measures networks as they are, and steps change them"),
        (["--preset", "static-int8"], "both a recipe and a preset"),
    ],
)
def test_that_a_mistake_says_what_to_do(recover, tmp_path, capsys, options, text):
    assert recover(tmp_path / "out.onnx", *options) == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.onnx").exists()


def test_that_a_step_that_needs_data_asks_for_it(files, tmp_path, capsys):
    command = ["recover", str(files.model), "--preset", "weight-int8", "--method", "bias"]
    assert invoke([*command, "-o", str(tmp_path / "out.onnx")]) == 2
    assert "step bias: the step needs data" in capsys.readouterr().err


def printed(code: str, *folders: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [*folders, Path.cwd()])),
        "COLUMNS": "200",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


HELP = "from quantstudio.cli.main import invoke\ninvoke(['recover', '--help'])\n"


def test_that_the_help_lists_every_step_with_its_settings_and_loads_no_trainer(tmp_path):
    shown = printed(HELP + "import sys\nprint('torch loaded:', 'torch' in sys.modules)")
    assert "equalize: Moves a factor per channel" in shown
    assert "bias.samples = 512 samples, a whole number of at least 1." in shown
    assert "torch loaded: False" in shown
    assert "log: Says" not in shown
    assert "log: Says that it was here." in printed(HELP, plug_in(tmp_path, "logging_step", PLUGIN))


def test_that_no_other_command_looks_for_steps():
    code = (
        "from quantstudio.cli.main import invoke\ninvoke(['quantize', '--help'])\n"
        "import sys\nloaded = any(name.startswith('quantstudio.engine') for name in sys.modules)\n"
        "print('engine loaded:', loaded)"
    )
    assert "engine loaded: False" in printed(code)


def test_that_codebooks_chosen_together_are_made_again_by_run(files, tmp_path, capsys, monkeypatch):
    made, ran = tmp_path / "made.onnx", tmp_path / "ran.onnx"
    options = ["--preset", "static-codebook2", "--method", "gptq", "--set-step", "gptq.samples=48"]
    command = ["recover", str(files.model), "--data", str(files.data), *options]
    assert invoke([*command, "--samples", "64", "-o", str(made)]) == 0
    assert "gptq: Chose the weights of " in capsys.readouterr().out
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "cache"))
    assert invoke(["run", str(tmp_path / "made.recipe.json"), "-o", str(ran)]) == 0
    assert ran.read_bytes() == made.read_bytes()
