"""The layer table: one row per layer, everything known of it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtWidgets import QWidget
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, LayerScheme
from quantstudio.core.recipe import RangeOverride
from quantstudio.core.results import BuiltLayer
from quantstudio.core.schemes import NAMED_SCHEMES, scheme_name
from quantstudio.core.weight_error import weight_sqnr_db
from quantstudio.gui.facts.layer_facts import (
    has_choice,
    layer_tip,
    override_for,
    precision_label,
    sparkline,
    stored_bits,
    type_text,
)
from quantstudio.gui.facts.precision_facts import PrecisionLine, precision_lines
from quantstudio.gui.features.layers.layer_names import short_names
from quantstudio.gui.features.layers.layer_tips import kernel_tip, precision_tip, sensitivity_tip
from quantstudio.gui.plots.sensitivity_scale import (
    SensitivityScale,
    scale_for,
)
from quantstudio.gui.session import Session

Index = QModelIndex | QPersistentModelIndex


class LayerColumn(IntEnum):
    """Columns from left to right."""

    NUMBER = 0
    NAME = 1
    TYPE = 2
    WEIGHTS = 3
    PRECISION = 4
    SQNR = 5
    SENSITIVITY = 6
    PARAMETERS = 7
    KERNEL = 8


HEADERS = ("#", "Layer", "Type", "Weights", "Precision", "SQNR", "Sensitivity", "Params", "Kernel")
HEADER_TIPS = (
    "Position in the order of execution",
    "Module the layer was exported from, else the name of its node",
    "Operator",
    "Distribution of the weights (square-root scale)",
    "How the layer is stored and run; click to change",
    "Signal to quantization noise of the weights in that precision",
    "KL divergence of the model's output when this layer alone is quantized",
    "Weights and biases",
    "What ONNX Runtime runs in the build of this recipe",
)
_RIGHT = (LayerColumn.NUMBER, LayerColumn.SQNR, LayerColumn.PARAMETERS)

SORT_ROLE = Qt.ItemDataRole.UserRole
LAYER_ROLE = Qt.ItemDataRole.UserRole + 1
SPARK_ROLE = Qt.ItemDataRole.UserRole + 2
SCHEME_ROLE = Qt.ItemDataRole.UserRole + 3
SENSITIVITY_ROLE = Qt.ItemDataRole.UserRole + 4
SCALE_ROLE = Qt.ItemDataRole.UserRole + 5
CHOICES_ROLE = Qt.ItemDataRole.UserRole + 6
STALE_ROLE = Qt.ItemDataRole.UserRole + 7
PRECISIONS_ROLE = Qt.ItemDataRole.UserRole + 8

_UNKNOWN = -1e300  # sorts below every figure
_NEVER = frozenset(
    {
        Qt.ItemDataRole.FontRole,
        Qt.ItemDataRole.ForegroundRole,
        Qt.ItemDataRole.BackgroundRole,
        Qt.ItemDataRole.DecorationRole,
        Qt.ItemDataRole.CheckStateRole,
    }
)
_ALIGNMENTS = tuple(
    (Qt.AlignmentFlag.AlignRight if column in _RIGHT else Qt.AlignmentFlag.AlignLeft)
    | Qt.AlignmentFlag.AlignVCenter
    for column in LayerColumn
)


class LayerTableModel(QAbstractTableModel):
    """Layers of the session's model; setting the precision goes through the session as one undo step."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._layers: tuple[LayerInfo, ...] = ()
        self._rows: dict[str, int] = {}
        self._short_names: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._order = (LayerColumn.NUMBER, False)
        self._schemes: dict[str, LayerScheme] = {}
        self._hand_set: set[tuple[str, RangeOverride]] = set()
        self._built: dict[str, BuiltLayer] = {}
        self._is_stale = False
        self._sparks: dict[str, tuple[object, NDArray[np.float64]]] = {}
        self._scale: SensitivityScale | None = None
        session.model_changed.connect(self._on_model_changed)
        session.weights_changed.connect(self._on_weights_changed)
        session.sensitivity_changed.connect(self._on_sensitivity_changed)
        session.recipe_changed.connect(self._on_recipe_changed)
        session.prediction_changed.connect(self._on_prediction_changed)
        session.variants_changed.connect(self._on_variants_changed)
        self._on_model_changed()

    # ------------------------------------------------------------------ shape

    @override
    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008  Qt's own default
        return 0 if parent.isValid() else len(self._layers)

    @override
    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(HEADERS)

    def layer_at(self, row: int) -> LayerInfo:
        """The layer of a row."""
        return self._layers[row]

    def row_of(self, name: str) -> int | None:
        """The row of a layer."""
        return self._rows.get(name)

    def scheme_of(self, name: str) -> LayerScheme:
        """The scheme a layer has in the recipe."""
        return self._schemes.get(name, FP32)

    def order_by(self, column: LayerColumn, *, is_descending: bool) -> None:
        """Put the rows in the order of a column.

        A proxy that sorts asks for two values per comparison: fourteen thousand calls for 500 layers.
        """
        self._order = (column, is_descending)
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        names = [self._layers[index.row()].name for index in before]
        self._put_in_order()
        after = [
            self.index(self._rows[name], index.column()) for name, index in zip(names, before, strict=True)
        ]
        self.changePersistentIndexList(before, after)
        self.layoutChanged.emit()

    @property
    def op_types(self) -> tuple[str, ...]:
        """Operator types in the model, in order of first appearance."""
        return tuple(dict.fromkeys(layer.op_type for layer in self._session.workspace.layers))

    @property
    def scale(self) -> SensitivityScale | None:
        """From which KL on a layer is marked; None before anything is known."""
        return self._scale

    # ------------------------------------------------------------------ data

    @override
    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(HEADERS):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return HEADERS[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return HEADER_TIPS[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _ALIGNMENTS[section]
        return None

    @override
    def flags(self, index: Index) -> Qt.ItemFlag:
        flags = super().flags(index)
        is_chip = index.isValid() and index.column() == LayerColumn.PRECISION
        if is_chip and has_choice(self._layers[index.row()]):
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    @override
    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        # Asked some fifteen hundred times per repaint: the common roles come first, the rest leaves early.
        if role in _NEVER or not index.isValid():
            return None
        row, column = index.row(), index.column()
        layer = self._layers[row]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(layer, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _ALIGNMENTS[column]
        if role >= Qt.ItemDataRole.UserRole:
            return self._own_role(layer, column, role)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tip(layer, column)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return self._spoken(layer, column)
        if role == Qt.ItemDataRole.EditRole and column == LayerColumn.PRECISION:
            return scheme_name(self.scheme_of(layer.name))
        return None

    @override
    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Put the layer in a scheme by name; with the row selected, every selected layer that can have it."""
        if role != Qt.ItemDataRole.EditRole or index.column() != LayerColumn.PRECISION:
            return False
        layer = self._layers[index.row()]
        if value not in self._choices(layer):
            return False
        selection = self._session.selection
        names = selection if layer.name in selection else (layer.name,)
        chosen = [n for n in names if value in self._choices(self._layers[self._rows[n]])]
        self._session.workspace.edits.set_scheme(chosen, NAMED_SCHEMES[str(value)])
        return True

    def _choices(self, layer: LayerInfo) -> tuple[str, ...]:
        return () if layer.stored_as else self._session.workspace.recipe.on_target.schemes(layer)

    def _precisions(self, layer: LayerInfo) -> tuple[PrecisionLine, ...]:
        """What a choice in the row's list would set: this layer, or all that are selected with it."""
        workspace, selection = self._session.workspace, self._session.selection
        names = selection if layer.name in selection else (layer.name,)
        layers = [self._layers[self._rows[name]] for name in names]
        able = [one for one in layers if self._choices(one)]
        return precision_lines(self._choices(layer), able, workspace.costs, workspace.layer_sensitivity)

    def _own_role(self, layer: LayerInfo, column: int, role: int) -> object:
        match role:
            case _ if role == SORT_ROLE:
                return self._sort_key(layer, column)
            case _ if role == LAYER_ROLE:
                return layer
            case _ if role == SPARK_ROLE:
                return self._spark(layer)
            case _ if role == SCHEME_ROLE:
                return self.scheme_of(layer.name)
            case _ if role == SENSITIVITY_ROLE:
                return self._session.workspace.layer_sensitivity.get(layer.name)
            case _ if role == SCALE_ROLE:
                return self._scale
            case _ if role == CHOICES_ROLE:
                return list(self._choices(layer))
            case _ if role == PRECISIONS_ROLE:
                return self._precisions(layer)
            case _ if role == STALE_ROLE:
                return column == LayerColumn.KERNEL and self._is_stale and layer.name in self._built
            case _:
                return None

    def _text(self, layer: LayerInfo, column: int) -> str | None:
        match column:
            case LayerColumn.NUMBER:
                return str(self._numbers[layer.name])
            case LayerColumn.NAME:
                return self._short_names[layer.name]
            case LayerColumn.TYPE:
                return type_text(layer.op_type)
            case LayerColumn.PRECISION:
                return precision_label(layer, self.scheme_of(layer.name))
            case LayerColumn.SQNR:
                sqnr = self._sqnr(layer)
                return figures.NOTHING if sqnr is None else figures.decibels(sqnr)
            case LayerColumn.SENSITIVITY:
                found = self._session.workspace.layer_sensitivity.get(layer.name)
                return figures.NOTHING if found is None else figures.significant(found.kl, 2)
            case LayerColumn.PARAMETERS:
                return figures.compact_count(layer.parameters) if layer.parameters else figures.NOTHING
            case LayerColumn.KERNEL:
                built = self._built.get(layer.name)
                return built.kernel if built is not None and built.kernel else figures.NOTHING
            case _:
                return None

    def _sort_key(self, layer: LayerInfo, column: int) -> object:
        match column:
            case LayerColumn.NUMBER:
                return self._numbers[layer.name]
            case LayerColumn.WEIGHTS | LayerColumn.PARAMETERS:
                return layer.parameters
            case LayerColumn.PRECISION:
                scheme = self.scheme_of(layer.name)
                if layer.stored_as:
                    return stored_bits(layer) * 4 + 3
                return scheme.weights.bits * 4 + (0 if scheme.is_static else 1 if scheme.is_dynamic else 2)
            case LayerColumn.SQNR:
                sqnr = self._sqnr(layer)
                return _UNKNOWN if sqnr is None else sqnr
            case LayerColumn.SENSITIVITY:
                found = self._session.workspace.layer_sensitivity.get(layer.name)
                return _UNKNOWN if found is None else found.kl
            case _:
                return self._text(layer, column)

    def _tip(self, layer: LayerInfo, column: int) -> str:
        match column:
            case LayerColumn.PRECISION if not has_choice(layer):
                return layer.reason or "This layer stays in floating point"
            case LayerColumn.PRECISION:
                return self._precision_tip(layer)
            case LayerColumn.SENSITIVITY:
                return self._sensitivity_tip(layer)
            case LayerColumn.KERNEL:
                return self._kernel_tip(layer)
            case _:
                return layer_tip(layer, self._session.workspace.weights.get(layer.name))

    def _precision_tip(self, layer: LayerInfo) -> str:
        override = override_for(self._session.workspace.recipe.weight_ranges, layer.name)
        return precision_tip(self.scheme_of(layer.name), is_by_hand=override is not None)

    def _sensitivity_tip(self, layer: LayerInfo) -> str:
        workspace = self._session.workspace
        return sensitivity_tip(workspace.layer_sensitivity.get(layer.name), workspace.kl_of_all_layers)

    def _kernel_tip(self, layer: LayerInfo) -> str:
        return kernel_tip(self._built.get(layer.name), is_stale=self._is_stale)

    def _spoken(self, layer: LayerInfo, column: int) -> str:
        name, text = HEADERS[column], self._text(layer, column)
        if column == LayerColumn.WEIGHTS:
            text = layer_tip(layer, self._session.workspace.weights.get(layer.name)).replace("\n", ", ")
        if column == LayerColumn.SENSITIVITY:
            text = self._sensitivity_tip(layer).replace("\n", ", ")
        return f"{layer.title}, {name}: {text}"

    def _sqnr(self, layer: LayerInfo) -> float | None:
        recipe = self._session.workspace.recipe
        override = override_for(recipe.weight_ranges, layer.name)
        statistics = self._session.workspace.weights.get(layer.name)
        return weight_sqnr_db(statistics, self.scheme_of(layer.name), override, recipe.on_target)

    def _spark(self, layer: LayerInfo) -> NDArray[np.float64] | None:
        statistics = self._session.workspace.weights.get(layer.name)
        if statistics is None:
            return None
        cached = self._sparks.get(layer.name)
        if cached is None or cached[0] is not statistics:
            cached = (statistics, sparkline(statistics.histogram, statistics.mean, statistics.std))
            self._sparks[layer.name] = cached
        return cached[1]

    # ------------------------------------------------------------------ changes

    def _on_model_changed(self) -> None:
        self.beginResetModel()
        model = self._session.workspace.model
        self._layers = model.layers if model is not None else ()
        self._numbers = {layer.name: number for number, layer in enumerate(self._layers)}
        short = short_names([layer.title for layer in self._layers])
        self._short_names = {layer.name: short.get(layer.title, layer.title) for layer in self._layers}
        self._sparks.clear()
        self._read_recipe()
        self._read_build()
        self._read_scale()
        self._put_in_order()
        self.endResetModel()

    def _put_in_order(self) -> None:
        column, is_descending = self._order
        keys: dict[str, Any] = {layer.name: self._sort_key(layer, column) for layer in self._layers}
        self._layers = tuple(sorted(self._layers, key=lambda layer: keys[layer.name], reverse=is_descending))
        self._rows = {layer.name: row for row, layer in enumerate(self._layers)}

    def _on_weights_changed(self) -> None:
        self._changed(LayerColumn.WEIGHTS, LayerColumn.SQNR)

    def _on_sensitivity_changed(self) -> None:
        self._read_scale()
        self._changed(LayerColumn.SENSITIVITY, LayerColumn.SENSITIVITY)

    def _on_prediction_changed(self) -> None:
        """Tells only the rows that are marked otherwise: the plan loses by other layers now."""
        before = self._scale
        self._read_scale()
        after = self._scale
        if before is None or after is None:
            return
        for layer in self._layers:
            if before.level(layer.name) != after.level(layer.name):
                place = self.index(self._rows[layer.name], LayerColumn.SENSITIVITY)
                self.dataChanged.emit(place, place)

    def _on_recipe_changed(self) -> None:
        """Tells only the rows that differ: painting all of them takes as long as a plot."""
        before, hand_set = self._schemes, self._hand_set
        self._read_recipe()
        touched = {n for n in self._schemes if self._schemes[n] is not before.get(n)}
        touched |= {key for key, _ in hand_set ^ self._hand_set}
        for name in touched:
            row = self._rows.get(name)
            if row is not None:
                self.dataChanged.emit(
                    self.index(row, LayerColumn.PRECISION), self.index(row, LayerColumn.SQNR)
                )

    def _on_variants_changed(self) -> None:
        before = (self._built, self._is_stale)
        self._read_build()
        if before != (self._built, self._is_stale):
            self._changed(LayerColumn.KERNEL, LayerColumn.KERNEL)

    def _changed(self, first: LayerColumn, last: LayerColumn) -> None:
        if self._layers:
            self.dataChanged.emit(self.index(0, first), self.index(len(self._layers) - 1, last))

    def _read_recipe(self) -> None:
        recipe = self._session.workspace.recipe
        self._schemes = {layer.name: recipe.scheme_for(layer) for layer in self._layers}
        self._hand_set = {(r.tensor, r) for r in recipe.weight_ranges}

    def _read_build(self) -> None:
        variant = self._session.workspace.current_variant
        if variant is None or variant.build is None:
            built = [v for v in self._session.workspace.variants if v.build is not None]
            variant = built[-1] if built else None
        build = variant.build if variant is not None else None
        self._built = {b.name: b for b in build.layers} if build is not None else {}
        self._is_stale = variant is not None and not variant.is_current

    def _read_scale(self) -> None:
        rows = self._session.workspace.layer_sensitivity
        kls = {name: row.kl for name, row in rows.items()}
        self._scale = scale_for(kls, self._session.workspace.losses)
