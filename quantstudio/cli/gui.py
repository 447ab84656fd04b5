"""`quantstudio gui`: the window."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="A project, a model or data.")] = "",
    demo: Annotated[str, typer.Option("--demo", metavar="NAME", help="Open a bundled sample.")] = "",
) -> None:
    """Open the window."""
    from quantstudio.gui.app import main  # Qt is loaded only for the window

    raise typer.Exit(main(file, demo))
