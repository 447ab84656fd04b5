"""The card every plot stands on: header with legend, axes in the theme, empty state, export, words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QPoint, QPointF, Qt, Signal
from PySide6.QtGui import QFocusEvent, QGuiApplication, QResizeEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QMenu,
    QSizePolicy,
    QSpacerItem,
    QStackedWidget,
    QWidget,
)
from typing_extensions import override

from quantstudio.core.errors import OutputError
from quantstudio.gui.plots.axes import FigureAxis
from quantstudio.gui.plots.export import PlotImage, image_of, save_image, save_table
from quantstudio.gui.plots.figure import Figure, figure_view
from quantstudio.gui.theme import CAPTION_PX, Theme, current_theme, theme_hub, ui_font
from quantstudio.gui.widgets.card import GAP, Card, show_focus
from quantstudio.gui.widgets.empty_state import EmptyState
from quantstudio.gui.widgets.legend import Legend

LEFT_AXIS_PX = 52
GRID_ALPHA = 0.16
LABELLED_PX = 180  # a lower card leaves out the names of its axes
FILTERS = {"svg": "SVG image (*.svg)", "png": "PNG image (*.png)", "csv": "Table (*.csv)"}


class Click(Protocol):
    """What pyqtgraph tells of a click on a scene or an item."""

    def button(self) -> Qt.MouseButton:
        """The one that was pressed."""
        ...

    def scenePos(self) -> QPointF:
        """Where, on the scene."""
        ...


class Plot(Card):
    """A titled plot. Shows an empty state until it has something to show.

    Signals:
        action_asked(): the button of the empty state was pressed.
        export_failed(OutputError): an image could not be written.
    """

    action_asked = Signal()
    export_failed = Signal(object)
    offers_figures = False  # whether `figures_table` has rows to save

    def __init__(
        self,
        name: str,
        title: str,
        labels: tuple[str, str],
        *,
        subtitle: str = "",
        axes: dict[str, pg.AxisItem] | None = None,
        empty: str = "",
        parent: QWidget | None = None,
    ) -> None:
        """`name` becomes the object name; `labels` are those of the horizontal and vertical axis."""
        super().__init__(title, subtitle, parent)
        self.setObjectName(f"plot.{name}")
        self.labels = labels
        self.summary = ""
        self._is_low = False
        self._is_title_below = False
        self._title_line = QHBoxLayout()
        self._title_line.setSpacing(GAP)
        self.body.addLayout(self._title_line)
        policy = QSizePolicy.Policy
        self._header_gap = QSpacerItem(0, 0, policy.Expanding, policy.Minimum)
        self.legend = Legend()
        self.legend.setObjectName(f"plot.{name}.legend")
        self.header.addWidget(self.legend)
        self.item = Figure({"left": FigureAxis("left"), "bottom": FigureAxis("bottom"), **(axes or {})})
        self.view = figure_view(self.item)
        self.view.setObjectName(f"plot.{name}.view")
        self.view.setFrameShape(QFrame.Shape.NoFrame)
        self.view.setMinimumSize(80, 60)
        self.view.setAntialiasing(True)
        # A scene takes every drag and then no drop; files are for the window.
        self.view.setAcceptDrops(False)
        self.empty = EmptyState()
        self.empty.setObjectName(f"plot.{name}.empty")
        self.empty.asked.connect(self.action_asked)
        self.page: QWidget = self.view
        self.stack = QStackedWidget()
        self.stack.addWidget(self.page)
        self.stack.addWidget(self.empty)
        self.add(self.stack)
        self._set_up_item()
        self.show_empty(empty)
        theme_hub().theme_changed.connect(self._on_theme_changed)

    def _set_up_item(self) -> None:
        self.item.getViewBox().setMouseEnabled(x=False, y=False)
        for name in ("left", "bottom"):
            axis = self.item.getAxis(name)
            axis.setStyle(tickFont=ui_font(CAPTION_PX), tickLength=0, tickTextOffset=6)
        self.item.getAxis("left").setWidth(LEFT_AXIS_PX)
        self.item.showGrid(y=True, alpha=GRID_ALPHA)
        self.view.installEventFilter(self)
        self.view.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.view.customContextMenuRequested.connect(self._on_context_menu)

    # ------------------------------------------------------------------ title

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.view and isinstance(event, QFocusEvent):
            show_focus(self.view, event)
        return super().eventFilter(watched, event)

    @override
    def replace_title(self, widget: QWidget) -> None:
        """Put a control where the title stands; the title goes on a line of its own below it."""
        self.header.insertWidget(0, widget)
        self._tab_through_header()
        self._place_title(is_below=True)

    @override
    def show_title(self, *, is_shown: bool) -> None:
        self._place_title(is_below=not is_shown)

    def _place_title(self, *, is_below: bool) -> None:
        if is_below == self._is_title_below:
            return
        self._is_title_below = is_below
        for label in (self.title, self.subtitle):
            self.header.removeWidget(label)
            self._title_line.removeWidget(label)
        if is_below:
            self.header.insertItem(1, self._header_gap)
            self._title_line.addWidget(self.title)
            self._title_line.addWidget(self.subtitle, 1)
        else:
            self.header.removeItem(self._header_gap)
            self.header.insertWidget(0, self.title)
            self.header.insertWidget(1, self.subtitle, 1)
        self._fit_title()

    def _fit_title(self) -> None:
        """A low card gives the line of the title to the plot: the control above says what it shows."""
        has_room = not (self._is_low and self._is_title_below)
        self.title.setVisible(has_room and bool(self.title.text()))
        self.subtitle.setVisible(has_room)

    # ------------------------------------------------------------------ states

    @property
    def is_empty(self) -> bool:
        """Whether the empty state shows."""
        return self.stack.currentWidget() is self.empty

    def show_empty(self, text: str, action: str = "") -> None:
        """Show a sentence instead of the plot, with a button where `action` names one."""
        self.empty.set_message(text, action)
        self.stack.setCurrentWidget(self.empty)
        self.legend.hide()
        self.set_summary(text)

    def show_plot(self, summary: str) -> None:
        """Show the plot; `summary` says in words what can be seen."""
        self.stack.setCurrentWidget(self.page)
        self._set_legend(current_theme())
        self.set_summary(summary)

    def set_summary(self, text: str) -> None:
        """The text equivalent, for screen readers and the exported file."""
        self.summary = text
        self.view.setAccessibleName(self.title.text())
        self.view.setAccessibleDescription(text)
        self.setAccessibleDescription(text)

    @override
    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        is_low = event.size().height() < LABELLED_PX
        if is_low != self._is_low:
            self._is_low = is_low
            self._fit_labels()
            self._fit_title()

    def _fit_labels(self) -> None:
        """Without height the bars are worth more than the names of the axes."""
        for name, label in zip(("bottom", "left"), self.labels, strict=True):
            self.item.getAxis(name).showLabel(bool(label) and not self._is_low)

    def texts_of(
        self, pool: list[pg.TextItem], count: int, anchor: tuple[float, float]
    ) -> Sequence[pg.TextItem]:
        """So many texts of a pool, made where there are fewer; the others are hidden."""
        while len(pool) < count:
            pool.append(pg.TextItem("", anchor=anchor))
            pool[-1].setFont(ui_font(11))
            self.item.addItem(pool[-1], ignoreBounds=True)
        for i, text in enumerate(pool):
            text.setVisible(i < count)
        return pool[:count]

    # ------------------------------------------------------------------ theme

    def retheme(self) -> None:
        """Repaint background, axes, legend and items in the current theme."""
        theme = current_theme()
        self.view.setBackground(theme.surface)
        for name, label in zip(("bottom", "left"), self.labels, strict=True):
            axis = self.item.getAxis(name)
            axis.setPen(pg.mkPen(theme.border))
            axis.setTextPen(pg.mkPen(theme.muted))
            axis.setLabel(label, color=theme.muted, **{"font-size": f"{CAPTION_PX}px"})
        self._fit_labels()
        self._set_legend(theme)
        self.recolour(theme)

    def set_labels(self, horizontal: str, vertical: str) -> None:
        """Name the axes."""
        if self.labels != (horizontal, vertical):
            self.labels = (horizontal, vertical)
            self.retheme()

    def legend_entries(self, theme: Theme) -> Sequence[tuple[str, str]]:
        """Pairs (name, colour) for the header."""
        return ()

    def recolour(self, theme: Theme) -> None:
        """Give the plot's own items the colours of the theme."""

    def _set_legend(self, theme: Theme) -> None:
        entries = () if self.is_empty else self.legend_entries(theme)
        self.legend.set_entries(entries, theme.muted)

    def _on_theme_changed(self, _theme: object) -> None:
        self.retheme()

    # ------------------------------------------------------------------ view and export

    def reset_view(self) -> None:
        """Show everything again after zooming."""
        self.item.getViewBox().autoRange()

    def image(self) -> PlotImage:
        """What an export writes."""
        theme = current_theme()
        return PlotImage(
            view=self.view,
            title=self.title.text(),
            subtitle=self.subtitle.text(),
            legend=tuple(self.legend.entries),
            summary=self.summary,
            theme=theme,
        )

    def figures_table(self) -> tuple[tuple[str, ...], ...]:
        """The figures behind the plot, header first; for a plot that `offers_figures`."""
        return ()

    def save(self, path: Path) -> None:
        """Write the plot as SVG or PNG, or its figures as CSV; failures come through `export_failed`."""
        try:
            if path.suffix.lower() == ".csv":
                save_table(self.figures_table(), path)
            else:
                save_image(self.image(), path)
        except OutputError as error:
            self.export_failed.emit(error)

    def context_menu(self) -> QMenu:
        """The menu of the right mouse button."""
        menu = QMenu(self)
        menu.setObjectName(f"{self.objectName()}.menu")
        table = (("Save figures as CSV…", self._on_save_csv),) if self.offers_figures else ()
        for text, slot in (
            ("Save as SVG…", self._on_save_svg),
            ("Save as PNG…", self._on_save_png),
            *table,
            ("Copy image", self._on_copy_image),
            ("Copy as text", self._on_copy_text),
            ("Show everything", self.reset_view),
        ):
            action = menu.addAction(text)
            action.triggered.connect(slot)
        return menu

    def _on_context_menu(self, position: QPoint) -> None:
        menu = self.context_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.view.mapToGlobal(position))

    def _on_save_svg(self) -> None:
        self._ask_for_path("svg")

    def _on_save_png(self) -> None:
        self._ask_for_path("png")

    def _on_save_csv(self) -> None:
        self._ask_for_path("csv")

    def _ask_for_path(self, suffix: str) -> None:
        dialog = QFileDialog(self, f"Save {self.title.text().lower()}")
        dialog.setObjectName("dialog.save_plot")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilter(FILTERS[suffix])
        dialog.setDefaultSuffix(suffix)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self._on_path_chosen)
        dialog.open()

    def _on_path_chosen(self, path: str) -> None:
        self.save(Path(path))

    def _on_copy_image(self) -> None:
        QGuiApplication.clipboard().setImage(image_of(self.image()))

    def _on_copy_text(self) -> None:
        QGuiApplication.clipboard().setText(f"{self.title.text()}: {self.summary}")
