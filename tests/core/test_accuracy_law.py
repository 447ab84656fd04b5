"""Accuracy against KL, by hand-made curves and plans."""

import math

import numpy as np
import pytest

from quantstudio.core.predict.accuracy_law import CHANGE, CHANGE_SPREAD, Plan, accuracy_law
from quantstudio.core.results import AccuracyCurve

# Noise changes 0.2 sqrt(KL) of the answers.
KLS = (0.0, 0.0001, 0.01, 0.25)
CURVE = AccuracyCurve(
    KLS,
    (0.9, 0.9, 0.89, 0.85),
    (0.9, 0.89, 0.88, 0.84),
    (0.9, 0.9, 0.9, 0.86),
    labelled=True,
    changed=tuple(0.2 * math.sqrt(kl) for kl in KLS),
    samples=2000,
)


def law(plans=(), curve=CURVE, **changes):
    return accuracy_law(curve, plans, **{"base": 0.9, "samples": 10_000, "labelled": True, **changes})


def plan(kl, factor=1.0, loss=0.3, samples=10_000):
    changed = 0.2 * factor * math.sqrt(kl)
    return Plan(kl, changed, loss * changed, samples)


def test_that_changed_answers_follow_the_networks_own_curve():
    found = law().share_changed(np.asarray([0.0, 1e-4, 0.01]))
    expected = 0.2 * math.exp(CHANGE[0]) * np.sqrt([0.0, 1e-4, 0.01])
    assert found == pytest.approx(1 - np.exp(-expected), rel=0.02)


def test_that_the_root_of_the_kl_carries_on_below_the_curve():
    few = law().share_changed(np.asarray([1e-8]))
    assert few == pytest.approx(law().share_changed(np.asarray([1e-4])) / 100, rel=1e-2)


def test_that_an_older_curve_means_the_usual_changes():
    old = AccuracyCurve((0.0, 0.1), (0.9, 0.8), (0.9, 0.7), (0.9, 0.9), labelled=True)
    for curve in (old, None):
        found = float(law(curve=curve).share_changed(np.asarray(0.0001)))
        assert found == pytest.approx(0.22 * 0.01 * math.exp(CHANGE[0]), rel=1e-2)


def test_that_most_changed_answers_are_lost_only_where_many_change():
    found = law()
    few, many = found.drop(1e-4), found.drop(2.0)
    assert few / float(found.share_changed(np.asarray(1e-4))) == pytest.approx(0.2, abs=0.02)
    assert many / float(found.share_changed(np.asarray(2.0))) > 0.75


def test_that_without_labels_every_changed_answer_is_lost():
    found = law(base=1.0, labelled=False)
    assert found.drop(0.01) == float(found.share_changed(np.asarray(0.01)))


@pytest.mark.parametrize("drop", [0.0005, 0.005, 0.05, 0.3])
def test_that_the_largest_kl_is_where_the_drop_is_met(drop):
    found = law()
    assert found.drop(found.largest_kl(drop, 0.65), 0.65) == pytest.approx(drop)
    assert found.largest_kl(drop, 0.65) < found.largest_kl(drop) < found.largest_kl(drop, -0.35)
    assert found.largest_kl(1.0) == 10.0


def test_that_measured_plans_correct_the_share_and_the_loss():
    kls = np.geomspace(1e-3, 0.02, 12)
    taught = law([plan(float(kl), factor=1.8, loss=0.05) for kl in kls])
    assert taught.change[0] == pytest.approx(math.log(1.8), abs=0.08)
    assert taught.change[1] < law().change[1]
    assert taught.first_loss[0] < 0.12
    assert taught.change_spread < law().change_spread


def test_that_a_few_plans_that_lie_close_do_not_pass_for_all_plans():
    # Five of them leave the spread of other networks, which counts for six, more than half its say.
    close = law([plan(float(kl), factor=1.2) for kl in np.geomspace(0.01, 0.1, 5)])
    assert 0.13 <= close.change_spread < 0.2
    many = law([plan(float(kl), factor=1.2) for kl in np.geomspace(0.01, 0.1, 40)])
    assert many.change_spread < 0.11


def test_that_no_changed_answer_where_a_handful_was_expected_is_luck():
    none = Plan(0.0002, 0.0, 0.0, 2000)  # about five were
    assert law([none]).change_spread < 1.25 * CHANGE_SPREAD
    ten_times = Plan(0.25, 0.01, 0.003, 10_000)  # a hundred, where a thousand were
    assert law([ten_times]).change_spread > 2 * CHANGE_SPREAD


def test_that_plans_without_figures_teach_nothing():
    nothing = [Plan(0.01, None, None, 100), Plan(0.0, 0.0, 0.0, 100), Plan(0.01, 0.1, 0.1, 0)]
    assert law(nothing) == law()


def test_that_an_untouched_network_keeps_its_accuracy():
    found = law().interval(0.0, 0.0)
    assert (found.value, found.low, found.high) == (0.9, 0.9, 0.9)


def test_that_the_interval_widens_with_doubt_and_with_few_samples():
    sure, unsure = law().interval(0.01, 0.1), law().interval(0.01, 1.0)
    assert unsure.low < sure.low < sure.value < sure.high <= 1.0
    assert sure.value == unsure.value
    few = law(samples=200).interval(0.01, 0.1)
    assert few.low < sure.low


def test_that_the_interval_holds_the_stated_share_of_plans_that_follow_the_law():
    found, rng = law(samples=10_000), np.random.default_rng(1)
    held, count = 0, 400
    for _ in range(count):
        kl = 0.02 * math.exp(0.5 * rng.standard_normal())
        share = 0.2 * math.sqrt(kl) * math.exp(0.15 + math.hypot(0.2, 0.3) * rng.standard_normal())
        loss = float(found._loss(np.asarray(share))) + 0.14 * rng.standard_normal()
        lost = share * loss + math.sqrt(0.8 * share / 10_000) * rng.standard_normal()
        interval = found.interval(0.02, 0.5)
        held += interval.low <= 0.9 - lost <= interval.high
    assert 0.85 <= held / count <= 0.97
