"""Building from a recipe in one call, as tests of what is built like it."""

from __future__ import annotations

from typing import Any

from quantstudio.core.effective_plan import resolve
from quantstudio.engine.quantization import build
from quantstudio.engine.quantization import emit as emitter


def emit(graph, statistics, recipe):
    return emitter.emit(graph, statistics, resolve(recipe, graph.layers))


def emit_with_plan(graph, statistics, recipe):
    return emitter.emit_with_plan(graph, statistics, resolve(recipe, graph.layers))


def build_variant(graph, statistics, recipe, output, **options: Any):
    return build.build_variant(graph, statistics, resolve(recipe, graph.layers), output, **options)
