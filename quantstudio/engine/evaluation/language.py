"""Language models on text: whether each next token is foretold, by the base and by a variant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.distributions import kl_divergence
from quantstudio.core.judgement import LIKELIHOOD, Task
from quantstudio.core.language import LanguageFigures
from quantstudio.core.results import Agreement, Headline, Interval
from quantstudio.engine.evaluation.agreement import log_probabilities
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.evaluation.sample_axis import Array
from quantstudio.engine.evaluation.scene import Scene
from quantstudio.engine.evaluation.tallies import NO_LOSS, Rows, headline
from quantstudio.engine.evaluation.uncertainty import bootstrap_interval

# Tokens that are drawn together when an interval is made: those next to each other are alike.
BLOCK = 32
# Positions compared at a time: their distributions over a large vocabulary, in float64, take memory.
_POSITIONS = 64
# A position that saw nothing of a changed later token differs by rounding alone.
_CAUSAL_TOLERANCE = 1e-3
# Likelihood of a token where a model gives no number.
_LEAST = 1e-12


def read_language(scene: Scene) -> Reading | None:
    """Scores of the next token at each position of text; None where the network gives none."""
    if not scene.reads_text:
        return None
    length = next(iter(scene.probe.input_shapes().values()))[-1]
    for output in scene.floats:
        shape = scene.shape(output)
        if len(shape) != 2 or shape[0] != length or shape[1] < 2:
            continue
        if not scene.probe.is_causal(output.name, _CAUSAL_TOLERANCE):
            continue
        probabilities = output.last == "Softmax" or scene.sums_to_one(output, -1)
        axis = scene.probe.axes[output.name]
        return scene.reading(
            Task.TOKENS,
            Kind.CLASSES,
            f"the data is text, and output {output.name!r} is scores of {shape[1]} tokens for what follows "
            "each position",
            output.name,
            form=OutputForm(Meaning.TOKENS, probabilities, classes=shape[1]),
            axes={output.name: axis},
            floats=(output.name,),
            foretells=True,
        )
    return None


class NextTokenTally:
    """Likelihood of each next token under the base and a model, and how far their distributions lie apart.

    Args:
        reading: How outputs are read.
        next_tokens: What follows each position, int64 [N, T].
    """

    def __init__(self, reading: Reading, next_tokens: NDArray[np.int64]) -> None:
        assert reading.form is not None
        self._name, self._form, self._next = reading.output, reading.form, next_tokens
        self._base = np.zeros(next_tokens.shape)
        self._own = np.zeros(next_tokens.shape)
        self._kl = np.zeros(next_tokens.shape)
        self._same = np.zeros(next_tokens.shape, dtype=np.bool_)
        self._is_base = True

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Count the windows from `start` on."""
        self._is_base = self._is_base and other is base
        for i, (ours, theirs) in enumerate(zip(base[self._name], other[self._name], strict=True)):
            for first in range(0, len(ours), _POSITIONS):
                places = slice(first, first + _POSITIONS)
                self._add(start + i, places, ours[places], theirs[places])

    def _add(self, window: int, places: slice, ours: Array, theirs: Array) -> None:
        wanted = self._next[window, places, None]
        p = log_probabilities(np.asarray(ours, np.float32), self._form)
        q = p if self._is_base else log_probabilities(np.asarray(theirs, np.float32), self._form)
        self._base[window, places] = -_picked(p, wanted)
        self._own[window, places] = -_picked(q, wanted)
        self._same[window, places] = self._is_base | (p.argmax(axis=1) == q.argmax(axis=1))
        if not self._is_base:
            apart = kl_divergence(p, q)
            self._kl[window, places] = np.where(np.isnan(apart), np.inf, np.maximum(apart, 0.0))

    def _blocks(self) -> NDArray[np.float64]:
        """Sums over blocks of neighbouring tokens: of the base, of the model, and how many; [blocks, 3]."""
        edges = np.arange(0, self._next.shape[1], BLOCK)
        sizes = np.broadcast_to(np.diff(np.append(edges, self._next.shape[1])), (len(self._next), len(edges)))
        sums = [np.add.reduceat(one, edges, axis=1) for one in (self._base, self._own)]
        return np.stack([*sums, sizes], axis=-1).reshape(-1, 3).astype(np.float64)

    def metrics(self) -> dict[str, float]:
        """perplexity, agreement of the likeliest token, and the 99th percentile of the divergence."""
        return {
            "perplexity": float(np.exp(self._own.mean())),
            "agreement": float(self._same.mean()),
            "kl_p99": self._kl_p99(),
        }

    def headline(self) -> Headline:
        """What of the text's likelihood, the geometric mean over its tokens, is kept."""
        if self._is_base:
            return headline(LIKELIHOOD, 1.0, 1.0, NO_LOSS)
        loss = bootstrap_interval(self._blocks(), lambda m: 100 * (1 - np.exp((m[:, 0] - m[:, 1]) / m[:, 2])))
        return headline(LIKELIHOOD, 1.0, 1 - loss.value / 100, loss)

    def agreement(self, sqnr_db: float) -> Agreement:
        """Share of the same likeliest token and mean KL, with the signal to noise of the scores."""
        return Agreement(float(self._same.mean()), float(self._kl.mean()), sqnr_db)

    def figures(self) -> LanguageFigures:
        """All of it."""
        blocks = self._blocks()
        own = bootstrap_interval(blocks, lambda m: np.exp(m[:, 1] / m[:, 2]))
        growth = Interval(1.0, 1.0, 1.0)
        if not self._is_base:
            growth = bootstrap_interval(blocks, lambda m: np.exp((m[:, 1] - m[:, 0]) / m[:, 2]))
        return LanguageFigures(
            perplexity=own,
            growth=growth,
            kl=float(self._kl.mean()),
            kl_p99=self._kl_p99(),
            same_top=float(self._same.mean()),
            tokens=self._next.size,
            context=self._next.shape[1],
        )

    def _kl_p99(self) -> float:
        return float(np.percentile(self._kl, 99, method="higher"))


def _picked(log_shares: NDArray[np.float64], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-likelihood of the tokens that follow; the least there is where the model gave no number."""
    found = np.take_along_axis(log_shares, wanted, axis=1)[:, 0]
    return np.asarray(np.where(np.isfinite(found), found, np.log(_LEAST)))
