"""What can be written: the model, its recipe, a report; and a recipe that is read."""

from __future__ import annotations

from pathlib import Path

from quantstudio.gui.action import Action, Command, Context
from quantstudio.gui.facts.needs import needs_model
from quantstudio.gui.session import Session
from quantstudio.workspace.names import file_name

RECIPES = "Recipes (*.json)"


def commands() -> tuple[Command, ...]:
    """Everything export brings."""
    return (
        Action("file.import_recipe", "&Import recipe…", _import_recipe, "file", 310),
        Action("file.export_recipe", "Export &recipe…", _export_recipe, "file", 320, why_not=needs_model),
        Action(
            "file.export",
            "&Export model…",
            _export,
            "file",
            410,
            "export",
            "Ctrl+E",
            "Write the quantized ONNX model and its recipe",
            tool=920,
            tool_text="Export",
            why_not=needs_model,
        ),
        Action(
            "file.report",
            "Re&port…",
            _report,
            "file",
            420,
            "report",
            "Ctrl+P",
            "Write everything known as one HTML file",
            tool=910,
            tool_text="Report",
            why_not=needs_model,
        ),
    )


def _import_recipe(context: Context) -> None:
    read = context.session.workspace.documents.import_recipe
    context.ask_for_file("file.import_recipe", "Import recipe", RECIPES, read)


def _export_recipe(context: Context) -> None:
    name = f"{_named_stem(context.session)}.recipe.json"
    write = context.session.workspace.documents.export_recipe
    context.ask_for_target("file.export_recipe", "Export recipe", name, RECIPES, write)


def _export(context: Context) -> None:
    from quantstudio.gui.features.export.export_dialog import ExportDialog

    folder = Path(context.folder or Path.home())
    proposed = folder / f"{_named_stem(context.session)}.onnx"
    ExportDialog(context.session, str(proposed), context.window).open()


def _report(context: Context) -> None:
    name = f"{_stem(context.session)}.report.html"
    write = context.session.workspace.documents.write_report
    context.ask_for_target("file.report", "Write report", name, "HTML (*.html)", write)


def _named_stem(session: Session) -> str:
    """The model's name with that of the plan: "net.int8-mixed"."""
    return f"{_stem(session)}.{file_name(session.workspace.active_plan)}"


def _stem(session: Session) -> str:
    return Path(session.workspace.model.source_path).stem if session.workspace.model else "model"
