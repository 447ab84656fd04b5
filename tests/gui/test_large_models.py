"""What keeps the window quick with hundreds of layers also shows the right thing."""

import pytest
from PySide6.QtCore import QItemSelectionModel, QPersistentModelIndex, Qt
from PySide6.QtWidgets import QCheckBox, QMenu

from quantstudio.gui.features.layers.layer_filter import LayerFilterModel
from quantstudio.gui.features.layers.layer_table import LayerColumn, LayerTableModel
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.plots.axes import FigureAxis
from quantstudio.gui.plots.figure import Figure
from quantstudio.gui.plots.histogram import HistogramPlot
from quantstudio.gui.plots.sensitivity_scale import StripRow
from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip
from tests.gui.plot_mouse import shown
from tests.gui.sample_session import analysed_session

DOWN, UP = Qt.SortOrder.DescendingOrder, Qt.SortOrder.AscendingOrder


@pytest.fixture
def session(qapp):
    return analysed_session(40)


def _names(proxy):
    return [proxy.index(row, LayerColumn.NAME).data() for row in range(proxy.rowCount())]


def test_that_rows_are_ordered_by_the_figures_and_back_by_number(session):
    proxy = LayerFilterModel(LayerTableModel(session))
    in_order = [layer.name for layer in session.workspace.layers]
    by_kl = sorted(in_order, key=lambda name: session.workspace.layer_sensitivity[name].kl, reverse=True)
    proxy.sort(LayerColumn.SENSITIVITY, DOWN)
    assert _names(proxy) == by_kl
    assert (proxy.sortColumn(), proxy.sortOrder()) == (LayerColumn.SENSITIVITY, DOWN)
    assert proxy.index(0, LayerColumn.NUMBER).data() == str(in_order.index(by_kl[0]))
    proxy.sort(LayerColumn.NUMBER, UP)
    assert _names(proxy) == in_order


def test_that_equal_figures_keep_the_order_of_execution(session):
    proxy = LayerFilterModel(LayerTableModel(session))
    by_type = sorted(
        session.workspace.layers, key=lambda layer: layer.op_type.replace("Normalization", "Norm")
    )
    proxy.sort(LayerColumn.TYPE, UP)
    assert _names(proxy) == [layer.name for layer in by_type]


def test_that_a_filter_keeps_the_order_and_the_order_the_filter(session):
    proxy = LayerFilterModel(LayerTableModel(session))
    proxy.set_op_type("Conv")
    proxy.sort(LayerColumn.SENSITIVITY, DOWN)
    convs = [layer.name for layer in session.workspace.layers if layer.op_type == "Conv"]
    assert _names(proxy) == sorted(
        convs, key=lambda name: session.workspace.layer_sensitivity[name].kl, reverse=True
    )


def test_that_an_index_kept_by_a_view_follows_its_layer(session):
    model = LayerTableModel(session)
    kept = QPersistentModelIndex(model.index(3, LayerColumn.NAME))
    name = kept.data()
    model.order_by(LayerColumn.SENSITIVITY, is_descending=True)
    assert kept.data() == name
    assert model.row_of(name) == kept.row()


def test_that_a_new_model_is_shown_in_the_chosen_order(session):
    from tests.workspace.samples import model_summary

    model = LayerTableModel(session)
    model.order_by(LayerColumn.NAME, is_descending=True)
    session.workspace.opening.set_model(model_summary(12))
    names = [model.layer_at(row).name for row in range(model.rowCount())]
    assert names == sorted((layer.name for layer in session.workspace.layers), reverse=True)


def test_that_the_selection_survives_sorting_and_neighbours_are_one_range(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 800, 500)
    names = [layer.name for layer in session.workspace.layers]
    session.select([*names[4:9], names[20]])
    ranges = panel.table.selectionModel().selection()
    spans = sorted((ranges.at(i).top(), ranges.at(i).bottom()) for i in range(ranges.count()))
    assert spans == [(4, 8), (20, 20)]
    panel.table.sortByColumn(LayerColumn.SENSITIVITY, DOWN)
    assert set(session.selection) == {*names[4:9], names[20]}
    chosen = {index.row() for index in panel.table.selectionModel().selectedRows()}
    assert {panel.filter.index(row, LayerColumn.NAME).data() for row in chosen} == set(session.selection)


def test_that_selecting_every_row_selects_every_layer_in_order(qtbot, session):
    panel = shown(qtbot, LayersPanel(session), 800, 500)
    panel.table.selectAll()
    assert session.selection == tuple(layer.name for layer in session.workspace.layers)
    first = panel.filter.index(1, 0)
    flags = QItemSelectionModel.SelectionFlag
    panel.table.selectionModel().select(first, flags.Deselect | flags.Rows)
    assert session.workspace.layers[1].name not in session.selection
    assert len(session.selection) == len(session.workspace.layers) - 1


def test_that_the_bands_of_neighbouring_bars_are_one(qtbot):
    strip = shown(qtbot, SensitivityStrip(), 700, 300)
    rows = [StripRow(f"layer{i}", 0.1 + 0.01 * i, 0.1, 0.6) for i in range(12)]
    strip.show_rows(rows, None)
    strip.set_selection(["layer2", "layer4", "layer3", "layer9"])
    band = strip._band.opts
    assert list(band["x"]) == [3.0, 9.0]
    assert list(band["width"]) == [3.0, 1.0]
    strip.set_selection([])
    assert len(strip._band.opts["x"]) == 0


def test_that_a_plot_makes_no_controls_of_pyqtgraph(qtbot):
    plot = HistogramPlot()
    qtbot.addWidget(plot)
    assert plot.findChildren(QCheckBox) == []
    assert plot.findChildren(QMenu) == []
    assert plot.item.getViewBox().menu is None


def test_that_a_figure_has_a_grid_on_the_axes_asked_for(qapp):
    axes = {"left": FigureAxis("left"), "bottom": FigureAxis("bottom")}
    figure = Figure(axes)
    figure.showGrid(y=True, alpha=0.2)
    assert (axes["left"].grid, axes["bottom"].grid) == (51, False)
    figure.showGrid()
    assert (axes["left"].grid, axes["bottom"].grid) == (False, False)
    assert figure.getAxis("left") is axes["left"]
