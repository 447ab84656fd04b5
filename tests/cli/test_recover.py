"""Steps on the command line: the same bytes on every way, settings checked, help made from the registry."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.precision import ActivationPrecision, Granularity, LayerScheme, Precision
from quantstudio.core.recipe import CalibrationSettings, uniform_recipe
from quantstudio.core.samples import sample
from quantstudio.core.steps import Step
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.quantize import quantize
from quantstudio.project.recipe_file import RecipeFile, read_recipe_file, write_recipe_file
from tests.engine.test_pipeline_registry import PLUGIN, plug_in

SAMPLE = sample("digits_mobilenet")
DATA = ["--data", str(SAMPLE.train), "--transform", SAMPLE.transform]
INT4 = LayerScheme(Precision.INT4, ActivationPrecision.INT8, Granularity.PER_TENSOR)
RECIPE = uniform_recipe(INT4, calibration=CalibrationSettings(samples=64))
STEPS = (Step("equalize"), Step("bias", {"samples": 64}))


@pytest.fixture(scope="module")
def _module_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_cache(_module_cache, monkeypatch):
    """Normalising the same model once is enough."""
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(_module_cache))


@pytest.fixture
def start(tmp_path):
    """A recipe file without steps, for any model."""
    path = tmp_path / "start.json"
    write_recipe_file(path, RecipeFile(RECIPE))
    return path


def recover(start, output, *options):
    return invoke(["recover", str(SAMPLE.model), *DATA, "--recipe", str(start), "-o", str(output), *options])


def test_that_every_way_gives_the_same_bytes(start, tmp_path, capsys, monkeypatch):
    options = ["--method", "equalize,bias", "--set-step", "bias.samples=64"]
    assert recover(start, tmp_path / "recovered.onnx", *options) == 0
    expected = (tmp_path / "recovered.onnx").read_bytes()
    # From here on in a cache of its own, so that nothing is only found again.
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "recovered.recipe.json"
    assert invoke(["run", str(recipe), "-o", str(tmp_path / "ran.onnx")]) == 0
    again = [
        "quantize",
        str(SAMPLE.model),
        *DATA,
        "--recipe",
        str(recipe),
        "-o",
        str(tmp_path / "again.onnx"),
    ]
    assert invoke(again) == 0
    quantize(
        graph_path=open_model(path=str(SAMPLE.model)).graph_path,
        output=str(tmp_path / "python.onnx"),
        recipe=to_json(replace(RECIPE, steps=STEPS)),
        data=to_json(DataSpec(str(SAMPLE.train), parse_transform(SAMPLE.transform))),
    )
    capsys.readouterr()
    for name in ("ran", "again", "python"):
        assert (tmp_path / f"{name}.onnx").read_bytes() == expected


def test_that_the_recipe_holds_the_steps_with_all_their_settings(start, tmp_path, capsys):
    options = ["--method", "equalize, bias", "--set-step", "bias.samples=32", "--seed", "7"]
    assert recover(start, tmp_path / "out.onnx", *options, "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "quantstudio.recover/1"
    assert [step["name"] for step in document["steps"]] == ["equalize", "bias"]
    assert document["steps"][1]["settings"] == {"inputs": "quantized", "samples": 32}
    assert document["steps"][1]["summary"].startswith("Corrected the biases of ")
    assert document["steps"][1]["seconds"] > 0
    recipe = read_recipe_file(tmp_path / "out.recipe.json").recipe
    assert recipe.steps[1] == Step("bias", {"inputs": "quantized", "samples": 32})
    assert recipe.seed == 7


def test_that_the_table_says_what_each_step_did(start, tmp_path, capsys):
    assert recover(start, tmp_path / "out.onnx", "--method", "equalize") == 0
    assert "equalize: Evened out" in capsys.readouterr().out


def test_that_auto_keeps_the_steps_that_measure_best(start, tmp_path, capsys):
    samples = {"bias": 64, "gptq": 32, "norms": 32, "ranges": 32, "smooth": 32}
    few = [part for step, count in samples.items() for part in ("--set-step", f"{step}.samples={count}")]
    assert recover(start, tmp_path / "out.onnx", *few, "--json", "-") == 0
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


def test_that_run_applies_the_same_steps_to_another_network(start, tmp_path, capsys):
    assert recover(start, tmp_path / "out.onnx", "--method", "equalize,bias") == 0
    other = sample("digits_resnet")
    command = ["run", str(tmp_path / "out.recipe.json"), "--model", str(other.model), "--json", "-"]
    capsys.readouterr()
    assert invoke([*command, "-o", str(tmp_path / "other.onnx")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in document["steps"]] == ["equalize", "bias"]
    made = read_recipe_file(tmp_path / "other.recipe.json")
    assert made.model
    assert Path(made.model.path) == other.model
    assert made.recipe == read_recipe_file(tmp_path / "out.recipe.json").recipe
    assert invoke([*command[:-2]]) == 2
    assert "Give -o OUT.onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--method", "melt"], "there is no step 'melt'. Known steps: equalize, "),
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
def test_that_a_mistake_says_what_to_do(start, tmp_path, capsys, options, text):
    assert recover(start, tmp_path / "out.onnx", *options) == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.onnx").exists()


def test_that_a_step_that_needs_data_asks_for_it(tmp_path, capsys):
    command = ["recover", str(SAMPLE.model), "--preset", "weight-int8", "--method", "bias"]
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


def test_that_codebooks_chosen_together_are_made_again_by_run(tmp_path, capsys, monkeypatch):
    made, ran = tmp_path / "made.onnx", tmp_path / "ran.onnx"
    options = ["--preset", "static-codebook2", "--method", "gptq", "--set-step", "gptq.samples=48"]
    command = ["recover", str(SAMPLE.model), *DATA, *options, "--samples", "64", "-o", str(made)]
    assert invoke(command) == 0
    assert "gptq: Chose the weights of " in capsys.readouterr().out
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "cache"))
    assert invoke(["run", str(tmp_path / "made.recipe.json"), "-o", str(ran)]) == 0
    assert ran.read_bytes() == made.read_bytes()
