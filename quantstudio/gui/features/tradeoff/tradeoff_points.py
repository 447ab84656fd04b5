"""Dots of the trade-off from what the session knows: variants, the recipe as it is, the plans of a search."""

from __future__ import annotations

import math
from enum import StrEnum

from quantstudio.core import figures
from quantstudio.core.packing import plan_bits
from quantstudio.core.quality import METRIC_NAMES, SQNR, Quality, exact
from quantstudio.core.results import Interval
from quantstudio.core.search_results import PlanPoint, SearchBudget, SearchFront
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.plan_facts import figures_of, plan_lines, time_ratio
from quantstudio.gui.facts.variant_facts import contents_of, latency_of, quality_of, size_of, timing_text
from quantstudio.gui.plots.trade_off_dots import DotRole, Limits, TradeOffPoint
from quantstudio.gui.session import Session
from quantstudio.workspace.names import step_labels
from quantstudio.workspace.runs.searches import plan_name

PREDICTED_KEY = "predicted"
PLAN_KEY = "plan "
SMALL_BYTES = 2_000_000


class Cost(StrEnum):
    """What the horizontal axis shows."""

    SIZE = "size"
    LATENCY = "latency"
    BITS = "bits"


COST_NAMES = {
    Cost.SIZE: "size",
    Cost.LATENCY: "latency",
    Cost.BITS: "bits",
}


class TradeoffPoints:
    """Makes dots in the unit of one cost.

    Quality is the accuracy of FP32 as it was measured less what a plan loses: a search and a measurement look
    at different samples, on which FP32 itself is not equally good. Outputs that are not class scores have no
    accuracy: there it is the SQNR of the output in decibels, of which FP32 has no end.
    """

    def __init__(self, session: Session, cost: Cost, bits: dict[str, float]) -> None:
        """`bits` remembers the mean bits of recipes, by variant; empty it when the model changes."""
        self._session = session
        self._cost = cost
        self._bits = bits
        self._front: SearchFront | None = session.workspace.searches.front

    @property
    def axis(self) -> str:
        """Name of the horizontal axis with its unit."""
        unit, _ = self._unit
        return {
            Cost.SIZE: f"Model size ({unit})",
            Cost.LATENCY: "Latency p50 (ms)",
            Cost.BITS: "Average bits per weight",
        }[self._cost]

    @property
    def is_sqnr(self) -> bool:
        """Whether quality is the SQNR of the output."""
        return self._front is not None and not self._front.metric_name

    def all(self) -> list[TradeOffPoint]:
        """Every dot, the topmost first; empty without a measured one."""
        found = [
            *self._plans(),
            *(self._variant(variant) for variant in self._session.workspace.variants),
            self._base_of_search(),
        ]
        points = [point for point in found if point is not None]
        if not any(point.is_current for point in points):
            points += [point for point in (self._what_if(),) if point is not None]
        points.sort(key=lambda p: _ORDER.index(p.role))
        return points if any(not p.is_predicted for p in points) else []

    def limits(self, budget: SearchBudget | None) -> Limits:
        """What a budget allows, on these axes."""
        level = self._level
        if budget is None:
            return Limits()
        drop = budget.max_drop
        cost, text = self._cost_limit(budget)
        return Limits(
            cost=cost,
            quality=None if drop is None or level is None else level * 100 - drop,
            cost_text=f"at most {text}" if text else "",
            quality_text=f"at most {figures.number(drop, 2)} pp lost" if drop is not None else "",
        )

    def plan(self, key: str) -> PlanPoint | None:
        """The plan behind a key."""
        search, digest = self._session.workspace.searches, key.removeprefix(PLAN_KEY)
        return next((p for p in search.plans if search.key_of(p) == digest), None)

    # Levels and units.

    @property
    def _unit(self) -> tuple[str, float]:
        model = self._session.workspace.model
        is_small = model is not None and model.file_bytes < SMALL_BYTES
        return ("kB", 1e3) if is_small else ("MB", 1e6)

    @property
    def _level(self) -> float | None:
        """The quality of FP32, 0 to 1: measured in a comparison, else by the search."""
        base = self._session.workspace.base
        quality = quality_of(base) if base is not None else None
        name = self._front.metric_name if self._front is not None else ""
        if quality is not None and name in ("", quality.key):
            return quality.value.value
        return self._front.base_metric if self._front is not None else None

    def _cost_limit(self, budget: SearchBudget) -> tuple[float | None, str]:
        _, divisor = self._unit
        match self._cost:
            case Cost.SIZE if budget.max_size_bytes is not None:
                return budget.max_size_bytes / divisor, figures.size(budget.max_size_bytes)
            case Cost.BITS if budget.average_bits is not None:
                return budget.average_bits, f"{figures.number(budget.average_bits, 1)} bits"
            case Cost.LATENCY if budget.max_latency_ratio is not None:
                base_ms = self._base_ms
                ratio = min(budget.max_latency_ratio, 1.0)
                return (
                    (None, "")
                    if base_ms is None
                    else (ratio * base_ms, figures.milliseconds(ratio * base_ms))
                )
            case _:
                return None, ""

    @property
    def _base_ms(self) -> float | None:
        base, costs = self._session.workspace.base, self._session.workspace.costs
        latency = latency_of(base) if base is not None else None
        if latency is not None:
            return latency.value
        return costs.fp32_ms if costs is not None and costs.fp32_ms > 0 else None

    # Variants.

    def _variant(self, variant: Variant) -> TradeOffPoint | None:
        quality, cost = self._quality_of(variant), self._cost_of(variant)
        model = self._session.workspace.model
        if quality is None or cost is None or model is None:
            return None
        value = quality.value
        lines = [f"{quality.shown_name} {quality.text}"]
        lines.append(contents_of(variant, model.layers))
        if quality.has_interval:
            lines[0] += f"  [{quality.ends_text.replace(' to ', ', ')}]"
        lines.append(figures.size(size_of(variant, model.file_bytes)))
        latency = latency_of(variant)
        if latency is not None:
            lines += [figures.milliseconds(latency.value), timing_text(variant)]
        lines.append("measured" if variant.is_base else "measured — click to load this recipe")
        return TradeOffPoint(
            key=variant.key,
            name=variant.name,
            cost=cost,
            quality=value if self.is_sqnr else _percent(value),
            is_base=variant.is_base,
            is_current=variant.is_current,
            detail="\n".join(lines),
        )

    def _quality_of(self, variant: Variant) -> Quality | None:
        if not self.is_sqnr:
            return quality_of(variant)
        agreement = variant.result.agreement if variant.result is not None else None
        if variant.is_base or agreement is None or not math.isfinite(agreement.sqnr_db):
            return None
        return Quality(SQNR, METRIC_NAMES[SQNR], exact(agreement.sqnr_db), has_interval=False, base=math.inf)

    def _cost_of(self, variant: Variant) -> Interval | None:
        model = self._session.workspace.model
        if model is None:
            return None
        if self._cost is Cost.LATENCY:
            return latency_of(variant)
        if self._cost is Cost.SIZE:
            return exact(size_of(variant, model.file_bytes) / self._unit[1])
        bits = self._bits.get(variant.key)
        if bits is None:
            schemes = variant.recipe.schemes(model.layers)
            bits = self._bits[variant.key] = plan_bits(model.layers, schemes).average
        return exact(bits)

    def _base_of_search(self) -> TradeOffPoint | None:
        """FP32 by the search, until a comparison has measured it."""
        base, front = self._session.workspace.base, self._front
        if base is None or base.result is not None or front is None or front.base_metric is None:
            return None
        cost = _maybe(self._base_ms) if self._cost is Cost.LATENCY else self._cost_of(base)
        if cost is None:
            return None
        detail = f"{figures.percent(front.base_metric)} on the {figures.count(front.samples)} samples"
        quality = exact(front.base_metric * 100)
        return TradeOffPoint(base.key, base.name, cost, quality, is_base=True, detail=detail)

    def _what_if(self) -> TradeOffPoint | None:
        """The recipe as it is now, as a hollow diamond, until it has been measured."""
        session = self._session
        prediction, current = session.workspace.prediction, session.workspace.current_variant
        if self.is_sqnr or prediction is None or prediction.accuracy is None:
            return None
        cost = self._predicted_cost()
        if cost is None or (current is not None and current.result):
            return None
        accuracy = prediction.accuracy
        left_out = step_labels(prediction.left_out, session.workspace.steps)
        return TradeOffPoint(
            key=PREDICTED_KEY,
            name="this recipe, predicted",
            cost=exact(cost),
            quality=_percent(accuracy),
            is_current=True,
            is_predicted=True,
            detail=f"{figures.percent(accuracy.value)} {figures.predicted(left_out)}\nmeasure to know",
        )

    def _predicted_cost(self) -> float | None:
        prediction = self._session.workspace.prediction
        if prediction is None:
            return None
        if self._cost is Cost.LATENCY:
            return prediction.latency_ms
        if self._cost is Cost.SIZE:
            return prediction.size_bytes / self._unit[1] if prediction.size_bytes is not None else None
        layers = self._session.workspace.layers
        return plan_bits(layers, self._session.workspace.recipe.schemes(layers)).average

    # Plans of the search.

    def _plans(self) -> list[TradeOffPoint]:
        search = self._session.workspace.searches
        if self._front is None:
            return []
        chosen = search.chosen
        drawn = {v.key for v in self._session.workspace.variants if v.result is not None}
        listed = [(point, DotRole.FRONT) for point in self._front.front]
        listed += [(point, DotRole.TRIED) for point in self._front.tried]
        if chosen is not None:
            listed.insert(0, (chosen, DotRole.CHOSEN))
        seen: set[tuple[str, bool]] = set()
        found: list[TradeOffPoint] = []
        for point, role in listed:
            # The line goes through every point of the front; other dots stand in a place once.
            digest = search.key_of(point)
            mark = (digest, role is DotRole.FRONT)
            is_variant = role is not DotRole.FRONT and digest in drawn
            dot = None if mark in seen or is_variant else self._plan(point, role)
            seen.add(mark)
            if dot is not None:
                found.append(dot)
        return found

    def _plan(self, point: PlanPoint, role: DotRole) -> TradeOffPoint | None:
        cost, quality = self._cost_of_plan(point), self._quality_of_plan(point)
        if cost is None or quality is None:
            return None
        known = self._session.workspace
        variant = known.variant_of(point.recipe)
        return TradeOffPoint(
            key=PLAN_KEY + self._session.workspace.searches.key_of(point),
            name=plan_name(point, is_chosen=role is DotRole.CHOSEN),
            cost=exact(cost),
            quality=exact(quality),
            is_current=role is DotRole.FRONT and point.recipe == self._session.workspace.recipe,
            is_predicted=point.measured is None,
            detail="\n".join([*plan_lines(point, known.steps, variant), "click to load this plan"]),
            role=role,
            is_named=role is DotRole.CHOSEN or (role is DotRole.TRIED and bool(point.name)),
        )

    def _quality_of_plan(self, point: PlanPoint) -> float | None:
        plan, level = figures_of(point), self._level
        if self.is_sqnr:  # their divergence is noise power over signal power
            return -10 * math.log10(plan.kl) if math.isfinite(plan.kl) and plan.kl > 0 else None
        return None if level is None or plan.drop is None else max(0.0, level * 100 - plan.drop)

    def _cost_of_plan(self, point: PlanPoint) -> float | None:
        plan = figures_of(point)
        match self._cost:
            case Cost.SIZE:
                return None if plan.size_bytes is None else plan.size_bytes / self._unit[1]
            case Cost.BITS:
                return plan.average_bits
            case _:
                variant = self._session.workspace.variant_of(point.recipe)
                ratio = time_ratio(point, variant) or point.predicted.latency_ratio
                base_ms = self._base_ms
                return point.latency_ms if ratio is None or base_ms is None else ratio * base_ms


_ORDER = (DotRole.CHOSEN, DotRole.VARIANT, DotRole.TRIED, DotRole.FRONT)


def _maybe(value: float | None) -> Interval | None:
    return None if value is None else exact(value)


def _percent(share: Interval) -> Interval:
    return Interval(share.value * 100, share.low * 100, share.high * 100)
