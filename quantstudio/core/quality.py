"""How good a variant is, as the one figure of its task: for cards, tables, plots and reports alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from quantstudio.core import figures, judgement
from quantstudio.core.results import Headline, Interval, VariantResult

METRIC_NAMES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "rmse": "RMS error",
    "mae": "Mean absolute error",
    "r2": "R²",
    "agreement": judgement.AGREEMENT.label,
    "sqnr": "Output SQNR",
    "perplexity": "Perplexity",
    "kl_p99": "KL, 99th percentile",
}
SHORT_NAMES = {
    "top1": "Accuracy",
    "agreement": "Agreement",
    "f1": "F1",
    "miou": "Mean IoU",
    "cosine": "Cosine",
    "r2": "R²",
    "kept": "Output kept",
    "likelihood": "Likelihood",
}
AGREEMENT = "agreement"
PERPLEXITY = "perplexity"
SQNR = "sqnr"
POINTS = "points"
# A loss of more than this in its unit, where no task says what a result may lose.
DEFAULT_FLOOR = 1.0
# 97.5 % of a normal distribution lie below so many deviations.
Z_95 = 1.959963984540054
_ABSOLUTE = frozenset({"rmse", "mae", "perplexity", "kl_p99"})


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a model is.

    Attributes:
        key: "top1", "r2", "agreement", "f1", ...
        name: For a person.
        value: The metric; ends from the paired difference against the base, or of the share itself.
        has_interval: Whether the ends say anything.
        base: Of the base on the same samples; the value itself for the base.
        loss: What is lost against the base in `unit`, with its paired 95 % interval; None for the base, and
            where that was not measured.
        unit: Of the loss: "points" or "%".
        floor: Largest loss a result may have, in `unit`.
        perplexity: Of a language model, with its interval; it is what `text` says, while `value` is the
            likelihood kept, which plots and budgets take.
        base_perplexity: The same of the base.
        caveat: What the figure leaves out, in the words of a caption; mostly empty.
    """

    key: str
    name: str
    value: Interval
    has_interval: bool
    base: float
    loss: Interval | None = None
    unit: str = POINTS
    floor: float = DEFAULT_FLOOR
    perplexity: Interval | None = None
    base_perplexity: float = math.nan
    caveat: str = ""

    @property
    def short_name(self) -> str:
        """The name where there is little room: "Accuracy"."""
        return SHORT_NAMES.get(self.key, self.name) if self.perplexity is None else self.shown_name

    @property
    def shown_name(self) -> str:
        """What `text` is a figure of."""
        return self.name if self.perplexity is None else METRIC_NAMES[PERPLEXITY]

    @property
    def is_noise(self) -> bool:
        """Whether the samples could show this loss, or gain, by chance."""
        return self.loss is not None and self.loss.low <= 0 <= self.loss.high

    @property
    def is_below_floor(self) -> bool:
        """Whether it loses more than the floor, and more than the samples could do by chance."""
        return self.loss is not None and self.loss.value > self.floor and self.loss.low > 0

    @property
    def change(self) -> Interval | None:
        """The loss the other way round: what is won, with its interval; None for the base."""
        return None if self.loss is None else Interval(-self.loss.value, -self.loss.high, -self.loss.low)

    @property
    def text(self) -> str:
        """The metric: "98.33 %"; of a language model its perplexity, "18.43"."""
        if self.perplexity is not None:
            return metric_text(PERPLEXITY, self.perplexity.value)
        return metric_text(self.key, self.value.value)

    @property
    def base_text(self) -> str:
        """The same of the base."""
        if self.perplexity is not None:
            return metric_text(PERPLEXITY, self.base_perplexity)
        return metric_text(self.key, self.base)

    @property
    def ends_text(self) -> str:
        """Both ends of its interval: "97.10 % to 99.12 %"."""
        if self.perplexity is not None:
            low, high = (metric_text(PERPLEXITY, end) for end in (self.perplexity.low, self.perplexity.high))
            return f"{low} to {high}"
        return f"{metric_text(self.key, self.value.low)} to {metric_text(self.key, self.value.high)}"

    @property
    def change_text(self) -> str:
        """What it wins or loses against the base: "−0.25 pp"; a dash for the base."""
        return figures.NOTHING if self.loss is None else loss_text(self.loss.value, self.unit)

    @property
    def delta_text(self) -> str:
        """What stands beside `text`: the change, or the factor perplexity grew by."""
        if self.perplexity is None or self.loss is None:
            return self.change_text
        return f"{figures.ratio(self.perplexity.value / self.base_perplexity)} FP32's"

    @property
    def short_ends_text(self) -> str:
        """The ends of its interval in few letters: "99.1–100.0 %", or "18.1–19.2"; perhaps none."""
        if not self.has_interval:
            return ""
        if self.perplexity is not None:
            return "–".join(figures.number(end, 1) for end in (self.perplexity.low, self.perplexity.high))
        return share_ends(self.value)

    @property
    def change_ends_text(self) -> str:
        """Both ends of that: "−0.43 to −0.10"; a dash for the base."""
        return figures.NOTHING if self.change is None else figures.interval(self.change, signed=True)


def quality_of(result: VariantResult | None, *, is_base: bool) -> Quality | None:
    """The headline of the task; in older projects top-1, R², else agreement with the base.

    None before measuring, and for a model that gives numbers on data without labels, where nobody judged it.

    Args:
        result: What was measured.
        is_base: Whether this is the model that the others are compared with.
    """
    if result is None:
        return None
    if result.headline is not None:
        return _of_headline(result, result.headline, is_base=is_base)
    for key in ("top1", "r2"):
        if key in result.metrics and math.isfinite(result.metrics[key]):
            loss = None if is_base or key != "top1" else result.drop
            return _judged(result, key, METRIC_NAMES[key], result.metrics[key], loss)
    share = result.agreement.top1 if result.agreement is not None else math.nan
    if math.isnan(share) and not (is_base and result.agreement is None):
        return None  # numbers, not classes: nothing to agree on
    value = 1.0 if is_base else share
    loss = None if is_base else exact(100 * (1 - value))
    return Quality(AGREEMENT, METRIC_NAMES[AGREEMENT], exact(value), has_interval=False, base=1.0, loss=loss)


def error_growth(result: VariantResult) -> Interval | None:
    """By how many percent the RMS error of a regression grew against the base; None for other tasks."""
    is_judged = result.headline is not None or "top1" in result.metrics
    return None if is_judged or "rmse" not in result.metrics else result.drop


@dataclass(frozen=True, slots=True)
class Loss:
    """What a variant lost, with how sure that is.

    Attributes:
        value: Positive is worse.
        unit: "pp", or "%" where it is relative.
        of: Of what: "Top-1 accuracy".
    """

    value: Interval
    unit: str
    of: str


def loss_of(result: VariantResult) -> Loss | None:
    """What a variant lost against the base; None where no interval says how sure that is."""
    found, growth = quality_of(result, is_base=False), error_growth(result)
    if found is not None and found.loss is not None and found.loss.low < found.loss.high:
        return Loss(found.loss, loss_unit(found.unit), found.name)
    return Loss(growth, "%", METRIC_NAMES["rmse"]) if growth is not None else None


def share_interval(share: float, samples: int) -> tuple[float, float]:
    """The 95 % interval of a share found in so many samples, 0 to 1 without any.

    Source: Wilson, J. Am. Stat. Assoc. 22, 1927.
    """
    if samples == 0:
        return 0.0, 1.0
    scale = 1 + Z_95**2 / samples
    middle = (share + Z_95**2 / (2 * samples)) / scale
    half = Z_95 * math.sqrt(share * (1 - share) / samples + Z_95**2 / (4 * samples**2)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def share_ends(value: Interval) -> str:
    """An interval of shares, shortly: "88.1–89.9 %"."""
    return f"{figures.number(100 * value.low, 1)}–{figures.percent(value.high, 1)}"


def metric_text(key: str, value: float) -> str:
    """A metric's value: shares as percent, SQNR in decibels, errors as they are."""
    if key == SQNR:
        return figures.decibels(value)
    return figures.significant(value, 4) if key in _ABSOLUTE else figures.percent(value)


def loss_text(loss: float, unit: str) -> str:
    """A loss as a change: "−0.25 pp", or "−3.10 %" where it is relative."""
    if unit == POINTS:
        return figures.points(-loss)
    return f"{figures.number(-loss, 2, signed=True)}{figures.THIN_SPACE}%"


def loss_unit(unit: str) -> str:
    """The unit of a loss, shortly: "pp" or "%"."""
    return "pp" if unit == POINTS else "%"


def exact(value: float) -> Interval:
    """A value without uncertainty."""
    return Interval(value, value, value)


def _of_headline(result: VariantResult, headline: Headline, *, is_base: bool) -> Quality:
    found = _judged(
        result, headline.metric, headline.label, headline.value, None if is_base else headline.loss
    )
    found = replace(
        found, base=headline.base, unit=headline.unit, floor=headline.floor, caveat=headline.caveat
    )
    language = result.language
    if language is None:
        return found
    before = language.perplexity.value / language.growth.value
    return replace(found, has_interval=True, perplexity=language.perplexity, base_perplexity=before)


def _judged(result: VariantResult, key: str, name: str, value: float, loss: Interval | None) -> Quality:
    """The metric with the interval it has: that of the difference, which is paired, where there is one."""
    ends = exact(value)
    base = value
    if loss is not None:  # of a share, whatever the task
        base = value + loss.value / 100
        # A share cannot leave 0 to 1, whatever the interval of the difference says; R² can be negative.
        low = base - loss.high / 100
        ends = Interval(value, max(0.0, low) if key != "r2" else low, min(1.0, base - loss.low / 100))
    elif key == "top1" and result.samples:
        ends = Interval(value, *share_interval(value, result.samples))
    return Quality(key, name, ends, ends != exact(value), base=base, loss=loss)
