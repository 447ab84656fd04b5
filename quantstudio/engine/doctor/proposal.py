"""Trying transforms: all on few samples, those that do as well as the best on more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quantstudio.core.data_spec import DataSpec, Transform
from quantstudio.core.diagnosis import Ground, Trial
from quantstudio.core.errors import DataError, MeasureError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.engine.doctor.answers import Answers, read_answers
from quantstudio.engine.doctor.candidates import Candidate, candidates, reversed_channels, values_of
from quantstudio.engine.doctor.geometry import Fitting, fittings, spread
from quantstudio.engine.doctor.network import Network, Samples, read_samples
from quantstudio.engine.doctor.normalizations import Normalizations, read_normalizations
from quantstudio.engine.doctor.scores import Score, beats, best_of, joined, score_of
from quantstudio.engine.graph.graph import Graph

# Samples for (all candidates, those that are left), by seconds one sample takes.
_BUDGETS = ((0.002, 128, 512), (0.02, 48, 256), (float("inf"), 16, 64))
STATISTICS_SAMPLES = 32
_NEXT = 2
# The figure on test data is looked at longest.
_MANY, _MANY_S = 10_000, 3.0
_MANY_BLOCK, _MANY_TURN = 64, 16


@dataclass(frozen=True, slots=True)
class Proposal:
    """The transform a network wants of a data set.

    Attributes:
        ground: What it was chosen by.
        trials: Every transform tried, the best first.
        is_regression: Whether scores are R² of targets.
    """

    ground: Ground
    trials: tuple[Trial, ...]
    is_regression: bool = False

    @property
    def best(self) -> Trial:
        """The transform proposed."""
        return self.trials[0]


class Bench:
    """A data set on a network: what trials are made with.

    Attributes:
        graph: The network.
        network: It, running.
        fitting: The data as it fits.
        answers: How its answers are read.
        pace: Seconds a sample takes.
        cancel: Ends what is going on.
    """

    def __init__(
        self,
        graph: Graph,
        network: Network,
        fitting: Fitting,
        answers: Answers,
        pace: float,
        cancel: CancelToken,
    ) -> None:
        self.graph = graph
        self.network = network
        self.fitting = fitting
        self.answers = answers
        self.pace = pace
        self.cancel = cancel
        self._samples: Samples | None = None

    @property
    def few(self) -> int:
        """Samples to try every candidate on."""
        return next(few for pace, few, _ in _BUDGETS if self.pace <= pace)

    @property
    def samples(self) -> Samples:
        """All samples that are looked at, spread over the data; read once.

        Raises:
            DataError: one cannot be read.
            JobCancelled: the token was set.
        """
        if self._samples is None:
            count = next(more for pace, _, more in _BUDGETS if self.pace <= pace)
            blocks = spread(len(self.fitting.dataset), count)
            self._samples = read_samples(self.fitting.dataset, self.graph.summary.inputs, blocks, self.cancel)
        return self._samples

    def score_many(self, transform: Transform) -> Score:
        """How the network does on as many samples as it answers in some seconds, spread over the data.

        Raises:
            DataError: a sample cannot be read.
            JobCancelled: the token was set.
        """
        total = min(_MANY, len(self.fitting.dataset))
        if total <= len(self.samples):
            return self.score(transform)
        blocks = spread(len(self.fitting.dataset), total, _MANY_BLOCK)
        turns = max(1, len(blocks) // _MANY_TURN)
        ends = time.perf_counter() + _MANY_S
        parts: list[Score] = []
        for turn in range(turns):
            samples = read_samples(
                self.fitting.dataset, self.graph.summary.inputs, blocks[turn::turns], self.cancel
            )
            parts.append(self.score(transform, samples))
            if time.perf_counter() > ends:
                break
        found = joined(parts)
        return found if len(found.marks) >= len(self.samples) else self.score(transform)

    def score(self, transform: Transform, samples: Samples | None = None) -> Score:
        """How the network does with a transform of the same layout and size.

        Raises:
            MeasureError: it does not run.
            JobCancelled: the token was set.
        """
        chosen = self.samples if samples is None else samples
        output = self.answers.reading.output
        found = self.network.answers(chosen, transform, output, self.answers.reading.axes[output])
        return score_of(found, self.answers, chosen.indices)


def set_up(
    graph: Graph,
    network: Network,
    spec: DataSpec,
    classes: int | None,
    asked: Transform | None,
    cancel: CancelToken,
) -> Bench:
    """The data in the first layout that the network runs on.

    Raises:
        DataError: the data cannot be read, or fits in no layout.
        MeasureError: the network runs on none of them.
    """
    failure: MeasureError | None = None
    for fitting in fittings(spec, graph.summary.inputs, classes, asked):
        blocks = [(0, min(16, len(fitting.dataset)))]
        samples = read_samples(fitting.dataset, graph.summary.inputs, blocks, cancel)
        try:
            answers = read_answers(graph, network.session, fitting.dataset, cancel)
            bench = Bench(graph, network, fitting, answers, 0.0, cancel)
            bench.score(Transform(), samples.head(1))  # the first run takes longer
            started = time.perf_counter()
            bench.score(Transform(), samples)
        except MeasureError as error:
            failure = failure or error
            continue
        bench.pace = (time.perf_counter() - started) / max(len(samples), 1)
        return bench
    raise failure or DataError("the data fits no input of the network", where=spec.path)


def propose(bench: Bench, reporter: Reporter, on_first: Callable[[Proposal], None]) -> Proposal:
    """The best transform by trying.

    Args:
        bench: What to try with.
        reporter: Told of every candidate.
        on_first: Takes the proposal from few samples, before more are tried.
    """
    everything = bench.samples
    samples = everything.head(bench.few)
    tried = _listed(bench, everything)
    if len(tried) == 1 or not samples.scaled:
        return Proposal(Ground.NOTHING_TO_CHOOSE, (Trial(tried[0].transform, tried[0].title),))
    if bench.answers.labels is None:
        remembered = read_normalizations(bench.graph.summary, bench.cancel)
        if remembered is not None:
            return _by_statistics(remembered, tried, samples.head(STATISTICS_SAMPLES), reporter, bench)
        if bench.answers.form is None:
            trials = tuple(Trial(one.transform, one.title) for one in tried)
            return Proposal(Ground.CONVENTION, trials)
    marked = _marked(bench, tried, samples, reporter)
    if _has_colour(bench, samples):
        marked += _marked(bench, [reversed_channels(one) for one in tried], samples, reporter)
    first = _proposal(bench, _ranked(marked))
    if len(samples) == len(everything):
        return first
    on_first(first)
    leader = _best(marked)
    order = _ranked(marked)
    close = [one for one in order if one in order[:_NEXT] or not beats(leader.score.marks, one.score.marks)]
    left = [one.candidate for one in marked if one in close]
    finer = _marked(bench, left, everything, reporter)
    return _proposal(bench, [*_ranked(finer), *(one for one in order if one not in close)])


@dataclass(frozen=True, slots=True, eq=False)
class _Marked:
    """A candidate with how it did."""

    candidate: Candidate
    score: Score
    trial: Trial


def _marked(bench: Bench, tried: Sequence[Candidate], samples: Samples, reporter: Reporter) -> list[_Marked]:
    labels = bench.answers.labels_of(samples.indices)
    spread_of_labels = 0.0
    if bench.answers.is_regression:
        targets = np.asarray(labels, dtype=np.float64)
        spread_of_labels = float(((targets - targets.mean(axis=0)) ** 2).mean())
    found = []
    for number, one in enumerate(tried):
        bench.cancel.raise_if_set()
        reporter.progress(number, len(tried), "transforms", "Trying transforms")
        score = bench.score(one.transform, samples)
        value = score.mean
        if bench.answers.is_regression:
            value = 1 + value / spread_of_labels if spread_of_labels > 0 else float("nan")
        found.append(_Marked(one, score, Trial(one.transform, one.title, value, len(samples))))
    return found


def _best(marked: Sequence[_Marked]) -> _Marked:
    return marked[best_of([one.score for one in marked])]


def _ranked(marked: Sequence[_Marked]) -> list[_Marked]:
    """The best first, then by their marks."""
    best = _best(marked)
    return sorted(marked, key=lambda one: (one is not best, -one.score.mean))


def _proposal(bench: Bench, ranked: Sequence[_Marked]) -> Proposal:
    ground = Ground.CONFIDENCE if bench.answers.labels is None else Ground.LABELS
    return Proposal(ground, tuple(one.trial for one in ranked), bench.answers.is_regression)


def _listed(bench: Bench, samples: Samples) -> list[Candidate]:
    geometry = bench.fitting.geometry
    if not samples.scaled:
        return [Candidate("as stored", geometry)]
    name, channel = next(iter(samples.scaled.items()))
    values = samples.values(name)
    return list(candidates(values_of(values, channel, are_pictures=values.ndim > 2), geometry))


def is_same_geometry(one: Transform, other: Transform) -> bool:
    """Whether two transforms give the same layout and size."""
    return (one.layout, one.resize, one.crop) == (other.layout, other.resize, other.crop)


def _has_colour(bench: Bench, samples: Samples) -> bool:
    name, channel = next(iter(samples.scaled.items()))
    shape = samples.batches[0].feed[name].shape
    return (
        bench.answers.labels is not None and channel is not None and len(shape) == 4 and shape[channel] == 3
    )


def _by_statistics(
    remembered: Normalizations, tried: list[Candidate], samples: Samples, reporter: Reporter, bench: Bench
) -> Proposal:
    misfits = []
    for number, one in enumerate(tried):
        bench.cancel.raise_if_set()
        reporter.progress(number, len(tried), "transforms", "Trying transforms")
        misfits.append(remembered.misfit(samples, one.transform))
    order = sorted(range(len(tried)), key=lambda i: (misfits[i], i))
    trials = tuple(Trial(tried[i].transform, tried[i].title, -misfits[i], len(samples)) for i in order)
    return Proposal(Ground.STATISTICS, trials)
