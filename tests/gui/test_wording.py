"""Hints of the engine, as the window shows them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import quantstudio
from quantstudio.gui.wording import window_hint

_COMMAND_LINE = re.compile(r"`|--[a-z]")
_FOLDERS = ("core", "engine", "project", "jobs", "report")


def _hints_that_name_the_command_line() -> list[str]:
    root = Path(quantstudio.__file__).parent
    texts = [
        part.value
        for folder in _FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "hint"
        for part in ast.walk(keyword.value)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    return sorted({text for text in texts if _COMMAND_LINE.search(text)})


@pytest.mark.parametrize("hint", _hints_that_name_the_command_line())
def test_that_the_window_says_every_hint_without_the_command_line(hint: str) -> None:
    assert not _COMMAND_LINE.search(window_hint(hint))


def test_that_other_words_of_a_hint_stay() -> None:
    assert (
        window_hint("Run `quantstudio inspect MODEL` for the layer names, or use a pattern with *")
        == "The layer table lists the names, or use a pattern with *"
    )
    assert window_hint("Open a model first") == "Open a model first"
