"""The walls inside the code: no import circle, no module too long to read, no function too long to follow.

import-linter holds which room may import which (`pyproject.toml`); what it cannot say is counted here. Each
list of exceptions can only shrink: an entry that is no longer true fails, too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import quantstudio

PACKAGE = Path(quantstudio.__file__).parent
MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 80

# Circles that are left, each as the set of its modules. Delete an entry with the circle.
CIRCLES: set[frozenset[str]] = set()

# Modules over MAX_MODULE_LINES and functions over MAX_FUNCTION_LINES that are left.
LONG_MODULES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package by the name of its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def imports(name: str) -> set[str]:
    """Modules of the package that one imports anywhere: at the top, for type checkers, in a function."""
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in modules() else node.module for one in inner}
    return found & modules().keys() - {name}


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that reach each other (strongly connected, two or more)."""
    left = dict(edges)
    while ends := {name for name, ahead in left.items() if not ahead & left.keys()}:
        left = {name: ahead for name, ahead in left.items() if name not in ends}
    reached = {start: reach(start, left) for start in left}
    found = {frozenset({one} | {two for two in reached[one] if one in reached[two]}) for one in left}
    return {circle for circle in found if len(circle) > 1}


def reach(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        new = edges[ahead.pop()] & edges.keys() - seen
        seen |= new
        ahead += new
    return seen


def functions(name: str) -> Iterator[tuple[str, int]]:
    """Each function of a module, "module:function", with its length in lines, decorators left out."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1


def test_that_no_modules_import_each_other() -> None:
    assert circles({name: imports(name) for name in modules()}) == CIRCLES


def test_that_a_circle_is_found_whatever_way_it_is_hidden() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set[str]()}
    assert circles(edges) == {frozenset("abc")}


def test_that_every_module_can_be_read_in_one_go() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == LONG_MODULES


def test_that_every_function_can_be_followed() -> None:
    long = {key for name in modules() for key, lines in functions(name) if lines > MAX_FUNCTION_LINES}
    assert long == LONG_FUNCTIONS
