"""Log-probabilities and KL divergence against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax as reference
from scipy.stats import entropy

from quantstudio.core.distributions import kl_divergence, log_softmax

RNG = np.random.default_rng(4)


def test_that_log_probabilities_are_those_of_scipy_however_large_the_scores() -> None:
    scores = (1000 * RNG.standard_normal((5, 3, 7))).astype(np.float32)
    np.testing.assert_allclose(log_softmax(scores), reference(scores.astype(np.float64), axis=-1), atol=1e-9)


def test_that_the_divergence_is_the_relative_entropy() -> None:
    a, b = RNG.standard_normal((2, 6, 4))
    p, q = np.exp(log_softmax(a)), np.exp(log_softmax(b))
    np.testing.assert_allclose(kl_divergence(log_softmax(a), log_softmax(b)), entropy(p, q, axis=1))


def test_that_an_excluded_class_adds_nothing_and_a_lost_one_everything() -> None:
    off = -np.inf
    base = log_softmax(np.array([[0.0, 0.0, off]]))
    assert kl_divergence(base, log_softmax(np.array([[0.0, 0.0, off]])))[0] == 0
    assert kl_divergence(base, log_softmax(np.array([[0.0, 0.0, 0.0]])))[0] == pytest.approx(np.log(1.5))
    assert kl_divergence(base, log_softmax(np.array([[0.0, off, 0.0]])))[0] == np.inf
