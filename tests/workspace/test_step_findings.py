"""Steps and what is known: sensitivity, costs and searches are of the graph that is really quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.codec import from_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.findings import SEARCH
from quantstudio.core.findings import STEPS as STEPS_KIND
from quantstudio.core.recipe import CalibrationSettings, RangeMethod, Recipe
from quantstudio.core.steps import Step
from quantstudio.project.store import Project
from quantstudio.workspace.known import Known
from tests.gui.search_samples import result
from tests.workspace.canned import LAYERS, STEPS
from tests.workspace.conftest import Desk
from tests.workspace.putting import known_of, put_search, subject_of
from tests.workspace.samples import model_summary


@pytest.fixture
def analyzed(desk: Desk, data: DataSpec) -> Desk:
    """Everything is known of a plan without steps, and the worker said which there are."""
    desk.known.opening.set_data(data, None)
    desk.known.runs.describe_steps()
    desk.known.runs.run_all()
    desk.settle()
    return desk


def figures(known: Known) -> tuple[object, ...]:
    return (known.prediction, known.sensitivity_curve, known.costs, dict(known.layer_sensitivity))


def left_out(known: Known) -> tuple[str, ...]:
    """Steps the prediction of the plan does not know."""
    assert known.prediction is not None
    return known.prediction.left_out


def plans(known: Known) -> int:
    """Measured variants the prediction of the plan was corrected by."""
    assert known.prediction is not None
    return known.prediction.plans


def ground(known: Known) -> list[str]:
    """Steps the precisions are chosen behind."""
    return [step.name for step in known.ground.steps]


def kl(known: Known) -> float | None:
    assert known.prediction is not None
    return known.prediction.kl


def sent(desk: Desk, task: str) -> list[Mapping[str, Any]]:
    return [job.params for job in desk.runner.submitted if job.task.endswith(f":{task}")]


def test_that_a_step_puts_figures_out_of_date_and_undo_brings_them_back_in_the_same_turn(
    analyzed: Desk,
) -> None:
    known = analyzed.known
    before, jobs = figures(known), len(analyzed.runner.submitted)
    assert known.prediction is not None
    assert known.prediction.accuracy is not None
    told: list[str] = []
    known.sensitivity_changed.connect(lambda: told.append("sensitivity"))
    known.edits.add_step("equalize")
    assert not known.layer_sensitivity
    assert known.sensitivity_curve is None
    assert known.costs is None
    shown = known.prediction
    assert (shown.accuracy, shown.size_bytes, shown.latency_ms) == (None, None, None)
    known.edits.undo()
    assert figures(known) == before
    assert told == ["sensitivity", "sensitivity"]
    known.edits.redo()
    known.edits.switch_step(0, is_on=False)
    assert figures(known) == before, "a step that is off does nothing"
    assert len(analyzed.runner.submitted) == jobs, "nothing is computed"


def test_that_a_run_is_of_the_graph_behind_the_steps_and_kept_apart(analyzed: Desk) -> None:
    known = analyzed.known
    known.edits.add_step("equalize")
    known.edits.add_step("bias")
    known.runs.analyze()
    analyzed.settle()
    for task in ("sensitivity", "costs"):
        plain, behind = sent(analyzed, task)
        assert "recipe" not in plain
        assert [step.name for step in from_json(Recipe, behind["recipe"]).steps] == ["equalize"]
    assert sent(analyzed, "sensitivity")[-1]["calibrated"] is True
    assert len(known.layer_sensitivity) == len(known.layers)
    assert known.prediction is not None
    assert known.prediction.accuracy is not None
    assert left_out(known) == ("bias",)
    known.edits.undo()
    assert left_out(known) == ()
    count = len(analyzed.runner.submitted)
    known.runs.run_all()
    analyzed.settle()
    again = [job.task.partition(":")[2] for job in analyzed.runner.submitted[count:]]
    assert again == ["quantize", "compare"], "sensitivity and costs are known for both"


def test_that_a_step_that_looks_at_precisions_leaves_figures_and_says_it_is_not_in_them(
    analyzed: Desk,
) -> None:
    known = analyzed.known
    known.edits.add_step("bias")
    assert kl(known) is not None
    assert left_out(known) == ("bias",)
    known.edits.add_step("equalize")
    assert left_out(known) == ("bias", "equalize"), "what comes behind it hangs on the plan, too"
    known.edits.move_step(1, 0)
    assert kl(known) is None, "equalization changes what is quantized"


def test_that_measured_variants_teach_only_plans_with_their_steps(analyzed: Desk) -> None:
    known = analyzed.known
    assert plans(known) == 1
    assert len(known.prediction_points()) == 1
    known.edits.add_step("bias")
    assert plans(known) == 0
    assert known.prediction_points() == ()
    known.runs.measure()
    analyzed.settle()
    assert plans(known) == 1


def test_that_measured_variants_teach_only_plans_for_their_target(analyzed: Desk) -> None:
    known = analyzed.known
    assert plans(known) > 0
    other = next(name for name in ("cpu-x86", "cpu-x86-vnni") if name != known.recipe.target)
    known.edits.set_recipe(replace(known.recipe, target=other), "Set the target")
    assert plans(known) == 0
    known.edits.undo()
    assert plans(known) > 0


def test_that_a_search_belongs_to_the_steps_it_was_made_with(analyzed: Desk, tmp_path: Path) -> None:
    known = analyzed.known
    found = result(model_summary(LAYERS).layers, str(tmp_path / "found.onnx"))
    put_search(known, found)
    seen = [known.search_result]
    known.edits.add_step("bias")
    seen.append(known.search_result)
    known.edits.undo()
    seen.append(known.search_result)
    assert seen == [found, None, found]


def test_that_the_search_that_ended_last_is_shown_whatever_judged_it(desk: Desk, data: DataSpec) -> None:
    known = desk.known
    known.opening.set_data(data, data)
    found = result(model_summary(LAYERS).layers, "found.onnx")
    subject = subject_of(known)
    for time, is_judged in ((1.0, True), (2.0, False)):
        key = subject.search_key((), known.recipe, judged_on_test=is_judged)
        known.findings.put(SEARCH, key, replace(found, created=time), row="terms")
        assert known.search_result is not None
        assert known.search_result.created == time


def test_that_a_search_is_of_one_target_and_of_one_way_to_choose_ranges(desk: Desk, data: DataSpec) -> None:
    known = desk.known
    known.opening.set_data(data, None)
    found = result(model_summary(LAYERS).layers, "found.onnx")
    key = subject_of(known).search_key((), known.recipe, judged_on_test=False)
    known.findings.put(SEARCH, key, found, row="terms")
    assert known.search_result == found
    told: list[object] = []
    known.search_changed.connect(lambda: told.append(known.search_result))
    known.edits.set_calibration(CalibrationSettings(RangeMethod.MINMAX))
    assert told.pop() is None
    known.edits.undo()
    assert told.pop() == found
    known.edits.set_target("onnx-qdq-s8")
    assert known.search_result is None


def test_that_searches_of_older_projects_are_found_where_their_plans_fit(desk: Desk, data: DataSpec) -> None:
    known = desk.known
    known.opening.set_data(data, None)
    found = result(model_summary(LAYERS).layers, "found.onnx")
    known.findings.put(
        SEARCH, subject_of(known).search_key((), None, judged_on_test=False), found, row="terms"
    )
    assert known.search_result == found
    known.edits.set_calibration(CalibrationSettings(RangeMethod.MINMAX))
    assert known.search_result is None


def test_that_a_setting_left_out_and_its_default_are_the_same_ground(analyzed: Desk) -> None:
    known = analyzed.known
    plain, written, other = (
        known.ground_of(Recipe(steps=(step,)))
        for step in (Step("equalize"), Step("equalize", {"rounds": 100}), Step("equalize", {"rounds": 99}))
    )
    assert plain == written
    assert plain.graph != other.graph
    assert known.ground_of(Recipe()).graph == known.model.digest if known.model else ""


def test_that_work_behind_steps_first_asks_what_they_are(desk: Desk, data: DataSpec) -> None:
    known = desk.known
    known.opening.set_data(data, None)
    known.edits.set_recipe(Recipe(steps=(Step("equalize"),)), "Import")
    assert not ground(known), "nobody said yet what it is"
    known.runs.analyze()
    desk.settle()
    assert desk.runner.tasks.index("steps") < desk.runner.tasks.index("sensitivity")
    assert ground(known) == ["equalize"]
    assert len(known.layer_sensitivity) == len(known.layers)


def test_that_a_project_knows_without_an_engine_what_was_found_behind_steps(analyzed: Desk) -> None:
    known = analyzed.known
    known.edits.add_step("equalize")
    known.runs.analyze()
    analyzed.settle()
    path, before = known.project.path, dict(known.layer_sensitivity)
    known.close()
    project = Project.open(path)
    try:
        reopened = known_of(project)
        assert reopened.findings.get(STEPS_KIND, STEPS_KIND.key()) == STEPS
        assert reopened.steps == STEPS.steps
        assert not reopened.are_steps_described
        assert dict(reopened.layer_sensitivity) == before
    finally:
        project.close()


def test_that_a_plan_with_defaults_left_out_is_the_variant_of_one_that_gives_them(analyzed: Desk) -> None:
    known = analyzed.known
    short = replace(known.recipe, steps=(Step("equalize"), Step("bias")))
    known.edits.set_recipe(short, "Import")
    known.runs.quantize()
    analyzed.settle()
    assert known.current_variant is not None
    known.edits.undo()
    known.edits.add_step("equalize")
    known.edits.add_step("bias")
    assert known.recipe != short
    assert known.current_variant is not None
    assert known.current_variant.recipe == short
