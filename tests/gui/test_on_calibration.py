"""Accuracy that was measured on the calibration data says so wherever it stands."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import Qt

from quantstudio.core.data_spec import DataSpec
from quantstudio.gui.features.compare.compare_panel import ComparePanel
from quantstudio.gui.features.data.data_dialog import DataDialog
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.features.tradeoff.tradeoff_panel import TradeoffPanel
from quantstudio.gui.features.tradeoff.variant_table import VariantColumn, VariantTableModel
from quantstudio.project.store import Project
from quantstudio.report.html import render_html
from quantstudio.workspace.report_data import report_of
from tests.gui.conftest import find, settle
from tests.workspace.putting import known_of

WORDS = "on calibration data"
TIP, SPOKEN = Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole


@pytest.fixture
def tested(full, tmp_path):
    """The window with test data of its own, measured on it."""
    path = tmp_path / "test.npz"
    np.savez(path, x=np.zeros((2, 3), np.float32))
    full.session.workspace.documents.choose_data(full.session.workspace.calibration_data, DataSpec(str(path)))
    settle(full)
    full.session.workspace.runs.measure()
    settle(full)
    return full


def test_that_the_accuracy_card_says_so(full):
    card = find(full, KeyFiguresPanel).quality_card
    assert card.note.text() == WORDS
    assert card.note.isVisible()
    assert WORDS in card.accessibleName()
    assert "choose test data" in card.toolTip()
    assert find(full, KeyFiguresPanel).size_card.height() == card.height()


def test_that_the_comparison_says_so_and_offers_the_way_out(full):
    full.show_view("compare")
    panel = find(full, ComparePanel)
    settle(full)
    assert panel.caution.isVisible()
    assert WORDS in panel.caution.accessibleName()
    assert panel.model.index(0, 1).data(TIP).endswith(WORDS)
    assert WORDS in panel.model.index(0, 1).data(SPOKEN)
    sizes = next(r for r in range(panel.model.rowCount()) if panel.model.index(r, 0).data() == "Model size")
    assert WORDS not in panel.model.index(sizes, 1).data(SPOKEN)
    assert WORDS in panel.classes.summary
    panel.caution.button.click()
    assert find(full, DataDialog).isVisible()


def test_that_the_trade_off_and_the_list_of_variants_say_so(full):
    full.show_view("tradeoff")
    settle(full)
    assert WORDS in find(full, TradeoffPanel).plot.accessibleName()
    model = VariantTableModel(full.session)
    assert WORDS in model.index(0, VariantColumn.QUALITY).data(TIP)


def test_that_the_line_of_the_job_says_so(full):
    full.session.workspace.runs.measure()
    settle(full)
    outcomes = [row.outcome for row in full.session.workspace.jobs.rows if row.title == "Measure"]
    assert WORDS in outcomes[-1]


def test_that_the_report_says_so(full):
    page = render_html(report_of(full.session.workspace))
    assert f"accuracy {WORDS}" in page
    assert "measure on test data before relying on it" in page


def test_that_with_test_data_nothing_says_so(tested):
    for page in ("tradeoff", "compare"):
        tested.show_view(page)
        settle(tested)
    assert find(tested, KeyFiguresPanel).quality_card.note.text() == ""
    assert not find(tested, ComparePanel).caution.isVisible()
    assert WORDS not in find(tested, ComparePanel).classes.summary
    assert WORDS not in find(tested, TradeoffPanel).plot.accessibleName()
    assert WORDS not in render_html(report_of(tested.session.workspace))
    assert (
        WORDS not in [row.outcome for row in tested.session.workspace.jobs.rows if row.title == "Measure"][-1]
    )


def test_that_test_data_that_was_taken_away_is_gone_after_reopening(tested, tmp_path):
    session = tested.session
    on_test = session.workspace.base.result
    session.workspace.documents.choose_data(session.workspace.calibration_data, None)
    settle(tested)
    calibration, path = session.workspace.calibration_data, tmp_path / "kept.qstudio"
    session.workspace.documents.save_as(str(path))
    session.workspace.documents.save_as(str(tmp_path / "go on here.qstudio"))
    with Project.open(path) as kept:
        state = known_of(kept)
        assert state.calibration_data == calibration
        assert state.test_data is None
        assert state.base is not None
        assert state.base.result == session.workspace.base.result
    assert session.workspace.base.result is not on_test  # that of before, on the calibration data, is back


def test_that_figures_of_data_chosen_meanwhile_are_not_kept(tested, runner, tmp_path):
    runner.is_holding = True
    tested.session.workspace.runs.measure()
    tested.session.workspace.opening.set_data(
        tested.session.workspace.calibration_data, DataSpec(str(tmp_path / "other.npz"))
    )
    runner.is_holding = False
    runner.release()
    settle(tested)
    assert tested.session.workspace.base.result is None
