"""The interface font and its sizes."""

from __future__ import annotations

from PySide6.QtGui import QFont

BODY_PX = 13
CAPTION_PX = 11


def ui_font(pixels: int = BODY_PX, *, semibold: bool = False) -> QFont:
    """The interface font: Inter where installed, else the platform's plainest; figures of equal width."""
    font = QFont()
    font.setFamilies(["Inter", "Segoe UI", "SF Pro Text", "Noto Sans", "DejaVu Sans", "sans-serif"])
    font.setPixelSize(pixels)
    font.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    font.setFeature(QFont.Tag("tnum"), 1)
    if semibold:
        font.setWeight(QFont.Weight.DemiBold)
    return font
