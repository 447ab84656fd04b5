"""What a view says about one plan of a search: its figures as text, and how they came about."""

from __future__ import annotations

from collections.abc import Sequence

from quantstudio.core import figures
from quantstudio.core.search_results import PlanFigures, PlanPoint
from quantstudio.core.steps import StepInfo
from quantstudio.core.variants import Variant
from quantstudio.workspace.names import step_labels


def figures_of(point: PlanPoint) -> PlanFigures:
    """Measured figures where there are any, else predicted ones."""
    return point.measured or point.predicted


def change_text(plan: PlanFigures) -> str:
    """Points against FP32: "−0.25 pp", or the least that is lost: "> 20.4 pp lost"."""
    if plan.drop is None and plan.drop_over is not None:
        return figures.more_lost(plan.drop_over)
    return figures.NOTHING if plan.drop is None else figures.points(-plan.drop)


def time_ratio(point: PlanPoint, variant: Variant | None) -> float | None:
    """Time over FP32's: of the variant it became, once measured; before, as the search timed or predicted it.

    Args:
        point: The plan.
        variant: What was built of it, if anything.
    """
    result = variant.result if variant is not None else None
    if result is not None and result.speedup is not None and result.speedup.value > 0:
        return 1 / result.speedup.value
    return figures_of(point).latency_ratio


def ratio_text(ratio: float | None) -> str:
    """Time against FP32: "0.45×"."""
    return figures.NOTHING if ratio is None else figures.ratio(ratio)


def size_text(size_bytes: int | None) -> str:
    """Bytes, or a dash where nobody knows."""
    return figures.NOTHING if size_bytes is None else figures.size(size_bytes)


def state_text(point: PlanPoint) -> str:
    """How its figures came about."""
    return "measured" if point.measured is not None else "predicted"


def plan_lines(point: PlanPoint, steps: Sequence[StepInfo] = (), variant: Variant | None = None) -> list[str]:
    """All figures of a plan, for a tip.

    Args:
        point: The plan.
        steps: What is known of steps, for their names in menus.
        variant: What was built of it, if anything.
    """
    plan = figures_of(point)
    predicted = figures.predicted(step_labels(point.predicted.left_out, steps))
    source = f"measured on {figures.count(plan.samples)} samples" if point.measured else predicted
    lines = [f"{change_text(plan)} against FP32, {source}"]
    if point.measured is not None and change_text(point.predicted) != figures.NOTHING:
        lines.append(f"{change_text(point.predicted)} was {predicted}")
    if plan.metric_low is not None and plan.metric_high is not None:
        low, high = figures.percent(plan.metric_low), figures.percent(plan.metric_high)
        lines.append(f"accuracy there [{low}, {high}]")
    lines.append(f"{figures.number(plan.average_bits, 2)} bits per weight, {size_text(plan.size_bytes)} file")
    ratio = time_ratio(point, variant)
    timed = f", {ratio_text(ratio)} the time of FP32" if ratio is not None else ""
    lines.append(f"KL {figures.significant(plan.kl)}{timed}")
    return lines
