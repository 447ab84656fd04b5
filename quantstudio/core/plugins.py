"""Modules of others that add to a registry: entry points of installed packages, loaded once per group.

A package names them in its metadata:

    [project.entry-points."quantstudio.formats"]
    int5 = "my_formats:register"

Each names a module, or a callable in one that is called without arguments.
"""

from __future__ import annotations

import logging
import os
import sys

_LOADED: set[str] = set()
_LOG = logging.getLogger(__name__)


def load_plugins(group: str) -> None:
    """Load what installed packages offer in an entry-point group; later calls do nothing.

    A module that cannot be loaded is left out, and the log says why: one broken package must not take the
    whole program away.

    Args:
        group: "quantstudio.formats", ...
    """
    if group in _LOADED:
        return
    _LOADED.add(group)
    if not _is_offered(group):
        return
    from importlib.metadata import entry_points

    for point in entry_points(group=group):
        try:
            found = point.load()
            if callable(found):
                found()
        except Exception as error:  # noqa: BLE001  whatever somebody else's module raises
            _LOG.warning("the %s plug-in %r is left out: %s", group, point.name, error)


def _is_offered(group: str) -> bool:
    """Whether any installed package names the group.

    A look into the files takes 1 ms; importing `importlib.metadata` to be told "none" takes 125 ms, which
    every start of the window and of the command line would pay.
    """
    wanted = f"[{group}]".encode()
    for folder in dict.fromkeys(sys.path):
        try:
            with os.scandir(folder or ".") as entries:
                names = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:  # a zip archive, or a folder that is not there
            continue
        if any(wanted in _content(os.path.join(name, "entry_points.txt")) for name in names):  # noqa: PTH118
            return True
    return False


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:  # noqa: PTH123  a Path per installed package doubles the time
            return handle.read()
    except OSError:
        return b""
