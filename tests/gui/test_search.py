"""The search in the window: queued, followed, kept, loaded; the dial beside the trade-off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import QCoreApplication, QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import ErrorInfo, JobEnded, JobState, PartFound, Progress
from quantstudio.core.figures import points
from quantstudio.core.hints import Hint
from quantstudio.core.precision import FP32
from quantstudio.core.search_results import BudgetObstacle, Recover, SearchBudget
from quantstudio.gui.features.search.search_panel import SearchPanel
from quantstudio.gui.features.tradeoff.tradeoff_panel import PLANS, SEARCH_ROOM_PX, TradeoffPanel
from quantstudio.gui.features.tradeoff.tradeoff_points import PLAN_KEY, Cost
from quantstudio.gui.plots.trade_off_dots import DotRole, Limits
from quantstudio.gui.session import Session
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.shell.palette import palette_entries
from quantstudio.gui.theme import DARK, LIGHT, apply_theme
from quantstudio.gui.widgets.bound_row import Bound
from quantstudio.gui.widgets.marked_slider import MarkedSlider
from quantstudio.jobs.rows import NoticeLevel
from quantstudio.project.store import Project
from quantstudio.workspace.search_terms import SearchTerms
from quantstudio.workspace.values import Notification
from tests.gui.conftest import find, settle, wait_until
from tests.gui.plot_mouse import LEFT, click, shown
from tests.gui.sample_session import measured_session
from tests.gui.search_samples import BASE, SAMPLES, at_four_bits, budget_of, front, plan, result
from tests.gui.settling import settled
from tests.workspace.canned import OUTLINE, ReplayRunner, succeeded
from tests.workspace.putting import put_search
from tests.workspace.samples import model_summary

LAYERS = model_summary(12).layers


def answer_search(params):
    """A draft of the front, then a result that wrote a file."""
    from pathlib import Path

    Path(params["output"]).write_bytes(b"onnx")
    return [
        Progress(5, 24, "plans", "Building and measuring plans", 3.0),
        PartFound(front(LAYERS, points=2)),
        succeeded(result(LAYERS, params["output"], budget_of(params))),
    ]


def answer_obstacle(params):
    obstacle = BudgetObstacle("average_bits", 2.0, 2.91)
    error = ErrorInfo(
        "InfeasibleBudgetError",
        "no plan keeps the bound on average weight bits (2)",
        hint=Hint("The closest possible is 2.91"),
        details={"obstacle": to_json(obstacle)},
    )
    draft = PartFound(front(LAYERS))
    return [draft, JobEnded(JobState.FAILED, error=error)]


@pytest.fixture
def ready(replayed_session, replay, tmp_path):
    """A session with a model and data, and searches that are answered."""
    replay.answers["search"] = answer_search
    model = tmp_path / "net.onnx"
    model.write_bytes(OUTLINE)
    replayed_session.workspace.documents.open_path(str(model))
    idle(replayed_session)
    replayed_session.workspace.opening.set_data(
        DataSpec(str(tmp_path / "train.npz")), DataSpec(str(tmp_path / "test.npz"))
    )
    return replayed_session


def idle(session: Session) -> None:
    known = session.workspace
    wait_until(lambda: not known.jobs.is_busy and not known.background.is_busy)
    settled(session)


# ---------------------------------------------------------------------- the run


def test_that_a_search_makes_what_is_missing_and_nothing_twice(ready, replay):
    replay.submitted.clear()
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    assert replay.tasks == ["calibrate", "sensitivity", "costs", "search", "compare"]
    params = replay.submitted[3].params
    assert params["statistics"] == ready.workspace.statistics_file.path
    assert {row["name"] for row in params["sensitivity"]["layers"]} == {layer.name for layer in LAYERS}
    assert params["costs"]["fp32_ms"] == 2.0
    assert params["test_data"]["path"] == ready.workspace.test_data.path
    assert params["budget"] == to_json(SearchBudget(max_drop=0.5))
    assert "int2" in replay.submitted[1].params["precisions"]
    replay.submitted.clear()
    # The canned estimates know two precisions only: that one is asked for again, the rest is there.
    ready.workspace.searches.start(SearchTerms(is_judged_on_test=False))
    idle(ready)
    assert replay.tasks == ["sensitivity", "search", "compare"]
    assert "test_data" not in replay.submitted[1].params


def test_that_the_chosen_plan_is_a_measured_variant_and_a_plan_of_its_own(ready):
    before = ready.workspace.recipe
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    chosen = ready.workspace.searches.chosen
    assert chosen is not None
    assert ready.workspace.recipe == chosen.recipe
    assert ready.workspace.active_plan == "Search 0.50 pp"
    variant = ready.workspace.current_variant
    assert variant is not None
    assert variant.result is not None
    assert variant.plan == "Search 0.50 pp"
    ready.workspace.edits.undo()
    assert ready.workspace.recipe == before


def test_that_editing_meanwhile_keeps_the_plan_on_the_screen(ready, replay):
    ready.workspace.runs.calibrate()
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    ready.workspace.edits.undo()
    replay.is_holding = True
    ready.workspace.searches.start(SearchTerms())
    wait_until(lambda: replay.submitted[-1].task.endswith(":sensitivity"))
    replay.is_holding = False
    replay.release()
    wait_until(lambda: replay.submitted[-1].task.endswith(":compare"))
    idle(ready)
    plans = len(ready.workspace.plans)
    ready.workspace.edits.undo()

    def edited(params):
        ready.workspace.edits.set_scheme([LAYERS[0].name], "fp32")
        return answer_search(params)

    replay.answers["search"] = edited
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    assert ready.workspace.recipe.scheme_for(LAYERS[0]) == FP32
    assert len(ready.workspace.plans) == plans - 1
    found = next(v for v in ready.workspace.variants if v.recipe == ready.workspace.searches.chosen.recipe)
    assert found.plan == "Search 0.50 pp"


def test_that_the_front_is_drawn_while_it_runs(ready, replay):
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    full = ready.workspace.searches.front
    replay.is_holding = True
    ready.workspace.searches.start(SearchTerms())
    replay.is_holding = False

    def half(params):
        return [PartFound(front(LAYERS, points=2))]

    replay.answers["search"] = half
    replay.release()
    wait_until(lambda: ready.workspace.searches.front != full)
    assert len(ready.workspace.searches.front.front) == 2
    assert ready.workspace.searches.chosen is None
    assert ready.workspace.searches.job is not None
    ready.workspace.searches.cancel()
    assert replay.cancelled
    replay.emit(replay.cancelled[-1], JobEnded(JobState.CANCELLED))
    wait_until(lambda: ready.workspace.searches.job is None)


def test_that_a_search_that_waits_for_other_work_is_cancelled_with_it(ready, replay):
    replay.is_holding = True
    ready.workspace.searches.start(SearchTerms())
    assert ready.workspace.searches.job.state is JobState.QUEUED
    ready.workspace.searches.cancel()
    idle(ready)
    assert ready.workspace.searches.job is None
    assert "search" not in replay.tasks


def test_that_the_result_comes_back_with_the_project_and_goes_with_the_data(ready, tmp_path):
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    found = ready.workspace.searches.result
    path = tmp_path / "kept.qstudio"
    ready.workspace.documents.save_as(str(path))
    ready.workspace.documents.save_as(str(tmp_path / "go on here.qstudio"))  # lets go of the first
    again = Session(ReplayRunner().attach, project=Project.open(path))
    again.workspace.opening.open_project(again.workspace.project)
    assert again.workspace.searches.result == found
    drawn = again.workspace.searches.front
    assert drawn is not None
    assert [(one.recipe, one.measured) for one in drawn.front] == [
        (one.recipe, one.measured) for one in found.front
    ]
    for one in drawn.front:  # the cards and the search predict alike
        card = again.workspace.predicted(one.recipe)
        assert card is not None
        assert (one.predicted.kl, one.predicted.latency_ms) == (card.kl, card.latency_ms)
        assert card.accuracy is not None
        assert one.predicted.metric == card.accuracy.value
    again.workspace.opening.set_data(DataSpec(str(tmp_path / "other.npz")), None)
    assert again.workspace.searches.result is None
    again.close()
    third = Session(ReplayRunner().attach, project=Project.open(path))
    third.workspace.opening.open_project(third.workspace.project)
    assert third.workspace.searches.result is None
    third.close()


def test_that_other_test_data_takes_along_what_was_judged_on_it(ready, tmp_path):
    calibration = ready.workspace.calibration_data
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    first = ready.workspace.searches.result
    assert first is not None
    ready.workspace.opening.set_data(calibration, DataSpec(str(tmp_path / "other.npz")))
    assert not ready.workspace.searches.plans
    ready.workspace.opening.set_data(calibration, None)
    ready.workspace.searches.start(SearchTerms())  # judged on the calibration data, which stays
    idle(ready)
    found = ready.workspace.searches.front
    assert found is not None
    ready.workspace.opening.set_data(calibration, DataSpec(str(tmp_path / "test.npz")))
    assert ready.workspace.searches.front == found


@pytest.mark.parametrize("is_judged_on_test", [True, False])
def test_that_a_search_stops_when_the_data_it_is_judged_on_goes(ready, replay, is_judged_on_test):
    ready.workspace.runs.calibrate()
    ready.workspace.runs.analyze()
    idle(ready)
    replay.is_holding = True
    ready.workspace.searches.start(SearchTerms(is_judged_on_test=is_judged_on_test))
    while not replay.submitted[-1].task.endswith(":search"):
        replay.release()
        QCoreApplication.processEvents()
    ready.workspace.opening.set_data(ready.workspace.calibration_data, None)
    job = replay.submitted[-1].id
    assert replay.cancelled == ([job] if is_judged_on_test else [])
    replay.is_holding = False
    replay.release()
    idle(ready)
    assert (ready.workspace.searches.result is None) == is_judged_on_test
    assert ready.workspace.searches.job is None


def test_that_a_search_that_ends_before_it_can_be_stopped_is_not_kept(ready, replay):
    ready.workspace.runs.calibrate()
    ready.workspace.runs.analyze()
    idle(ready)

    def too_late(params):
        ready.workspace.opening.set_data(ready.workspace.calibration_data, None)
        return answer_search(params)

    replay.answers["search"] = too_late
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    assert ready.workspace.searches.result is None
    assert ready.workspace.searches.front is None
    outcomes = [row.outcome for row in ready.workspace.jobs.rows if row.title == "Search"]
    assert outcomes == ["kept for the data it was made with: other data was chosen meanwhile"]


def test_that_a_plan_is_loaded_in_one_step_or_as_a_plan(ready):
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    point = ready.workspace.searches.front.front[0]
    ready.workspace.searches.load(point)
    assert ready.workspace.recipe == point.recipe
    assert ready.workspace.edits.undo_text.startswith("Load ")
    count = len(ready.workspace.plans)
    ready.workspace.searches.load(ready.workspace.searches.chosen, as_plan=True)
    assert len(ready.workspace.plans) == count + 1
    assert ready.workspace.active_plan.endswith("bits, chosen")


def test_that_the_project_that_is_open_can_be_opened(ready, tmp_path):
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    found = ready.workspace.searches.result
    told: list[Notification] = []
    path = tmp_path / "kept.qstudio"
    ready.workspace.documents.save_as(str(path))
    ready.notified.connect(told.append)
    ready.workspace.documents.open_path(str(path))
    idle(ready)
    assert ready.workspace.searches.result == found
    assert [notice for notice in told if notice.severity is NoticeLevel.ERROR] == []


# ---------------------------------------------------------------------- the dial


@pytest.fixture
def panel(qtbot, ready):
    made = shown(qtbot, SearchPanel(ready), 286, 620)
    settle_panel()
    return made


def settle_panel() -> None:
    settled()


def test_that_the_dial_is_a_budget(panel):
    assert panel.budget == SearchBudget(max_drop=0.5)
    assert not panel.rows["average_bits"].slider.isVisible()
    QTest.mouseClick(
        panel.rows["average_bits"].check, LEFT, pos=panel.rows["average_bits"].check.rect().center() * 0.2
    )
    assert panel.rows["average_bits"].slider.isVisible()
    panel.rows["average_bits"].slider.setValue(500)
    assert panel.budget.average_bits == pytest.approx(4.5)
    panel.rows["average_bits"].spin.setValue(5.0)
    assert panel.rows["average_bits"].slider.value() == pytest.approx(571, abs=1)
    panel.set_budget(SearchBudget(max_size_bytes=123_400, max_share_above_8=0.1))
    assert panel.budget.max_drop is None
    assert panel.budget.max_size_bytes >= 123_400
    assert panel.budget.max_share_above_8 == pytest.approx(0.1)


def test_that_the_slider_goes_where_it_is_clicked_and_dragged_and_by_keys(qtbot):
    slider = MarkedSlider()
    slider.set_marks([(0.0, "INT2"), (0.02, "INT4"), (1.0, "FP32"), (1.4, "beyond")])
    shown(qtbot, slider, 214, 32)
    QTest.mouseClick(slider, LEFT, pos=QPoint(107, 8))
    assert slider.value() == pytest.approx(500, abs=3)
    QTest.mousePress(slider, LEFT, pos=QPoint(107, 8))
    QTest.mouseMove(slider, QPoint(57, 8))
    assert slider.value() == pytest.approx(250, abs=3)
    QTest.mouseRelease(slider, LEFT, pos=QPoint(57, 8))
    QTest.mouseMove(slider, QPoint(157, 8))
    assert slider.value() == pytest.approx(250, abs=3)
    before = slider.value()
    QTest.keyClick(slider, Qt.Key.Key_Right)
    assert slider.value() == before + 10
    assert not slider.grab().toImage().isNull()


def test_that_a_figure_is_never_rounded_below_what_can_be_had():
    bound = Bound("average_bits", "Average bits", "", "bits", 2.0, 8.0, 5.0, digits=1)
    assert bound.rounded_up(2.91) == 3.0
    assert bound.rounded_up(3.0) == 3.0
    share = replace(bound, key="max_share_above_8", digits=0, scale=0.01)
    assert share.rounded_up(0.123) == 13.0


def test_that_the_dial_of_another_model_stands_where_its_search_had_it(ready, panel):
    budget = SearchBudget(max_size_bytes=1_230_000, average_bits=4.2)
    note = "Layers may stay float: no plan of integers alone keeps the bounds."
    put_search(ready.workspace, replace(result(LAYERS, "search.onnx", budget), notes=(note,)))
    ready.model_changed.emit()
    settle_panel()
    assert panel.budget.max_size_bytes == pytest.approx(1_230_000, abs=1000)
    assert panel.budget.average_bits == pytest.approx(4.2)
    assert panel.budget.max_drop is None
    assert panel.verdict_text.text().endswith(note)


def test_that_one_click_searches_the_smallest_file_whatever_the_dial_said(ready, panel):
    panel.set_budget(SearchBudget(average_bits=4.0))
    panel.recover.setCurrentIndex(panel.recover.findData(Recover.GPTQ))
    panel.smallest.click()
    assert panel.smallest.text() == "Smallest file, 0.3 points at most"
    terms = ready.workspace.searches.terms
    assert terms is not None
    assert (terms.budget, terms.recover) == (SearchBudget(max_drop=0.3), Recover.GPTQ)
    idle(ready)
    settle_panel()
    assert panel.smallest.isEnabled()


def test_that_ends_and_marks_are_figures_of_the_model(ready, panel):
    ready.workspace.searches.start(SearchTerms())
    idle(ready)
    row = panel.rows["max_size_bytes"]
    assert row.bound.high * row.bound.scale == pytest.approx(ready.workspace.model.file_bytes)
    assert {word for _, word in row.slider.marks} == {"FP32", "INT8"}
    assert [text.text().partition(":")[0] for _, text in panel.references.rows] == [
        "INT8 everywhere",
        "INT4 everywhere",
        "CB3 everywhere",
        "CB2 everywhere",
    ]
    panel.set_budget(SearchBudget(average_bits=6.0))
    assert "too many bits" in panel.references.rows[0][1].accessibleName()
    assert "keep the budget" in panel.references.rows[1][1].accessibleName()


def test_that_layers_set_by_hand_become_pins_when_asked(ready, panel):
    assert not panel.keep.isEnabled()
    ready.workspace.edits.set_scheme([LAYERS[0].name], "fp32")
    wait_until(panel.keep.isEnabled)
    assert panel.terms.pins == ()
    panel.keep.click()
    assert panel.terms.pins[0].names == (LAYERS[0].name,)
    assert panel.terms.pins[0].scheme == FP32


def test_that_an_impossible_budget_names_the_bound_and_offers_the_nearest(ready, replay, panel):
    told: list[object] = []
    ready.notified.connect(told.append)
    replay.answers["search"] = answer_obstacle
    panel.set_budget(SearchBudget(max_drop=0.5, average_bits=2.0))
    panel.start.click()
    wait_until(lambda: panel.nearest.isVisible())
    assert "average bits" in panel.verdict_text.text()
    assert panel.nearest.text().startswith("Use nearest budget: 3.0")
    assert not told  # the panel says it
    assert len(ready.workspace.searches.front.front) == 3  # and the plot shows what is possible
    replay.answers["search"] = answer_search
    panel.nearest.click()
    idle(ready)
    assert budget_of(replay.submitted[-2].params).average_bits == pytest.approx(3.0)
    assert ready.workspace.searches.obstacle is None
    assert panel.verdict_text.text().startswith("Chosen: ")


def test_that_it_says_what_is_missing_and_how_far_it_is(ready, replay, panel):
    asked: list[str] = []
    data = ready.workspace.calibration_data
    ready.workspace.opening.set_data(None, None)
    wait_until(lambda: panel.start.text() == "Choose data…")
    ready.data_offered.connect(asked.append)
    panel.start.click()
    assert asked == [""]
    ready.workspace.opening.set_data(data, None)
    wait_until(lambda: panel.start.text() == "Search")
    assert not panel.judge.isEnabled()
    panel.rows["max_drop"].check.click()
    assert not panel.start.isEnabled()
    assert panel.status.text() == "Turn on at least one bound."
    panel.rows["max_drop"].check.click()
    replay.is_holding = True
    panel.start.click()
    replay.emit(replay.submitted[-1].id, Progress(3, 8, "batches", "Calibrating", 12.0))
    wait_until(lambda: "3 / 8" in panel.status.text())
    assert panel.stop.isVisible()
    assert panel.status.text() == "Calibrating · 3 / 8 · 12 s left"
    panel.stop.click()
    wait_until(lambda: panel.start.isVisible())


# ---------------------------------------------------------------------- the trade-off


@pytest.fixture
def tradeoff(qtbot):
    """Three measured variants and a search."""
    session = measured_session(12)
    put_search(session.workspace, result(LAYERS, "search.onnx"))
    made = shown(qtbot, TradeoffPanel(session, SearchPanel(session)), 1000, 700)
    settle_panel()
    yield made
    session.close()


def test_that_the_front_stands_on_the_level_of_fp32(tradeoff):
    assert tradeoff.cost.current == Cost.SIZE
    dots = tradeoff.plot.points
    plans = [p for p in dots if p.role is DotRole.FRONT]
    assert len(plans) == 3
    assert [p.is_predicted for p in plans].count(False) == 1
    base = next(p for p in dots if p.is_base)
    measured = next(p for p in plans if not p.is_predicted)
    assert points(-0.21) in measured.detail
    assert measured.quality.value == pytest.approx(base.quality.value - 0.21)
    chosen = next(p for p in dots if p.role is DotRole.CHOSEN)
    assert chosen.name.endswith("chosen")
    assert {p.name for p in dots if p.role is DotRole.TRIED} >= {"INT2 everywhere"}
    (_, _), (bottom, _) = tradeoff.plot.item.getViewBox().viewRange()
    assert bottom > 80  # a ruined network does not flatten the rest


@pytest.mark.parametrize("cost", list(Cost))
def test_that_every_cost_has_an_axis_with_variants_and_plans(tradeoff, cost):
    tradeoff.cost.button(cost.value).click()
    roles = {p.role for p in tradeoff.plot.points}
    assert roles == set(DotRole)
    assert all(p.cost.value > 0 for p in tradeoff.plot.points)


def limits(panel: TradeoffPanel) -> Limits:
    return panel.plot.limits


def test_that_the_dial_shades_what_it_forbids(tradeoff):
    base = next(p for p in tradeoff.plot.points if p.is_base)
    assert limits(tradeoff).quality == pytest.approx(base.quality.value - 0.5)
    assert limits(tradeoff).cost is None
    tradeoff.beside.set_budget(SearchBudget(max_size_bytes=1_300_000))
    tradeoff.cost.button(Cost.SIZE.value).click()
    assert limits(tradeoff).cost == pytest.approx(1300, abs=1)
    assert limits(tradeoff).quality is None
    tradeoff.beside.set_budget(SearchBudget(average_bits=5.0, max_latency_ratio=0.5))
    tradeoff.cost.button(Cost.BITS.value).click()
    assert limits(tradeoff).cost == 5.0
    tradeoff.cost.button(Cost.LATENCY.value).click()
    assert limits(tradeoff).cost == pytest.approx(9.2)
    find(tradeoff, QPushButton, "search.close").click()
    assert limits(tradeoff) == Limits()


def test_that_a_click_on_the_front_loads_the_plan(tradeoff):
    dot = next(p for p in tradeoff.plot.points if p.role is DotRole.FRONT and p.is_predicted)
    tradeoff.plot.grab()
    click(tradeoff.plot, dot.cost.value, dot.quality.value)
    session = tradeoff.beside._session
    assert PLAN_KEY + session.workspace.key_of(session.workspace.recipe) == dot.key
    session.workspace.edits.undo()
    assert PLAN_KEY + session.workspace.recipe.digest != dot.key


def test_that_the_keyboard_loads_a_plan_from_the_table(tradeoff):
    session = tradeoff.beside._session
    assert tradeoff.rows.current == PLANS
    tradeoff.plans.setFocus()
    tradeoff.plans.setCurrentIndex(tradeoff.plans.model().index(1, 0))
    assert tradeoff.plans.currentIndex().data() == "INT8 everywhere"
    assert not tradeoff.load.isEnabled()  # it is on the screen
    QTest.keyClick(tradeoff.plans, Qt.Key.Key_Up)
    QTest.mouseClick(tradeoff.load, LEFT)
    assert session.workspace.recipe == session.workspace.searches.chosen.recipe
    wait_until(lambda: not tradeoff.load.isEnabled())
    QTest.mouseClick(tradeoff.load_as, LEFT)
    assert session.workspace.plans[-1].recipe == session.workspace.searches.chosen.recipe


def test_that_the_search_hides_where_there_is_no_room(qapp, tradeoff):
    apply_theme(qapp, LIGHT)  # its paddings ask for more room
    assert tradeoff.beside.isVisible()
    assert tradeoff.minimumSizeHint().width() < SEARCH_ROOM_PX
    tradeoff.resize(680, 480)
    wait_until(lambda: not tradeoff.beside.isVisible())
    tradeoff.show_search.click()
    assert tradeoff.beside.isVisible()
    tradeoff.open_search()
    assert tradeoff.beside.rows["max_drop"].check.hasFocus()


def test_that_predictions_are_held_against_measurements(tradeoff):
    tradeoff.view.button("check").click()
    check = tradeoff.check
    wait_until(lambda: not check.plot.is_empty)
    assert {p.name for p in check.plot.points} == {"INT4 mixed", "Dynamic", "INT8"}
    inside = sum(p.is_inside for p in check.plot.points)
    assert f"{inside} of 3 inside the 90" in check.plot.summary
    accuracy = check.plot.points[0].measured
    assert 90 < accuracy < 93  # percent
    for key in ("kl", "latency"):
        check.figure.button(key).click()
        assert len(check.plot.points) == 3
        assert key.upper() in check.plot.labels[0] or key in check.plot.labels[0]
    check.plot.grab()


def test_that_both_themes_paint_the_front_and_the_check(qapp, tradeoff):
    try:
        for theme in (DARK, LIGHT):
            apply_theme(qapp, theme)
            for view in ("check", "tradeoff"):
                tradeoff.view.button(view).click()
                assert not tradeoff.grab().toImage().isNull()
    finally:
        apply_theme(qapp, LIGHT)


def test_that_without_a_measured_variant_fp32_stands_where_the_search_saw_it(qtbot, ready):
    put_search(ready.workspace, replace(result(LAYERS, "search.onnx"), base_metric=BASE))
    ready.workspace.runs.analyze()
    idle(ready)
    panel = shown(qtbot, TradeoffPanel(ready, SearchPanel(ready)), 1000, 700)
    settle_panel()
    base = next(p for p in panel.plot.points if p.is_base)
    assert base.quality.value == pytest.approx(100 * BASE)
    assert str(SAMPLES) in base.detail


def test_that_outputs_that_are_no_classes_are_judged_by_their_sqnr(qtbot):
    session = measured_session(12)
    found = result(LAYERS, "search.onnx", SearchBudget(average_bits=5.0))

    def without_classes(point):
        bare = {"metric": None, "metric_low": None, "metric_high": None, "drop": None, "kl": 0.001}
        measured = replace(point.measured, **bare) if point.measured else None
        return replace(point, predicted=replace(point.predicted, **bare), measured=measured)

    put_search(
        session.workspace,
        replace(
            found,
            metric_name="",
            base_metric=None,
            chosen=without_classes(found.chosen),
            front=tuple(map(without_classes, found.front)),
            tried=tuple(map(without_classes, found.tried)),
        ),
    )
    panel = shown(qtbot, TradeoffPanel(session, SearchPanel(session)), 1000, 700)
    settle_panel()
    assert panel.plot.labels[1] == "Output SQNR (dB)"
    quality = {p.name: p.quality.value for p in panel.plot.points}
    assert quality["INT2 everywhere"] == pytest.approx(30.0)  # a thousandth of the power is noise
    assert quality["Dynamic"] == pytest.approx(31.4)
    assert "FP32" not in quality
    session.close()


# ---------------------------------------------------------------------- the window


def test_that_the_toolbar_and_the_palette_open_the_search(full: MainWindow):
    full.show_view("inspect")
    full.actions_list["run.search"].trigger()
    assert full.views.tabs.currentIndex() == 2
    assert find(full, SearchPanel).isVisible()
    assert any(entry.text == "Search" for entry in palette_entries(full.actions_list, full.context))
    settle(full)


def test_that_plans_are_named_after_their_bits():
    from quantstudio.workspace.runs.searches import plan_name

    point = plan(LAYERS, at_four_bits(LAYERS, 2), 0.1)
    assert plan_name(point) == f"{point.predicted.average_bits:.1f} bits"
    assert plan_name(replace(point, name="INT8 everywhere"), is_chosen=True) == "INT8 everywhere, chosen"


def test_that_plans_a_search_measured_correct_the_prediction():
    session = measured_session(12)
    before = session.workspace.predicted(session.workspace.recipe)
    found = result(LAYERS, "search.onnx")
    put_search(session.workspace, found)
    after = session.workspace.predicted(session.workspace.recipe)
    assert before is not None
    assert after is not None
    known = {one.recipe.digest for one in session.workspace.variants if one.result is not None}
    tried = {one.recipe.digest for one in (*found.tried, found.chosen) if one.measured is not None}
    assert len(tried - known) > 0
    assert after.plans == before.plans + len(tried - known)
    session.close()
