"""What can be done about data and about files that are programs."""

from __future__ import annotations

from quantstudio.gui.action import Action, Command, Context
from quantstudio.gui.facts.needs import needs_float_weights_and_data, needs_model
from quantstudio.workspace.values import TrustRequest


def commands() -> tuple[Command, ...]:
    """Everything data brings."""
    return (
        Action(
            "model.data",
            "&Data…",
            choose_data,
            "model",
            110,
            "data",
            "Ctrl+D",
            why_not=needs_model,
        ),
        Action("file.open_code", "Open from P&ython…", _open_code, "file", 130, "command"),
        Action(
            "run.calibrate",
            "&Calibrate",
            lambda context: context.session.workspace.runs.calibrate(),
            "run",
            210,
            "calibrate",
            "Ctrl+Shift+C",
            "Run the calibration data through the model",
            tool=210,
            why_not=needs_float_weights_and_data,
        ),
    )


def choose_data(context: Context, offered: str = "", offered_test: str = "") -> None:
    """Open the data dialog, with paths filled in where some were offered."""
    from quantstudio.gui.features.data.data_dialog import DataDialog

    DataDialog(context, offered=offered, offered_test=offered_test).open()


def ask_for_trust(context: Context, request: TrustRequest) -> None:
    """Open the question whether to run a file."""
    from quantstudio.gui.features.data.trust_dialog import TrustDialog

    dialog = TrustDialog(request, context.window)
    dialog.trusted.connect(context.session.workspace.documents.trust)
    dialog.open()


def _open_code(context: Context) -> None:
    """Open what a Python function makes."""
    ask_for_trust(context, TrustRequest("", "model", "This calls your own Python function."))
