"""`packaging/start` hands on what it is given, and thinks of a display only for the window."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[1] / "packaging"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shell script")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is made and whose `quantstudio` says what it was called with."""
    (tmp_path / "packaging").mkdir()
    shutil.copy(PACKAGING / "start", tmp_path / "packaging")
    (tmp_path / "packaging" / "environment.sh").write_text(
        'say() { :; }\nmake_environment() { :; }\nmake_libraries() { touch "$root/libraries"; }\n'
    )
    program = tmp_path / ".venv" / "bin" / "quantstudio"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    return tmp_path


def started(checkout: Path, *arguments: str, display: str = "") -> str:
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    ended = subprocess.run(
        ["bash", str(checkout / "packaging" / "start"), *arguments],
        env=kept | {"DISPLAY": display},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return ended.stdout.strip()


@pytest.mark.parametrize(
    "arguments", ["devices", "inspect net.onnx --json -", "no_such_command", "--version", "-h"]
)
def test_that_a_command_runs_without_a_display(checkout: Path, arguments: str) -> None:
    assert started(checkout, *arguments.split()) == arguments
    assert not (checkout / "libraries").exists()


@pytest.mark.parametrize(
    ("arguments", "called"),
    [("", "gui"), ("gui", "gui"), ("net.onnx", "net.onnx"), ("--demo x", "--demo x")],
)
def test_that_the_window_gets_its_libraries_where_there_is_a_display(
    checkout: Path, arguments: str, called: str
) -> None:
    assert started(checkout, *arguments.split(), display=":0") == called
    assert (checkout / "libraries").exists()
    assert started(checkout, *arguments.split()) == "demo"


def test_that_a_file_without_a_suffix_opens_in_the_window(checkout: Path) -> None:
    (checkout / "network").touch()
    assert started(checkout, "network", display=":0") == "network"
    assert (checkout / "libraries").exists()
