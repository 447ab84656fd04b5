"""Undo and redo: without limit, with names, across restarts."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstudio.core.errors import ProjectError
from quantstudio.core.precision import FP16, FP32, STATIC_INT8
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.project.state import Plan, ProjectState
from quantstudio.project.store import Project

A, B, C = (uniform_recipe(scheme) for scheme in (STATIC_INT8, FP16, FP32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.qstudio"


def set_recipe(project: Project, recipe: Recipe, label: str, merge_key: str = "") -> bool:
    return project.edit(project.state.with_recipe(recipe), label, merge_key=merge_key)


def labels(project: Project) -> list[str]:
    return [step.label + ("*" if step.is_present else "") for step in project.history()]


def test_that_undo_and_redo_walk_the_named_steps(path: Path) -> None:
    with Project.create(path) as project:
        assert (project.undo_label, project.redo_label) == ("", "")
        assert not project.undo()
        assert not project.redo()
        set_recipe(project, A, "Set INT8")
        set_recipe(project, B, "Set FP16")
        assert (project.undo_label, project.redo_label) == ("Set FP16", "")
        assert project.undo()
        assert (project.undo_label, project.redo_label) == ("Set INT8", "Set FP16")
        assert project.state.recipe == A
        assert project.undo()
        assert project.state == ProjectState()
        assert (project.undo_label, project.redo_label) == ("", "Set INT8")
        assert project.redo()
        assert labels(project) == ["New project", "Set INT8*", "Set FP16"]


def test_that_an_edit_after_undo_drops_what_could_be_redone(path: Path) -> None:
    with Project.create(path) as project:
        for recipe, label in ((A, "a"), (B, "b"), (A, "a again")):
            set_recipe(project, recipe, label)
        project.undo()
        project.undo()
        set_recipe(project, C, "c")
        assert labels(project) == ["New project", "a", "c*"]
        assert project.redo_label == ""
        assert not project.redo()


def test_that_an_edit_that_changes_nothing_is_no_step(path: Path) -> None:
    with Project.create(path) as project:
        set_recipe(project, A, "a")
        project.undo()
        assert not set_recipe(project, Recipe(), "nothing")
        assert project.redo_label == "a"


def test_that_history_survives_reopening(path: Path) -> None:
    with Project.create(path) as project:
        set_recipe(project, A, "a")
        project.edit(project.state.with_plan(Plan("Small", B)), "Add plan Small")
        project.undo()
    with Project.open(path) as project:
        assert labels(project) == ["New project", "a*", "Add plan Small"]
        project.redo()
        assert project.state == ProjectState((Plan("Plan 1", A), Plan("Small", B)), "Small")


def test_that_a_drag_is_one_step(path: Path) -> None:
    with Project.create(path) as project:
        set_recipe(project, A, "Clip conv1", "clip conv1")
        set_recipe(project, B, "Clip conv1", "clip conv1")
        set_recipe(project, C, "Clip conv2", "clip conv2")
        assert labels(project) == ["New project", "Clip conv1", "Clip conv2*"]
        project.undo()
        assert project.state.recipe == B
        set_recipe(project, A, "Clip conv1", "clip conv1")
        assert labels(project) == ["New project", "Clip conv1", "Clip conv1*"]


def test_that_recipes_nobody_refers_to_are_dropped(path: Path) -> None:
    with Project.create(path) as project:
        set_recipe(project, A, "a")
        set_recipe(project, B, "b")
        project.undo()
        set_recipe(project, C, "c")
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM recipe").fetchone() == (3,)
    connection.close()


def test_that_a_thousand_edits_stay_small_and_all_come_back(path: Path) -> None:
    names = [f"encoder.layers.{i}.attention.output.dense" for i in range(60)]
    with Project.create(path) as project:
        recipe = A
        for i in range(300):
            recipe = recipe.assign([names[i % 60]], (FP16, FP32)[i // 60 % 2])
            set_recipe(project, recipe, f"edit {i}")
        for _ in range(300):
            assert project.undo()
        assert project.state == ProjectState()
        assert not project.undo()
    assert path.stat().st_size < 10e6


recipes = st.sampled_from([A, B, C, Recipe()])
actions = st.lists(
    st.one_of(
        st.tuples(st.just("recipe"), recipes),
        st.tuples(st.just("plan"), recipes),
        st.tuples(st.just("remove"), st.none()),
        st.tuples(st.just("activate"), st.integers(0, 3)),
        st.tuples(st.just("undo"), st.none()),
        st.tuples(st.just("redo"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=14,
)


@settings(max_examples=25)
@given(actions)
def test_that_undo_then_redo_is_identity(steps: list[tuple[str, object]]) -> None:
    """Against the simplest model there is: a list of states and a position."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.qstudio"
        project = Project.create(path)
        states, at = [project.state], 0
        for action, value in steps:
            state = project.state
            if action == "undo":
                assert project.undo() is (at > 0)
                at = max(0, at - 1)
            elif action == "redo":
                assert project.redo() is (at < len(states) - 1)
                at = min(len(states) - 1, at + 1)
            elif action == "reopen":
                project.close()
                project = Project.open(path)
            else:
                changed = _changed(state, action, value)
                if project.edit(changed, action):
                    states[at + 1 :] = [changed]
                    at += 1
            assert project.state == states[at]
        if project.undo():
            assert project.redo()
            assert project.state == states[at]
        while project.undo():
            at -= 1
            assert project.state == states[at]
        assert at == 0
        while project.redo():
            at += 1
            assert project.state == states[at]
        assert at == len(states) - 1
        project.close()


def _changed(state: ProjectState, action: str, value: object) -> ProjectState:
    if action == "recipe":
        assert isinstance(value, Recipe)
        return state.with_recipe(value)
    if action == "plan":
        assert isinstance(value, Recipe)
        taken = {plan.name for plan in state.plans}
        name = next(f"Plan {i}" for i in range(1, len(taken) + 2) if f"Plan {i}" not in taken)
        return state.with_plan(Plan(name, value))
    if action == "remove":
        return state.without_plan(state.active) if len(state.plans) > 1 else state
    assert isinstance(value, int)
    return state.activated(state.plans[value % len(state.plans)].name)


def test_that_plans_have_unique_names_and_one_is_active() -> None:
    state = ProjectState().with_plan(Plan("Small", A)).with_plan(Plan("Plan 2", B))
    assert state.active == "Plan 2"
    assert state.renamed("Plan 2", "Best").active == "Best"
    assert state.renamed("Small", "Tiny").active == "Plan 2"
    assert state.without_plan("Plan 2").active == "Small"
    assert state.without_plan("Plan 1").active == "Plan 2"
    assert state.with_recipe(C, "Small").plan("Small").recipe == C
    assert state.recipe == B


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: ProjectState((), ""), "no plan", id="none"),
        pytest.param(lambda: ProjectState((Plan(" "),), " "), "needs a name", id="blank"),
        pytest.param(lambda: ProjectState().with_plan(Plan("Plan 1")), "'Plan 1' already", id="twice"),
        pytest.param(lambda: ProjectState().activated("x"), "no plan 'x'", id="active"),
        pytest.param(lambda: ProjectState().plan("x"), "no plan 'x'", id="unknown"),
        pytest.param(lambda: ProjectState().without_plan("Plan 1"), "at least one plan", id="last"),
    ],
)
def test_that_an_impossible_state_is_refused(make, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        make()
