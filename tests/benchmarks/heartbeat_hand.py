"""A user who does not wait: scrolls, selects, switches tabs, drags clip lines, flips precisions, undoes."""

from itertools import cycle

EVERY_MS = 110
MANY = 120


class Hand:
    """Does the next thing every tenth of a second."""

    def __init__(self, window, heart) -> None:
        from PySide6.QtCore import QTimer

        from quantstudio.gui.features.inspect.inspect_panel import InspectPanel
        from quantstudio.gui.features.layers.layers_panel import LayersPanel

        self._window, self._session, self._heart = window, window.session, heart
        self._inspect, self._layers = window.findChild(InspectPanel), window.findChild(LayersPanel)
        self._layer = 0
        self.things = [
            ("select one", self._select_one),
            ("flip one", self._flip_one),
            ("scroll", self._scroll),
            ("scroll", self._scroll),
            ("select many", self._select_many),
            ("flip many", self._flip_many),
            ("undo", self._session.workspace.edits.undo),
            ("undo", self._session.workspace.edits.undo),
            ("redo", self._session.workspace.edits.redo),
            ("trade-off", lambda: window.show_view("tradeoff")),
            ("compare", lambda: window.show_view("compare")),
            ("inspect", lambda: window.show_view("inspect")),
            ("select one", self._select_one),
            ("drag", self._drag),
            ("drag", self._drag),
            ("let go", self._let_go),
            ("undo", self._session.workspace.edits.undo),
            ("activations", lambda: self._inspect.show_kind("activations")),
            ("weights", lambda: self._inspect.show_kind("weights")),
            ("select all", self._select_all),
            ("flip all", self._flip_many),
            ("undo", self._session.workspace.edits.undo),
            ("filter", lambda: self._layers.search.setText("1")),
            ("filter", lambda: self._layers.search.setText("")),
            ("sort", lambda: self._sort(6)),
            ("sort", lambda: self._sort(0)),
            ("jobs", lambda: window.toggle_view("jobs")),
            ("plans", lambda: window.toggle_view("plans")),
            ("plans", lambda: window.toggle_view("plans")),
        ]
        self._next = cycle(self.things)
        self._timer = QTimer()
        self._timer.setInterval(EVERY_MS)
        self._timer.timeout.connect(self._do)

    def start(self) -> None:
        """Begin."""
        self._timer.start()

    def stop(self) -> None:
        """End."""
        self._timer.stop()
        self._heart.doing = ""

    def _do(self) -> None:
        name, act = next(self._next)
        self._heart.doing = name
        act()

    def _names(self, count):
        layers = self._session.workspace.layers
        start = self._layer % max(1, len(layers))
        return [layer.name for layer in (*layers, *layers)[start : start + min(count, len(layers))]]

    def _select_one(self) -> None:
        self._layer += 37
        self._session.select(self._names(1))

    def _select_many(self) -> None:
        self._session.select(self._names(MANY))

    def _select_all(self) -> None:
        self._layers.table.selectAll()

    def _flip_one(self) -> None:
        if self._session.selection:
            self._session.workspace.edits.set_precision(self._session.selection[:1], _key("FP32"))

    def _flip_many(self) -> None:
        if self._session.selection:
            self._session.workspace.edits.set_precision(self._session.selection, _key("INT4"))

    def _scroll(self) -> None:
        bar = self._layers.table.verticalScrollBar()
        bar.setValue((bar.value() + 300) % max(1, bar.maximum()))

    def _sort(self, column) -> None:
        from PySide6.QtCore import Qt

        order = Qt.SortOrder.DescendingOrder if column else Qt.SortOrder.AscendingOrder
        self._layers.table.sortByColumn(column, order)

    def _drag(self) -> None:
        plot = self._inspect.histogram
        if not plot.is_empty and plot.distribution is not None:
            line = plot.clip_line("high")
            line.setValue(line.value() * 0.9)
            line.sigDragged.emit(line)

    def _let_go(self) -> None:
        line = self._inspect.histogram.clip_line("high")
        line.sigPositionChangeFinished.emit(line)


def _key(name):
    from quantstudio.core.precision import Precision

    return getattr(Precision, name)
