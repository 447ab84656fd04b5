"""The command and the Python that the export dialog shows do what the window did."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.folders import cache_folder
from quantstudio.core.samples import DEFAULT_SAMPLE, sample
from quantstudio.gui.session import Session
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.workspace.script import command_line, python_code


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=600)


@pytest.fixture
def exported(qtbot, tmp_path):
    """A session that wrote its model, and the path."""
    session = Session(ProcessBackend)
    chosen = sample(DEFAULT_SAMPLE)
    session.workspace.documents.open_path(str(chosen.model))
    qtbot.waitUntil(lambda: session.workspace.model is not None and not session.workspace.jobs.is_busy)
    session.workspace.opening.set_data(DataSpec(str(chosen.train), parse_transform(chosen.transform)), None)
    target = tmp_path / "with space" / "net.onnx"
    target.parent.mkdir()
    session.workspace.documents.export(str(target))
    qtbot.waitUntil(target.with_suffix(".recipe.json").is_file)
    yield session, target
    session.close()


def test_that_both_texts_give_the_same_bytes(exported):
    session, target = exported
    expected = target.read_bytes()
    script = target.parent / "again.py"
    script.write_text(python_code(session.workspace, str(target)), encoding="utf-8")
    target.unlink()
    run(str(script))
    assert target.read_bytes() == expected
    target.unlink()
    command, again = (
        line for line in command_line(session.workspace, str(target)).splitlines() if line[:1] == "q"
    )
    run("-m", *shlex.split(command))
    assert target.read_bytes() == expected
    run("-m", *shlex.split(again))
    assert cache_folder().is_dir()


def test_that_what_runs_code_says_so_again(full):
    known = full.session.workspace
    known.subject = replace(known.subject, is_trusted=True)
    assert "--trust" in command_line(full.session.workspace, "m.onnx")
    assert "trust=True" in python_code(full.session.workspace, "m.onnx")
    known.subject = replace(known.subject, factory="nets:make", state_path="weights.safetensors")
    command = shlex.split(command_line(full.session.workspace, "m.onnx"), comments=True)
    assert command[2] == "weights.safetensors"
    assert command[command.index("--factory") + 1] == "nets:make"
    code = python_code(full.session.workspace, "m.onnx")
    assert "    'weights.safetensors',\n" in code
    assert "    factory='nets:make',\n    trust=True,\n" in code


def test_that_data_is_limited_as_the_window_limits_it(full, tmp_path):
    full.session.workspace.opening.set_data(DataSpec(str(Path("d.npz")), samples=32), None)
    command = command_line(full.session.workspace, "m.onnx")
    assert "quantstudio run m.recipe.json" in command
    assert "quantstudio quantize" not in command  # which would read more than 32 samples
    assert "samples=32" in python_code(full.session.workspace, "m.onnx")


def test_that_trusted_data_says_so_again(full):
    full.session.workspace.opening.set_data(DataSpec("mydata:make", trusted=True), None)
    assert "--trust" in command_line(full.session.workspace, "m.onnx")
    assert "trust=True" in python_code(full.session.workspace, "m.onnx")
