"""Class distributions from scores, and how far one is from another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def log_softmax(scores: NDArray[Any]) -> FloatArray:
    """Log-probabilities of class scores along the last axis, float64.

    A score of -inf excludes its class; scores that are NaN give no probabilities.
    """
    values = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        shifted = values - values.max(axis=-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def kl_divergence(log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    """KL(p || q) in nats along the last axis; a class that p excludes adds nothing."""
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):  # -inf minus -inf, at excluded classes only
        terms = np.where(p > 0, p * (log_p - log_q), 0.0)
    return np.asarray(terms.sum(axis=-1))
