"""Clip lines by keyboard: the plot takes the focus, and keys do what dragging does."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget
from typing_extensions import override

STEP = 0.005  # of the width shown; a drag is about as fine
LONG_STEPS = 10
LOW, HIGH = "low", "high"
# What the list of keys says.
CLIP_KEYS = (
    ("Move the clip line", "Left, Right"),
    ("Move it further", "Shift+Left, Shift+Right"),
    ("Choose the lower or the upper clip line", "Home, End"),
    ("Forget the range set by hand", "Delete"),
)
HINT = "Home and End choose a clip line, Left and Right move it, Shift moves it further, Delete resets it"
_DIRECTIONS = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
_ENDS = {Qt.Key.Key_Home: LOW, Qt.Key.Key_End: HIGH}
_RESETS = (Qt.Key.Key_Delete, Qt.Key.Key_Backspace)
_MODIFIERS = Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.KeypadModifier


class ClipKeys(QObject):
    """Listens to the keys of a focused plot.

    Signals:
        moved(float): move the chosen line by this share of the width shown.
        released(): the key was let go; what was moved is meant.
        reset(): forget the range set by hand.
        chosen_changed(): another line is chosen, or the focus came or went.
    """

    moved = Signal(float)
    released = Signal()
    reset = Signal()
    chosen_changed = Signal()

    def __init__(self, view: QWidget) -> None:
        super().__init__(view)
        self._view = view
        self._end = HIGH
        self._is_moving = False
        view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        view.installEventFilter(self)

    @property
    def chosen(self) -> str:
        """The line keys move, "low" or "high"; empty without the focus."""
        return self._end if self._view.hasFocus() else ""

    @property
    def end(self) -> str:
        """The line that would be moved."""
        return self._end

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        match event.type():
            case QEvent.Type.KeyPress if isinstance(event, QKeyEvent):
                return self._on_pressed(event)
            case QEvent.Type.KeyRelease if isinstance(event, QKeyEvent) and not event.isAutoRepeat():
                self._finish()
            case QEvent.Type.FocusOut:
                self._finish()
                self.chosen_changed.emit()
            case QEvent.Type.FocusIn:
                self.chosen_changed.emit()
            case _:
                pass
        return super().eventFilter(watched, event)

    def _on_pressed(self, event: QKeyEvent) -> bool:
        key = Qt.Key(event.key())
        if event.modifiers() & ~_MODIFIERS:
            return False
        if key in _DIRECTIONS:
            steps = LONG_STEPS if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 1
            self._is_moving = True
            self.moved.emit(_DIRECTIONS[key] * steps * STEP)
        elif key in _ENDS:
            self._finish()
            self._end = _ENDS[key]
            self.chosen_changed.emit()
        elif key in _RESETS:
            self.reset.emit()
        else:
            return False
        event.accept()
        return True

    def _finish(self) -> None:
        if self._is_moving:
            self._is_moving = False
            self.released.emit()
