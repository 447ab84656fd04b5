"""The sensitivity strip with its controls, bound to the session."""

from __future__ import annotations

from PySide6.QtWidgets import QComboBox, QVBoxLayout, QWidget

from quantstudio.gui.panels.export_notice import tell_export_failed
from quantstudio.gui.plots.sensitivity_scale import (
    PRECISION_NAMES,
    REFERENCE,
    scale_for,
    strip_row,
)
from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.refresher import Refresher
from quantstudio.gui.widgets.segmented import Segmented
from quantstudio.gui.widgets.small_button import SmallButton
from quantstudio.gui.widgets.tag import MEASURED, PREDICTED, Tag

BY_ORDER = "order"
BY_SIZE = "size"
_LIST_PX = 150
STRIP_TURN = 4


class SensitivityPanel(QWidget):
    """Every layer's divergence; click a bar to select its layer, choose the precision to judge by."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("panel.sensitivity")
        self._session = session
        self._refresher = Refresher(self, STRIP_TURN)
        self.strip = SensitivityStrip()
        self.tag = Tag()
        self.tag.setObjectName("sensitivity.tag")
        self.precision = QComboBox()
        self.precision.setObjectName("sensitivity.precision")
        self.precision.setAccessibleName("Precision the layers are judged at")
        self.precision.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.precision.setMinimumContentsLength(8)
        self.precision.view().setMinimumWidth(_LIST_PX)
        self.order = Segmented(((BY_ORDER, "In order"), (BY_SIZE, "Sorted")), "Order of the bars", pixels=11)
        self.order.setObjectName("sensitivity.order")
        self.log = SmallButton("sensitivity.log", "Log", "Logarithmic scale")
        self.log.setCheckable(True)
        for widget in (self.tag, self.precision, self.order, self.log):
            self.strip.add_to_header(widget)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.strip)
        self._connect()
        self._on_sensitivity_changed()

    def _connect(self) -> None:
        session = self._session
        self._refresher.due.connect(self._on_sensitivity_changed)
        session.model_changed.connect(self._refresher.request)
        session.sensitivity_changed.connect(self._refresher.request)
        session.selection_changed.connect(self._on_selection_changed)
        self.strip.layer_chosen.connect(self._on_layer_chosen)
        self.strip.action_asked.connect(session.analyze)
        self.strip.export_failed.connect(self._on_export_failed)
        self.precision.activated.connect(self._on_precision_chosen)
        self.order.chosen.connect(self._on_order_chosen)
        self.log.toggled.connect(self.strip.set_log)

    def _on_sensitivity_changed(self) -> None:
        session = self._session
        known = session.sensitivity
        has_any = bool(known)
        for control in (self.precision, self.order, self.log):
            control.setVisible(has_any)
        if not has_any:
            self._show_empty()
            return
        self._fill_precisions()
        self._show_rows()

    def _show_empty(self) -> None:
        self.tag.set_text("")
        self.strip.subtitle.setText("")
        if self._session.model is None:
            self.strip.show_empty("Open a model to see which of its layers suffer when quantized.")
        elif self._session.calibration_data is None:
            self.strip.show_empty("Choose calibration data, then run Sensitivity.")
        else:
            self.strip.show_empty(
                "Not analysed yet: one pass over the data shows how much each layer would suffer.",
                "Run Sensitivity",
            )

    def _fill_precisions(self) -> None:
        keys = list(dict.fromkeys(k for row in self._session.sensitivity.values() for k in row.by_precision))
        wanted = [REFERENCE, *(k for k in PRECISION_NAMES if k in keys)]
        have = [self.precision.itemData(i) for i in range(self.precision.count())]
        if wanted == have:
            return
        current = self.precision.currentData()
        self.precision.clear()
        for key in wanted:
            self.precision.addItem("Reference" if key == REFERENCE else PRECISION_NAMES[key], key)
        self.precision.setCurrentIndex(max(0, self.precision.findData(current)))

    def _show_rows(self) -> None:
        session = self._session
        precision = self.precision.currentData() or REFERENCE
        rows = [
            strip_row(layer.name, session.sensitivity.get(layer.name), precision) for layer in session.layers
        ]
        scale = scale_for([row.kl for row in rows if row.kl is not None], session.sensitivity_curve)
        exact = sum(row.method == "exact" for row in rows)
        known = sum(row.kl is not None for row in rows)
        self.tag.set_text(
            MEASURED if exact == known and known else PREDICTED,
            detail=f"{exact} of {known} layers measured one at a time" if exact else "",
        )
        what = "at the reference precision" if precision == REFERENCE else f"to {PRECISION_NAMES[precision]}"
        missing = sum(
            bool(layer.schemes) and layer.name not in session.sensitivity for layer in session.layers
        )
        progress = f"{known} of {known + missing} layers  ·  " if missing else ""
        self.strip.subtitle.set_wordings(
            f"{progress}KL of the output when this layer alone goes {what} — click a bar",
            f"{progress}KL when this layer alone is quantized",
            f"{progress}one layer at a time",
            f"{known} of {known + missing}" if missing else "",
        )
        self.strip.show_rows(rows, scale)
        self.strip.set_selection(session.selection)

    def _on_selection_changed(self) -> None:
        self.strip.set_selection(self._session.selection)

    def _on_layer_chosen(self, name: str) -> None:
        self._session.select([name])

    def _on_precision_chosen(self, _index: int) -> None:
        self._show_rows()

    def _on_order_chosen(self, key: str) -> None:
        self.strip.set_sorted(key == BY_SIZE)

    def _on_export_failed(self, error: object) -> None:
        tell_export_failed(self._session, error)
