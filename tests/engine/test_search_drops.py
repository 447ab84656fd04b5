"""What a KL means in points, by hand-made curves and plans."""

import pytest

from quantstudio.core.results import AccuracyCurve
from quantstudio.engine.search.drops import SAFE_LOSS, DropModel, fitted_drops
from quantstudio.engine.search.measure import Measurement

CURVE = AccuracyCurve((0.0, 0.1, 1.0), (0.9, 0.88, 0.5), (0.9, 0.86, 0.4), (0.9, 0.9, 0.6), labelled=True)


def plan(kl, changed):
    return Measurement(kl, None, None, 512, changed)


def test_that_changed_predictions_follow_the_square_root_of_kl():
    model = fitted_drops(None, [plan(0.01 * k * k, 0.04 * k) for k in (1, 2, 3, 4, 5)], labelled=True)
    # Plans say 0.4 at 1 nat with a weight of 0.1 + ... + 0.5, the law's usual 0.22 weighs 0.1.
    assert model.changes == pytest.approx((0.4 * 1.5 + 0.22 * 0.1) / 1.6)
    assert model.drop(0.04, 0.3) == pytest.approx(100 * model.changes * 0.2 * 0.3)


def test_that_ruined_plans_teach_nothing():
    assert fitted_drops(
        None, [plan(2.0, 0.9), plan(float("inf"), 1.0)], labelled=True
    ).changes == pytest.approx(0.22)


def test_that_the_worse_of_law_and_curve_counts():
    assert DropModel(CURVE).drop(1.0) == pytest.approx(40)
    assert DropModel(CURVE).drop(0.01) == pytest.approx(100 * 0.22 * 0.1 * 0.2)


@pytest.mark.parametrize("points", [0.1, 0.5, 2.0, 30.0])
def test_that_the_cap_is_where_the_drop_is_met(points):
    model = DropModel(CURVE)
    assert model.drop(model.cap(points, SAFE_LOSS), SAFE_LOSS) == pytest.approx(points)


def test_that_without_labels_every_change_is_a_point():
    assert DropModel(None, 0.2, labelled=False).drop(0.25) == pytest.approx(10)


def test_that_the_interval_holds_the_expected_accuracy():
    found = DropModel(CURVE, 0.5).metric(0.04)
    assert found is not None
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(0.9 - 0.5 * 0.2 * 0.2)
    assert DropModel(None).metric(0.1) is None


def test_that_no_bound_is_needed_where_everything_is_allowed():
    assert DropModel(None).cap(100.0, SAFE_LOSS) == 10.0
