"""A disk that fills in the middle of a command leaves the files of the run before, and they fit together."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.errors import OutputError
from quantstudio.core.files import file_digest
from quantstudio.core.samples import sample

SAMPLE = sample("digits_resnet")
NET = str(SAMPLE.model)
DATA = ["--data", str(SAMPLE.train), "--transform", SAMPLE.transform]
QUANTIZE = ["quantize", NET, *DATA, "--samples", "16", "--preset"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def before(tmp_path: Path) -> dict[str, bytes]:
    """A model and its recipe, made by a command."""
    assert invoke([*QUANTIZE, "weight-int8", "-o", str(tmp_path / "m.onnx")]) == 0
    return contents(tmp_path)


def refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    assert invoke(arguments) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "no space left" in captured.err
    return captured.err


@pytest.mark.parametrize(("command", "writer"), [("quantize", "building"), ("search", "search")])
def test_that_a_recipe_that_finds_no_space_takes_its_model_along(
    command, writer, before, tmp_path, capfd, monkeypatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"quantstudio.cli.{writer}.write_recipe_file", full)
    arguments = [*QUANTIZE, "static-int8"]
    if command == "search":
        arguments = ["search", NET, *DATA, "--samples", "32", "--average-bits", "6"]
    says = refused([*arguments, "-o", str(tmp_path / "m.onnx")], capfd)
    assert str(tmp_path / "m.onnx") in says
    assert contents(tmp_path) == before


def test_that_a_demo_that_finds_no_space_leaves_no_folder(tmp_path, capfd, monkeypatch):
    def full(**_: object) -> None:
        raise OutputError("cannot write the file (no space left on device)", where="cache")

    monkeypatch.setattr("quantstudio.engine.tasks.sensitivity.sensitivity", full)
    refused(["demo", "--out", str(tmp_path / "new" / "demo")], capfd)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting needs the superuser")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_that_whatever_space_is_left_model_and_recipe_fit_together(disk, capfd):
    model, recipe = disk / "m.onnx", disk / "m.recipe.json"
    assert invoke([*QUANTIZE, "weight-int8", "-o", str(model)]) == 0
    outcomes = set()
    for free in (0, 4096, 200 * 1024, 240 * 1024, 248 * 1024, 252 * 1024, 256 * 1024, 300 * 1024):
        before = contents(disk)
        stat = os.statvfs(disk)
        (disk / "filling").write_bytes(bytes(stat.f_bavail * stat.f_frsize - free))
        code = invoke([*QUANTIZE, "static-int8", "-o", str(model)])
        (disk / "filling").unlink()
        outcomes.add(code)
        if code == 2:
            assert contents(disk) == before
        assert sorted(contents(disk)) == ["m.onnx", "m.recipe.json"]
        assert json.loads(recipe.read_text())["output"]["digest"] == file_digest(model)
    assert outcomes == {0, 2}
    capfd.readouterr()
