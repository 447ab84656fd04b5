"""The frame of every dialog: heading, content, one row of buttons; it never blocks and deletes itself."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFrame,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from typing_extensions import override

GAP = 8
SCREEN_AIR_PX = 60
MARGIN = 20


class Dialog(QDialog):
    """A window-modal dialog opened with `open`; content goes into `self.body`.

    One that scrolls keeps heading and buttons in sight where its content is higher than the screen.
    """

    def __init__(self, name: str, heading: str, text: str, parent: QWidget, *, scrolls: bool = False) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self.setWindowTitle(heading)
        self.setAccessibleName(heading)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN - 4)
        self._layout.setSpacing(2 * GAP)
        head = QVBoxLayout()
        head.setSpacing(4)
        title = QLabel(heading, self)
        title.setObjectName(f"{name}.heading")
        title.setProperty("role", "heading")
        head.addWidget(title)
        if text:
            explained = QLabel(text, self)
            explained.setObjectName(f"{name}.text")
            explained.setProperty("role", "muted")
            explained.setWordWrap(True)
            head.addWidget(explained)
        self._layout.addLayout(head)
        self.body = QVBoxLayout()
        self.body.setSpacing(GAP)
        self._scroll: _Scroll | None = None
        if scrolls:
            self._scroll = _Scroll(self.body, self)
            self._scroll.setObjectName(f"{name}.scroll")
            self._layout.addWidget(self._scroll, 1)
        else:
            self._layout.addLayout(self.body, 1)
        self.buttons = QDialogButtonBox(self)
        self.buttons.setObjectName(f"{name}.buttons")
        self.buttons.rejected.connect(self.reject)
        self._layout.addWidget(self.buttons)

    @override
    def showEvent(self, event: QShowEvent) -> None:
        """No higher than the screen: its buttons would be out of reach."""
        most = self.screen().availableGeometry().height() - SCREEN_AIR_PX
        if self.height() > most:
            self.resize(self.width(), most)
        super().showEvent(event)

    def fit(self) -> None:
        """Grow with the content as far as the screen goes; a dialog that was made larger stays so."""
        self._layout.activate()
        if self._scroll is None:
            needed = self._layout.totalHeightForWidth(self.width())
        else:
            needed = self.height() - self._scroll.height() + self._scroll.needed
        most = self.screen().availableGeometry().height() - SCREEN_AIR_PX
        if min(needed, most) > self.height():
            self.resize(self.width(), min(needed, most))

    def add_button(
        self, name: str, text: str, role: QDialogButtonBox.ButtonRole, *, is_default: bool = False
    ) -> QPushButton:
        """A button in the row; accept and reject roles close the dialog."""
        button = QPushButton(text)
        button.setObjectName(f"{self.objectName()}.{name}")
        button.setAccessibleName(text)
        button.setDefault(is_default)
        # Qt measures the text in the font of the plain state: being the default alone makes it bold too late.
        button.setProperty("primary", is_default)
        button.setAutoDefault(is_default)
        self.buttons.addButton(button, role)
        return button

    def add_cancel(self, text: str = "Cancel") -> QPushButton:
        """The button that changes nothing."""
        return self.add_button("cancel", text, QDialogButtonBox.ButtonRole.RejectRole)


class _Scroll(QScrollArea):
    """Asks for all that is in it, and makes do with little."""

    def __init__(self, content: QVBoxLayout, parent: QWidget) -> None:
        super().__init__(parent)
        self._inside = QWidget(self)
        self._inside.setLayout(content)
        content.setContentsMargins(0, 0, 0, 0)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(self._inside)
        self.viewport().setAutoFillBackground(False)
        self._inside.setAutoFillBackground(False)

    @property
    def needed(self) -> int:
        """Height of everything at the width there is."""
        layout = self._inside.layout()
        assert layout is not None
        layout.activate()
        width = self.viewport().width()
        return layout.totalHeightForWidth(width) if layout.hasHeightForWidth() else layout.sizeHint().height()

    @override
    def sizeHint(self) -> QSize:
        return QSize(self._inside.sizeHint().width(), self.needed)


def caption(text: str, parent: QWidget, name: str, buddy: QWidget | None = None) -> QLabel:
    """A small label above a field."""
    label = QLabel(text, parent)
    label.setObjectName(name)
    label.setProperty("role", "caption")
    if buddy is not None:
        label.setBuddy(buddy)
    return label
