"""What can be done with files: open, save, find again, quit."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from quantstudio.core.samples import sample_names, sample_title
from quantstudio.gui.action import Action, Choice, Choices, Command, Context
from quantstudio.gui.facts.needs import needs_model
from quantstudio.gui.facts.recent_facts import kind_text
from quantstudio.gui.session import Session
from quantstudio.gui.shell.context import WindowContext
from quantstudio.gui.shell.settings import Settings
from quantstudio.project.references import ReferenceKind
from quantstudio.project.store import SUFFIX
from quantstudio.workspace.sessions import recent_entries

RECENT_LISTED = 15
OPEN_FILTER = (
    "Everything QuantStudio reads (*.onnx *.qstudio *.npz *.txt *.jsonl *.pt2 *.pt *.pth *.ts *.safetensors "
    "*.json);;"
    "Models (*.onnx *.pt2 *.pt *.pth *.ts *.torchscript *.safetensors);;Projects (*.qstudio);;"
    "Data (*.npz *.txt *.jsonl);;Recipes (*.json);;All files (*)"
)


def file_commands(window: WindowContext) -> tuple[Command, ...]:
    """The File menu but for what features put there."""
    return (
        Action(
            "file.new",
            "&New session",
            lambda context: context.session.workspace.documents.new_project(),
            "file",
            110,
            "plus",
            "Ctrl+N",
        ),
        Action(
            "file.open",
            "&Open…",
            _open,
            "file",
            120,
            "open",
            "Ctrl+O",
            "Open a model, data, a project or a recipe",
            tool=110,
            tool_text="Open",
        ),
        Action(
            "file.reopen",
            "Open a&gain",
            lambda context: context.session.workspace.documents.reopen(),
            "file",
            125,
            tip="Read the model again; one that could not be opened comes first",
            why_not=_needs_model_file,
            text_now=_reopen_text,
        ),
        Action(
            "file.earlier",
            "Go on in the &earlier session",
            lambda context: context.session.workspace.documents.open_earlier(),
            "file",
            130,
            tip="Open the session in which work on this model was done before",
            why_not=_needs_earlier,
        ),
        Choices(
            "file.recent",
            "Open &recent",
            lambda context: _recent(context, window.settings),
            "Recent",
            "file",
            140,
            "file",
            nothing="Nothing yet",
        ),
        Choices("file.samples", "Open sa&mple", _samples, "File", "file", 150, "sample"),
        *_saving(),
    )


def _saving() -> tuple[Command, ...]:
    return (
        Action(
            "file.save",
            "&Save project…",
            _save,
            "file",
            210,
            "save",
            "Ctrl+S",
            "Save the project to a file; every change is kept at once",
            tool=120,
            tool_text="Save",
            why_not=needs_model,
        ),
        Action(
            "file.save_as",
            "Save project &as…",
            _save_as,
            "file",
            220,
            keys="Ctrl+Shift+S",
            why_not=needs_model,
        ),
        Action(
            "file.locate",
            "&Locate missing files…",
            _locate,
            "file",
            230,
            "search",
            tip="Say where a file of the project is now",
            why_not=_needs_missing,
        ),
        Action("file.quit", "&Quit", lambda context: context.window.close(), "file", 510, keys="Ctrl+Q"),
    )


def _open(context: Context) -> None:
    context.ask_for_file("file.open", "Open", OPEN_FILTER, context.session.workspace.documents.open_path)


def _needs_model_file(session: Session) -> str:
    return "" if session.workspace.documents.to_reopen else "Open a model first"


def _needs_missing(session: Session) -> str:
    return "" if session.workspace.project.missing() else "Every file is where it was"


def _needs_earlier(session: Session) -> str:
    return "" if session.workspace.documents.earlier else "There is no other session of this model"


def _reopen_text(session: Session) -> str:
    name = Path(session.workspace.documents.to_reopen).name.replace("&", "&&")
    return f"Open {name} a&gain" if name else "Open a&gain"


def _save(context: Context) -> None:
    """Ask for a file unless the project has one, in which everything is already."""
    project = context.session.workspace.project
    if project.is_temporary:
        _save_as(context)
    else:
        hint = "Every change is written the moment it happens"
        context.tell("success", f"{project.path.name} is up to date", hint)


def _save_as(context: Context) -> None:
    """Ask for a file and go on there."""
    model = context.session.workspace.model
    name = f"{Path(model.source_path).stem}{SUFFIX}" if model else f"project{SUFFIX}"
    filters = f"Projects (*{SUFFIX})"
    context.ask_for_target(
        "file.save_as", "Save project", name, filters, context.session.workspace.documents.save_as
    )


def _locate(context: Context) -> None:
    """Ask where the first missing file is now."""
    gone = context.session.workspace.project.missing()[0]
    found = partial(context.session.workspace.documents.locate, ReferenceKind(gone.kind))
    context.ask_for_file("file.locate", f"Where is {Path(gone.path).name}?", "All files (*)", found)


def _recent(context: Context, settings: Settings) -> list[Choice]:
    now, workspace = time.time(), context.session.workspace
    entries = recent_entries(settings.recent, RECENT_LISTED)
    files = [
        Choice(
            f"{entry.name}   {kind_text(entry, now)}",
            partial(workspace.documents.open_path, str(entry.path)),
            words=f"Open {entry.name}, {kind_text(entry, now)}",
            tip=str(entry.path),
            is_enabled=not entry.trouble,
        )
        for entry in entries
        if entry.path != workspace.project.path
    ]
    more = Choice("All of them, with pictures", partial(context.show, "start"), is_apart=True)
    forget = Choice("Forget recent files", settings.clear_recent)
    return [*files, more, forget] if files else []


def _samples(context: Context) -> list[Choice]:
    return [
        Choice(
            sample_title(name),
            partial(context.session.workspace.documents.open_sample, name),
            words=f"Open sample {name}",
        )
        for name in sample_names()
    ]
