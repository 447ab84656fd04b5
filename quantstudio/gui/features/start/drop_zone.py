"""The place that says where to drop a model, and lights up while files are dragged over the page."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from typing_extensions import override

from quantstudio.gui.theme import current_theme, icon_pixmap, theme_hub

RADIUS = 10
ICON_PX = 30
DASHES = (5.0, 4.0)
_TITLE, _LIT = "Drop a model here", "Let go to open"
_TEXT = "ONNX, PyTorch (.pt2, TorchScript) or safetensors; its data (.npz, images, text) with it"


class DropZone(QWidget):
    """A dashed frame with the words and the button that opens a file.

    Signals:
        open_asked(): the button was pressed.
    """

    open_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("start.drop")
        self.setAccessibleName("Drop a model here, with its data if you have it at hand")
        self._is_lit = False
        self._told = (_TITLE, _TEXT)
        row = QHBoxLayout(self)
        row.setContentsMargins(22, 18, 22, 18)
        row.setSpacing(16)
        self._icon = QLabel()
        row.addWidget(self._icon)
        words = QVBoxLayout()
        words.setSpacing(2)
        self.title = QLabel(_TITLE)
        self.title.setProperty("role", "heading")
        words.addWidget(self.title)
        self.text = QLabel(_TEXT)
        self.text.setProperty("role", "muted")
        self.text.setWordWrap(True)
        words.addWidget(self.text)
        row.addLayout(words, 1)
        self.button = QPushButton("Open…")
        self.button.setObjectName("start.open")
        self.button.setAccessibleName("Open a model, data, a project or a recipe")
        self.button.setProperty("primary", True)
        self.button.clicked.connect(self.open_asked)
        row.addWidget(self.button)
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()

    @property
    def is_lit(self) -> bool:
        """Whether files are dragged over the page."""
        return self._is_lit

    def light(self, *, is_lit: bool) -> None:
        """Light up, or go back to rest."""
        if is_lit != self._is_lit:
            self._is_lit = is_lit
            self._show_words()
            self._retheme()
            self.update()

    def tell(self, title: str = "", text: str = "") -> None:
        """Say what is being opened, and how far that is; nothing for what can be dropped."""
        self._told = (title, text) if title else (_TITLE, _TEXT)
        self._show_words()

    def _show_words(self) -> None:
        title, text = self._told
        self.title.setText(_LIT if self._is_lit else title)
        self.text.setText(text)

    @override
    def paintEvent(self, _event: QPaintEvent) -> None:
        theme = current_theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        pen = QPen(theme.color("accent" if self._is_lit else "faint"), 2.0 if self._is_lit else 1.2)
        pen.setDashPattern(list(DASHES))
        painter.setPen(pen)
        painter.setBrush(theme.color("accent_soft" if self._is_lit else "surface"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(1, 1, -1, -1), RADIUS, RADIUS)
        painter.end()

    def _retheme(self, _theme: object = None) -> None:
        role = "accent" if self._is_lit else "muted"
        self._icon.setPixmap(icon_pixmap("open", role, ICON_PX, self.devicePixelRatioF()))
