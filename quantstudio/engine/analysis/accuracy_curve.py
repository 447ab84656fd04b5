"""Accuracy against divergence: what a total KL means in points, found by adding noise to the FP32 logits.

Quantization noise reaches the logits as the sum of many small errors, so Gaussian noise of the same
divergence predicts how many answers flip. The curve depends on the network and its data only, never on a
recipe: it is made once, and every recipe's total KL is read off it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import t as student

from quantstudio.core.distributions import kl_divergence, log_softmax
from quantstudio.core.events import CancelToken
from quantstudio.core.results import AccuracyCurve

Scores = NDArray[np.float64]

NOISE_LEVELS = 24
DRAWS = 8

# Quantization errors of different samples point the same way more often than independent noise does; set so
# that 95 % of random mixed-precision variants of six small networks fall inside.
_OVERDISPERSION = 2.0

# The curve spans from far below one flipped answer to far beyond a ruined network.
_SMALLEST_KL, _LARGEST_KL = 1e-5, 5.0


def accuracy_curve(
    logits: NDArray[np.floating],
    labels: NDArray[np.int64] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    cancel: CancelToken | None = None,
) -> AccuracyCurve:
    """Expected top-1 at a given mean KL, with the interval in which a single variant falls.

    Args:
        logits: FP32 class scores or log-probabilities, [N, C].
        labels: True classes [N]; None measures agreement with FP32 instead.
        draws: Noise draws a level, at least 5.
        seed: Of the noise; equal seeds give equal curves.
        cancel: Looked at before every noise level.

    Returns:
        25 points: zero KL, then 24 noise levels. Accuracies are shares, 0 to 1. The interval covers 95 % of
        variants on another sample of the same size: the spread over draws, and the chance of which answers
        lie near a decision boundary. With labels it holds the FP32 accuracy of every class as well.

    Raises:
        ValueError: no samples, fewer than two classes, or fewer than five draws.
    """
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or not len(scores) or scores.shape[1] < 2:
        raise ValueError(f"logits of shape {scores.shape} are not [N, C >= 2]")
    if draws < 5:
        raise ValueError(f"{draws} draws are too few for an interval")
    truth = scores.argmax(axis=1) if labels is None else np.asarray(labels)
    log_p = log_softmax(scores)
    generator = np.random.default_rng(seed)
    base_answer = scores.argmax(axis=1)
    base_hit = base_answer == truth
    kl, accuracy = np.zeros(NOISE_LEVELS + 1), np.full(NOISE_LEVELS + 1, base_hit.mean())
    spread, changed = np.zeros(NOISE_LEVELS + 1), np.zeros(NOISE_LEVELS + 1)
    for level, deviation in enumerate(_noise_deviations(log_p), start=1):
        if cancel is not None:
            cancel.raise_if_set()
        found = [
            _noisy(scores, log_p, (truth, base_answer), base_hit, deviation, generator) for _ in range(draws)
        ]
        kl[level] = np.mean([f[0] for f in found])
        accuracy[level] = np.mean([f[1] for f in found])
        spread[level] = _deviation(found, len(scores))
        changed[level] = np.mean([f[3] for f in found])
    # More noise never helps on average; wiggles between levels are the draws'.
    expected = np.asarray(isotonic_regression(accuracy, increasing=False).x)
    expected += accuracy[0] - expected[0]
    width = float(student.ppf(0.975, draws - 1)) * np.maximum.accumulate(spread)
    order = np.argsort(kl, kind="stable")
    return AccuracyCurve(
        kl=tuple(kl[order].tolist()),
        accuracy=tuple(np.clip(expected, 0, 1).tolist()),
        low=tuple(np.clip(expected - width, 0, 1).tolist()),
        high=tuple(np.clip(expected + width, 0, 1).tolist()),
        labelled=labels is not None,
        changed=tuple(np.maximum.accumulate(changed[order]).tolist()),
        by_class=() if labels is None else _by_class(base_hit, truth, scores.shape[1]),
        samples=len(scores),
    )


def _by_class(hit: NDArray[np.bool_], truth: NDArray[np.int64], classes: int) -> tuple[float, ...]:
    """Accuracy of every class; NaN for one without samples."""
    found = [hit[truth == index] for index in range(classes)]
    return tuple(float(one.mean()) if one.size else float("nan") for one in found)


def _noise_deviations(log_p: Scores) -> Scores:
    """Standard deviations of logit noise whose mean KL is spread evenly on a logarithmic axis."""
    p = np.exp(log_p)
    # KL of noise n on logits is 1/2 n' (diag(p) - p p') n to second order.
    curvature = max(float((1 - np.square(p).sum(axis=1)).mean()) / 2, 1e-9)
    levels = np.geomspace(_SMALLEST_KL, _LARGEST_KL, NOISE_LEVELS)
    # Large noise saturates below the quadratic: the last levels would bunch up without a stretch.
    return np.asarray(np.sqrt(levels / curvature) * np.sqrt(1 + levels))


def _noisy(
    scores: Scores,
    log_p: Scores,
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
    base_hit: NDArray[np.bool_],
    deviation: float,
    generator: np.random.Generator,
) -> tuple[float, float, float, float]:
    """Mean KL, accuracy, share of answers whose correctness changed, and share of answers that changed."""
    truth, base_answer = answers
    noisy = scores + deviation * generator.standard_normal(scores.shape)
    kl = float(kl_divergence(log_p, log_softmax(noisy)).mean())
    answer = noisy.argmax(axis=1)
    hit = answer == truth
    return kl, float(hit.mean()), float((hit != base_hit).mean()), float((answer != base_answer).mean())


def _deviation(found: list[tuple[float, float, float, float]], samples: int) -> float:
    """Standard deviation of one variant's accuracy: over draws, and over which samples are drawn."""
    over_draws = float(np.std([f[1] for f in found], ddof=1))
    changed = float(np.mean([f[2] for f in found]))
    # No answer changed in N proves no more than a rate of 3 / N; a mean KL so small cannot change more than
    # about that share of the answers either.
    changed = max(changed, min(3 / samples, float(np.mean([f[0] for f in found]))))
    over_samples = _OVERDISPERSION * changed / samples
    return float(np.sqrt(over_draws**2 + over_samples))
