"""Steps as data, and settings checked against what is known of a step."""

from __future__ import annotations

import json
import math

import pytest

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.steps import (
    Need,
    SettingInfo,
    SettingType,
    Step,
    StepInfo,
    changing_steps,
    completed_steps,
    steps_before,
    with_outcomes,
)

INFO = StepInfo(
    "round",
    "Learned rounding",
    "Chooses for every weight whether it is rounded up or down.",
    "Nagel et al. 2020, arXiv:2004.10568, eq. 25",
    (Need.DATA, Need.GRADIENTS, Need.SEED),
    settings=(
        SettingInfo("rounds", "Rounds", SettingType.INT, 100, 1, 1000, "rounds"),
        SettingInfo("rate", "Learning rate", SettingType.FLOAT, 0.5, 0.0, None),
        SettingInfo("mode", "Order", SettingType.CHOICE, "layer", choices=("layer", "block")),
        SettingInfo("warm", "Warm start", SettingType.BOOL, default=False),
        SettingInfo("tag", "Tag", SettingType.TEXT, ""),
    ),
)


def test_that_equal_steps_are_one_in_a_set_whatever_the_order_of_their_settings() -> None:
    one = Step("round", {"rate": 1.0, "rounds": 5})
    other = Step("round", {"rounds": 5.0, "rate": 1})
    assert one == other
    assert len({one, other, Step("round", {"rounds": 5})}) == 2
    assert one.text == other.text == '["round",{"rate":1,"rounds":5}]'
    assert one != Step("round", {"rate": 1, "rounds": 5}, is_on=False)


def test_that_true_is_not_one() -> None:
    assert Step("round", {"warm": True}) != Step("round", {"warm": 1})


def test_that_a_step_survives_json() -> None:
    step = Step("round", {"rate": 0.25, "rounds": 5, "mode": "block", "warm": True}, is_on=False)
    assert from_json(Step, json.loads(json.dumps(to_json(step)))) == step
    assert from_json(StepInfo, json.loads(json.dumps(to_json(INFO)))) == INFO


def test_that_the_settings_of_a_step_cannot_be_changed_in_place() -> None:
    given = {"rounds": 5}
    step = Step("round", given)
    given["rounds"] = 6
    assert step.settings["rounds"] == 5
    with pytest.raises(TypeError):
        step.settings["rounds"] = 7  # type: ignore[index]


@pytest.mark.parametrize("value", [None, [1], math.inf], ids=["null", "a list", "infinity"])
def test_that_a_setting_is_a_plain_value(value: object) -> None:
    with pytest.raises(CodecError, match="rounds"):
        from_json(Step, {"name": "round", "settings": {"rounds": value}})


def test_that_completing_fills_in_defaults_in_their_own_types() -> None:
    completed = INFO.completed(Step("round", {"rate": 2, "rounds": 5}, is_on=False))
    assert dict(completed.settings) == {"rounds": 5, "rate": 2, "mode": "layer", "warm": False, "tag": ""}
    assert not completed.is_on


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        pytest.param(
            {"rounds": 0},
            "step round: setting 'rounds': 0 is not a whole number from 1 to 1000. "
            "Give a whole number from 1 to 1000.",
            id="too small",
        ),
        pytest.param({"rounds": 1.5}, "1.5 is not a whole number from 1 to 1000", id="a part"),
        pytest.param({"rate": -1}, "-1 is not a number of at least 0", id="negative"),
        pytest.param({"mode": "all"}, "'all' is not one of layer, block", id="no choice"),
        pytest.param({"warm": 1}, "1 is not true or false", id="a number for a switch"),
        pytest.param({"tag": 1}, "1 is not a text", id="a number for a text"),
        pytest.param({"rounds": True}, "True is not a whole number", id="a switch for a number"),
        pytest.param(
            {"speed": 1},
            "step round: the step has no setting 'speed'. Its settings: rounds, rate, mode, warm, tag.",
            id="unknown",
        ),
    ],
)
def test_that_a_wrong_setting_says_what_where_and_what_to_do(settings: dict, text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        INFO.completed(Step("round", settings))
    assert text in caught.value.one_line


def test_that_an_unknown_step_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"there is no step 'melt'. Known steps: round."):
        completed_steps((Step("round"), Step("melt")), (INFO,))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rounds", "7", 7),
        ("rate", "1e-3", 0.001),
        ("mode", "block", "block"),
        ("warm", "True", True),
        ("tag", "7", "7"),
    ],
)
def test_that_settings_are_read_from_a_command_line(name: str, text: str, value: object) -> None:
    assert INFO.setting(name).parsed(text) == value


def test_that_a_text_that_is_no_number_is_refused_on_the_command_line() -> None:
    with pytest.raises(ValueError, match="'many' is not a whole number from 1 to 1000"):
        INFO.setting("rounds").parsed("many")


STEPS = (
    StepInfo("equalize", "Equalize", "", keeps_outputs=True),
    StepInfo("prune", "Prune", ""),
    StepInfo("bias", "Correct biases", "", needs=(Need.DATA, Need.PLAN)),
)


@pytest.mark.parametrize(
    ("names", "before"),
    [
        (["equalize", "prune", "bias"], ["equalize", "prune"]),
        (["bias", "equalize"], []),
        (["equalize", "unknown", "prune"], ["equalize"]),
        ([], []),
    ],
)
def test_that_the_steps_before_precisions_end_at_the_first_that_looks_or_that_nobody_knows(
    names: list[str], before: list[str]
) -> None:
    found = steps_before([Step(name) for name in names], STEPS)
    assert [step.name for step in found] == before


def test_that_a_step_that_is_off_holds_nothing_up() -> None:
    steps = (Step("bias", is_on=False), Step("equalize"))
    assert steps_before(steps, STEPS) == (Step("equalize"),)


def test_that_only_steps_that_keep_outputs_change_nothing() -> None:
    assert changing_steps([Step("equalize"), Step("prune"), Step("unknown")], STEPS) == ("prune", "unknown")


def test_that_steps_take_over_the_settings_that_give_what_came_of_them() -> None:
    steps = [Step("round", {"rounds": 7}), Step("round", is_on=False), Step("round"), Step("unknown")]
    whole = dict(INFO.completed(Step("round")).settings)
    found = with_outcomes(steps, [{**whole, "rounds": 7}, {**whole, "rounds": 3}], [INFO])
    assert found == (steps[0], steps[1], Step("round", {"rounds": 3}), steps[3])
    assert with_outcomes(steps, [], [INFO]) == tuple(steps)
