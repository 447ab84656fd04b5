"""A search with the steps of a recipe: what it measures is what quantizing its plans builds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.events import CancelToken
from quantstudio.core.recipe import CalibrationSettings
from quantstudio.core.results import AppliedStep
from quantstudio.core.search_results import ActivationFamily
from quantstudio.core.steps import Step
from quantstudio.engine.evaluation.latency import LatencyBudget
from quantstudio.engine.pipeline import runner
from quantstudio.engine.search import presets
from quantstudio.engine.search.measure import Judge
from quantstudio.engine.search.sample_range import SampleRange
from quantstudio.engine.tasks.quantize import quantize
from quantstudio.engine.tasks.search import search
from tests.engine.step_cases import BIAS, EQUALIZE, SAMPLES, recipe, uneven

OFF = Step("equalize", is_on=False)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield uneven(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def found(net, tmp_path_factory):
    """A search with a step before the precisions, one that is off, and one behind them."""
    path = tmp_path_factory.mktemp("found") / "out.onnx"
    asked = recipe(EQUALIZE, OFF, BIAS)
    result = search(
        **net.task,
        output=str(path),
        budget={"average_bits": 5.0},
        family=ActivationFamily.STATIC,
        samples=SAMPLES,
        recipe=to_json(asked),
        recover="none",
    )
    return result, path


def names_of(steps: tuple[AppliedStep, ...]) -> list[str]:
    return [step.name for step in steps]


def test_that_every_plan_keeps_the_steps_and_settings_of_the_recipe(found):
    result, _ = found
    for point in (result.chosen, *result.tried, *result.front):
        assert [(one.name, one.is_on) for one in point.recipe.steps] == [
            ("equalize", True), ("equalize", False), ("bias", True)
        ]  # fmt: skip
        assert point.recipe.steps[-1].settings["samples"] == 16
        assert point.recipe.calibration.samples == SAMPLES
    assert names_of(result.build.steps) == ["equalize", "bias"]
    assert result.build.steps[0].details["pairs"] == 2


def test_that_predicted_figures_say_that_they_do_not_know_a_step(found):
    result, _ = found
    for point in (*result.tried, *result.front):
        assert point.predicted.left_out == ("bias",)
        assert point.measured is None or point.measured.left_out == ()
    assert "Predicted figures are without bias" in result.notes[0]


def test_that_quantizing_a_plan_that_was_found_gives_the_bytes_that_were_measured(found, net, tmp_path):
    result, path = found
    again = tmp_path / "again.onnx"
    built = quantize(**net.task, output=str(again), recipe=to_json(result.chosen.recipe))
    assert again.read_bytes() == path.read_bytes()
    assert names_of(built.build.steps) == names_of(result.build.steps)
    other = next(one for one in result.tried if one.recipe != result.chosen.recipe)
    quantize(**net.task, output=str(again), recipe=to_json(other.recipe))
    judged = Judge(net.graph, net.dataset, samples=SAMPLES, cancel=CancelToken())
    assert judged.measure_file(again).kl == pytest.approx(other.measured.kl, rel=1e-6)
    assert again.stat().st_size == other.measured.size_bytes


@pytest.mark.parametrize("preset", ["static-int8", "auto"])
def test_that_a_preset_keeps_the_steps_of_the_recipe(net, tmp_path, preset, monkeypatch):
    monkeypatch.setattr(presets, "TIMING", LatencyBudget(seconds=0.02, min_rounds=3, max_rounds=3))
    made, again = tmp_path / "made.onnx", tmp_path / "again.onnx"
    asked = to_json(recipe(EQUALIZE))
    found = quantize(**net.task, output=str(made), preset=preset, recipe=asked)
    assert found.recipe.steps[0].name == "equalize"
    assert found.recipe.calibration.samples == SAMPLES
    assert names_of(found.build.steps) == ["equalize"]
    quantize(**net.task, output=str(again), recipe=to_json(found.recipe))
    assert again.read_bytes() == made.read_bytes()


def test_that_steps_before_the_precisions_are_run_once_for_all_plans(net, tmp_path, monkeypatch):
    asked: list[str] = []
    applied = runner._applied

    def counted(graph, definition, *rest):
        asked.append(definition.info.name)
        return applied(graph, definition, *rest)

    monkeypatch.setattr(runner, "_applied", counted)
    result = search(
        **net.task,
        output=str(tmp_path / "out.onnx"),
        budget={"average_bits": 6.0},
        family=ActivationFamily.STATIC,
        samples=SAMPLES,
        recipe=to_json(recipe(EQUALIZE)),
        recover="none",
    )
    assert asked == ["equalize"]
    assert result.builds > 1
    assert names_of(result.build.steps) == ["equalize"]


@pytest.mark.parametrize(("step", "judged_on"), [(BIAS, 32), (EQUALIZE, 16)], ids=["fitted", "not fitted"])
def test_that_samples_a_step_was_fitted_to_do_not_judge_it(net, tmp_path, step, judged_on):
    own = replace(recipe(step), calibration=CalibrationSettings(samples=16))
    result = search(
        **net.task,
        output=str(tmp_path / "out.onnx"),
        budget={"max_drop": 60.0},
        family=ActivationFamily.STATIC,
        samples=16,
        recipe=to_json(own),
        recover="none",
    )
    assert result.chosen.measured is not None
    assert result.chosen.measured.samples == judged_on
    assert not any("fitted" in note for note in result.notes)


def test_that_samples_in_a_row_are_a_data_set_of_their_own(net):
    apart = SampleRange(net.dataset, 10, start=40)
    assert len(apart) == 8
    assert apart.labels is not None
    assert apart.labels.tolist() == net.dataset.labels[40:].tolist()
    batches = list(apart.batches(5))
    assert [batch.start for batch in batches] == [0, 5]
    whole = next(net.dataset.batches(48)).feed["x"]
    assert np.array_equal(np.concatenate([batch.feed["x"] for batch in batches]), whole[40:])
