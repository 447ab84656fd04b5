"""What became of a run, in one line for the list of jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantstudio.core.figures import counted, number, points, size
from quantstudio.core.quality import quality_of
from quantstudio.core.results import BuildResult, CompareResult
from quantstudio.core.search_results import SearchResult

# More of them fill the status line and tell less than their number.
PRECISIONS_NAMED = 3


def few(names: Iterable[str]) -> str:
    """One layer by name, several by their number."""
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"{len(listed)} layers"


def at_precisions(names: Sequence[str]) -> str:
    """A few precisions by name, behind the title of a job; more by their number."""
    if len(names) > PRECISIONS_NAMED:
        return f" at {len(names)} precisions"
    return f" at {', '.join(names)}" if names else ""


def measured_text(found: CompareResult, *, where: str) -> str:
    """The last variant of a measurement; `where` says what the samples were, if that matters."""
    last = found.variants[-1]
    parts = []
    quality = quality_of(last, is_base=len(found.variants) == 1)
    if quality is not None:
        name = quality.shown_name
        parts.append(f"{name[0].lower()}{name[1:]} {quality.text}")
    if last.speedup is not None:
        parts.append(f"{number(last.speedup.value, 2)}× the speed of FP32")
    parts.append(f"{found.samples} samples {where}".rstrip())
    return ", ".join(parts)


def search_text(found: SearchResult, name: str, build: BuildResult) -> str:
    """The plan a search chose."""
    figures = found.chosen.measured or found.chosen.predicted
    parts = [f"{name}: {size(build.size_bytes)}"]
    if figures.drop is not None:
        parts.append(points(-figures.drop))
    parts.append(f"{counted(found.builds, 'plan')} measured")
    return ", ".join(parts)
