"""How close a variant's outputs are to the base's; needs no labels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import sqnr_db
from quantstudio.core.distributions import kl_divergence, log_softmax
from quantstudio.core.results import Agreement
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm, class_scores, predictions

# A probability of exactly 0 in a quantized softmax means "less than one step", not "impossible".
SMALLEST_PROBABILITY = 1e-12


class AgreementTally:
    """Sums over batches: top-1 agreement, mean KL divergence, signal and noise power."""

    def __init__(self, form: OutputForm) -> None:
        self._form = form
        self._rows = 0
        self._same = 0
        self._defined = 0
        self._kl = 0.0
        self._signal = 0.0
        self._noise = 0.0

    def add(self, base: NDArray[np.generic], variant: NDArray[np.generic]) -> None:
        """Count the same samples' outputs of both."""
        if self._form.is_classification:
            ours, theirs = predictions(base, self._form), predictions(variant, self._form)
            self._rows += len(ours)
            # Where the base itself computes no number there is nothing to agree with.
            self._same += int(np.count_nonzero((ours == theirs) & (ours >= 0)))
        if self._form.meaning in (Meaning.CLASSES, Meaning.TOKENS):
            scores, others = class_scores(base, self._form), class_scores(variant, self._form)
            defined = ~np.isnan(scores).any(axis=1)
            self._defined += int(np.count_nonzero(defined))
            self._kl += _kl_sum(
                log_probabilities(scores[defined], self._form),
                log_probabilities(others[defined], self._form),
            )
        reference = np.asarray(base, dtype=np.float64)
        usable = np.isfinite(reference)
        signal = np.where(usable, reference, 0.0)
        noise = np.where(usable, np.asarray(variant, dtype=np.float64) - signal, 0.0)
        self._signal += float((signal**2).sum())
        self._noise += float((noise**2).sum())

    @property
    def has_nan(self) -> bool:
        """Whether the variant gave values that are not finite numbers where the base's are."""
        return not math.isfinite(self._noise)

    def result(self) -> Agreement:
        """Top-1 agreement (share), mean KL (nats), SQNR (dB).

        Without classes, top-1 and KL are NaN. A variant that outputs NaN has no agreement there, an infinite
        KL and an SQNR of minus infinity. Where the base outputs NaN nothing agrees, and KL and SQNR are those
        of the other samples.
        """
        top1 = self._same / self._rows if self._rows else math.nan
        has_kl = self._defined > 0
        kl = self._kl / self._defined if has_kl else math.nan
        return Agreement(
            top1=top1,
            kl=math.inf if has_kl and math.isnan(kl) else kl,
            sqnr_db=sqnr_db(self._signal, self._noise) if not self.has_nan else -math.inf,
        )


def log_probabilities(scores: NDArray[np.float32], form: OutputForm) -> NDArray[np.float64]:
    """Log of the class probabilities, shape [rows, classes]: log-softmax, or the log of a softmax output."""
    if form.probabilities:
        values = np.maximum(scores.astype(np.float64), SMALLEST_PROBABILITY)
        return np.asarray(np.log(values / values.sum(axis=1, keepdims=True)))
    return log_softmax(scores)


def _kl_sum(base: NDArray[np.float64], variant: NDArray[np.float64]) -> float:
    """Sum over rows of KL(base || variant)."""
    total = float(kl_divergence(base, variant).sum())
    return max(total, 0.0) if math.isfinite(total) else math.inf
