"""Fixtures of every test: no display, no thread fights, caches and settings in a temporary place."""

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("PYQTGRAPH_QT_LIB", "PySide6")

import pytest


@pytest.fixture(autouse=True)
def _isolated_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's cache or settings."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(home / "cache"))
    monkeypatch.setenv("QUANTSTUDIO_CONFIG", str(home / "config"))
