"""The frame of every dialog: heading, content, one row of buttons; it never blocks and deletes itself."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QLabel, QPushButton, QVBoxLayout, QWidget

GAP = 8
MARGIN = 20


class Dialog(QDialog):
    """A window-modal dialog opened with `open`; content goes into `self.body`."""

    def __init__(self, name: str, heading: str, text: str, parent: QWidget) -> None:
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
        self._layout.addLayout(self.body, 1)
        self.buttons = QDialogButtonBox(self)
        self.buttons.setObjectName(f"{name}.buttons")
        self.buttons.rejected.connect(self.reject)
        self._layout.addWidget(self.buttons)

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


def caption(text: str, parent: QWidget, name: str, buddy: QWidget | None = None) -> QLabel:
    """A small label above a field."""
    label = QLabel(text, parent)
    label.setObjectName(name)
    label.setProperty("role", "caption")
    if buddy is not None:
        label.setBuddy(buddy)
    return label
