"""Where caches, settings and crash reports live; an environment variable moves each."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Folder for normalised graphs, statistics and variants; made if missing. Safe to delete."""
    return _made(
        os.environ.get("QUANTSTUDIO_CACHE") or _home("XDG_CACHE_HOME", ".cache", "Caches", "LOCALAPPDATA")
    )


def config_folder() -> Path:
    """Folder for settings, recent files and crash reports; made if missing."""
    return _made(
        os.environ.get("QUANTSTUDIO_CONFIG")
        or _home("XDG_CONFIG_HOME", ".config", "Application Support", "APPDATA")
    )


def _home(variable: str, linux: str, mac: str, windows: str) -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get(windows, Path.home())) / "QuantStudio"
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "QuantStudio"
    return Path(os.environ.get(variable) or Path.home() / linux) / "quantstudio"


def _made(path: str | Path) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
