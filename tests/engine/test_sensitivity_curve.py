"""Accuracy expected at a total KL."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken
from quantstudio.engine.analysis.accuracy_curve import accuracy_curve

RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 5, 800)
LOGITS = RNG.standard_normal((800, 5)) * 1.5
LOGITS[np.arange(800), LABELS] += 2.5


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)))


def test_that_the_curve_starts_at_the_float_accuracy_and_never_rises() -> None:
    curve = accuracy_curve(LOGITS, LABELS)
    assert len(curve.kl) == len(curve.accuracy) == len(curve.low) == len(curve.high) == 25
    assert curve.kl[0] == 0
    assert curve.accuracy[0] == pytest.approx((LOGITS.argmax(1) == LABELS).mean())
    assert (curve.low[0], curve.high[0]) == (curve.accuracy[0], curve.accuracy[0])
    assert all(b > a for a, b in zip(curve.kl, curve.kl[1:], strict=False))
    assert all(b <= a for a, b in zip(curve.accuracy, curve.accuracy[1:], strict=False))
    assert curve.kl[1] < 1e-4
    assert curve.kl[-1] > 1
    assert curve.labelled


def test_that_equal_input_gives_an_equal_curve() -> None:
    assert accuracy_curve(LOGITS, LABELS) == accuracy_curve(LOGITS, LABELS)


def test_that_variants_with_noisy_logits_fall_into_the_interval() -> None:
    curve = accuracy_curve(LOGITS, LABELS)
    p = log_softmax(LOGITS)
    inside = 0
    for trial in range(60):
        noise = np.random.default_rng(1000 + trial)
        # A uniform error and another error in every class than the curve's own noise.
        noisy = LOGITS + noise.uniform(-1, 1, LOGITS.shape) * noise.uniform(0.1, 2)
        kl = (np.exp(p) * (p - log_softmax(noisy))).sum(1).mean()
        accuracy = (noisy.argmax(1) == LABELS).mean()
        low, high = (np.interp(kl, curve.kl, side) for side in (curve.low, curve.high))
        inside += low <= accuracy <= high
    assert inside >= 54


def test_that_without_labels_it_is_agreement_with_float() -> None:
    curve = accuracy_curve(LOGITS)
    assert not curve.labelled
    assert curve.accuracy[0] == 1.0
    assert curve.accuracy[-1] < 0.6


@pytest.mark.parametrize(
    ("logits", "draws"),
    [(np.zeros((0, 3)), 8), (np.zeros((4, 1)), 8), (np.zeros(4), 8), (np.zeros((4, 3)), 4)],
)
def test_that_input_without_a_curve_is_refused(logits: np.ndarray, draws: int) -> None:
    with pytest.raises(ValueError, match=r"logits|draws"):
        accuracy_curve(logits, draws=draws)


def test_that_a_class_that_is_switched_off_leaves_the_curve_as_it_is() -> None:
    off = np.full((len(LOGITS), 1), -np.inf)
    masked = accuracy_curve(np.concatenate([LOGITS, off], axis=1), LABELS)
    assert np.isfinite(masked.kl).all()
    assert masked.accuracy[0] == accuracy_curve(LOGITS, LABELS).accuracy[0]


def test_that_the_curve_can_be_cancelled() -> None:
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        accuracy_curve(LOGITS, LABELS, cancel=token)
