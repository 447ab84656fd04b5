"""Where caches, settings and crash reports live; an environment variable moves each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from quantstudio.core.errors import OutputError

CACHE_VARIABLE = "QUANTSTUDIO_CACHE"
CONFIG_VARIABLE = "QUANTSTUDIO_CONFIG"


def cache_folder(*below: str) -> Path:
    """Folder for normalised graphs, statistics and variants; made if missing. Safe to delete.

    Args:
        below: Names of a subfolder, made as well.

    Raises:
        OutputError: it cannot be made.
    """
    return _made(cache_root().joinpath(*below), "cache", CACHE_VARIABLE)


def is_cached(path: Path) -> bool:
    """Whether a path lies in the cache folder."""
    return path.is_relative_to(cache_root())


def config_folder() -> Path:
    """Folder for settings, recent files and crash reports; made if missing.

    Raises:
        OutputError: it cannot be made.
    """
    path = os.environ.get(CONFIG_VARIABLE) or _home(
        "XDG_CONFIG_HOME", ".config", "Application Support", "APPDATA"
    )
    return _made(Path(path), "settings", CONFIG_VARIABLE)


def cache_root() -> Path:
    """Folder of everything that can be made again; it need not exist."""
    return Path(os.environ.get(CACHE_VARIABLE) or _home("XDG_CACHE_HOME", ".cache", "Caches", "LOCALAPPDATA"))


def _home(variable: str, linux: str, mac: str, windows: str) -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get(windows, Path.home())) / "QuantStudio"
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "QuantStudio"
    return Path(os.environ.get(variable) or Path.home() / linux) / "quantstudio"


def _made(folder: Path, what: str, variable: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the {what} folder ({(error.strerror or str(error)).lower()})",
            where=str(folder),
            hint=f"Set {variable} to a folder you can write to",
        ) from error
    return folder
