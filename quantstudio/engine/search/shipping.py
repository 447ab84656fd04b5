"""What counts of a plan when it ships: the bytes of its file, then the time it takes, then what it loses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from quantstudio.core import figures
from quantstudio.core.aim import Aim
from quantstudio.core.precision import Precision
from quantstudio.engine.search.candidates import auto_candidates
from quantstudio.engine.search.judged import LOSS_RATIO, NEGLIGIBLE_KL, SAME_SIZE, SAME_SPEED
from quantstudio.engine.search.request import Tried
from quantstudio.engine.search.workbench import Workbench

# Plans timed in one interleaved comparison; FP32 runs in each.
TIMED_TOGETHER = 4
INT8_EVERYWHERE = f"{Precision.INT8.label} everywhere"


class Shipping:
    """Orders measured plans by what they ship, and says what one wins over INT8.

    Args:
        bench: The plans.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def measure_candidates(self) -> None:
        """What the preset `auto` tries, too: the plan a search chooses is then no worse than that."""
        for one in auto_candidates(self._bench.graph, self._bench.kept, Aim.FAST):
            if not self._bench.is_spent:
                self._bench.measured_recipe(one.recipe, one.name)

    def ordered(self, plans: Iterable[Tried]) -> list[Tried]:
        """Best first; what takes longer than FP32 comes last."""
        left = list(plans)
        self._time(left)
        found: list[Tried] = []
        for group in ([p for p in left if not self._is_slow(p)], [p for p in left if self._is_slow(p)]):
            while group:
                # Of equals in all that counts the first measured: single precisions, most bits first.
                best = _most_accurate(self._fastest(_smallest(group)))[0]
                group.remove(best)
                found.append(best)
        return found

    def ratio(self, one: Tried) -> float:
        """Time over FP32 time of a plan, or of one of the same kernels; infinite where none was timed."""
        if one.latency_ratio is not None:
            return one.latency_ratio
        return self._ratios().get(one.kernels, math.inf)

    def notes(self, chosen: Tried, broken: Mapping[str, str]) -> list[str]:
        """What is to be said of a choice, a sentence each.

        Args:
            chosen: The plan.
            broken: Why plans lose too much, by the digest of their recipe.
        """
        int8 = next((one for one in self._bench.tried.values() if one.name == INT8_EVERYWHERE), None)
        if int8 is None:
            return []
        why = broken.get(int8.recipe.digest, "")
        said = self._best_text(chosen) if chosen is int8 else self._gain_text(chosen, int8, why)
        return [said, *self._better_but_broken(chosen, broken)]

    # Inside.

    def _best_text(self, int8: Tried) -> str:
        fewer = [
            one
            for one in self._bench.tried.values()
            if one is not int8
            and one.kernels == int8.kernels
            and one.size_bytes >= int8.size_bytes / SAME_SIZE
        ]
        why = (
            f": fewer bits are kept in INT8, so the file stays at {figures.size(int8.size_bytes)} and the "
            "time as it is, and only accuracy is lost"
            if fewer
            else ": no plan that keeps the bounds has a smaller file or takes less time"
        )
        return f"{INT8_EVERYWHERE} is best here{why}."

    def _gain_text(self, chosen: Tried, int8: Tried, why_not_int8: str) -> str:
        smaller = 1 - chosen.size_bytes / int8.size_bytes
        faster = self.ratio(int8) / self.ratio(chosen) if math.isfinite(self.ratio(int8)) else math.nan
        won = []
        if chosen.size_bytes * SAME_SIZE < int8.size_bytes:
            won.append(f"{figures.percent(smaller, 0)} smaller")
        if faster * SAME_SPEED > 1:
            won.append(f"{figures.ratio(faster)} as fast")
        if won:
            return f"Against {INT8_EVERYWHERE} the plan is {' and '.join(won)}."
        said = f"The plan wins nothing over {INT8_EVERYWHERE} in what ships: the file is no smaller"
        said += " and no faster" if not math.isnan(faster) else ""
        if why_not_int8:
            return f"{said}, but {INT8_EVERYWHERE} loses more than the bounds ({why_not_int8})."
        return f"{said}."

    def _better_but_broken(self, chosen: Tried, broken: Mapping[str, str]) -> list[str]:
        """Plans that would ship better and lose too much, each with what it loses."""
        own = self.ratio(chosen)
        better = [
            one
            for one in self._bench.tried.values()
            if one.name
            and one.recipe.digest in broken
            and (one.size_bytes * SAME_SIZE < chosen.size_bytes or self.ratio(one) < SAME_SPEED * own)
        ]
        if not better:
            return []
        texts = [
            f"{one.name} ({figures.size(one.size_bytes)}{self._speed_text(one)}; {broken[one.recipe.digest]})"
            for one in better
        ]
        return [f"Smaller or faster, but they lose more than the bounds: {', '.join(texts)}."]

    def _speed_text(self, one: Tried) -> str:
        ratio = self.ratio(one)
        return f", {figures.ratio(1 / ratio)} FP32's speed" if math.isfinite(ratio) else ""

    def _time(self, plans: Sequence[Tried]) -> None:
        known = self._ratios()
        waiting: dict[tuple[str, ...], Tried] = {}
        for one in plans:
            if one.kernels not in known:
                waiting.setdefault(one.kernels, one)
        untimed = list(waiting.values())
        for start in range(0, len(untimed), TIMED_TOGETHER):
            self._bench.time(untimed[start : start + TIMED_TOGETHER])

    def _ratios(self) -> dict[tuple[str, ...], float]:
        timed = (one for one in self._bench.tried.values() if one.latency_ratio is not None)
        return {one.kernels: one.latency_ratio or math.inf for one in timed}

    def _is_slow(self, one: Tried) -> bool:
        return self.ratio(one) > 1 / SAME_SPEED

    def _fastest(self, plans: Sequence[Tried]) -> list[Tried]:
        limit = min(self.ratio(one) for one in plans) / SAME_SPEED
        return [one for one in plans if self.ratio(one) <= limit]


def _smallest(plans: Sequence[Tried]) -> list[Tried]:
    limit = SAME_SIZE * min(one.size_bytes for one in plans)
    return [one for one in plans if one.size_bytes <= limit]


def _most_accurate(plans: Sequence[Tried]) -> list[Tried]:
    """Those within the noise of the best."""
    limit = max(LOSS_RATIO * min(one.measurement.kl for one in plans), NEGLIGIBLE_KL)
    return [one for one in plans if one.measurement.kl <= limit]
