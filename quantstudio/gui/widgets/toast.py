"""Notifications in the corner of the window: they come, wait and go, and never stop anybody."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QEnterEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from quantstudio.gui.theme import icon, icon_pixmap, theme_hub
from quantstudio.gui.widgets.remedy import Remedy, RemedyButton

WIDTH = 380
MARGIN = 16
SHOWN_AT_ONCE = 3
# Long enough to read two lines; an error stays until it was read or closed.
LIFETIMES_MS = {"info": 5000, "success": 5000, "warning": 9000, "error": 20000}
_ICONS = {
    "info": ("info", "accent"),
    "success": ("success", "ok"),
    "warning": ("warning", "warn"),
    "error": ("error", "bad"),
}


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
        self.setFixedWidth(WIDTH)
        self._severity = severity
        self.key = (severity, text)
        self._icon = QLabel(self)
        self._icon.setObjectName("toast.icon")
        message = QLabel(text, self)
        message.setObjectName("toast.text")
        message.setWordWrap(True)
        message.setTextFormat(Qt.TextFormat.PlainText)
        column = QVBoxLayout()
        column.setSpacing(2)
        column.addWidget(message)
        if hint:
            more = QLabel(hint, self)
            more.setObjectName("toast.hint")
            more.setProperty("role", "caption")
            more.setWordWrap(True)
            more.setTextFormat(Qt.TextFormat.PlainText)
            column.addWidget(more)
        if remedy is not None:
            button = RemedyButton("toast.remedy", self, remedy)
            button.clicked.connect(self._close)
            column.addSpacing(6)
            column.addWidget(button, 0, Qt.AlignmentFlag.AlignLeft)
        close = QToolButton(self)
        close.setObjectName("toast.close")
        close.setAccessibleName("Close notification")
        close.setAutoRaise(True)
        close.clicked.connect(self._close)
        self._close_button = close
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 10, 8, 10)
        row.setSpacing(10)
        row.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(column, 1)
        row.addWidget(close, 0, Qt.AlignmentFlag.AlignTop)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(LIFETIMES_MS[severity])
        self._timer.timeout.connect(self._close)
        self._timer.start()
        self._retheme()
        theme_hub().theme_changed.connect(self._retheme)

    def enterEvent(self, event: QEnterEvent) -> None:
        """Stays while the pointer is on it."""
        self._timer.stop()
        super().enterEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        """Goes soon after the pointer left."""
        self._timer.start()
        super().leaveEvent(event)

    def _retheme(self) -> None:
        name, role = _ICONS[self._severity]
        self._icon.setPixmap(icon_pixmap(name, role, 18, self.devicePixelRatioF()))
        self._close_button.setIcon(icon("close", "muted", 14))

    def _close(self) -> None:
        self._timer.stop()
        self.closed.emit(self)


class ToastStack(QObject):
    """Keeps the toasts of a window in its lower right corner, newest at the bottom."""

    def __init__(self, window: QWidget, above: QWidget | None = None) -> None:
        super().__init__(window)
        self._window = window
        self._above = above
        self._toasts: list[Toast] = []
        window.installEventFilter(self)

    @property
    def toasts(self) -> tuple[Toast, ...]:
        """What is shown, oldest first."""
        return tuple(self._toasts)

    def show(self, severity: str, text: str, hint: str = "", remedy: Remedy | None = None) -> None:
        """Show a notification; the same one again only starts its time anew."""
        for toast in self._toasts:
            if toast.key == (severity, text):
                self._remove(toast)
                break
        toast = Toast(severity, text, hint, self._window, remedy)
        toast.closed.connect(self._remove)
        self._toasts.append(toast)
        while len(self._toasts) > SHOWN_AT_ONCE:
            self._remove(self._toasts[0])
        toast.show()
        self._place()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The corner moves with the window."""
        if event.type() == QEvent.Type.Resize:
            self._place()
        return super().eventFilter(watched, event)

    def _remove(self, toast: Toast) -> None:
        if toast in self._toasts:
            self._toasts.remove(toast)
            toast.hide()
            toast.deleteLater()
            self._place()

    def _place(self) -> None:
        bottom = self._window.height() - MARGIN - (self._above.height() if self._above else 0)
        for toast in reversed(self._toasts):
            layout = toast.layout()
            height = layout.totalHeightForWidth(WIDTH) if layout is not None else toast.sizeHint().height()
            toast.setFixedHeight(height)
            bottom -= height
            toast.move(self._window.width() - WIDTH - MARGIN, bottom)
            toast.raise_()
            bottom -= 8
