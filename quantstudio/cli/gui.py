"""`quantstudio gui`: the window."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from quantstudio.core.errors import OutputError


def command(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="A project, a model or data.")] = "",
    demo: Annotated[str, typer.Option("--demo", metavar="NAME", help="Open a bundled sample.")] = "",
) -> None:
    """Open the window."""
    if not has_display():
        raise OutputError(
            "there is no display to open a window on",
            hint="Run `quantstudio demo`, or another command of `quantstudio --help`, here",
        )
    from quantstudio.gui.app import main  # Qt is loaded only for the window

    raise typer.Exit(main(file, demo))


def has_display() -> bool:
    """Whether a window can appear: without one Qt would end the process with a core dump."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))
