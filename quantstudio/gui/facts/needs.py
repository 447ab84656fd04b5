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


def needs_float_weights(session: Session) -> str:
    """It quantizes: a file that was quantized before has nothing left to."""
    missing, model = needs_model(session), session.workspace.model
    if missing or model is None or model.can_be_quantized:
        return missing
    if any(layer.stored_as for layer in model.layers):
        return "The file is quantized already: open the float model it was made from"
    return "The model has no weights that can be quantized"


def needs_float_weights_and_data(session: Session) -> str:
    """It quantizes, and runs data through the model."""
    return needs_float_weights(session) or needs_data(session)


def needs_build(session: Session) -> str:
    """It builds the plan: layers with quantized activations need data that say how large these get."""
    workspace = session.workspace
    missing = needs_float_weights(session)
    if missing or workspace.calibration_data is not None:
        return missing
    asked = workspace.recipe.schemes(workspace.layers).values()
    return "Choose data first: this plan quantizes activations" if any(s.is_static for s in asked) else ""


def needs_selection(session: Session) -> str:
    """It works on the selected layers."""
    return "" if session.selection else "Select layers first"


def needs_variants(session: Session) -> str:
    """It compares variants."""
    if len(session.workspace.variants) > 1:
        return needs_data(session)
    return needs_data(session) or needs_float_weights(session) or "Quantize first"
