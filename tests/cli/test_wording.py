"""Hints as the command line says them, and how a task's errors leave the process."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from quantstudio.cli.main import app, invoke
from quantstudio.cli.wording import WORDS, worded
from quantstudio.core.errors import DataError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.samples import sample

NET = str(sample("digits_resnet").model)


def test_that_every_action_has_words() -> None:
    assert set(WORDS) == set(HintAction)


@pytest.mark.parametrize("action", HintAction)
def test_that_the_words_name_options_and_commands_there_are(action: HintAction) -> None:
    commands = getattr(get_command(app), "commands")  # noqa: B009  a group's, which its type does not tell
    options = {name for one in commands.values() for parameter in one.params for name in parameter.opts}
    words = WORDS[action]
    assert set(re.findall(r"--[a-z-]+|-o\b", words)) <= options
    assert set(re.findall(r"`quantstudio ([a-z]+)", words)) <= set(commands)


def test_that_words_stand_behind_the_sentence() -> None:
    assert worded(Hint("Choose data", HintAction.CHOOSE_DATA)) == "Choose data (--data FILE)"
    assert worded(Hint("Write it again.")) == "Write it again."
    assert worded(Hint()) == ""


def test_that_an_error_of_a_task_is_one_line_with_its_option(monkeypatch, capsys) -> None:
    def refuse(**_: object) -> None:
        raise DataError(
            "there is no data", where="step bias", hint=Hint("Choose data", HintAction.CHOOSE_DATA)
        )

    monkeypatch.setattr("quantstudio.engine.tasks.models.open_model", refuse)
    assert invoke(["inspect", NET]) == 2
    assert capsys.readouterr() == (
        "",
        "quantstudio: step bias: there is no data. Choose data (--data FILE).\n",
    )


def test_that_an_exit_call_in_the_user_s_code_is_a_fault_with_a_report(monkeypatch, capsys) -> None:
    def leave(**_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("quantstudio.engine.tasks.models.open_model", leave)
    assert invoke(["inspect", NET]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(r"SystemExit.*A report is in .*\.txt\n$", said.err)
