"""What a list of projects reads of a file without opening it."""

import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from quantstudio.core.findings import SUMMARY, WEIGHTS, StatisticsFile
from quantstudio.core.session_summary import SessionSummary
from quantstudio.project.outline import discard_untouched, outline, outlines
from quantstudio.project.store import Project
from tests.project.examples import RECIPE
from tests.workspace.samples import model_summary


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    return path


def with_model(project: Project, path: Path) -> Project:
    project.set_model(replace(model_summary(3), source_path=str(path)))
    return project


def test_that_a_session_is_read_while_it_is_open(model: Path) -> None:
    summary = SessionSummary(3, 1000, sensitivity=(0.1, 0.2))
    with with_model(Project.temporary(restore=False, name=model.stem), model) as project:
        project.findings.put(SUMMARY, SUMMARY.key(), {"": summary})
        found = outline(project.path)
        assert found.is_session
        assert (found.name, found.model, found.is_model_missing) == ("net.onnx", str(model), False)
        assert found.summary == summary
        assert project.path.name.startswith("net-20")
        project.edit(project.state.with_recipe(RECIPE), "Still writable")
    model.unlink()
    assert outline(found.path).is_model_missing


def test_that_only_sessions_without_edits_data_and_findings_are_untouched(model: Path) -> None:
    with with_model(Project.temporary(restore=False), model) as project:
        project.findings.put(WEIGHTS, "k", {"": StatisticsFile("w.npz")})  # comes with every model
        assert outline(project.path).is_untouched
        project.edit(project.state.with_recipe(RECIPE), "Set INT8")
        project.undo()
        assert not outline(project.path).is_untouched  # it can be redone


def test_that_untouched_sessions_of_killed_processes_go_and_no_others(model: Path) -> None:
    kept = with_model(Project.temporary(restore=False), model)
    open_elsewhere = with_model(Project.temporary(restore=False), model)
    left = with_model(Project.temporary(restore=False), model)
    edited = with_model(Project.temporary(restore=False), model)
    edited.edit(edited.state.with_recipe(RECIPE), "Set INT8")
    for project in (kept, left, edited):
        project.close()
    discard_untouched(kept.path)
    assert set(Project.sessions()) == {kept.path, open_elsewhere.path, edited.path}
    open_elsewhere.close()


def test_that_the_last_written_comes_first_and_trouble_last(tmp_path: Path, model: Path) -> None:
    paths = [tmp_path / f"{name}.qstudio" for name in ("old", "new")]
    for path in paths:
        with_model(Project.create(path), model).close()
    os.utime(paths[0], (time.time() - 100, time.time() - 100))
    broken = tmp_path / "broken.qstudio"
    broken.write_bytes(b"rubbish" * 100)
    found = outlines([*paths, broken, tmp_path / "gone.qstudio"])
    assert [one.name for one in found[:2]] == ["new", "old"]
    assert [bool(one.trouble) for one in found] == [False, False, True, True]
    assert broken.read_bytes() == b"rubbish" * 100


def test_that_a_summary_of_another_version_is_left_out(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "a.qstudio"
    with with_model(Project.create(path), model) as project:
        project.findings.put(SUMMARY, SUMMARY.key(), {"": SessionSummary(3, 1000)})
    connection = sqlite3.connect(path)
    connection.execute("""UPDATE finding SET value = '{"layers": 3, "hologram": 1}' WHERE kind = 'summary'""")
    connection.commit()
    connection.close()
    found = outline(path)
    assert found.summary is None
    assert found.trouble == ""
