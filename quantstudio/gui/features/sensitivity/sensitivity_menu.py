"""What can be asked of sensitivity beyond the estimate: measuring layers, more precisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtGui import QAction
from PySide6.QtWidgets import QLabel, QMenu, QWidget, QWidgetAction

from quantstudio.gui.plots.sensitivity_scale import (
    REFERENCE,
    granularity_names,
    precision_names,
    precision_text,
)
from quantstudio.gui.session import Session
from quantstudio.gui.widgets.check_menu import CheckMenu

TOP = (5, 10, 20)
_HEADING_MARGINS = (10, 6, 10, 2)


@dataclass
class MeasureChoices:
    """What exact measurement finds besides each layer's KL alone; kept while the window is open.

    Attributes:
        all_but: Also with every other layer quantized and this one not.
        accumulated: Also the error a layer inherits when all before it are quantized.
    """

    all_but: bool = False
    accumulated: bool = False


class SensitivityMenu(CheckMenu):
    """Measure exactly: the most sensitive, the selection, those above the line, all. Analyze at: precisions.

    Entries are made for the moment the menu is opened at.
    """

    def __init__(
        self,
        session: Session,
        choices: MeasureChoices,
        *,
        ranked: Sequence[str],
        above: Sequence[str],
        precision: str,
        parent: QWidget,
    ) -> None:
        """`ranked` are the analyzed layers, most sensitive first; `precision` is the one shown."""
        super().__init__(parent)
        self.setObjectName("sensitivity.menu")
        self._session = session
        self._choices = choices
        self._precisions = () if precision == REFERENCE else (precision,)
        self._wanted: list[QAction] = []
        self._add_measuring(ranked, above)
        self.addSeparator()
        self._add_precisions()

    # ------------------------------------------------------------------ measuring

    def _add_measuring(self, ranked: Sequence[str], above: Sequence[str]) -> None:
        self._add_heading("Measure exactly")
        for count in TOP:
            if count < len(ranked):
                self._add_measure(f"top{count}", f"The {count} most sensitive layers", ranked[:count])
        known = set(ranked)
        selected = [name for name in self._session.selection if name in known]
        if selected:
            self._add_measure("selection", f"The selection ({_layers(len(selected))})", selected)
        if above:
            self._add_measure("above", f"Above the line ({_layers(len(above))})", above)
        self._add_measure("all", f"All {_layers(len(ranked))}", ranked)
        self._add_switch(
            "all_but",
            "Also all but this layer",
            "Quantize every other layer too: what keeping this one in FP32 buys",
            self._choices.all_but,
            self._on_all_but,
        )
        self._add_switch(
            "accumulated",
            "Also accumulated error",
            "SQNR of the layer's output when everything before it is quantized, beside its own error",
            self._choices.accumulated,
            self._on_accumulated,
        )

    def _add_heading(self, text: str) -> None:
        label = QLabel(text)
        label.setProperty("role", "caption")
        label.setContentsMargins(*_HEADING_MARGINS)
        heading = QWidgetAction(self)
        heading.setDefaultWidget(label)
        heading.setEnabled(False)
        self.addAction(heading)

    def _add_measure(self, name: str, text: str, layers: Sequence[str]) -> None:
        action = self.addAction(text)
        action.setObjectName(f"sensitivity.measure.{name}")
        action.setData(tuple(layers))
        action.triggered.connect(self._on_measure)

    def _add_switch(self, name: str, text: str, tip: str, is_on: bool, slot: Callable[[bool], None]) -> None:
        action = self.addAction(text)
        action.setObjectName(f"sensitivity.{name}")
        action.setToolTip(tip)
        action.setCheckable(True)
        action.setChecked(is_on)
        action.toggled.connect(slot)

    def _on_measure(self) -> None:
        action = self.sender()
        assert isinstance(action, QAction)
        self._session.workspace.runs.exact_sensitivity(
            action.data(),
            precisions=self._precisions,
            all_but=self._choices.all_but,
            accumulated=self._choices.accumulated,
        )

    def _on_all_but(self, is_on: bool) -> None:
        self._choices.all_but = is_on

    def _on_accumulated(self, is_on: bool) -> None:
        self._choices.accumulated = is_on

    # ------------------------------------------------------------------ precisions

    def _add_precisions(self) -> None:
        known = self._session.workspace.analyzed_precisions
        self.analyze_menu = menu = CheckMenu("Analyze at", self)
        menu.setObjectName("sensitivity.analyze")
        self.addMenu(menu)
        usual = precision_names()
        for index, name in enumerate((*usual, *granularity_names())):
            if index == len(usual):
                menu.addSeparator()
            action = menu.addAction(precision_text(name))
            action.setObjectName(f"sensitivity.analyze.{name}")
            action.setData(name)
            action.setCheckable(True)
            action.setChecked(name in known)
            action.setEnabled(name not in known)
            if name not in known:
                self._wanted.append(action)
                action.toggled.connect(self._on_wanted)
        menu.addSeparator()
        self._analyze = menu.addAction("")
        self._analyze.setObjectName("sensitivity.analyze.run")
        self._analyze.triggered.connect(self._on_analyze)
        self._on_wanted()

    def _chosen(self) -> list[str]:
        return [str(action.data()) for action in self._wanted if action.isChecked()]

    def _on_wanted(self, _is_on: bool = False) -> None:
        count = len(self._chosen())
        self._analyze.setEnabled(count > 0)
        self._analyze.setText(f"Analyze {count} more" if count else "Analyze those checked")

    def _on_analyze(self) -> None:
        self._session.workspace.runs.analyze_at(self._chosen())


def show_menu(menu: QMenu, button: QWidget) -> None:
    """Open a menu below a button."""
    menu.popup(button.mapToGlobal(button.rect().bottomLeft()))


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
