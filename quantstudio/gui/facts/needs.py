"""Why something cannot be done now, in the words of a tool tip; empty where it can."""

from __future__ import annotations

from quantstudio.gui.session import Session


def needs_model(session: Session) -> str:
    """It works on a model."""
    return "" if session.workspace.model is not None else "Open a model first"


def needs_data(session: Session) -> str:
    """It runs data through a model."""
    return needs_model(session) or (
        "" if session.workspace.calibration_data is not None else "Choose data first"
    )


def needs_selection(session: Session) -> str:
    """It works on the selected layers."""
    return "" if session.selection else "Select layers first"


def needs_variants(session: Session) -> str:
    """It compares variants."""
    return needs_data(session) or ("" if len(session.workspace.variants) > 1 else "Quantize first")
