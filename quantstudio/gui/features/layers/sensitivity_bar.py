"""How much a layer suffers, as a small bar with its figure."""

from __future__ import annotations

import math

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QStyleOptionViewItem
from typing_extensions import override

from quantstudio.core.figures import NOTHING
from quantstudio.core.results import LayerSensitivity
from quantstudio.gui.features.layers.layer_table import SCALE_ROLE, SENSITIVITY_ROLE
from quantstudio.gui.plots.sensitivity_scale import SensitivityScale
from quantstudio.gui.theme import current_theme
from quantstudio.gui.widgets.cell import PADDING, CellDelegate, Index

TEXT_PX = 68
BAR_PX = 6
_ROLES = ("ok", "warn", "bad")


def bar_share(kl: float, scale: SensitivityScale) -> float:
    """How full the bar is, 0 to 1: the square root of the share of the most sensitive layer.

    Divergences of one model span decades; in proportion all but a few bars would be slivers.
    """
    return math.sqrt(min(1.0, max(0.0, kl / scale.largest))) if scale.largest > 0 else 0.0


class SensitivityBarDelegate(CellDelegate):
    """A bar in the colour of what the layer takes of the loss, and the KL beside it."""

    @override
    def paint_cell(self, painter: QPainter, rect: QRectF, option: QStyleOptionViewItem, index: Index) -> None:
        theme = current_theme()
        found: LayerSensitivity | None = index.data(SENSITIVITY_ROLE)
        scale: SensitivityScale | None = index.data(SCALE_ROLE)
        if found is None or scale is None:
            painter.setPen(theme.color("faint"))
            painter.drawText(rect.adjusted(PADDING, 0, 0, 0), Qt.AlignmentFlag.AlignVCenter, NOTHING)
            return
        width = rect.width() - 2 * PADDING - TEXT_PX
        if width > 12:
            track = QRectF(rect.left() + PADDING, rect.center().y() - BAR_PX / 2, width, BAR_PX)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.color("grid"))
            painter.drawRoundedRect(track, BAR_PX / 2, BAR_PX / 2)
            track.setWidth(max(BAR_PX - 2.0, width * bar_share(found.kl, scale)))
            painter.setBrush(theme.color(_ROLES[scale.level(found.name)]))
            painter.drawRoundedRect(track, BAR_PX / 2, BAR_PX / 2)
        painter.setPen(theme.color("muted"))
        side = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
        painter.drawText(rect.adjusted(0, 0, -PADDING, 0), side, str(index.data()))
