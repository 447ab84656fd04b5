"""Sessions: a second model opens as another one, none is lost, and work is not stopped unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import JobEnded
from quantstudio.core.findings import SUMMARY
from quantstudio.core.hints import HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.project.outline import outline
from quantstudio.project.store import Project
from quantstudio.workspace.leaving import LeaveRequest
from quantstudio.workspace.sessions import RecentKind, recent_entries
from quantstudio.workspace.summaries import stretched
from tests.workspace.canned import ANSWERS, OUTLINE
from tests.workspace.conftest import Desk

Open = Callable[[str], None]


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Desk]:
    """An empty session; models are told apart by their names."""
    made = Desk(Project.temporary(restore=False))
    yield made
    made.close()


@pytest.fixture
def open_model(opening: Desk, tmp_path: Path) -> Open:
    def run(name: str) -> None:
        path = tmp_path / name
        path.write_bytes(OUTLINE)
        opening.known.documents.open_path(str(path))
        opening.settle()

    return run


def test_that_a_second_model_leaves_the_first_as_it_was(opening: Desk, open_model: Open) -> None:
    known = opening.known
    open_model("first.onnx")
    first = known.project.path
    assert first.name.startswith("first-")
    known.edits.set_scheme([known.layers[0].name], "fp32")
    edited = known.recipe
    open_model("second.onnx")
    assert known.project.path != first
    assert known.recipe != edited
    known.documents.open_path(str(first))
    opening.settle()
    assert Path(known.model.source_path if known.model else "").name == "first.onnx"
    assert known.recipe == edited
    assert known.edits.can_undo


def test_that_a_session_in_which_nothing_was_done_leaves_no_file(opening: Desk, open_model: Open) -> None:
    empty = opening.known.project.path
    open_model("first.onnx")
    assert not empty.exists()
    looked_at = opening.known.project.path
    open_model("second.onnx")
    assert not looked_at.exists()
    kept = opening.known.project.path
    opening.close()
    assert kept.exists()  # it is taken up again at the next start


def test_that_what_was_edited_before_the_first_model_stays(opening: Desk, open_model: Open) -> None:
    known, before = opening.known, opening.known.project.path
    known.edits.set_recipe(Recipe(seed=7), "Set a recipe")
    open_model("first.onnx")
    assert known.project.path == before
    assert known.recipe.seed == 7


def test_that_recent_entries_are_sessions_projects_and_models_in_none(
    opening: Desk, open_model: Open, tmp_path: Path
) -> None:
    known = opening.known
    open_model("first.onnx")
    known.edits.set_scheme([known.layers[0].name], "fp32")
    open_model("second.onnx")
    known.documents.save_as(str(tmp_path / "named"))
    opening.settle()
    lonely = tmp_path / "third.onnx"
    lonely.write_bytes(OUTLINE)
    recent = [
        str(lonely),
        str(tmp_path / "named.qstudio"),
        str(tmp_path / "first.onnx"),
        str(tmp_path / "no"),
    ]
    found = {entry.name: entry.kind for entry in recent_entries(recent)}
    assert found == {
        "first.onnx": RecentKind.SESSION,
        "named": RecentKind.PROJECT,
        "third.onnx": RecentKind.MODEL,
    }


def test_that_a_model_opened_again_offers_the_session_it_has(opening: Desk, open_model: Open) -> None:
    known = opening.known
    told: list[tuple[str, HintAction | None]] = []
    known.notified.connect(lambda notice: told.append((notice.text, notice.hint.action)))

    def earlier() -> Path | None:
        return known.documents.earlier

    open_model("net.onnx")
    assert earlier() is None
    first = known.project.path
    known.edits.set_scheme([known.layers[0].name], "fp32")
    edited = known.recipe
    open_model("other.onnx")
    assert earlier() is None
    open_model("net.onnx")
    assert known.project.path != first
    assert earlier() == first
    assert ("There is an earlier session of net.onnx", HintAction.OPEN_SESSION) in told
    known.documents.open_earlier()
    opening.settle()
    assert known.project.path == first
    assert known.recipe == edited
    assert earlier() is None


def test_that_a_session_is_deleted_only_where_it_is_not_open(opening: Desk, open_model: Open) -> None:
    known = opening.known
    open_model("first.onnx")
    first = known.project.path
    known.edits.set_scheme([known.layers[0].name], "fp32")
    open_model("second.onnx")
    said: list[str] = []
    known.notified.connect(lambda notice: said.append(notice.text))
    done: list[bool] = []
    known.sessions.delete(known.project.path, lambda: done.append(True))
    opening.settle()
    assert known.project.path.exists()
    assert said == ["the project is open in another window"]
    known.sessions.delete(first, lambda: done.append(True))
    opening.settle()
    assert not first.exists()
    assert done == [True]


class TestSummary:
    def test_that_it_says_what_was_measured_last(self, measured: Desk) -> None:
        known = measured.known
        found = outline(known.project.path).summary
        assert found is not None
        assert found.shown is not None
        result = known.current_variant.result if known.current_variant else None
        assert result is not None
        assert found.shown.value == result.metrics["top1"]
        assert found.shown.speedup == (result.speedup.value if result.speedup else None)
        assert len(found.sensitivity) == len(known.layer_sensitivity)
        assert len(found.dots) == 2
        assert found.dots[0].size_share == 1.0

    def test_that_it_is_written_once_and_only_when_something_changed(self, measured: Desk) -> None:
        told: list[str] = []
        measured.known.findings.changed(SUMMARY).connect(told.append)
        measured.known.summaries.keep()
        assert told == []

    def test_that_many_layers_become_few_bars_with_the_largest_of_each_stretch(self) -> None:
        assert stretched([1.0, 5.0, 2.0, 3.0], 2) == [5.0, 3.0]
        assert stretched([1.0, 2.0], 48) == [1.0, 2.0]
        assert len(stretched([0.0] * 500, 48)) == 48


class TestWorkThatRuns:
    @pytest.fixture
    def busy(self, desk: Desk, data: DataSpec, tmp_path: Path) -> tuple[Desk, list[LeaveRequest], str]:
        """A search-like job runs, and somebody answers questions."""
        known = desk.known
        known.opening.set_data(data, None)
        desk.runner.is_holding = True
        known.runs.calibrate()
        asked: list[LeaveRequest] = []
        known.documents.leaving.is_asking = True
        known.documents.leaving.asked.connect(asked.append)
        other = tmp_path / "other.onnx"
        other.write_bytes(OUTLINE)
        known.documents.open_path(str(other))
        return desk, asked, str(other)

    def test_that_it_is_asked_about_and_goes_on_meanwhile(
        self, busy: tuple[Desk, list[LeaveRequest], str]
    ) -> None:
        desk, asked, _other = busy
        assert asked == [LeaveRequest("other.onnx", ("Calibrate",))]
        assert desk.known.jobs.running is not None
        assert desk.runner.cancelled == []
        desk.known.documents.leaving.stay()
        desk.runner.is_holding = False
        desk.runner.release()
        desk.settle()
        assert desk.known.statistics_file is not None
        assert desk.runner.tasks.count("open_model") == 1

    def test_that_it_is_stopped_where_the_user_says_so(
        self, busy: tuple[Desk, list[LeaveRequest], str]
    ) -> None:
        desk, _asked, other = busy
        desk.known.documents.leaving.stop()
        desk.runner.is_holding = False
        desk.runner.release()
        desk.settle()
        assert len(desk.runner.cancelled) == 1
        assert desk.known.model is not None
        assert desk.known.model.source_path == other

    def test_that_the_other_opens_when_it_is_done(self, busy: tuple[Desk, list[LeaveRequest], str]) -> None:
        desk, _asked, other = busy
        leaving = desk.known.documents.leaving
        leaving.wait()
        assert leaving.waits_for_work
        desk.runner.is_holding = False
        desk.runner.release()
        desk.settle()
        assert desk.runner.cancelled == []
        assert desk.known.model is not None
        assert desk.known.model.source_path == other
        assert not leaving.waits_for_work

    def test_that_a_project_and_a_new_session_ask_too(
        self, busy: tuple[Desk, list[LeaveRequest], str], tmp_path: Path
    ) -> None:
        desk, asked, _other = busy
        known = desk.known
        Project.create(tmp_path / "mine.qstudio").close()
        known.documents.open_path(str(tmp_path / "mine.qstudio"))
        known.documents.new_project()
        known.documents.open_sample()
        assert len(asked) == 4
        assert known.jobs.running is not None

    def test_that_a_script_is_not_asked(self, busy: tuple[Desk, list[LeaveRequest], str]) -> None:
        desk, asked, other = busy
        desk.known.documents.leaving.is_asking = False
        desk.known.documents.open_path(other)
        assert len(asked) == 1
        assert len(desk.runner.cancelled) == 1


def test_that_a_model_that_changed_opens_as_another_session_and_says_so(
    opening: Desk, open_model: Open
) -> None:
    known = opening.known
    open_model("first.onnx")
    known.edits.set_scheme([known.layers[0].name], "fp32")
    first, said = known.project.path, list[str]()
    known.notified.connect(lambda notice: said.append(notice.text))
    opening.runner.answers["open_model"] = lambda params: [
        replace(event, result={**event.result, "digest": "another"})
        if isinstance(event, JobEnded) and event.result
        else event
        for event in ANSWERS["open_model"](params)
    ]
    known.documents.reopen()
    opening.settle()
    assert known.project.path != first
    assert first.exists()
    assert "first.onnx has changed since it was opened" in said

    def test_that_quitting_asks_too(self, busy: tuple[Desk, list[LeaveRequest], str]) -> None:
        desk, asked, _other = busy
        leaving, ended = desk.known.documents.leaving, []
        assert leaving.asks
        leaving.then("", lambda: ended.append(True))
        assert asked[-1] == LeaveRequest("", ("Calibrate",))
        assert not ended
        leaving.wait()
        desk.runner.is_holding = False
        desk.runner.release()
        desk.settle()
        assert ended == [True]
        assert not leaving.asks
