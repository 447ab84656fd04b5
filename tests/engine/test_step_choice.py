"""Which of many steps help: tried one after the other, within a time, and never worse than before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantstudio.core.errors import CalibrationError, JobCancelled
from quantstudio.core.events import CancelToken, NullReporter
from quantstudio.core.precision import Precision
from quantstudio.core.steps import Step
from quantstudio.engine.pipeline import registry
from quantstudio.engine.pipeline.context import StepOutcome
from quantstudio.engine.pipeline.discovery import find_steps
from quantstudio.engine.pipeline.registry import NoSettings, registered, step
from quantstudio.engine.pipeline.runner import StepInputs
from quantstudio.engine.search.step_choice import _in_trying_order, with_steps_that_help
from quantstudio.engine.search.time_box import TimeBox
from tests.engine.step_cases import BIAS, EQUALIZE, INT4_PER_TENSOR, recipe, uneven


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield uneven(tmp_path_factory.mktemp("net"))


class Told(NullReporter):
    def __init__(self):
        self.lines, self.parts = [], []

    def message(self, text, severity=None):
        self.lines.append(text)

    def found(self, part):
        self.parts.append(part)


def chosen(net, start, *candidates, seconds=0.0, cancel=None, reporter=None):
    inputs = StepInputs(net.dataset)
    token, told = cancel or CancelToken(), reporter or Told()
    return with_steps_that_help(
        net.graph, start, candidates, inputs, seconds=seconds, reporter=told, cancel=token
    )


def names(found):
    return [one.name for one in found.steps]


def test_that_each_step_is_kept_that_measures_better_behind_those_before(net):
    told = Told()
    found, why = chosen(net, recipe(), EQUALIZE, BIAS, reporter=told)
    assert "equalize" in names(found)
    assert why.startswith(f"Chose {' then '.join(names(found))}. Measured on 48 calibration samples: no step")
    assert told.lines[0].startswith("Kept equalize: equalize (")
    assert [(one.name, one.is_kept) for one in told.parts[:2]] == [("", True), ("equalize", True)]
    assert told.parts[1].before == told.parts[0].after
    assert told.parts[0].measure == "answers unlike FP32's, 48 calibration samples"


def test_that_at_low_bits_weights_are_chosen_before_all_else_is_tried(net):
    candidates = [Step(name) for name in ("equalize", "gptq", "round", "bias", "tune")]
    low = recipe(scheme=replace(INT4_PER_TENSOR, weights=Precision.INT2))
    assert [one.name for one in _in_trying_order(candidates, net.graph, low)] == [
        "gptq", "bias", "round", "tune", "equalize"
    ]  # fmt: skip
    assert _in_trying_order(candidates, net.graph, recipe()) == candidates


def test_that_within_a_time_nothing_more_is_tried_where_every_answer_is_as_before(net):
    found, why = chosen(net, recipe(BIAS), EQUALIZE, seconds=1000)
    assert names(found) == ["bias"]
    assert why.endswith("Every answer is FP32's: no more was tried.")


def test_that_a_step_goes_where_it_is_best_run(net):
    found, _ = chosen(net, recipe(BIAS), EQUALIZE)
    assert names(found) == ["equalize", "bias"]


def test_that_when_the_time_is_over_what_was_best_is_the_answer(net):
    found, why = chosen(net, recipe(BIAS), EQUALIZE, seconds=1e-9)
    assert names(found) == ["bias"]
    assert why.endswith("The time was over before equalize could be tried.")


def test_that_a_step_that_fails_is_left_out_by_name(net, monkeypatch):
    find_steps()
    monkeypatch.setattr(registry, "_definitions", registered())

    def breaking(graph, context, settings, *, reporter, cancel):
        raise CalibrationError("its moments are singular")

    def idle(graph, context, settings, *, reporter, cancel):
        return StepOutcome(graph, "Nothing.")

    for name, apply in (("break", breaking), ("idle", idle)):
        apply.__annotations__["settings"] = NoSettings
        step(name=name, label=name, explanation=name)(apply)
    told = Told()
    found, _ = chosen(net, recipe(), Step("break"), Step("idle"), reporter=told)
    assert found.steps == ()
    assert told.lines[0] == "break left out: its moments are singular"
    assert [(one.name, one.after is None) for one in told.parts[1:]] == [("break", True), ("idle", False)]
    assert told.lines[-1].startswith("Left out idle: idle (")


def test_that_cancelling_is_not_taken_for_the_end_of_the_time(net):
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        chosen(net, recipe(), EQUALIZE, cancel=token)


def test_that_pauses_do_not_count_in_a_time_box():
    now = [0.0]
    outer = CancelToken(clock=lambda: now[0])
    box = TimeBox(outer, 10, clock=lambda: now[0])
    now[0] = 4.0
    outer.pause()
    now[0] = 100.0
    outer.resume()
    assert not box.is_set()
    box.raise_if_set()
    now[0] = 106.5
    assert box.is_over
    with pytest.raises(JobCancelled):
        box.raise_if_set()
    assert not TimeBox(outer, 0).is_over
