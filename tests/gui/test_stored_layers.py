"""Models whose file holds quantized weights already, and models with weights that are NaN."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QFontMetrics

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.precision import Precision
from quantstudio.gui.facts.needs import (
    needs_data,
    needs_float_weights,
    needs_float_weights_and_data,
    needs_variants,
)
from quantstudio.gui.features.layers.layer_table import CHOICES_ROLE, SORT_ROLE, LayerColumn, LayerTableModel
from quantstudio.gui.features.layers.layer_view import NAME_MIN_PX, WIDTHS
from quantstudio.gui.features.layers.layers_panel import LayersPanel
from quantstudio.gui.features.layers.precision_chip import stored_role
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.session import Session
from quantstudio.gui.theme import CAPTION_PX, LIGHT, apply_theme, ui_font
from quantstudio.jobs.rows import LogLine, NoticeLevel
from quantstudio.project.store import Project
from quantstudio.workspace.values import Notification
from tests.workspace.samples import IdleRunner, model_summary

REASON = "already quantized (INT8); open the float model to choose its precision"
STORED = {0: "INT8", 1: "INT4"}


def stored_model():
    """The sample of six layers, its first two quantized by the file."""
    made = model_summary(6)
    layers = tuple(
        replace(one, quantizable=False, schemes=("fp32",), reason=REASON, stored_as=STORED[i])
        if i in STORED
        else one
        for i, one in enumerate(made.layers)
    )
    return replace(made, layers=layers)


@pytest.fixture
def session(qapp):
    made = Session(IdleRunner)
    made.workspace.opening.set_model(stored_model())
    yield made
    made.close()


def test_that_a_stored_layer_shows_what_the_file_holds(session):
    model = LayerTableModel(session)
    assert model.index(0, LayerColumn.PRECISION).data() == "INT8 stored"
    assert model.index(1, LayerColumn.PRECISION).data() == "INT4 stored"
    assert model.index(2, LayerColumn.PRECISION).data() == "INT8"
    assert [stored_role(one) for one in session.workspace.layers[:2]] == ["fp", "q"]
    spoken = model.index(0, LayerColumn.PRECISION).data(Qt.ItemDataRole.AccessibleTextRole)
    assert spoken.endswith("Precision: INT8 stored")
    keys = [model.index(row, LayerColumn.PRECISION).data(SORT_ROLE) for row in (0, 1)]
    assert keys == [35, 19]


def test_that_no_chip_of_what_a_file_holds_is_cut(qtbot, session):
    model = session.workspace.model
    packed = [replace(one, stored_as="codebook, 2 bits") for one in model.layers]
    session.workspace.opening.set_model(replace(model, layers=tuple(packed), digest="packed"))
    panel = LayersPanel(session)
    qtbot.addWidget(panel)
    panel.resize(470, 400)
    panel.show()
    font = QFontMetrics(ui_font(CAPTION_PX, semibold=True))
    assert panel.table.columnWidth(LayerColumn.PRECISION) >= font.horizontalAdvance("codebook, 2 bits") + 16
    assert panel.table.columnWidth(LayerColumn.NAME) >= NAME_MIN_PX
    session.workspace.opening.set_model(model_summary(6))
    assert panel.table.columnWidth(LayerColumn.PRECISION) == WIDTHS[LayerColumn.PRECISION]


def test_that_a_stored_layer_cannot_be_edited_and_says_why(session):
    model = LayerTableModel(session)
    cell = model.index(0, LayerColumn.PRECISION)
    assert not cell.flags() & Qt.ItemFlag.ItemIsEditable
    assert cell.data(CHOICES_ROLE) == []
    assert cell.data(Qt.ItemDataRole.ToolTipRole) == REASON
    assert REASON in model.index(0, LayerColumn.NAME).data(Qt.ItemDataRole.ToolTipRole)
    assert not model.setData(cell, "fp32")


def test_that_a_quantized_file_is_what_it_is_and_offers_no_more(qtbot, qapp):
    made = stored_model()
    layers = tuple(
        replace(one, quantizable=False, schemes=("fp32",), reason=REASON, stored_as="INT8")
        if one.weight_name
        else one
        for one in made.layers
    )
    runner = IdleRunner()
    session = Session(lambda _on_event: runner)
    session.workspace.opening.set_model(replace(made, layers=layers))
    panel = KeyFiguresPanel(session)
    qtbot.addWidget(panel)
    assert panel.size_card.delta.text() == "INT8 stored"
    assert session.workspace.base is not None
    assert session.workspace.base.name == "INT8 stored"
    session.workspace.opening.set_data(DataSpec("data.npz"), None)
    for needs in (needs_float_weights, needs_float_weights_and_data, needs_variants):
        assert needs(session) == "The file is quantized already: open the float model it was made from"
    assert needs_data(session) == ""
    session.workspace.runs.measure()
    assert [spec.task.partition(":")[2] for spec in runner.submitted] == ["compare"]
    assert runner.submitted[0].params["names"] == ["INT8 stored"]
    session.close()


def test_that_keys_and_commands_pass_over_a_stored_layer(session):
    stored, free = session.workspace.layers[0].name, session.workspace.layers[2].name
    told: list[Notification] = []
    session.notified.connect(told.append)
    before = session.workspace.edits.undo_text
    session.workspace.edits.set_precision([stored], Precision.FP32)
    session.workspace.edits.set_scheme([stored], "fp32")
    assert session.workspace.edits.undo_text == before
    assert REASON in " ".join(f"{one.text} {one.hint}" for one in told)
    session.workspace.edits.set_precision([stored, free], Precision.FP32)
    assert session.workspace.recipe.scheme_for(session.workspace.layers[2]).label == "FP32"


def test_that_the_menu_of_a_stored_layer_offers_no_precision(qtbot, session):
    panel = LayersPanel(session)
    qtbot.addWidget(panel)
    session.select([session.workspace.layers[0].name])
    submenus = [action for action in panel.context_menu().actions() if action.menu() is not None]
    assert [action.isEnabled() for action in submenus] == [False, True]


def test_that_layers_quantized_count_what_the_file_holds(qtbot, session):
    panel = KeyFiguresPanel(session)
    qtbot.addWidget(panel)
    # Two stored, three INT8 by the recipe, and an embedding that static INT8 leaves as it is.
    assert panel.layers_card.value.text().replace("\u200a", "") == "5/6"
    assert "1 at INT8 stored" in panel.layers_card.toolTip()
    assert "4 of 6 can be quantized" in panel.layers_card.toolTip()


def test_that_the_chip_of_a_stored_layer_is_hollow(qtbot, qapp, session):
    apply_theme(qapp, LIGHT)
    panel = LayersPanel(session)
    qtbot.addWidget(panel)
    panel.resize(900, 300)
    panel.show()
    qtbot.waitExposed(panel)

    def inside(row):
        rect = panel.table.visualRect(panel.filter.index(row, LayerColumn.PRECISION))
        picture = panel.table.viewport().grab(rect).toImage()
        return [picture.pixelColor(QPoint(x, rect.height() // 2 + 7)) for x in (2, 20)]

    outside, within = inside(0)
    assert within == outside
    outside, within = inside(2)
    assert within != outside


def test_that_a_warning_of_the_model_is_told_when_it_opens(qapp):
    session = Session(IdleRunner)
    told: list[Notification] = []
    session.notified.connect(told.append)
    text = "Tensor 'w' of layer 'a' holds NaN or infinity in 3 of 9 values"
    session.workspace.opening.set_model(replace(model_summary(6), warnings=(text, "Tensor 'v' too")))
    [notice] = [one for one in told if one.severity is NoticeLevel.WARNING]
    assert (notice.text, notice.hint.text) == (text, "The log has 1 more such warning")
    session.close()


def test_that_warnings_are_told_and_logged_when_a_project_opens(qapp, tmp_path):
    path = tmp_path / "model.qsproj"
    session = Session(IdleRunner, project=Project.create(path))
    session.workspace.opening.set_model(replace(model_summary(6), warnings=("first", "second")))
    session.close()
    session = Session(IdleRunner)
    told: list[Notification] = []
    logged: list[LogLine] = []
    session.notified.connect(told.append)
    session.job_signals.logged.connect(logged.append)
    session.workspace.opening.open_project(Project.open(path))
    assert "first" in [one.text for one in told]
    assert [(line.severity, line.text) for line in logged] == [(NoticeLevel.WARNING, "second")]
    session.close()
