"""What can be done with layers: find them, set their precision."""

from __future__ import annotations

from functools import partial

from quantstudio.gui.action import Action, Choice, Choices, Command, Context
from quantstudio.gui.facts.needs import needs_model, needs_selection
from quantstudio.gui.facts.scheme_texts import SCHEME_TEXTS
from quantstudio.gui.feature import toggle_action
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.workspace.recipe_edits import PrecisionKey

KEYS = {PrecisionKey.INT8: "8", PrecisionKey.INT4: "4", PrecisionKey.FP16: "F", PrecisionKey.FP32: "3"}
FIRST_PRECISION = 211


def commands() -> tuple[Command, ...]:
    """Everything the layer table brings."""
    return (
        *(_set_precision(i, key, keys) for i, (key, keys) in enumerate(KEYS.items())),
        Choices("edit.scheme", "Set &selection to", _schemes, "Edit", "edit", 220),
        Choices(
            "edit.by_type", "Set all of a &type", _by_type, "Edit", "edit", 230, nothing="Open a model first"
        ),
        Action("edit.find", "&Find layer", _find, "edit", 310, "search", "Ctrl+F", why_not=needs_model),
        toggle_action("layers", "Layer t&able", "layers", "Ctrl+L", 310),
        Choices("layers.jump", "", _jump, "Layer", icon="layers"),
    )


def _set_precision(index: int, key: PrecisionKey, keys: str) -> Action:
    return Action(
        f"edit.{key.value.lower()}",
        f"Set selection to {key.value}",
        lambda context: context.session.set_precision(context.session.selection, key),
        "edit",
        FIRST_PRECISION + index,
        keys=keys,
        why_not=needs_selection,
    )


def _schemes(context: Context) -> list[Choice]:
    session = context.session
    return [
        Choice(
            text,
            partial(session.set_scheme, session.selection, scheme),
            is_enabled=bool(session.selection),
        )
        for scheme, text in SCHEME_TEXTS.items()
    ]


def _by_type(context: Context) -> list[Choice]:
    session = context.session
    return [
        Choice(
            text,
            partial(session.set_scheme_by_type, op_type, scheme),
            words=f"Set all {op_type} to {text}",
            under=op_type,
        )
        for op_type in sorted({layer.op_type for layer in session.layers})
        for scheme, text in SCHEME_TEXTS.items()
    ]


def _jump(context: Context) -> list[Choice]:
    select = context.session.select
    return [
        Choice(layer.name, partial(select, [layer.name]), words=layer.name)
        for layer in context.session.layers
    ]


def _find(context: Context) -> None:
    context.show("layers")
    panel = context.window.findChild(LayersPanel)
    if panel is not None:
        panel.focus_search()
