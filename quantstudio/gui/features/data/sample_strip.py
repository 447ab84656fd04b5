"""Some samples as the network gets them: pictures in a row, or lines of numbers."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QFontMetrics, QHelpEvent, QImage, QPainter, QPainterPath, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget
from typing_extensions import override

from quantstudio.core.diagnosis import ShownSample
from quantstudio.gui.theme import current_theme, theme_hub, ui_font

PICTURE_PX = 56
_GAP_PX = 8
_FONT_PX = 11
_LINES = 4


class SampleStrip(QWidget):
    """Pictures with what they are and, where the network is wrong, what it takes them for."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("data.samples_shown")
        self.setFont(ui_font(_FONT_PX))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._samples: tuple[ShownSample, ...] = ()
        self._images: tuple[QImage, ...] = ()
        theme_hub().theme_changed.connect(self._on_theme_changed)

    def show_samples(self, samples: Sequence[ShownSample]) -> None:
        """Show other samples; none hides the strip."""
        self._samples = tuple(samples)
        self._images = tuple(QImage.fromData(base64.b64decode(one.png)) for one in self._samples if one.png)
        self.setAccessibleName("Samples as the network gets them")
        self.setAccessibleDescription("; ".join(_told(one) for one in self._samples))
        self.setVisible(bool(self._samples))
        self.updateGeometry()
        self.update()

    @property
    def has_pictures(self) -> bool:
        """Whether samples are pictures."""
        return bool(self._images)

    @override
    def sizeHint(self) -> QSize:
        line = QFontMetrics(self.font()).height()
        if not self.has_pictures:
            return QSize(200, (line + 3) * min(len(self._samples), _LINES))
        named = any(one.label or one.answer for one in self._samples)
        wrong = any(one.is_right is False for one in self._samples)
        return QSize(200, PICTURE_PX + 2 + line * (named + wrong))

    @override
    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    @override
    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            sample = self._at(event.pos())
            QToolTip.showText(event.globalPos(), _told(sample) if sample is not None else "", self)
            return True
        return super().event(event)

    @override
    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(self.font())
        if self.has_pictures:
            for place, sample in zip(self._places(), self._samples, strict=False):
                self._draw_picture(painter, place, sample)
        else:
            self._draw_lines(painter)
        painter.end()

    def _draw_picture(self, painter: QPainter, place: QRect, sample: ShownSample) -> None:
        theme = current_theme()
        image = self._images[self._samples.index(sample)]
        mode = (
            Qt.TransformationMode.FastTransformation
            if image.width() * 2 <= PICTURE_PX
            else Qt.TransformationMode.SmoothTransformation
        )
        ratio = self.devicePixelRatioF()
        edge = round(PICTURE_PX * ratio)
        scaled = image.scaled(edge, edge, Qt.AspectRatioMode.KeepAspectRatio, mode)
        scaled.setDevicePixelRatio(ratio)
        size = scaled.deviceIndependentSize()
        frame = QRectF(place.x() + (place.width() - size.width()) / 2, place.y(), size.width(), size.height())
        rounded = QPainterPath()
        rounded.addRoundedRect(frame, 4, 4)
        painter.save()
        painter.setClipPath(rounded)
        painter.drawImage(frame.topLeft(), scaled)
        painter.restore()
        painter.setPen(theme.color("bad" if sample.is_right is False else "border"))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(rounded)
        metrics = QFontMetrics(self.font())
        line = QRect(place.x(), place.y() + PICTURE_PX + 2, place.width(), metrics.height())
        for text, role in (
            (sample.label or sample.answer, "muted"),
            (f"→ {sample.answer}" if sample.is_right is False else "", "bad"),
        ):
            painter.setPen(theme.color(role))
            shown = metrics.elidedText(text, Qt.TextElideMode.ElideRight, line.width())
            painter.drawText(line, Qt.AlignmentFlag.AlignHCenter, shown)
            line.translate(0, metrics.height())

    def _draw_lines(self, painter: QPainter) -> None:
        theme, metrics = current_theme(), QFontMetrics(self.font())
        height = metrics.height() + 3
        for row, sample in enumerate(self._samples[:_LINES]):
            line = QRect(0, row * height, self.width(), height)
            painter.setPen(theme.color("faint"))
            painter.drawText(line, Qt.AlignmentFlag.AlignLeft, f"{sample.index}")
            line.setLeft(40)
            label = f"  {sample.label}" if sample.label else ""
            painter.setPen(theme.color("muted"))
            text = metrics.elidedText(sample.text + label, Qt.TextElideMode.ElideRight, line.width())
            painter.drawText(line, Qt.AlignmentFlag.AlignLeft, text)

    def _places(self) -> list[QRect]:
        """Where pictures stand: as many as fit, as wide as there is room."""
        least = PICTURE_PX + _GAP_PX
        count = max(1, min(len(self._images), (self.width() + _GAP_PX) // least))
        width = min((self.width() + _GAP_PX) // count, 2 * PICTURE_PX)
        return [QRect(i * width, 0, width - _GAP_PX, self.height()) for i in range(count)]

    def _at(self, point: QPoint) -> ShownSample | None:
        if not self.has_pictures:
            row = point.y() // (QFontMetrics(self.font()).height() + 3)
            return self._samples[row] if row < min(len(self._samples), _LINES) else None
        places = self._places()
        return next((s for r, s in zip(places, self._samples, strict=False) if r.contains(point)), None)

    def _on_theme_changed(self, _theme: object) -> None:
        self.update()


def _told(sample: ShownSample) -> str:
    parts = [f"sample {sample.index}"]
    if sample.label:
        parts.append(f"is {sample.label}")
    if sample.answer:
        parts.append(f"the network says {sample.answer}")
    if sample.text:
        parts.append(sample.text)
    return ", ".join(parts)
