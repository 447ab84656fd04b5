"""Notifications above the status line: they come, wait and go; they cover nothing and stop nobody."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, QTimer, Signal
from PySide6.QtGui import QEnterEvent, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from typing_extensions import override

from quantstudio.gui.theme import icon_pixmap, theme_hub
from quantstudio.gui.widgets.icon_button import IconButton
from quantstudio.gui.widgets.remedy import Remedy, RemedyButton

SHOWN_AT_ONCE = 3
GAP = 6
# Long enough to read two lines; an error stays until it was read or closed.
LIFETIMES_MS = {"info": 5000, "success": 5000, "warning": 9000, "error": 20000}
_ICONS = {
    "info": ("info", "accent"),
    "success": ("success", "ok"),
    "warning": ("warning", "warn"),
    "error": ("error", "bad"),
}
_GRAVITY = tuple(_ICONS)


class Toast(QFrame):
    """One notification: icon, text, hint, remedy, close button. Emits `closed` when it is to go."""

    closed = Signal(object)

    def __init__(
        self, severity: str, text: str, hint: str, parent: QWidget, remedy: Remedy | None = None
    ) -> None:
        super().__init__(parent)
        self.setProperty("toast", True)
        self.setObjectName("toast")
        self.setAccessibleName(f"{severity}: {text}. {hint}")
        self.severity = severity
        self.text, self.hint, self.remedy = text, hint, remedy
        self.key = (severity, text)
        self._labels: list[QLabel] = []
        self._icon = QLabel(self)
        self._icon.setObjectName("toast.icon")
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 7, 8, 7)
        row.setSpacing(10)
        row.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(self._words(), 1)
        if remedy is not None:
            button = RemedyButton("toast.remedy", self, remedy)
            button.clicked.connect(self._close)
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignVCenter)
        self._close_button = IconButton("toast.close", "Close notification", "close", 14, self)
        self._close_button.clicked.connect(self._close)
        row.addWidget(self._close_button, 0, Qt.AlignmentFlag.AlignTop)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(LIFETIMES_MS[severity])
        self._timer.timeout.connect(self._close)
        self._timer.start()
        self._retheme()
        theme_hub().theme_changed.connect(self._retheme)

    def _words(self) -> QVBoxLayout:
        column = QVBoxLayout()
        column.setSpacing(1)
        for name, words, role in (("toast.text", self.text, ""), ("toast.hint", self.hint, "caption")):
            if words:
                label = QLabel(words, self)
                label.setObjectName(name)
                label.setProperty("role", role)
                label.setWordWrap(True)
                label.setTextFormat(Qt.TextFormat.PlainText)
                # A path without a space must not hold the window open.
                label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
                # One line until its width is known: lines of a narrow column would make a small window grow.
                label.setFixedHeight(label.fontMetrics().height())
                column.addWidget(label)
                self._labels.append(label)
        return column

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        """Words get the lines they need at this width."""
        super().resizeEvent(event)
        for label in self._labels:
            label.setFixedHeight(label.heightForWidth(label.width()))

    def enterEvent(self, event: QEnterEvent) -> None:
        """Stays while the pointer is on it."""
        self._timer.stop()
        super().enterEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        """Goes soon after the pointer left."""
        self._timer.start()
        super().leaveEvent(event)

    def _retheme(self) -> None:
        name, role = _ICONS[self.severity]
        self._icon.setPixmap(icon_pixmap(name, role, 18, self.devicePixelRatioF()))

    def _close(self) -> None:
        self._timer.stop()
        self.closed.emit(self)


class ToastStack(QWidget):
    """The notifications of a window, newest at the bottom. It takes room of its own: what floats hides."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("toasts")
        self.setAccessibleName("Notifications")
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self._toasts: list[Toast] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(GAP)
        self.hide()

    @property
    def toasts(self) -> tuple[Toast, ...]:
        """What is shown, oldest first."""
        return tuple(self._toasts)

    def show_toast(self, severity: str, text: str, hint: str = "", remedy: Remedy | None = None) -> None:
        """Show a notification.

        The same one again only starts its time anew; one with the button of another joins it: two buttons
        that do the same would be one too many.
        """
        for toast in self.toasts:
            if toast.key == (severity, text):
                self._remove(toast)
            elif remedy is not None and toast.remedy is not None and toast.remedy.action is remedy.action:
                severity = max(severity, toast.severity, key=_GRAVITY.index)
                text = _joined(toast.text, text)
                hint = hint if toast.hint in ("", hint) else _joined(toast.hint, hint)
                self._remove(toast)
        toast = Toast(severity, text, hint, self, remedy)
        toast.closed.connect(self._remove)
        self._toasts.append(toast)
        self._column.addWidget(toast)
        while len(self._toasts) > SHOWN_AT_ONCE:
            self._remove(self._toasts[0])
        self.show()

    def _remove(self, toast: Toast) -> None:
        if toast in self._toasts:
            self._toasts.remove(toast)
            self._column.removeWidget(toast)
            toast.hide()
            toast.deleteLater()
            self.setVisible(bool(self._toasts))


def _joined(before: str, now: str) -> str:
    """Lines of both, each once, the newest three."""
    lines = dict.fromkeys(line for line in (*before.splitlines(), *now.splitlines()) if line)
    return "\n".join([*lines][-SHOWN_AT_ONCE:])
