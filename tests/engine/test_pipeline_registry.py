"""Steps are described by the code that runs them, and found wherever they lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.steps import Need, SettingInfo, SettingType, Step, StepList
from quantstudio.engine.pipeline import registry
from quantstudio.engine.pipeline.context import StepOutcome
from quantstudio.engine.pipeline.discovery import find_steps, step_infos
from quantstudio.engine.pipeline.registry import NoSettings, registered, setting, step
from quantstudio.engine.tasks.recover import steps

PLUGIN = """
from quantstudio.engine.pipeline.context import StepOutcome
from quantstudio.engine.pipeline.registry import NoSettings, step

@step(name="log", label="Log only", explanation="Says that it was here.")
def log(graph, context, settings: NoSettings, *, reporter, cancel):
    reporter.message("the plug-in was here")
    return StepOutcome(graph, "Looked at the graph and left it as it was.")
"""


class Order(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"


@dataclass(frozen=True, slots=True)
class Settings:
    rate: float = setting(1, "Learning rate", "How far a\n    round goes.", low=0, high=10, unit="per round")
    order: Order = setting(Order.BACKWARD, "Order")
    warm: bool = setting(default=True, label="Warm start")


@pytest.fixture(autouse=True)
def _steps_of_this_test_only(monkeypatch):
    find_steps()
    monkeypatch.setattr(registry, "_definitions", registered())


def make(settings_type=Settings, name="learn", **options):
    def apply(graph, context, settings, *, reporter, cancel):
        return StepOutcome(graph, str(settings))

    apply.__annotations__["settings"] = settings_type
    step(name=name, label="Learn", explanation="Learns.", **options)(apply)
    return registered()[name]


def plug_in(folder: Path, module: str, source: str) -> Path:
    """A package as an installer leaves it: a module and what it says of itself."""
    (folder / f"{module}.py").write_text(source, "utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[quantstudio.steps]\n{module} = {module}\n", "utf-8")
    return folder


def test_that_a_step_is_described_by_its_settings():
    info = make(needs=(Need.DATA, Need.SEED), version=3, source="Somebody 2020, eq. 1").info
    assert (info.name, info.version, info.uses_seed, info.needs_data) == ("learn", 3, True, True)
    assert info.settings == (
        SettingInfo(
            "rate", "Learning rate", SettingType.FLOAT, 1.0, 0, 10, "per round", (), "How far a round goes."
        ),
        SettingInfo("order", "Order", SettingType.CHOICE, "backward", choices=("forward", "backward")),
        SettingInfo("warm", "Warm start", SettingType.BOOL, default=True),
    )


def test_that_a_recipes_step_becomes_the_settings_of_its_own_class():
    found = make().settings_of(Step("learn", {"rate": 2, "order": "forward"}))
    assert found == Settings(2.0, Order.FORWARD, warm=True)
    assert isinstance(found.rate, float)
    assert isinstance(found.order, Order)


def test_that_two_steps_cannot_have_one_name():
    with pytest.raises(ValueError, match=r"step 'equalize' of .* is already one of"):
        make(name="equalize")


@dataclass(frozen=True)
class Unlabelled:
    rate: float = 1.0


@dataclass(frozen=True)
class Untyped:
    rate: bytes = setting(1, "Rate")


@dataclass(frozen=True)
class OutOfRange:
    rate: float = setting(11, "Rate", high=10)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "is not a dataclass of settings"),
        (Unlabelled, r"is not made by setting\(\)"),
        (Untyped, "neither bool, int, float, str nor a StrEnum"),
        (OutOfRange, "11 is not a number up to 10"),
    ],
)
def test_that_settings_written_wrongly_are_refused_where_they_are_written(kind, text):
    with pytest.raises(ValueError, match=text):
        make(kind)


def test_that_a_step_without_settings_has_none():
    definition = make(NoSettings)
    assert definition.info.settings == ()
    assert definition.settings_of(Step("learn")) == NoSettings()
    with pytest.raises(RecipeError, match="It has no settings"):
        definition.settings_of(Step("learn", {"rate": 1}))


def test_that_the_task_tells_every_step_as_plain_values():
    told = steps()
    assert "equalize" in [info.name for info in told.steps]
    assert from_json(StepList, json.loads(json.dumps(to_json(told)))) == told
    for info in told.steps:
        assert info.explanation.endswith(".")
        assert info.source
        assert all(one.label and one.explanation for one in info.settings)


def run_python(code: str, *folders: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, [*folders, Path.cwd()]))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def test_that_one_installed_module_adds_a_step(tmp_path):
    code = "from quantstudio.engine.tasks.recover import steps\nprint([info.name for info in steps().steps])"
    assert "'log'" in run_python(code, plug_in(tmp_path, "logging_step", PLUGIN))
    assert "'log'" not in run_python(code)


def test_that_a_broken_plug_in_takes_away_no_other_step(tmp_path):
    plug_in(tmp_path, "broken_step", "raise RuntimeError('not today')")
    plug_in(tmp_path, "logging_step", PLUGIN)
    code = "from quantstudio.engine.tasks.recover import steps\nprint([info.name for info in steps().steps])"
    told = run_python(code, tmp_path)
    assert "'equalize'" in told
    assert "'log'" in told
    assert "the steps of broken_step (broken_step) cannot be loaded" in told


def test_that_describing_the_steps_loads_no_trainer():
    code = (
        "import sys\nfrom quantstudio.engine.pipeline.discovery import step_infos\nstep_infos()\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(code).strip() == "False"


def test_that_a_step_says_whether_outputs_stay_what_they_were():
    infos = {info.name: info for info in step_infos()}
    assert infos["equalize"].keeps_outputs
    assert not infos["bias"].keeps_outputs
