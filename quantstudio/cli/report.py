"""`quantstudio report`: a project's results in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantstudio.cli.options import JsonOption, check_json, checked_output, made_folder
from quantstudio.cli.output import console_for, write_json
from quantstudio.cli.progress import WARNINGS
from quantstudio.core.errors import OutputError
from quantstudio.project.store import Project
from quantstudio.report.csv import write_csv
from quantstudio.report.html import write_html
from quantstudio.report.json import report_json
from quantstudio.workspace.report_data import project_report


def command(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Project file (.qstudio).")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="report.html", help="File to write.")],
    csv: Annotated[
        str,
        typer.Option(
            "--csv",
            metavar="FOLDER",
            help="Write the tables too, for a spreadsheet: variants.csv, classes.csv and layers.csv.",
        ),
    ] = "",
    json: JsonOption = "",
) -> None:
    """Write everything a project knows as one self-contained HTML file."""
    target = checked_output(output, inputs=(project,))
    check_json(json, inputs=(project, output))
    if target.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            "reports are HTML",
            where=output,
            hint="Name it .html; a browser prints it to PDF with its own layout",
        )
    with Project.open(Path(project), read_only=True) as opened:
        data = project_report(opened)
        for text in opened.unreadable:
            WARNINGS.add(text)
    folder = made_folder(csv) if csv else None
    write_html(data, target)
    written = [target, *(write_csv(data, folder) if folder else ())]
    if json:
        write_json("report", report_json(data), json)
    if json != "-":
        for path in written:
            console_for(json).print(f"wrote {path}")
