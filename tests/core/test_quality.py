"""The one figure of a variant: its interval holds it, wherever both are shown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstudio.core.quality import error_growth, loss_of, quality_of
from quantstudio.core.results import Agreement, Headline, Interval, VariantResult
from quantstudio.core.time_scale import least_disturbed, on_scale_of, scale_text
from tests.workspace.samples import variant_result

SHARES = st.floats(0.0, 1.0)
POINTS = st.floats(-100.0, 100.0)


def result_of(value: float, **changes: object) -> VariantResult:
    made = variant_result("v", "v.onnx", value, 1000, 5.0)
    return replace(made, **changes)  # type: ignore[arg-type]


def headline_of(loss: Interval, value: float = 0.9, unit: str = "points") -> Headline:
    return Headline("f1", "F1 of matched boxes", value + loss.value / 100, value, loss, unit, 1.0)


@given(SHARES, POINTS, POINTS, POINTS)
def test_that_an_interval_holds_its_own_value(value, loss, low, high):
    found = Interval(loss, low, high)
    assert found.low <= found.value <= found.high
    for result in (
        result_of(value, drop=found),
        result_of(value, headline=headline_of(found, value)),
        result_of(value, metrics={"rmse": 0.1, "r2": value}, drop=found),
        result_of(value, metrics={}, drop=None, agreement=Agreement(value, 0.1, 30.0)),
    ):
        for is_base in (False, True):
            quality = quality_of(result, is_base=is_base)
            assert quality is not None
            for shown in (quality.value, quality.loss, quality.change):
                assert shown is None or shown.low <= shown.value <= shown.high
            if quality.loss is not None and quality.has_interval:  # as far from the base as the loss is
                ends = (value + (quality.loss.value - end) / 100 for end in (found.high, found.low))
                clipped = [min(max(end, 0.0), 1.0) for end in ends]
                assert [quality.value.low, quality.value.high] == pytest.approx(
                    [min(clipped[0], value), max(clipped[1], value)]
                )
        lost = loss_of(result)
        assert lost is None or lost.value.low <= lost.value.value <= lost.value.high


def test_that_the_interval_of_a_share_is_what_the_base_has_less_the_loss():
    """98.33 % after a loss of 0.84 points [0.34, 1.50] of 99.17 %: between 97.67 and 98.83 %."""
    quality = quality_of(result_of(0.9833, drop=Interval(0.84, 0.34, 1.50)), is_base=False)
    assert quality is not None
    assert quality.base == pytest.approx(0.9917)
    assert (quality.value.low, quality.value.high) == pytest.approx((0.9767, 0.9883))
    assert quality.change_text == "−0.84\u202fpp"
    assert quality.change_ends_text == "−1.50 to −0.34"


def test_that_no_interval_of_a_share_leaves_0_to_1():
    quality = quality_of(result_of(0.995, drop=Interval(-0.3, -1.5, 0.9)), is_base=False)
    assert quality is not None
    assert quality.value.high == 1.0
    assert quality.is_noise
    assert not quality.is_below_floor


def test_that_the_headline_of_the_task_comes_before_every_metric():
    headline = headline_of(Interval(2.0, 1.2, 2.8), 0.91)
    quality = quality_of(result_of(0.9, headline=headline), is_base=False)
    assert quality is not None
    assert (quality.name, quality.text, quality.base_text) == (
        "F1 of matched boxes",
        "91.00\u202f%",
        "93.00\u202f%",
    )
    assert quality.is_below_floor
    base = quality_of(result_of(0.9, headline=headline), is_base=True)
    assert base is not None
    assert base.loss is None


def test_that_a_regression_of_an_older_project_speaks_of_its_error():
    result = result_of(0.9, metrics={"rmse": 0.2, "mae": 0.1, "r2": 0.97}, drop=Interval(3.0, 1.0, 5.0))
    quality, loss = quality_of(result, is_base=False), loss_of(result)
    assert quality is not None
    assert (quality.key, quality.loss) == ("r2", None)
    assert loss is not None
    assert (loss.of, loss.unit, loss.value.value) == ("RMS error", "%", 3.0)
    assert error_growth(result_of(0.9)) is None


def test_that_numbers_nobody_can_judge_have_no_quality():
    result = result_of(0.9, metrics={}, drop=None, agreement=Agreement(math.nan, math.nan, 37.0))
    assert quality_of(result, is_base=False) is None
    assert quality_of(None, is_base=False) is None


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0), st.floats(0.1, 20.0))
def test_that_two_times_have_the_ratio_shown_beside_them(base_ms, own_ms, ratio):
    base = variant_result("FP32", "base", 0.9, 1000, base_ms, is_base=True)
    found = on_scale_of(base, replace(result_of(0.9), latency_ms=replace_ms(own_ms), speedup=around(ratio)))
    assert base.latency_ms is not None
    assert found.latency_ms is not None
    assert base.latency_ms.p50 / found.latency_ms.p50 == pytest.approx(ratio)
    assert found.latency_ms.p50 / found.latency_ms.scale == pytest.approx(own_ms)
    assert on_scale_of(base, found).latency_ms.p50 == pytest.approx(found.latency_ms.p50)  # type: ignore[union-attr]


def test_that_times_on_another_scale_say_so_and_other_circumstances_keep_theirs():
    base = variant_result("FP32", "base", 0.9, 1000, 0.544, is_base=True)
    busy = replace(result_of(0.9), latency_ms=replace_ms(0.279), speedup=around(1.04))
    found = on_scale_of(base, busy).latency_ms
    assert found is not None
    assert found.p50 == pytest.approx(0.544 / 1.04)
    assert scale_text(found).startswith("taken at 279")
    assert scale_text(replace_ms(5.0)) == ""
    elsewhere = replace(busy, latency_ms=replace(replace_ms(0.279), provider="CUDAExecutionProvider"))
    assert on_scale_of(base, elsewhere) is elsewhere
    assert on_scale_of(None, busy) is busy


def replace_ms(p50: float):
    latency = result_of(0.9).latency_ms
    assert latency is not None
    return replace(latency, p50=p50)


def around(ratio: float) -> Interval:
    return Interval(ratio, ratio * 0.95, ratio * 1.05)


def test_that_the_scale_moves_only_where_the_base_is_clearly_faster():
    def base(ms: float) -> VariantResult:
        return variant_result("FP32", "base", 0.9, 1000, ms, is_base=True)

    def p50(found: VariantResult) -> float:
        assert found.latency_ms is not None
        return found.latency_ms.p50

    assert p50(least_disturbed(base(1.0), None)) == 1.0
    assert p50(least_disturbed(base(0.97), base(1.0))) == 1.0
    assert p50(least_disturbed(base(2.0), base(1.0))) == 1.0
    assert p50(least_disturbed(base(0.5), base(1.0))) == 0.5
