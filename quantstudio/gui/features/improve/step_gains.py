"""What each step is measured to gain, in words for its block, and as levels for the waterfall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantstudio.core import figures
from quantstudio.core.quality import SHORT_NAMES, Quality, loss_text
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.variant_facts import change_text, quality_of
from quantstudio.gui.plots.waterfall import Level
from quantstudio.jobs.rows import JobRow
from quantstudio.workspace.runs.improvement import Stage
from quantstudio.workspace.workspace import Workspace

OFF = "switched off"
UNKNOWN = "gain not measured"


@dataclass(frozen=True, slots=True)
class StepGain:
    """The third line of a block.

    Attributes:
        text: "+71.90 pp", "switched off", "4 of 20 layers".
        colour: Name of its colour in the theme.
        progress: How far the step is while it runs: 0 to 1, or -1 while nobody knows; else None.
        tip: What the text comes from.
    """

    text: str
    colour: str = "muted"
    progress: float | None = None
    tip: str = ""


def gains_of(workspace: Workspace) -> list[StepGain]:
    """A line for every step of the recipe."""
    improvement = workspace.improvement
    stages, running, row = improvement.stages, improvement.running_step, workspace.jobs.running
    lines: list[StepGain] = []
    place = 0
    for step in workspace.recipe.steps:
        if not step.is_on:
            lines.append(StepGain(OFF, "faint"))
            continue
        if running == place and row is not None:
            lines.append(_running(row))
        else:
            lines.append(_gain(stages[place], stages[place + 1]))
        place += 1
    return lines


def plan_line(workspace: Workspace) -> tuple[str, float | None]:
    """What came of the whole plan, and how far its building is while it runs."""
    improvement, row, variant = workspace.improvement, workspace.jobs.running, workspace.current_variant
    stages = improvement.stages
    is_running = improvement.running_step == len(stages) - 1 and row is not None
    if variant is None or variant.build is None:
        result = "not built yet"
    else:
        text = change_text(variant) if quality_of(variant) is not None else ""
        parts = (figures.size(variant.build.size_bytes), text.partition("  ")[0])
        result = ", ".join(part for part in parts if part and part != figures.NOTHING)
    return result, _fraction(row) if is_running and row is not None else None


def _running(row: JobRow) -> StepGain:
    is_counted = bool(row.total) and row.unit != "steps"
    text = f"{row.done} / {row.total} {row.unit}" if is_counted else "running"
    return StepGain(text, "accent", _fraction(row) if is_counted else -1.0, row.label)


def _fraction(row: JobRow) -> float:
    return -1.0 if row.fraction is None else row.fraction


def _gain(before: Stage, now: Stage) -> StepGain:
    first, then = _change(before.variant), _change(now.variant)
    if first is None or then is None:
        return StepGain(UNKNOWN, "faint", tip="Measure each step to see what this one gains.")
    gained, unit = then[0] - first[0], then[1]
    colour = "ok" if gained > 0 else "bad" if gained < 0 else "muted"
    ends = loss_text(-first[0], unit), loss_text(-then[0], unit)
    tip = f"Measured: {ends[0]} against FP32 before it, {ends[1]} behind it."
    return StepGain(loss_text(-gained, unit), colour, tip=tip)


def _change(variant: Variant | None) -> tuple[float, str] | None:
    """What is won against FP32, and its unit; None where that was not measured."""
    found: Quality | None = quality_of(variant) if variant is not None else None
    return None if found is None or found.loss is None else (-found.loss.value, found.unit)


def levels_of(base: Variant | None, stages: Sequence[Stage]) -> tuple[Level, ...]:
    """FP32, the plan as rounded, and what comes behind each step."""
    quality = quality_of(base) if base is not None else None
    levels = [Level("FP32", None if quality is None else 0.0, quality.text if quality else "")]
    before = 0.0
    for number, stage in enumerate(stages):
        change = _change(stage.variant)
        label = "as rounded" if number == 0 else stage.label
        if change is None:
            levels.append(Level(label, None, ""))
            continue
        levels.append(Level(label, change[0], figures.number(change[0] - before, 2, signed=True)))
        before = change[0]
    return tuple(levels)


def axis_of(stages: Sequence[Stage]) -> str:
    """What the waterfall draws: "Top-1 accuracy against FP32 (points)"."""
    for stage in stages:
        found = quality_of(stage.variant) if stage.variant is not None else None
        if found is not None and found.loss is not None:
            # Of a perplexity the likelihood is drawn: it rises where things improve.
            return f"{SHORT_NAMES.get(found.key, found.name)} against FP32 ({found.unit})"
    return "Against FP32"


def story_of(stages: Sequence[Stage]) -> tuple[str, ...]:
    """The whole in a line, then in shorter ones; empty while its ends are not measured."""
    first, last = stages[0], stages[-1]
    ends = _change(first.variant), _change(last.variant)
    if last.variant is None or last.variant.build is None or ends[1] is None:
        return ()
    measured = loss_text(-ends[1][0], ends[1][1])
    if len(stages) == 1 or ends[0] is None:
        parts = [f"{measured} against FP32"]
    else:
        parts = [f"As rounded {loss_text(-ends[0][0], ends[0][1])}, behind the steps {measured}"]
    seconds = sum(step.seconds for step in last.variant.build.steps)
    if last.variant.build.steps:
        parts.append(f"the steps took {figures.number(seconds, 1)} s")
    parts.append(f"file {figures.size(last.variant.build.size_bytes)}")
    if last.variant.result is not None:
        parts.append(f"measured on {figures.counted(last.variant.result.samples, 'sample')}")
    return tuple(" · ".join(parts[:count]) for count in range(len(parts), 0, -1))
