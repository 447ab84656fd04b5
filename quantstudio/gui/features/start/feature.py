"""The start page, which stands in the place of everything else."""

from __future__ import annotations

from functools import partial

from PySide6.QtWidgets import QWidget

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature, Parts, Place, View
from quantstudio.gui.features.start.actions import ask_to_leave, commands


def _build(context: Context, _parts: Parts) -> QWidget:
    # Most windows begin with what was open last: they do not wait for this.
    from quantstudio.gui.features.start.start_page import StartPage

    return StartPage(context)


def _listen(context: Context) -> None:
    leaving = context.session.workspace.documents.leaving
    leaving.is_asking = True
    leaving.asked.connect(partial(ask_to_leave, context))


FEATURE = Feature(
    views=(View("start", "Start", Place.START, 10, _build),),
    commands=commands,
    listen=_listen,
    keys=(
        ("Start page", "Open what is selected", "Return"),
        ("Start page", "Delete a session, forget a project", "Del"),
        ("Start page", "Back to what is open", "Esc"),
    ),
)
