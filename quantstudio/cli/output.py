"""What commands print: one JSON document, or a table for people; errors in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from quantstudio.core import figures
from quantstudio.core.codec import to_json
from quantstudio.core.files import write_text


def write_json(schema: str, content: Mapping[str, Any], target: str) -> None:
    """Write one JSON document with its schema name to a file, or to standard output for "-".

    Raises:
        OutputError: the file cannot be written.
    """
    text = (
        json.dumps({**to_json(content), "schema": f"quantstudio.{schema}/1"}, indent=2, allow_nan=False)
        + "\n"
    )
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_text(Path(target), text)


def console_for(json_target: str) -> Console:
    """Where tables go: standard output, or standard error when that carries JSON."""
    # Names of layers and files may hold what rich takes for markup or an emoji.
    console = Console(stderr=json_target == "-", highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width to fold at
    return console


def print_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
) -> None:
    """A plain table; `right` lists the columns of numbers."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def format_bytes(size: int) -> str:
    """Bytes as everywhere else, but with a plain space, which every terminal and code page has."""
    return figures.size(size).replace(figures.THIN_SPACE, " ")


def format_shape(shape: Sequence[int]) -> str:
    """Dimensions with a multiplication sign."""
    return "×".join(str(n) for n in shape) or "—"
