"""One bound of a budget: whether it holds, its value as a figure, and a slider between real figures."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QDoubleSpinBox, QHBoxLayout, QVBoxLayout, QWidget

from quantstudio.core.figures import THIN_SPACE
from quantstudio.gui.widgets.marked_slider import STEPS, MarkedSlider

_SPIN_PX = 104


@dataclass(frozen=True, slots=True)
class Bound:
    """What a row bounds.

    Attributes:
        key: Field of the budget.
        title: For a person.
        tip: What it means, one sentence.
        unit: Behind the figure.
        low: Left end of the slider, in that unit.
        high: Right end, and the largest figure.
        usual: Where the bound starts when it is switched on.
        digits: Decimals of the figure.
        scale: What one of the unit is in the budget's own.
        marks: Places worth knowing, with their names.
    """

    key: str
    title: str
    tip: str
    unit: str
    low: float
    high: float
    usual: float
    digits: int = 1
    scale: float = 1.0
    marks: tuple[tuple[float, str], ...] = ()

    def rounded_up(self, value: float) -> float:
        """A value of the budget as a figure no smaller: a bound found to be possible must stay so."""
        figure = value / self.scale
        rounded = round(figure, self.digits)
        return rounded if rounded >= figure * (1 - 1e-9) else round(rounded + 10**-self.digits, self.digits)


class BoundRow(QWidget):
    """A check box with its figure; the slider shows while the bound holds.

    Signals:
        changed(): the bound is another one.
    """

    changed = Signal()

    def __init__(self, bound: Bound, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        name = f"search.{bound.key}"
        self.setObjectName(name)
        self._bound = bound
        self._is_untouched = True
        self.check = QCheckBox(bound.title)
        self.check.setObjectName(f"{name}.on")
        self.spin = QDoubleSpinBox()
        self.spin.setObjectName(f"{name}.value")
        self.spin.setFixedWidth(_SPIN_PX)
        self.spin.setKeyboardTracking(False)
        self.slider = MarkedSlider()
        self.slider.setObjectName(f"{name}.slider")
        top = QHBoxLayout()
        top.setSpacing(6)
        top.addWidget(self.check, 1)
        top.addWidget(self.spin)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(top)
        column.addWidget(self.slider)
        self.set_bound(bound)
        self.check.toggled.connect(self._on_toggled)
        self.spin.valueChanged.connect(self._on_figure)
        self.slider.valueChanged.connect(self._on_slider)
        self._show_parts()

    @property
    def bound(self) -> Bound:
        """What is bounded."""
        return self._bound

    @property
    def value(self) -> float | None:
        """The bound in the budget's unit; None where there is none."""
        return self.spin.value() * self._bound.scale if self.check.isChecked() else None

    def set_value(self, value: float | None) -> None:
        """Set the bound, in the budget's unit, without saying so."""
        blocked = self.blockSignals(True)
        self.check.setChecked(value is not None)
        if value is not None:
            self._is_untouched = False
            figure = self._bound.rounded_up(value)
            self.spin.setMaximum(max(self.spin.maximum(), figure))
            self.spin.setValue(figure)
        self.blockSignals(blocked)
        self._show_parts()

    def set_bound(self, bound: Bound) -> None:
        """Other ends and marks; a figure somebody set stays."""
        kept = self.spin.value() * self._bound.scale / bound.scale
        figure = bound.usual if self._is_untouched else kept
        self._bound = bound
        blocked = self.blockSignals(True)
        self.check.setText(bound.title)
        self.check.setToolTip(bound.tip)
        self.check.setAccessibleName(f"Bound the {bound.title.lower()}")
        for part in (self.spin, self.slider):
            part.setToolTip(bound.tip)
            part.setAccessibleName(f"{bound.title}, at most")
        self.spin.setDecimals(bound.digits)
        self.spin.setSuffix(f"{THIN_SPACE}{bound.unit}" if bound.unit else "")
        self.spin.setRange(0.0, max(bound.high, figure))
        self.spin.setSingleStep(max(10**-bound.digits, round((bound.high - bound.low) / 50, bound.digits)))
        was_untouched = self._is_untouched
        self.spin.setValue(figure)
        self._is_untouched = was_untouched
        span = max(bound.high - bound.low, 1e-12)
        self.slider.set_marks([((at - bound.low) / span, word) for at, word in bound.marks])
        self.blockSignals(blocked)
        self._follow_figure()

    def _show_parts(self) -> None:
        is_on = self.check.isChecked()
        self.spin.setEnabled(is_on)
        self.slider.setVisible(is_on)

    def _follow_figure(self) -> None:
        span = max(self._bound.high - self._bound.low, 1e-12)
        blocked = self.slider.blockSignals(True)
        self.slider.setValue(round(STEPS * (self.spin.value() - self._bound.low) / span))
        self.slider.blockSignals(blocked)
        self.slider.update()

    def _on_toggled(self, _is_on: bool) -> None:
        self._show_parts()
        self.changed.emit()

    def _on_figure(self, _value: float) -> None:
        self._is_untouched = False
        self._follow_figure()
        self.changed.emit()

    def _on_slider(self, value: int) -> None:
        bound = self._bound
        self._is_untouched = False
        blocked = self.spin.blockSignals(True)
        self.spin.setValue(bound.low + (bound.high - bound.low) * value / STEPS)
        self.spin.blockSignals(blocked)
        self.changed.emit()
