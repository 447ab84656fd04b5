"""Commands that must be refused, and the files they must leave as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantstudio.cli.main import invoke
from quantstudio.engine.tasks.models import open_model
from quantstudio.project.store import Project
from tests.cli.refusals import DATA, NET, OLD, Refused


@pytest.fixture(scope="module")
def _module_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def one_cache(_module_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalising the same model once is enough."""
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(_module_cache))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of results from before."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("m.onnx", "m.recipe.json", "s.npz", "r.html", "j.json"):
        (folder / name).write_bytes(OLD)
    return folder


@pytest.fixture
def refused(out: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused; gives its one line."""

    def run(arguments: list[str], *, may_succeed: bool = False) -> str:
        capfd.readouterr()
        code = invoke(arguments)
        captured = capfd.readouterr()
        if code == 0 and may_succeed:
            return ""
        assert code == 2, captured.err
        assert captured.out == ""
        assert captured.err.startswith("quantstudio: ")
        assert captured.err.count("\n") == 1
        assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == dict.fromkeys(
            ("m.onnx", "m.recipe.json", "s.npz", "r.html", "j.json"), OLD
        )
        return captured.err

    return run


@pytest.fixture(scope="module")
def good_recipe(_module_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe file that works, as a dictionary."""
    folder = tmp_path_factory.mktemp("good")
    arguments = ["quantize", NET, *DATA, "--samples", "32", "--preset", "static-int8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(_module_cache))
        assert invoke([*arguments, "-o", str(folder / "m.onnx")]) == 0
    return dict(json.loads((folder / "m.recipe.json").read_text(encoding="utf-8")))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "p.qstudio"
    with Project.create(path) as made:
        made.set_model(open_model(path=NET))
    return path
