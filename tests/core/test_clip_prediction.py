"""What ranges set by hand, one scale a tensor and narrow kernels do to predictions."""

import math
from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.activation_ranges import range_noise
from quantstudio.core.affine import IntegerGrid
from quantstudio.core.effective_plan import resolve
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import STATIC_INT4, STATIC_INT8, Granularity
from quantstudio.core.predict.clip_loss import Distributions
from quantstudio.core.predict.kl_model import ACTIVATIONS
from quantstudio.core.predict.model import Judged, MeasuredPlan
from quantstudio.core.predict.table import PredictionTable, fit_prediction
from quantstudio.core.recipe import RangeOverride, uniform_recipe
from quantstudio.core.results import AccuracyCurve, LayerSensitivity
from quantstudio.core.statistics import Histogram, WeightStatistics

SCHEMES = ("fp32", "fp16", "static-int8", "weight-int8", "static-int4")
LAYERS = (
    LayerInfo(
        "a", "Conv", "wa", (8, 4, 3, 3), schemes=SCHEMES, channel_axis=0, inputs=("x",), outputs=("y",)
    ),
    LayerInfo("b", "Gemm", "wb", (8, 32), schemes=SCHEMES, channel_axis=0, inputs=("z",), outputs=("out",)),
)
EDGES = ((0, 1),)
ROWS = {
    name: LayerSensitivity(
        name, 0.004, 0, 1, 20.0, by_precision={"int8": 1e-5, "int4": 0.004, ACTIVATIONS: 2e-5}
    )
    for name in "ab"
}
CURVE = AccuracyCurve(
    (0.0, 0.01, 0.1, 1.0), (0.9, 0.89, 0.85, 0.6), (0.88,) * 4, (0.92,) * 4, True,
    (0.0, 0.02, 0.08, 0.4), (0.9,) * 10, 512,
)  # fmt: skip


def weights(layer):
    values = np.random.default_rng(0).normal(0, 0.1, (8, 36)).astype(np.float32)
    values *= np.linspace(0.5, 1.0, 8)[:, None]
    counts, edges = np.histogram(values, 512)
    low, high = values.min(axis=1), values.max(axis=1)
    return WeightStatistics(
        layer, Histogram(counts, edges[0], edges[-1], float(values.min()), float(values.max())),
        0.0, 0.1, 0.0, 0.0, low, high, low, high, low, {"static-int8": 44.0, "static-int4": 19.0},
    )  # fmt: skip


def activations():
    values = np.random.default_rng(1).exponential(1.0, 20_000)
    counts, _ = np.histogram(values, 4096, (-16.0, 16.0))
    return Histogram(counts, -16.0, 16.0, 0.0, float(values.max()))


def table(**options):
    found = Distributions({name: weights(name) for name in "ab"}, dict.fromkeys("xyz", activations()))
    return PredictionTable(LAYERS, sensitivity=ROWS, curve=CURVE, distributions=found, edges=EDGES, **options)


def clipped(*, weight=None, tensor=None, base="static-int8"):
    recipe = uniform_recipe(base)
    if weight is not None:
        recipe = replace(recipe, weight_ranges=(RangeOverride("a", -weight, weight),))
    if tensor is not None:
        recipe = replace(recipe, activation_ranges=(RangeOverride(tensor[0], 0.0, tensor[1]),))
    return resolve(recipe, LAYERS)


def test_that_clipping_weights_by_hand_lowers_the_predicted_accuracy():
    known = table()
    largest = max(abs(weights("a").histogram.minimum), weights("a").histogram.maximum)
    found = [known.predict(clipped(weight=part * largest)) for part in (1.0, 0.8, 0.6, 0.5)]
    lost = [0.9 - one.accuracy.value for one in found if one.accuracy is not None]
    assert len(lost) == 4
    assert lost == sorted(lost)
    assert lost[3] > 3 * lost[0]
    assert found[0].kl == pytest.approx(known.predict(clipped()).kl, rel=0.5)


def test_that_clipping_activations_by_hand_lowers_the_predicted_accuracy():
    known = table()
    whole = known.predict(clipped()).kl
    found = [known.predict(clipped(tensor=("x", high))).kl for high in (9.0, 4.0, 2.0)]
    assert whole is not None
    assert whole < found[1] < found[2]
    # The output of one layer, before what lies between it and the next, costs the next one.
    assert known.predict(clipped(tensor=("y", 2.0))).kl == pytest.approx(found[2])


def test_that_a_clip_nobody_can_judge_leaves_the_accuracy_open():
    bare = PredictionTable(LAYERS, sensitivity=ROWS, curve=CURVE)
    for plan in (clipped(weight=0.1), clipped(tensor=("x", 2.0))):
        found = bare.predict(plan)
        assert found.accuracy is None
        assert found.unpriced == 1


def test_that_a_clip_is_known_less_surely_than_a_format():
    known = table()
    plain, cut = known.predict(clipped(base="static-int4")), known.predict(clipped(weight=0.18))
    for one in (plain, cut):
        assert one.accuracy is not None
    model = fit_prediction(known, (), Judged(0.9, 10_000))
    spreads = [
        model.expected_kl(known.raw(plan))[1] for plan in (clipped(base="static-int4"), clipped(weight=0.18))
    ]
    assert spreads[1] > spreads[0] + 0.2


def test_that_a_clip_of_a_float_layer_costs_nothing():
    plan = resolve(replace(uniform_recipe("fp16"), weight_ranges=(RangeOverride("a", -0.1, 0.1),)), LAYERS)
    assert table().predict(plan).kl == 0.0


def test_that_one_scale_for_a_tensor_is_not_priced_as_one_a_channel():
    whole = replace(STATIC_INT4, granularity=Granularity.PER_TENSOR)
    plans = [resolve(uniform_recipe(scheme), LAYERS) for scheme in (STATIC_INT4, whole)]
    channel, tensor = (table().predict(plan) for plan in plans)
    assert channel.kl is not None
    assert tensor.kl is not None
    assert tensor.kl > 1.3 * channel.kl
    # Nobody analyzed it, and a network may lose all: its interval is wide, or there is a bound alone.
    spreads = [table().fitted(()).expected_kl(table().raw(plan))[1] for plan in plans]
    assert spreads[1] > 2.0 > spreads[0]
    bare = PredictionTable(LAYERS, sensitivity=ROWS, curve=CURVE).predict(plans[1])
    assert bare.accuracy is None
    assert bare.unpriced == 2


def test_that_a_format_with_one_scale_is_read_off_another_one():
    rows = {
        name: replace(row, by_precision=row.by_precision | {"int8/tensor": 1e-4})
        for name, row in ROWS.items()
    }
    known = PredictionTable(LAYERS, sensitivity=rows, curve=CURVE)
    whole = replace(STATIC_INT4, granularity=Granularity.PER_TENSOR)
    parts = known.raw(resolve(uniform_recipe(whole), LAYERS)).parts
    assert parts is not None
    assert parts.sum() == pytest.approx(2 * (1e-4 * (127 / 7) ** 2 + 2e-5))


def test_that_the_noise_of_a_range_is_what_it_cuts_off_and_what_it_rounds():
    counts = np.zeros(16, dtype=np.int64)
    counts[[9, 15]] = 3, 1  # three values of 1.5, one of 7.5
    histogram = Histogram(counts, -8.0, 8.0, 1.5, 7.5)
    cut, rounding = range_noise(histogram, 0.0, 3.0, IntegerGrid(2, signed=False))
    assert cut == pytest.approx((7.5 - 3.0) ** 2 / 4)
    assert rounding == pytest.approx(0.75 / 12)


def test_that_measured_clips_teach_nothing_of_formats():
    known, cut = table(), clipped(weight=0.05)
    ruined = MeasuredPlan("clip", cut, 10_000, kl=1.0, changed=0.4, accuracy=0.5, base=0.9)
    judged = Judged(0.9, 10_000)
    model = fit_prediction(known, [ruined], judged)
    plain = clipped(base="static-int4")
    before = known.predict(plain, fit_prediction(known, (), judged)).kl
    assert known.predict(plain, model).kl == pytest.approx(before, rel=0.2)
    assert known.predict(cut, model).kl == pytest.approx(1.0, rel=0.01)
    assert math.isfinite(known.predict(clipped(weight=0.06), model).kl or math.nan)
    assert STATIC_INT8.is_static
