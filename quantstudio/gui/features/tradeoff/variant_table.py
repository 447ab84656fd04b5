"""Every variant of the session, one row each."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from PySide6.QtCore import QObject, Qt
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.data_spec import ON_CALIBRATION
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.variant_facts import (
    change_text,
    contents_of,
    latency_of,
    quality_of,
    size_of,
    speedup_text,
    state_text,
    timing_text,
)
from quantstudio.gui.session import Session
from quantstudio.gui.theme import current_theme, ui_font
from quantstudio.gui.widgets.row_model import RowModel

VARIANT_ROLE = Qt.ItemDataRole.UserRole + 1
SORT_ROLE = Qt.ItemDataRole.UserRole
_UNKNOWN = -1e300
_WORDS = (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole)


class VariantColumn(IntEnum):
    """Columns from left to right."""

    NAME = 0
    CONTENTS = 1
    QUALITY = 2
    CHANGE = 3
    SIZE = 4
    LATENCY = 5
    SPEEDUP = 6
    STATE = 7


_RIGHT = (VariantColumn.QUALITY, VariantColumn.SIZE, VariantColumn.LATENCY)
_HEADERS = ("Variant", "Contains", "Accuracy", "Change", "Size", "Latency p50", "Speed-up", "State")


class VariantTableModel(RowModel[Variant]):
    """One row per variant, the FP32 model first."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(_HEADERS, figures=_RIGHT, parent=parent)
        self._session = session
        session.variants_changed.connect(self._on_variants_changed)
        session.model_changed.connect(self._on_variants_changed)
        self._on_variants_changed()

    @override
    def role(self, row: Variant, column: int, role: int) -> Any:
        match role:
            case Qt.ItemDataRole.FontRole if row.is_current and column == VariantColumn.NAME:
                return ui_font(semibold=True)
            case Qt.ItemDataRole.ForegroundRole if column in (
                VariantColumn.STATE,
                VariantColumn.CHANGE,
                VariantColumn.CONTENTS,
            ):
                return current_theme().color("muted")
            case Qt.ItemDataRole.ToolTipRole:
                where = f" {ON_CALIBRATION}" if self._session.workspace.is_measured_on_calibration else ""
                return _variant_tip(row, contents_of(row, self._session.workspace.layers), where)
            case _ if role == VARIANT_ROLE:
                return row
            case _ if role == SORT_ROLE:
                return self._sort_key(row, column)
            case _:
                return None

    @override
    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        base = self._session.workspace.base
        quality = quality_of(base) if base is not None else None
        if quality is not None and section == VariantColumn.QUALITY and role in _WORDS:
            return quality.short_name if role == Qt.ItemDataRole.DisplayRole else quality.shown_name
        return super().headerData(section, orientation, role)

    def _base_bytes(self) -> int:
        return self._session.workspace.model.file_bytes if self._session.workspace.model is not None else 0

    @override
    def text(self, row: Variant, column: int) -> str:
        result, quality = row.result, quality_of(row)
        match column:
            case VariantColumn.NAME:
                return row.name
            case VariantColumn.CONTENTS:
                return contents_of(row, self._session.workspace.layers)
            case VariantColumn.QUALITY:
                return figures.NOTHING if quality is None else quality.text
            case VariantColumn.CHANGE:
                return change_text(row)
            case VariantColumn.SIZE:
                return figures.size(size_of(row, self._base_bytes()))
            case VariantColumn.LATENCY:
                latency = latency_of(row)
                return figures.NOTHING if latency is None else figures.milliseconds(latency.value)
            case VariantColumn.SPEEDUP:
                return figures.NOTHING if result is None or row.is_base else speedup_text(result.speedup)
            case _:
                return f"{state_text(row)}, current recipe" if row.is_current else state_text(row)

    def _sort_key(self, variant: Variant, column: int) -> object:
        quality, latency = quality_of(variant), latency_of(variant)
        result = variant.result
        match column:
            case VariantColumn.QUALITY:
                return quality.value.value if quality is not None else _UNKNOWN
            case VariantColumn.CHANGE:
                return -quality.loss.value if quality is not None and quality.loss is not None else 0.0
            case VariantColumn.SIZE:
                return size_of(variant, self._base_bytes())
            case VariantColumn.LATENCY:
                return latency.value if latency is not None else _UNKNOWN
            case VariantColumn.SPEEDUP:
                return result.speedup.value if result is not None and result.speedup is not None else 1.0
            case _:
                return self.text(variant, column)

    def _on_variants_changed(self) -> None:
        fresh = self._session.workspace.variants
        is_same = [one.key for one in fresh] == [one.key for one in self._rows]
        self.show_rows(fresh, is_reset=not is_same)
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, VariantColumn.QUALITY, VariantColumn.QUALITY)


def _variant_tip(variant: Variant, contents: str, where: str) -> str:
    lines = [variant.name, contents]
    if variant.plan and variant.plan != variant.name:
        lines.append(f"plan {variant.plan}")
    if variant.build is not None:
        integer = sum(layer.is_integer_kernel for layer in variant.build.layers)
        lines.append(f"{integer} of {len(variant.build.layers)} layers on integer kernels")
        lines += list(variant.build.warnings)
    if variant.result is not None:
        lines.append(
            f"measured on {figures.count(variant.result.samples)} samples{where}, {variant.result.provider}"
        )
        timing = timing_text(variant)
        lines += [timing] if timing else []
    if not variant.is_base:
        lines.append("Double-click to load its recipe")
    return "\n".join(lines)
