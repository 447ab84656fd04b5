"""The small quiet chip beside a figure: measured, predicted, simulated, out of date."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget
from typing_extensions import override

from quantstudio.gui.theme import current_theme, theme_hub, ui_font

MEASURED = "measured"
PREDICTED = "predicted"
SIMULATED = "simulated"
OUT_OF_DATE = "out of date"

_MEANING = {
    MEASURED: "Measured on this machine with the integer kernels of ONNX Runtime",
    PREDICTED: "Predicted from the sensitivity of the layers; build and measure to know",
    SIMULATED: "Worked out from the histogram, without running the model",
    OUT_OF_DATE: "The recipe has changed since this was measured; build and measure again",
}
_ROLE = {MEASURED: "muted", PREDICTED: "accent", SIMULATED: "accent", OUT_OF_DATE: "warn"}
FONT_PX = 10


class Tag(QWidget):
    """One word on a tinted pill; hidden while there is no word."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFont(ui_font(FONT_PX))
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._text = ""
        self.set_text(text)
        theme_hub().theme_changed.connect(self._on_theme_changed)

    @property
    def text(self) -> str:
        """The word shown."""
        return self._text

    def set_text(self, text: str, *, detail: str = "") -> None:
        """Show a word; `detail` is added to its explanation."""
        is_new = text != self._text
        self._text = text
        meaning = ". ".join(part for part in (_MEANING.get(text, ""), detail) if part)
        self.setToolTip(meaning)
        self.setAccessibleName(text)
        self.setAccessibleDescription(meaning)
        self.setVisible(bool(text))
        if is_new:
            self.updateGeometry()
            self.update()

    def _on_theme_changed(self, _theme: object) -> None:
        self.update()

    @override
    def sizeHint(self) -> QSize:
        metrics = QFontMetrics(self.font())
        return QSize(metrics.horizontalAdvance(self._text) + 10, metrics.height() + 3)

    @override
    def paintEvent(self, event: QPaintEvent) -> None:
        theme = current_theme()
        role = _ROLE.get(self._text, "muted")
        fill = QColor(theme.color(role))
        fill.setAlpha(34 if theme.is_dark else 22)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(fill)
        box = QRectF(self.rect())
        painter.drawRoundedRect(box, box.height() / 2, box.height() / 2)
        painter.setPen(theme.color(role))
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, self._text)
        painter.end()
