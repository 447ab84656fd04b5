"""The doctor's round: propose a transform, measure with it, look for what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quantstudio.core.data_spec import DataSpec, Transform, is_text
from quantstudio.core.diagnosis import (
    Caution,
    DataFigure,
    Diagnosis,
    Ground,
    InputFacts,
    ShownSample,
    Trial,
    Trouble,
)
from quantstudio.core.errors import DataError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.judgement import INFERRED
from quantstudio.engine.doctor import cautions
from quantstudio.engine.doctor.figures import classes_of, facts_of, figure_of, given_by
from quantstudio.engine.doctor.geometry import fitting_of
from quantstudio.engine.doctor.network import Network, Samples
from quantstudio.engine.doctor.normalizations import read_normalizations
from quantstudio.engine.doctor.overlap import overlap
from quantstudio.engine.doctor.proposal import (
    STATISTICS_SAMPLES,
    Bench,
    Proposal,
    is_same_geometry,
    propose,
    set_up,
)
from quantstudio.engine.doctor.reasons import reason_of
from quantstudio.engine.doctor.scores import Score, beats
from quantstudio.engine.doctor.shown import chosen, shown_samples
from quantstudio.engine.doctor.store import key_of, recall, remember
from quantstudio.engine.doctor.text import examine_text
from quantstudio.engine.graph.graph import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What the doctor is asked.

    Attributes:
        graph: The network.
        data: Calibration data.
        test: Test data; None without.
        is_asked: Whether the transform of `data` is asked about; else it is not looked at.
        classes: Classes the network tells apart, where known.
    """

    graph: Graph
    data: DataSpec
    test: DataSpec | None
    is_asked: bool
    classes: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Used:
    """A data set with one transform.

    Attributes:
        bench: It on the network.
        transform: The transform.
        score: How the network does.
    """

    bench: Bench
    transform: Transform
    score: Score


def examine(question: Question, *, reporter: Reporter, cancel: CancelToken) -> Diagnosis:
    """What is to be done to a data set, and what is wrong with it.

    Tells a first `Diagnosis` from few samples as a part, where more are going to be looked at.

    Raises:
        DataError: the data cannot be read, or fits in no layout.
        MeasureError: the network does not run on it.
        JobCancelled: `cancel` was set.
    """
    graph, data = question.graph, question.data
    if is_text(data.path):
        return examine_text(graph, data, is_asked=question.is_asked, cancel=cancel)
    network = Network(Path(graph.summary.graph_path), cancel)
    asked = data.transform if question.is_asked else None
    bench = set_up(graph, network, data, question.classes, asked, cancel)
    test = None
    if question.test is not None:
        test = set_up(
            graph,
            network,
            question.test,
            question.classes,
            question.test.transform if asked else None,
            cancel,
        )
    key = key_of(
        "diagnosis",
        graph=graph.digest,
        source=graph.summary.source_path,
        data=bench.fitting.dataset.digest,
        test="" if test is None else test.fitting.dataset.digest,
        judging=[data.judging, question.test.judging if question.test is not None else INFERRED],
        paths=[data.path, "" if question.test is None else question.test.path],
        asked="" if asked is None else f"={asked.text}",
        test_asked="" if asked is None or question.test is None else question.test.transform.text,
    )
    known = recall(Diagnosis, key)
    if known is not None:
        return known
    round_ = _Round(question, bench, test, reporter, cancel)
    found = round_.diagnosis()
    remember(key, found)
    return found


class _Round:
    """One question, answered step by step."""

    def __init__(
        self, question: Question, bench: Bench, test: Bench | None, reporter: Reporter, cancel: CancelToken
    ) -> None:
        self._question = question
        self._bench = bench
        self._test = test
        self._reporter = reporter
        self._cancel = cancel

    def diagnosis(self) -> Diagnosis:
        """All of it."""
        proposal = self._proposal()
        asked = self._question.data.transform if self._question.is_asked else None
        if asked is None or asked == proposal.best.transform:
            return self._of(proposal, None if asked is None else proposal.best, None, ())
        try:
            used = self._used(self._bench, self._question.data, asked)
        except DataError as error:
            caution = cautions.does_not_fit(error, proposal.best.transform)
            return self._of(proposal, Trial(asked, "as typed"), None, (caution,))
        proposal, trial, caution_found = self._judged(proposal, used)
        return self._of(proposal, trial, used, () if caution_found is None else (caution_found,))

    def _proposal(self) -> Proposal:
        """The best transform, from the data that has labels."""
        bench = self._bench
        if bench.answers.labels is None and self._test is not None and self._test.answers.labels is not None:
            bench = self._test
        key = key_of(
            "proposal",
            graph=bench.graph.digest,
            source=bench.graph.summary.source_path,
            data=bench.fitting.dataset.digest,
            judging=bench.fitting.dataset.judging,
        )
        known = recall(Proposal, key)
        if known is not None:
            return known
        found = propose(bench, self._reporter, self._on_first)
        remember(key, found)
        return found

    def _on_first(self, proposal: Proposal) -> None:
        if self._question.is_asked:
            return
        samples = self._bench.samples.head(self._bench.few)
        shown = self._shown(self._bench, proposal.best.transform, samples, None)
        self._reporter.found(
            Diagnosis(
                path=self._question.data.path,
                samples=len(self._bench.fitting.dataset),
                ground=proposal.ground,
                reason=reason_of(proposal),
                proposed=proposal.best,
                trials=proposal.trials,
                classes=classes_of(self._bench),
                labelled=self._bench.fitting.labels is not None,
                shown=shown,
                is_final=False,
            )
        )

    def _judged(self, proposal: Proposal, used: _Used) -> tuple[Proposal, Trial, Caution | None]:
        """The proposal with the transform asked about held against it."""
        best = proposal.best
        bench = self._bench
        if proposal.ground is Ground.STATISTICS:
            value = self._misfit(used)
            mine, theirs = (used.score, value), (used.score, best.score)
            is_better = value > best.score / 2 and -best.score > 0.05
        elif proposal.ground in (Ground.LABELS, Ground.CONFIDENCE):
            theirs_score = bench.score(best.transform)
            mine = (used.score, self._value(used.bench, used.score))
            theirs = (theirs_score, self._value(bench, theirs_score))
            is_better = beats(mine[0].marks, theirs[0].marks)
        else:
            return proposal, Trial(used.transform, "as typed"), None
        looked_at = STATISTICS_SAMPLES if proposal.ground is Ground.STATISTICS else len(used.score.marks)
        trial = Trial(used.transform, "as typed", mine[1], min(looked_at, len(used.score.marks)))
        if is_better:
            return replace(proposal, trials=(trial, *proposal.trials)), trial, None
        found = cautions.wrong_transform(proposal.ground, mine, theirs, best.transform)
        return proposal, trial, found

    def _value(self, bench: Bench, score: Score) -> float:
        figure = figure_of(bench, score, "", is_calibration=True)
        return score.mean if figure is None else figure.value

    def _misfit(self, used: _Used) -> float:
        remembered = read_normalizations(self._question.graph.summary, self._cancel)
        if remembered is None:
            return float("nan")
        return -remembered.misfit(used.bench.samples.head(STATISTICS_SAMPLES), used.transform)

    def _used(self, bench: Bench, spec: DataSpec, transform: Transform) -> _Used:
        """A data set with a transform, in whatever layout that gives.

        Raises:
            DataError: it does not fit.
        """
        if not is_same_geometry(bench.fitting.geometry, transform):
            geometry = replace(transform, scale=1.0, mean=(0.0,), std=(1.0,), channels="RGB")
            opened = fitting_of(
                replace(spec, transform=geometry), self._question.graph.summary.inputs, self._question.classes
            )
            bench = Bench(bench.graph, bench.network, opened, bench.answers, bench.pace, self._cancel)
        # Refuses a mean for channels that are not there.
        fitting_of(
            replace(spec, transform=transform), self._question.graph.summary.inputs, self._question.classes
        )
        return _Used(bench, transform, bench.score(transform))

    def _of(
        self, proposal: Proposal, asked: Trial | None, used: _Used | None, found: tuple[Caution, ...]
    ) -> Diagnosis:
        question, best = self._question, proposal.best
        proposed = _Used(self._bench, best.transform, self._bench.score(best.transform))
        in_use = used or proposed
        on_test = self._tested(best.transform)
        source = on_test or in_use
        path = question.data.path if on_test is None or question.test is None else question.test.path
        figure = figure_of(source.bench, source.score, path, is_calibration=on_test is None)
        is_proposed = in_use.transform == best.transform
        given = given_by(in_use.bench.samples, in_use.transform)
        inputs = facts_of(in_use.bench.fitting.dataset, in_use.bench.samples, given)
        classes = classes_of(in_use.bench)
        does_fit = used is not None or asked is None or asked.transform == best.transform
        warned = [
            *found,
            *cautions.about_answers(
                source.bench,
                source.score,
                figure,
                is_proposed=is_proposed,
                is_test=on_test is not None,
            ),
            *self._about_labels(),
            *self._about_test(inputs, on_test),
        ]
        return Diagnosis(
            path=question.data.path,
            samples=len(in_use.bench.fitting.dataset),
            ground=proposal.ground,
            reason=reason_of(proposal),
            proposed=best,
            asked=asked,
            trials=proposal.trials,
            figure=figure if does_fit else None,
            proposed_figure=None if is_proposed and does_fit else self._proposed_figure(proposed),
            inputs=inputs,
            classes=classes,
            labelled=in_use.bench.fitting.labels is not None,
            shown=self._shown(in_use.bench, in_use.transform, in_use.bench.samples, in_use.score),
            cautions=_sorted(warned),
            digest=in_use.bench.fitting.dataset.digest,
            segments=tuple(in_use.bench.fitting.dataset.segments),
            judgement=in_use.bench.answers.judgement,
        )

    def _proposed_figure(self, proposed: _Used) -> DataFigure | None:
        path = self._question.data.path
        return figure_of(proposed.bench, proposed.score, path, is_calibration=True)

    def _tested(self, proposed: Transform) -> _Used | None:
        """Labelled test data with its transform; None where there is none."""
        test, spec = self._test, self._question.test
        if test is None or spec is None or test.answers.labels is None:
            return None
        transform = spec.transform if self._question.is_asked else proposed
        try:
            used = self._used(test, spec, transform)
        except DataError:
            return None
        return replace(used, score=used.bench.score_many(transform))

    def _about_labels(self) -> list[Caution]:
        question = self._question
        found = list(cautions.about_labels(self._bench, classes_of(self._bench), question.data.path))
        if self._test is not None and question.test is not None:
            found += cautions.about_labels(self._test, classes_of(self._test), question.test.path)
        labelled = self._bench.answers.labels is not None or (
            self._test is not None and self._test.answers.labels is not None
        )
        if not labelled and self._bench.fitting.labels is None:
            found.append(
                Caution(
                    Trouble.NO_LABELS,
                    "There are no labels: instead of accuracy, agreement with FP32 is measured.",
                    Hint("Choose labelled test data", HintAction.CHOOSE_DATA),
                    is_certain=False,
                )
            )
        return found

    def _about_test(self, inputs: tuple[InputFacts, ...], on_test: _Used | None) -> list[Caution]:
        question = self._question
        if question.test is None or self._test is None:
            return []
        found: list[Caution] = []
        if on_test is not None:
            given = given_by(on_test.bench.samples, on_test.transform)
            found += cautions.about_ranges(
                inputs, facts_of(on_test.bench.fitting.dataset, on_test.bench.samples, given)
            )
        shared = overlap(self._test.fitting.dataset, self._bench.fitting.dataset, self._cancel)
        caution = cautions.about_overlap(shared, question.data.path, question.test.path)
        return [*found, caution] if caution is not None else found

    def _shown(
        self, bench: Bench, transform: Transform, samples: Samples, score: Score | None
    ) -> tuple[ShownSample, ...]:
        """Pictures of some samples; answers where the score of all these samples is known.

        None where no input has an axis of samples: one feed a file, each of its own size, is no picture.
        """
        name = next(iter([*samples.scaled, *bench.fitting.dataset.stored]), None)
        if name is None:
            return ()
        labels = bench.answers.labels_of(samples.indices)
        answers = score.answers if score is not None else np.empty(0, np.int64)
        places = chosen(samples.indices, labels, answers)
        given = given_by(samples, transform)
        names = bench.fitting.dataset.class_names

        def named(index: float) -> str:
            is_class = bench.answers.form is not None and 0 <= index < len(names)
            return names[int(index)] if is_class else f"{index:.4g}"

        is_row = labels is not None and np.ndim(labels) == 1
        return shown_samples(
            given[name][places],
            samples.indices[places],
            [named(float(labels[place])) for place in places] if labels is not None and is_row else [],
            [named(float(answers[place])) for place in places] if len(answers) else [],
        )


def _sorted(found: list[Caution]) -> tuple[Caution, ...]:
    return tuple(sorted(found, key=lambda one: not one.is_certain))
