"""What can be done about sensitivity: analyse it, look at it, put a threshold on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from quantstudio.gui.action import Action, Command, Context
from quantstudio.gui.facts.needs import (
    needs_float_weights,
    needs_float_weights_and_data,
    needs_model,
    needs_selection,
)
from quantstudio.gui.session import Session

if TYPE_CHECKING:
    from quantstudio.gui.features.sensitivity.sensitivity_panel import SensitivityPanel


def commands() -> tuple[Command, ...]:
    """Everything sensitivity brings."""
    return (
        Action(
            "run.sensitivity",
            "&Sensitivity",
            lambda context: context.session.workspace.runs.analyze(),
            "run",
            220,
            "sensitivity",
            "Ctrl+Shift+A",
            "Rank the layers by what quantizing them costs",
            tool=220,
            why_not=needs_float_weights_and_data,
        ),
        Action(
            "run.exact",
            "E&xact sensitivity of selection",
            lambda context: context.session.workspace.runs.exact_sensitivity(context.session.selection),
            "run",
            230,
            tip="Quantize the selected layers one at a time and measure",
            why_not=_needs_data_and_selection,
        ),
        Action(
            "edit.threshold",
            "&Threshold on sensitivity",
            lambda context: _on_panel(context, lambda panel: panel.show_threshold()),
            "edit",
            250,
            "sensitivity",
            "Ctrl+Shift+H",
            "Set everything above a line to one precision",
            why_not=_needs_sensitivity,
        ),
        Action(
            "view.classes",
            "Sensitivity by &class",
            lambda context: _on_panel(context, lambda panel: panel.show_classes()),
            "view",
            220,
            "sensitivity",
            why_not=needs_model,
        ),
    )


def _needs_data_and_selection(session: Session) -> str:
    return needs_float_weights_and_data(session) or needs_selection(session)


def _needs_sensitivity(session: Session) -> str:
    known = session.workspace.layer_sensitivity
    return needs_float_weights(session) or ("" if known else "Analyze sensitivity first")


def _on_panel(context: Context, do: Callable[[SensitivityPanel], None]) -> None:
    """Show the panel and do something there, if it is built already."""
    from quantstudio.gui.features.sensitivity.sensitivity_panel import (
        SensitivityPanel,  # draws with pyqtgraph
    )

    context.show("sensitivity")
    panel = context.window.findChild(SensitivityPanel)
    if panel is not None:
        do(panel)
