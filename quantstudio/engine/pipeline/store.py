"""What steps made, kept by what they made it from: an ended run goes on behind the last finished step.

    steps/KEY.json    what one step did and which graph came of it; the graph itself lies in graphs/

KEY is the SHA-256 of all the step's inputs. Nothing is believed: a graph that is missing or altered is made
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.files import write_text
from quantstudio.core.folders import cache_folder, cache_root, is_cached
from quantstudio.core.keeping import kept_if_possible
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.cache import read_graph, read_summary
from quantstudio.engine.pipeline.context import StepOutcome

_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: str
    summary: str
    details: dict[str, Any]
    seconds: float


class StepStore:
    """Finished steps on disk.

    Args:
        folder: Where they lie; None for the cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_root() / "steps"

    def find(self, key: str) -> tuple[StepOutcome, float] | None:
        """What the step did and the seconds it took, or None."""
        path = self._path(key)
        try:
            entry = from_json(_Entry, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, CodecError):
            return None
        graph_path = cache_root() / "graphs" / f"{entry.digest}.onnx"
        model, summary = read_graph(graph_path), read_summary(graph_path)
        if model is None or summary is None:
            return None
        return StepOutcome(Graph(model, summary), entry.summary, entry.details), entry.seconds

    def put(self, key: str, outcome: StepOutcome, seconds: float) -> None:
        """Keep what a step did; where its folder cannot be written that is logged, and it is run again."""
        entry = _Entry(outcome.graph.digest, outcome.summary, dict(outcome.details), seconds)
        with kept_if_possible("finished steps"):
            if is_cached(self._folder):
                cache_folder("steps")
            write_text(self._path(key), json.dumps(to_json(entry), indent=1, ensure_ascii=False) + "\n")

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def step_key(inputs: Mapping[str, Any]) -> str:
    """The key of a step from all that decides what it makes, as JSON values."""
    text = json.dumps({"store": _VERSION, **inputs}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
