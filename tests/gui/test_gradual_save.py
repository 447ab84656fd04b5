"""Sensitivity of many layers is written a few rows a turn, and nothing of it is lost or out of place."""

from __future__ import annotations

import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.results import LayerSensitivity, SensitivityResult
from quantstudio.gui import gradual_save
from quantstudio.gui.gradual_save import ROWS_AT_ONCE, GradualSave
from quantstudio.gui.session import Session
from quantstudio.project.store import Project
from quantstudio.workspace.keeper import Keeper
from tests.gui.sample_session import CURVE, IdleRunner, model_summary, sensitivity

MODEL = model_summary(30)


def run_over_all() -> SensitivityResult:
    rows = tuple(sensitivity(layer, i) for i, layer in enumerate(MODEL.layers))
    return SensitivityResult("fisher", 512, 1.0, "int4", rows, CURVE, precisions=("int4", "int8"))


@pytest.fixture
def session(qapp, tmp_path):
    made = Session(IdleRunner, project=Project.create(tmp_path / "net.qstudio"))
    made.adopt_model(MODEL)
    yield made
    made.close()


def test_that_a_turn_writes_a_few_rows_and_the_run_comes_after_the_last(qtbot, session, monkeypatch):
    monkeypatch.setattr(gradual_save, "TURN_MS", 0.0)
    counts, seen = [], []
    keeper = session._keeper

    def counted(model, rows):
        counts.append(len(rows))
        Keeper.keep_sensitivity(keeper, model, rows)

    def ended(model, run):
        seen.append(len(Keeper(session.project).load().sensitivity))
        Keeper.keep_sensitivity_run(keeper, model, run)

    monkeypatch.setattr(keeper, "keep_sensitivity", counted)
    monkeypatch.setattr(keeper, "keep_sensitivity_run", ended)
    session.adopt_sensitivity_run(run_over_all())
    assert counts == []
    qtbot.waitUntil(lambda: bool(seen))
    assert counts == [ROWS_AT_ONCE, ROWS_AT_ONCE, ROWS_AT_ONCE, 30 - 3 * ROWS_AT_ONCE]
    assert seen == [30]
    state = Keeper(session.project).load()
    assert state.curve == CURVE
    assert state.sensitivity_run is not None
    assert state.sensitivity == session.sensitivity


def test_that_closing_writes_what_waits(qapp, tmp_path):
    session = Session(IdleRunner, project=Project.create(tmp_path / "net.qstudio"))
    session.adopt_model(MODEL)
    session.adopt_sensitivity_run(run_over_all())
    known = dict(session.sensitivity)
    session.close()
    with Project.open(tmp_path / "net.qstudio") as project:
        state = Keeper(project).load()
    assert state.sensitivity == known
    assert state.curve == CURVE


def test_that_a_copy_and_the_next_project_leave_nothing_behind(session, tmp_path):
    session.adopt_sensitivity_run(run_over_all())
    path = tmp_path / "net.qstudio"
    session.documents.save_as(str(tmp_path / "copy.qstudio"))
    with Project.open(path) as first:
        assert len(Keeper(first).load().sensitivity) == 30
    session.adopt_sensitivity([sensitivity(MODEL.layers[0], 99)])
    session.documents.new_project()
    with Project.open(tmp_path / "copy.qstudio") as copy:
        assert Keeper(copy).load().sensitivity[MODEL.layers[0].name].kl == sensitivity(MODEL.layers[0], 99).kl
    assert not session.sensitivity


def test_that_rows_of_data_that_is_gone_are_not_written(qtbot, session):
    session.adopt_sensitivity_run(run_over_all())
    session.adopt_data(DataSpec("other.npz"), None)
    session.save_pending()
    state = Keeper(session.project).load()
    assert not state.sensitivity
    assert state.curve is None
    assert state.sensitivity_run is None


def test_that_the_newest_row_of_a_layer_is_written_once(qapp):
    written: list[LayerSensitivity] = []
    saving = GradualSave(written.extend, qapp)
    for seed in range(3):
        saving.add({"layer": sensitivity(MODEL.layers[0], seed)})
    saving.flush()
    assert written == [sensitivity(MODEL.layers[0], 2)]
