"""Whether measured plans keep the bounds of a search, and which bound stands in the way where none does."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantstudio.core.errors import RecipeError
from quantstudio.core.predict.kl_model import KlModel
from quantstudio.core.search_results import SearchBudget
from quantstudio.engine.pipeline.discovery import step_infos
from quantstudio.engine.search.allocation import CLASS_DROP, InfeasibleBudgetError, Quantity
from quantstudio.engine.search.measure import ClassDrop
from quantstudio.engine.search.request import Tried
from quantstudio.engine.search.workbench import Workbench

# Deviations of the loss, single plans differing, that a bound on accuracy keeps clear of; where test data has
# the last word, where it starts looking.
SAFE, BOLD = 0.65, -0.35
DROP = "accuracy drop, points"


class Verdicts:
    """What measured plans keep.

    Args:
        bench: The plans.
        budget: The bounds.
        largest_noise: Largest KL, which is noise over signal, where no drop is bounded.
    """

    def __init__(self, bench: Workbench, budget: SearchBudget, largest_noise: float | None) -> None:
        self.bench, self.budget, self.largest_noise = bench, budget, largest_noise

    def kl_cap(self) -> float | None:
        """The largest KL that keeps the drop, with room to spare unless test data has the last word."""
        drop = self.budget.max_drop
        if drop is None:
            return self.largest_noise
        law = self.bench.law()
        # Half a sample cannot be counted, and a drop of exactly nothing would leave FP32 alone.
        drop = max(drop / 100, 0.5 / self.bench.judge.base.samples)
        return law.largest_kl(drop, BOLD if self.bench.has_test_data else SAFE) if law else None

    def drop_at(self, kl: float) -> float:
        """Points a plan of a measured KL is expected to lose, with room to spare."""
        law = self.bench.law()
        return 100 * law.drop(kl, SAFE) if law is not None else math.nan

    def holds(self, one: Tried) -> bool:
        """Whether a measured plan keeps every bound, latency and test data apart."""
        return self.keeps_costs(one) and self.keeps_drop(one)

    def keeps_costs(self, one: Tried) -> bool:
        """Whether a measured plan keeps pins and every bound on bytes and bits."""
        space, budget = self.bench.space, self.budget
        if not space.keeps_pins(one.schemes) or not math.isfinite(one.measurement.kl):
            return False
        totals = space.totals(one.schemes, KlModel())
        checks = (
            (totals[Quantity.AVERAGE_BITS], budget.average_bits),
            (totals[Quantity.SHARE_ABOVE_8], budget.max_share_above_8),
            (one.size_bytes, budget.max_size_bytes),
        )
        return all(bound is None or value <= bound * (1 + 1e-9) + 1e-12 for value, bound in checks)

    def keeps_drop(self, one: Tried) -> bool:
        """Whether the drop is kept twice: as counted on the samples, and as the measured KL implies.

        A few hundred samples know an accuracy to a point or so: a plan may look harmless by luck.
        """
        limit, cap = self.budget.max_drop, self.kl_cap()
        counted = one.measurement.drop
        if limit is not None and counted is not None and counted.value > limit + 1e-9:
            return False
        return cap is None or one.measurement.kl <= cap * (1 + 1e-9)

    def loss_reason(self, one: Tried) -> str:
        """Why a measured plan loses too much, with the figure; empty where it does not as far as is known."""
        limit, class_limit, counted = self.budget.max_drop, self.budget.class_drop, one.measurement.drop
        if limit is not None and counted is not None and counted.value > limit + 1e-9:
            return f"{counted.value:.2f} points on {one.measurement.samples} samples"
        if not self.keeps_drop(one):
            expected = self.drop_at(one.measurement.kl)
            return f"up to {expected:.2f} points expected" if expected == expected else "too noisy"
        if one.test is not None and not self.keeps_drop_on_test(one) and one.test.drop is not None:
            others = "test samples" if self.bench.has_test_data else "samples that no step was fitted to"
            return f"{one.test.drop.value:.2f} points on {one.test.samples} {others}"
        if class_limit is not None and not self.keeps_known_classes(one):
            broken = [own for own in self.bench.judge_classes(one).classes if own.breaks(class_limit)]
            worst = max(broken, key=lambda own: own.drop.value)
            return f"class {worst.name} loses {worst.drop.value:.2f} points of its {worst.samples} samples"
        return ""

    def flattery(self, one: Tried) -> str:
        """That steps were fitted on the samples a plan was judged on; "" where others had the last word."""
        fitted = {info.name for info in step_infos() if info.uses_data}
        if self.bench.judges_apart or not any(s.is_on and s.name in fitted for s in one.recipe.steps):
            return ""
        return (
            "Its steps were fitted on samples it was judged on, so others may lose more: search with test "
            "data, or compare the file on it."
        )

    def worst_class_note(self, worst: ClassDrop) -> str:
        """What the class that loses most loses; above its bound, why the plan holds all the same."""
        limit = self.budget.class_drop
        above = limit is not None and worst.drop.value > limit
        return (
            f"Class {worst.name} loses most: {worst.drop.value:.2f} points of its {worst.samples} samples "
            f"(95 % interval {worst.drop.low:.2f} to {worst.drop.high:.2f}"
            + (f"; above the bound of {limit:g}, but by no more than chance)." if above else ").")
        )

    def keeps_latency(self, one: Tried) -> bool:
        """Whether a timed plan keeps the bound on the time."""
        ratio = self.budget.max_latency_ratio
        return ratio is None or (one.latency_ratio is not None and one.latency_ratio <= ratio)

    def keeps_drop_on_test(self, one: Tried) -> bool:
        """Whether the test data agrees; measures the plan there."""
        drop = self.bench.judge_on_test(one).drop
        return self.budget.max_drop is None or drop is None or drop.value <= self.budget.max_drop + 1e-9

    def keeps_known_drop(self, one: Tried) -> bool:
        """As `keeps_drop_on_test`, by what was measured there."""
        return one.test is None or self.keeps_drop_on_test(one)

    def keeps_classes(self, one: Tried) -> bool:
        """Whether no class loses more than its bound, beyond chance; measures the plan for it."""
        limit = self.budget.class_drop
        if limit is None:
            return True
        return not any(own.breaks(limit) for own in self.bench.judge_classes(one).classes)

    def keeps_known_classes(self, one: Tried) -> bool:
        """As `keeps_classes`, by what was measured for it."""
        return (one.test is None and one.by_class is None) or self.keeps_classes(one)

    def nearest(self) -> InfeasibleBudgetError:
        """The bound measured plans break, and the nearest value among them.

        Raises:
            RecipeError: outputs are no class scores and all plans are too noisy.
        """
        plans: Sequence[Tried] = [one for one in self.bench.tried.values() if self.keeps_costs(one)]
        if self.largest_noise is not None and plans:
            least = min(one.measurement.kl for one in plans)
            raise RecipeError(
                f"no plan keeps 20 dB of signal over noise; the nearest keeps {_decibels(least):.1f} dB",
                hint="Bound the size, the average bits or the latency instead",
            )
        limit, ratio, size = self.budget.max_drop, self.budget.max_latency_ratio, self.budget.max_size_bytes
        if not plans and size is not None:
            smallest = min(one.size_bytes for one in self.bench.tried.values())
            return InfeasibleBudgetError(Quantity.FILE_BYTES, size, smallest)
        slow = [one.latency_ratio for one in plans if self.keeps_drop(one) and one.latency_ratio is not None]
        if ratio is not None and slow and min(slow) > ratio:
            return InfeasibleBudgetError(Quantity.LATENCY_RATIO, ratio, min(slow))
        kept = [one for one in plans if self.keeps_drop(one) and self.keeps_known_drop(one)]
        if kept and self.budget.class_drop is not None:
            worst = [own.drop.value for one in kept if (own := self.bench.judge_classes(one).worst)]
            return InfeasibleBudgetError(CLASS_DROP, self.budget.class_drop, min(worst, default=math.nan))
        drops = [self._worst_drop(one) for one in plans]
        return InfeasibleBudgetError(
            DROP, limit if limit is not None else 0.0, min(drops, default=float("nan"))
        )

    def _worst_drop(self, one: Tried) -> float:
        counted = self.bench.judge_on_test(one).drop
        return max(counted.value if counted else 0.0, self.drop_at(one.measurement.kl))


def _decibels(noise: float) -> float:
    return -10 * math.log10(max(noise, 1e-30))
