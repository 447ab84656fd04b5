"""A text every Python has: what the standard library says of itself, module by module."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_LEFT_OUT = ("site-packages", "test", "tests", "idlelib", "lib2to3")


def documentation() -> Iterator[str]:
    """The docstrings of each module of the standard library, in the order of their names."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if any(part in _LEFT_OUT for part in path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        text = "\n\n".join(one for one in found if one)
        if text:
            yield text + "\n\n"
