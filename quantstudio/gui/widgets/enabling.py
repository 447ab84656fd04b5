"""Controls that cannot be used now say what is missing."""

from __future__ import annotations

from PySide6.QtWidgets import QWidget

_TIP = "tip_when_enabled"


def allow(control: QWidget, why_not: str) -> None:
    """Enable a control, or disable it with the reason in its tool tip; its own tip comes back with it."""
    if control.property(_TIP) is None:
        control.setProperty(_TIP, control.toolTip())
    tip = str(control.property(_TIP))
    control.setEnabled(not why_not)
    control.setToolTip("\n".join(line for line in (tip, why_not) if line))
    control.setAccessibleDescription(why_not or tip)
