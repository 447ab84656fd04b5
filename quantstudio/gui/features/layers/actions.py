"""What can be done with layers: find them, set their precision."""

from __future__ import annotations

from functools import partial

from quantstudio.core.precision import WeightFormat, keyed_formats
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.gui.action import Action, Choice, Choices, Command, Context
from quantstudio.gui.facts.needs import needs_model, needs_selection
from quantstudio.gui.facts.precision_facts import precision_places
from quantstudio.gui.feature import toggle_action
from quantstudio.gui.features.layers.layers_panel import LayersPanel

FIRST_PRECISION = 211
PRECISION_LIST = 219


def commands() -> tuple[Command, ...]:
    """Everything the layer table brings."""
    return (
        *(_set_precision(i, row) for i, row in enumerate(keyed_formats())),
        Action(
            "edit.precision",
            "Pr&ecision of selection…",
            _precisions,
            "edit",
            PRECISION_LIST,
            keys="P",
            tip="Every precision the selected layers can have: bytes, loss and how it runs",
            why_not=needs_selection,
        ),
        Choices("edit.scheme", "Set &selection to", _schemes, "Edit", "edit", 220),
        Choices(
            "edit.by_type", "Set all of a &type", _by_type, "Edit", "edit", 230, nothing="Open a model first"
        ),
        Action("edit.find", "&Find layer", _find, "edit", 310, "search", "Ctrl+F", why_not=needs_model),
        toggle_action("layers", "Layer t&able", "layers", "Ctrl+L", 310),
        Choices("layers.jump", "", _jump, "Layer", icon="layers"),
    )


def _set_precision(index: int, row: WeightFormat) -> Action:
    return Action(
        f"edit.{row.name}",
        f"Set selection to {row.label}",
        lambda context: context.session.workspace.edits.set_precision(context.session.selection, row),
        "edit",
        FIRST_PRECISION + index,
        keys=row.key,
        why_not=needs_selection,
    )


def _precisions(context: Context) -> None:
    context.show("layers")
    panel = context.window.findChild(LayersPanel)
    if panel is not None and not panel.open_precisions():
        context.tell("info", "The selected layers have no precision to choose")


def _schemes(context: Context) -> list[Choice]:
    session = context.session
    names = session.workspace.edits.choices(names=session.selection)
    return [
        Choice(
            NAMED_SCHEMES[name].text,
            partial(session.workspace.edits.set_scheme, session.selection, name),
            is_enabled=bool(names),
            tip="" if names else "Select layers that can be quantized first",
            under=under,
        )
        for under, name in precision_places(names or NAMED_SCHEMES)
    ]


def _by_type(context: Context) -> list[Choice]:
    session = context.session
    return [
        Choice(
            NAMED_SCHEMES[name].text,
            partial(session.workspace.edits.set_scheme_by_type, op_type, name),
            words=f"Set all {op_type} to {NAMED_SCHEMES[name].text}",
            under=(op_type, *under),
        )
        for op_type in sorted({layer.op_type for layer in session.workspace.layers})
        for under, name in precision_places(session.workspace.edits.choices(op_type))
    ]


def _jump(context: Context) -> list[Choice]:
    select = context.session.select
    return [
        Choice(layer.title, partial(select, [layer.name]), words=layer.full_title)
        for layer in context.session.workspace.layers
    ]


def _find(context: Context) -> None:
    context.show("layers")
    panel = context.window.findChild(LayersPanel)
    if panel is not None:
        panel.focus_search()
