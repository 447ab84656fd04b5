"""Fixtures of every test: no display, folders of its own, nothing left behind."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("PYQTGRAPH_QT_LIB", "PySide6")

import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import nothing_left

_numbers = itertools.count()

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where `tempfile` writes, here and in processes started here: a folder that only this run uses."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        for name in ("TMPDIR", "TEMP", "TMP"):
            patch.setenv(name, str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_by_the_module(temporary_folder: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """A fixture of a module takes away what it made; what a session's fixture made may stay."""
    with nothing_left(temporary_folder, f"a fixture of {request.node.name}"):
        yield


@pytest.fixture(autouse=True)
def _nothing_left(
    temporary_folder: Path, _nothing_left_by_the_module: None, request: pytest.FixtureRequest
) -> Iterator[None]:
    with nothing_left(temporary_folder, "this test"):
        yield


@pytest.fixture(autouse=True)
def _isolated_folders(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, _nothing_left: None
) -> Iterator[None]:
    """No test writes into the user's cache or settings, or finds those of another test."""
    home = tmp_path_factory.getbasetemp() / f"home-{next(_numbers)}"
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(home / "cache"))
    monkeypatch.setenv("QUANTSTUDIO_CONFIG", str(home / "config"))
    yield
    shutil.rmtree(home, ignore_errors=True)
