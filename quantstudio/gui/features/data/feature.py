"""Dialogs for data, and for files that run code when they are opened."""

from __future__ import annotations

from functools import partial

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Feature
from quantstudio.gui.features.data.actions import ask_for_trust, choose_data, commands


def _listen(context: Context) -> None:
    documents = context.session.workspace.documents
    documents.trust_requested.connect(partial(ask_for_trust, context))
    documents.data_offered.connect(partial(choose_data, context))
    documents.pair_offered.connect(partial(choose_data, context))


FEATURE = Feature(commands=commands, listen=_listen)
