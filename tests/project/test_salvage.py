"""A damaged project is named so, is not touched, and gives up what can be read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from quantstudio.core.errors import ProjectError
from quantstudio.project.salvage import salvage
from quantstudio.project.store import Project
from tests.project.examples import RECIPE, VARIANT

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "net.qstudio"
    with Project.create(path) as project:
        project.edit(project.state.with_recipe(RECIPE), "Set INT8")
        project.put_variant(VARIANT)
        project.put_layer_results("weights", "k", {f"layer{i}": {"x": "y" * 200} for i in range(2000)})
    return path


def root_page(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
    connection.close()
    return int(page)


def overwrite_page(path: Path, page: int) -> bytes:
    content = bytearray(path.read_bytes())
    content[(page - 1) * PAGE : page * PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)
    return bytes(content)


def test_that_a_damaged_project_is_refused_and_left_as_it_is(path: Path) -> None:
    before = overwrite_page(path, root_page(path, "variant"))
    with pytest.raises(ProjectError, match="the project file is damaged") as caught:
        Project.open(path)
    assert "left as it is" in caught.value.hint
    assert path.read_bytes() == before


def test_that_a_truncated_project_is_refused(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // PAGE * PAGE])
    with pytest.raises(ProjectError, match="damaged"):
        Project.open(path)


def test_that_everything_outside_the_damage_is_rescued(path: Path, tmp_path: Path) -> None:
    before = overwrite_page(path, root_page(path, "variant"))
    target = tmp_path / "rescued.qstudio"
    rescued = salvage(path, target)
    assert rescued["variant"] == 0
    assert rescued["layer_result"] == 2000
    with Project.open(target) as project:
        assert project.state.recipe == RECIPE
        assert project.undo_label == "Set INT8"
        assert project.variants() == ()
        assert len(project.layer_results("weights", "k")) == 2000
    assert path.read_bytes() == before
    with pytest.raises(ProjectError, match="exists already"):
        salvage(path, target)


@pytest.mark.parametrize("table", ["history", "history_plan", "recipe", "present"])
def test_that_a_lost_history_leaves_the_results(path: Path, tmp_path: Path, table: str) -> None:
    overwrite_page(path, root_page(path, table))
    target = tmp_path / "rescued.qstudio"
    salvage(path, target)
    with Project.open(target) as project:
        assert project.variants() == (VARIANT,)
        # Where only the position was lost, it is taken to be the newest step.
        assert project.state.recipe == (RECIPE if table == "present" else type(RECIPE)())
        assert project.edit(project.state.renamed("Plan 1", "Again"), "Rename")
        assert project.undo()


def test_that_a_file_with_nothing_to_read_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.qstudio").write_bytes(b"rubbish" * 1000)
    with pytest.raises(ProjectError, match="nothing can be read"):
        salvage(tmp_path / "x.qstudio", tmp_path / "y.qstudio")
    with pytest.raises(ProjectError, match="no such project"):
        salvage(tmp_path / "missing.qstudio", tmp_path / "y.qstudio")
    assert not (tmp_path / "y.qstudio").exists()
