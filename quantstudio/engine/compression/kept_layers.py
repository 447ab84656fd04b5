"""Layers that are left as they are, by patterns of their names."""

from __future__ import annotations

from fnmatch import fnmatchcase

from quantstudio.core.errors import RecipeError
from quantstudio.engine.graph.graph import Graph


def kept_layers(graph: Graph, patterns: str, step: str) -> frozenset[str]:
    """Names of the layers that patterns match, by their own names or by what they are called.

    Args:
        graph: The graph.
        patterns: Separated by commas, with * for any text.
        step: Who asks, for the message.

    Raises:
        RecipeError: a pattern matches no layer.
    """
    found: set[str] = set()
    for pattern in (text.strip() for text in patterns.split(",")):
        if not pattern:
            continue
        matched = {
            name
            for name, title in graph.summary.titles.items()
            if fnmatchcase(name, pattern) or fnmatchcase(title, pattern)
        }
        if not matched:
            raise RecipeError(
                f"keep {pattern!r} matches no layer",
                where=f"step {step}",
                hint="Give names of layers as the model has them; * and ? stand for any characters",
            )
        found |= matched
    return frozenset(found)
