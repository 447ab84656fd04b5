"""How well a network answers with a transform: against labels, or by what its answers look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.engine.doctor.answers import Answers
from quantstudio.engine.evaluation.outputs import OutputForm, class_scores, predictions

_TINY = 1e-12
# Differences smaller than so many standard errors are chance.
_ERRORS = 2.0
# Answers that tell a few percent more are no reason to prefer a less usual transform.
_FINER_SHARE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """How one candidate did, sample by sample.

    Attributes:
        marks: The higher the better, shape [n]: right or wrong, minus the squared error, or what the answer
            tells (nats).
        finer: Tells candidates apart that do equally well; shape [n], empty without.
        answers: Class chosen for each sample, shape [n]; empty where the network tells none apart.
        indices: Number of each sample in the data set, shape [n].
    """

    marks: NDArray[np.float64]
    finer: NDArray[np.float64]
    answers: NDArray[np.int64]
    indices: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean mark; minus infinity where an answer is not a number."""
        value = float(self.marks.mean()) if len(self.marks) else float("nan")
        return value if np.isfinite(value) else float("-inf")


_NONE = np.empty(0)
_NO_ANSWERS = np.empty(0, dtype=np.int64)


def score_of(output: NDArray[np.generic], answers: Answers, indices: NDArray[np.int64]) -> Score:
    """Marks of what a network answers.

    Args:
        output: One row a sample.
        answers: How it is read, and the labels.
        indices: Numbers of the samples in the data set.
    """
    form, labels = answers.form, answers.labels_of(indices)
    if form is None:
        if labels is None:
            return Score(np.zeros(len(indices)), _NONE, _NO_ANSWERS, indices)
        values = np.asarray(output, dtype=np.float64).reshape(len(indices), -1)
        targets = np.asarray(labels, dtype=np.float64).reshape(len(indices), -1)
        error = ((values - targets) ** 2).mean(axis=1)
        return Score(-error, _NONE, _NO_ANSWERS, indices)
    chosen = predictions(output, form)
    told = told_by(output, form)
    if labels is None:
        return Score(told, _NONE, chosen, indices)
    right = (chosen == np.asarray(labels, dtype=np.int64)).astype(np.float64)
    return Score(right, told, chosen, indices)


def joined(parts: Sequence[Score]) -> Score:
    """Scores of different samples as one."""
    return Score(
        np.concatenate([one.marks for one in parts]),
        np.concatenate([one.finer for one in parts]),
        np.concatenate([one.answers for one in parts]),
        np.concatenate([one.indices for one in parts]),
    )


def told_by(output: NDArray[np.generic], form: OutputForm) -> NDArray[np.float64]:
    """What each answer tells of its sample, nats: KL divergence of its probabilities from their mean.

    Its mean over the samples is the mutual information of sample and answer: high where answers are sure and
    differ, near zero where all are alike or none is sure. Shape [n].
    """
    if not form.classes:
        return np.zeros(len(output))
    shares = _probabilities(output, form)
    mean = shares.mean(axis=0)
    told: NDArray[np.float64] = (shares * (np.log(shares + _TINY) - np.log(mean + _TINY))).sum(axis=1)
    return np.nan_to_num(told, nan=-1.0, posinf=-1.0, neginf=-1.0)


def best_of(scores: list[Score]) -> int:
    """Which candidate is the best: the first of those that no other beats by more than chance.

    Among candidates with equally many right answers the ones whose answers tell more are better.
    """
    leader = max(range(len(scores)), key=lambda i: (scores[i].mean, -i))
    equal = [i for i in range(len(scores)) if not beats(scores[leader].marks, scores[i].marks)]
    if len(scores[leader].finer):
        finest = max(equal, key=lambda i: (float(scores[i].finer.mean()), -i))
        most = float(scores[finest].finer.mean())
        equal = [
            i
            for i in equal
            if not beats(scores[finest].finer, scores[i].finer)
            or most - float(scores[i].finer.mean()) <= _FINER_SHARE * abs(most)
        ]
    return equal[0] if equal else leader


def beats(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether marks on the same samples differ in favour of one by more than chance."""
    if not np.isfinite(other).all():
        return bool(np.isfinite(one).all())
    if not np.isfinite(one).all():
        return False
    difference = one - other
    spread = float(difference.std()) / max(len(difference), 1) ** 0.5
    return bool(float(difference.mean()) > _ERRORS * spread and difference.any())


def _probabilities(output: NDArray[np.generic], form: OutputForm) -> NDArray[np.float64]:
    scores = class_scores(output, form).astype(np.float64)
    if form.probabilities:
        return np.asarray(scores)
    if form.binary:
        yes = 1 / (1 + np.exp(-np.clip(scores[:, 1], -60, 60)))
        return np.stack([1 - yes, yes], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))
