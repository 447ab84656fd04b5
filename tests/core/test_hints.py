"""Hints: words that need no interface, and an action each interface offers in its own way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import quantstudio
from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.errors import DataError
from quantstudio.core.events import ErrorInfo
from quantstudio.core.hints import NO_HINT, Hint, HintAction, as_hint

ROOMS = ("core", "engine", "jobs", "project", "report", "workspace")
TELLS = {"hint", "notify", "Hint", "Notification"}
COMMANDS = "gui|demo|inspect|data|calibrate|sensitivity|quantize|recover|search|compare|run|report|devices"
# An option, a command, an entry of a menu.
INTERFACE = re.compile(
    rf"--[a-z]|`({COMMANDS})\b|\bquantstudio ({COMMANDS})|\b(File|Edit|View|Model|Plan|Run|Help), [A-Z]"
)


def said(tree: ast.AST) -> Iterator[str]:
    """Every text of an error that is raised, of a hint and of a notification."""
    for node in ast.walk(tree):
        is_told = isinstance(node, ast.Raise) or (
            isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TELLS
        )
        if is_told or (isinstance(node, ast.keyword) and node.arg == "hint"):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


@pytest.mark.parametrize("room", ROOMS)
def test_that_no_error_names_an_option_a_command_or_a_menu(room: str) -> None:
    folder = Path(quantstudio.__file__).parent / room
    found = {
        f"{path.relative_to(folder)}: {text}"
        for path in folder.rglob("*.py")
        for text in said(ast.parse(path.read_text(encoding="utf-8")))
        if INTERFACE.search(text)
    }
    assert found == set(), "say it without an interface and give the hint an action (core/hints.py)"


@pytest.mark.parametrize(
    "code",
    [
        'raise DataError("x", hint="Choose data: --data")',
        'raise DataError("run `quantize` first")',
        'hint = f(hint="Run quantstudio inspect MODEL")',
        'known.notify(level, "no data", "Choose data with Model, Data")',
        'Hint("Files that `quantize` and Export write")',
    ],
)
def test_that_each_offence_is_seen(code: str) -> None:
    assert any(INTERFACE.search(text) for text in said(ast.parse(code)))


def test_that_words_alone_are_a_hint_without_an_action() -> None:
    error = DataError("no labels", hint="Add labels")
    assert error.hint == Hint("Add labels") == as_hint("Add labels")
    assert error.hint.action is None
    assert bool(error.hint)
    assert not DataError("no labels").hint


def test_that_a_message_holds_the_words_alone() -> None:
    error = DataError("there is no data", hint=Hint("Choose data", HintAction.CHOOSE_DATA))
    assert str(error) == "there is no data. Choose data."


def test_that_a_hint_crosses_processes_with_its_action() -> None:
    info = ErrorInfo("DataError", "there is no data", hint=Hint("Choose data", HintAction.CHOOSE_DATA))
    assert to_json(info)["hint"] == {"text": "Choose data", "action": "choose_data"}
    assert from_json(ErrorInfo, to_json(info)) == info
    assert from_json(ErrorInfo, to_json(ErrorInfo("DataError", "there is no data"))).hint == NO_HINT


def test_that_an_event_of_an_older_version_is_read() -> None:
    old = {"kind": "DataError", "what": "there is no data", "where": "", "hint": "Choose data"}
    assert from_json(ErrorInfo, old).hint == Hint("Choose data")


def test_that_an_unknown_action_is_refused_with_its_path() -> None:
    with pytest.raises(CodecError, match=r"\$\.hint\.action"):
        from_json(ErrorInfo, {"kind": "x", "what": "y", "hint": {"text": "z", "action": "dance"}})
