"""One pass over the data for all models: accuracy paired sample by sample, and agreement with the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.judgement import AGREEMENT, TARGETS, TOP1
from quantstudio.core.language import LanguageFigures
from quantstudio.core.results import Agreement, ClassAccuracy, Headline, Interval, OutputError
from quantstudio.engine.evaluation.accuracy import (
    ClassTally,
    ValueTally,
    accuracy_by_class,
    accuracy_by_segment,
)
from quantstudio.engine.evaluation.agreement import AgreementTally
from quantstudio.engine.evaluation.judging import reading_of, task_tally
from quantstudio.engine.evaluation.language import NextTokenTally
from quantstudio.engine.evaluation.outputs import OutputForm
from quantstudio.engine.evaluation.probe import BatchLike, DatasetLike
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.evaluation.sample_axis import Array
from quantstudio.engine.evaluation.tallies import NO_LOSS, ErrorTally, Tally, headline
from quantstudio.engine.evaluation.uncertainty import bootstrap_interval, paired_accuracy, wilson_interval
from quantstudio.engine.graph.runtime import fitted_feed, open_session, resolve_provider, run

if TYPE_CHECKING:
    import onnxruntime as ort

MAX_FLIPPED = 200
# Inputs of one batch stay below this, so that large images do not need gigabytes of activations.
BATCH_BYTES = 4 << 20
# Outputs of one batch and one model; comparing them takes several times as much in float64.
OUTPUT_BYTES = 8 << 20
MAX_BATCH = 128
# An output that no figure reads, and of which less is left, is told.
UNJUDGED_DB = 10.0
# Said at the figure where the base gives nothing to find again.
NOTHING_FOUND = "nothing to find: values compared"


@dataclass(frozen=True, slots=True)
class Score:
    """What the pass over the data says of one model; see `core.results.VariantResult`."""

    provider: str
    agreement: Agreement
    metrics: dict[str, float] = field(default_factory=dict)
    drop: Interval | None = None
    drop_method: str = ""
    p_value: float | None = None
    per_class: tuple[ClassAccuracy, ...] = ()
    segments: tuple[ClassAccuracy, ...] = ()
    flipped: tuple[int, ...] = ()
    flipped_to: tuple[int, ...] = ()
    headline: Headline | None = None
    outputs: tuple[OutputError, ...] = ()
    language: LanguageFigures | None = None


@dataclass(slots=True)
class _Model:
    path: Path
    session: ort.InferenceSession
    names: dict[str, str]
    errors: ErrorTally
    classes: ClassTally | None = None
    values: ValueTally | None = None
    agreement: AgreementTally | None = None
    task: Tally | None = None

    def outputs(self, batch: BatchLike, reading: Reading, cancel: CancelToken | None) -> dict[str, Array]:
        """The outputs that are compared, samples first, under the base's names."""
        try:
            own = fitted_feed(self.session, batch.feed)
            found = run(self.session, own, list(self.names.values()), cancel=cancel)
            return {
                name: reading.axes[name].rows(value, batch.held, batch.count, name)
                for name, value in zip(self.names, found, strict=True)
            }
        except MeasureError as error:
            raise MeasureError(error.what, where=str(self.path), hint=error.hint) from error


def score_models(
    paths: Sequence[Path],
    dataset: DatasetLike,
    *,
    threads: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken | None,
) -> tuple[tuple[Score, ...], Reading]:
    """Accuracy and agreement of every model against the first.

    Args:
        paths: Model files, the base first.
        dataset: Samples.
        threads: Intra-op threads.
        provider: Execution provider, short or full name.
        reporter: Told of every batch.
        cancel: Ends a run in progress, too.

    Returns:
        One score per model, and how their outputs were read.

    Raises:
        MeasureError: a model does not run on the data, or outputs do not fit the labels or each other.
        ModelLoadError: the runtime refuses a model.
        JobCancelled: `cancel` was set.
    """
    token = cancel or never_cancelled()
    full_name = resolve_provider(provider)
    sessions = []
    for path in paths:
        token.raise_if_set()
        sessions.append(open_session(path, threads=threads, provider=full_name, cancel=token))
    reading = _reading(paths[0], sessions[0], dataset, token)
    models = [_model(path, session, reading, dataset) for path, session in zip(paths, sessions, strict=True)]
    undefined = 0
    for batch in dataset.batches(_batch_size(dataset, models[0], reading, token)):
        outputs = [model.outputs(batch, reading, token) for model in models]
        undefined += _rows_without_numbers([outputs[0][name] for name in reading.judgement.outputs])
        _add(models, outputs, batch.start, reading)
        reporter.progress(batch.start + batch.count, len(dataset), "samples", "Measuring accuracy")
    _check_base(models[0], undefined, len(dataset), reporter)
    for model in models[1:]:
        _warn(model, reading, reporter)
    scores = []
    for model in models:
        token.raise_if_set()
        scores.append(_score(model, models[0], dataset, reading))
    return _with_headlines(scores, models, reading, reporter), reading


def _reading(path: Path, session: ort.InferenceSession, dataset: DatasetLike, cancel: CancelToken) -> Reading:
    try:
        return reading_of(onnx.load(str(path), load_external_data=False), session, dataset, cancel)
    except MeasureError as error:
        raise MeasureError(error.what, where=error.where or str(path), hint=error.hint) from error


def _model(path: Path, session: ort.InferenceSession, reading: Reading, dataset: DatasetLike) -> _Model:
    own = [output.name for output in session.get_outputs()]
    missing = [name for name in reading.axes if name not in own]
    if missing and len(reading.axes) != len(own):
        raise MeasureError(
            f"the model has no output named {missing[0]!r}",
            where=str(path),
            hint="Compare models that were made from the same network",
        )
    # Two exports of one network may name their outputs differently; their order stays.
    names = dict(zip(reading.axes, own, strict=True)) if missing else {name: name for name in reading.axes}
    model = _Model(path, session, names, ErrorTally(reading.floats, len(dataset)))
    form, labels, samples = reading.form, dataset.labels if reading.uses_labels else None, len(dataset)
    if form is not None and not reading.foretells:
        model.agreement = AgreementTally(form)
        if form.is_class_per_sample:
            model.classes = ClassTally(_class_labels(labels, form), samples, form)
    if reading.kind is Kind.TARGETS:
        model.values = ValueTally(np.asarray(labels, dtype=np.float64))
    model.task = task_tally(reading, dataset)
    return model


def _rows_without_numbers(outputs: Sequence[Array]) -> int:
    """Samples with NaN; an infinity may be the mask of a class."""
    rows = [np.isnan(o).reshape(len(o), -1).any(axis=1) for o in outputs if o.dtype.kind == "f"]
    return int(np.logical_or.reduce(rows).sum()) if rows else 0


def _check_base(base: _Model, undefined: int, samples: int, reporter: Reporter) -> None:
    """Refuse a base that computes no numbers, and tell where it does not on some samples."""
    if undefined == samples:
        raise MeasureError(
            f"the base computes no numbers (NaN) on any of {undefined} samples, so nothing compares with it",
            where=str(base.path),
            hint=Hint(
                "Check the data and its transform, or look for broken weights in the list of layers",
                HintAction.LIST_LAYERS,
            ),
        )
    if undefined:
        reporter.message(
            f"{base.path.name} itself outputs values that are not numbers on {undefined} of "
            f"{samples} samples; check the data and its transform",
            Severity.WARNING,
        )


def _batch_size(dataset: DatasetLike, base: _Model, reading: Reading, cancel: CancelToken) -> int:
    if reading.has_whole_outputs:
        return 1
    first = next(iter(dataset.batches(1, stop=1)))
    given = sum(array.nbytes for array in first.feed.values())
    found = sum(output.nbytes for output in base.outputs(first, reading, cancel).values())
    return max(1, min(MAX_BATCH, BATCH_BYTES // max(given, 1), OUTPUT_BYTES // max(found, 1)))


def _class_labels(
    labels: NDArray[np.int64] | NDArray[np.float32] | None, form: OutputForm
) -> NDArray[np.int64] | None:
    if labels is None or not form.is_classification:
        return None
    classes = np.asarray(labels, dtype=np.int64)
    if form.classes and len(classes) and int(classes.max()) >= form.classes:
        worst = int(classes.argmax())
        raise MeasureError(
            f"label {classes[worst]} of sample {worst} is out of range",
            hint=f"The model tells {form.classes} classes apart: labels must be 0 to {form.classes - 1}",
        )
    return classes


def _add(
    models: Sequence[_Model], outputs: Sequence[Mapping[str, Array]], start: int, reading: Reading
) -> None:
    base = outputs[0]
    for model, found in zip(models, outputs, strict=True):
        for name, output in found.items():
            if output.shape != base[name].shape and reading.axes[name].axis >= 0:
                raise MeasureError(
                    f"output {name!r} has shape {list(output.shape)}, the base's has "
                    f"{list(base[name].shape)}, samples first",
                    where=str(model.path),
                    hint="Compare models that were made from the same network",
                )
        judged = reading.output
        model.errors.add(start, base, found)
        if model.classes is not None:
            model.classes.add(start, found[judged])
        if model.values is not None:
            model.values.add(start, found[judged])
        if model.agreement is not None:
            model.agreement.add(base[judged], found[judged])
        if model.task is not None:
            model.task.add(start, base, found)


def _warn(model: _Model, reading: Reading, reporter: Reporter) -> None:
    if model.errors.has_nan:
        reporter.message(
            f"{model.path.name} outputs values that are not numbers; they count as wrong", Severity.WARNING
        )
    for name in model.errors.names:
        found = model.errors.sqnr_db(name)
        if name not in reading.judgement.outputs and found - UNJUDGED_DB < 0:
            reporter.message(
                f"{model.path.name}: output {name!r} is not judged, and only {found:.1f} dB of it are left",
                Severity.WARNING,
            )


def _score(model: _Model, base: _Model, dataset: DatasetLike, reading: Reading) -> Score:
    errors = model.errors
    judged = [name for name in errors.names if name in reading.judgement.outputs]
    sqnr = min((errors.sqnr_db(name) for name in judged), default=math.nan)
    metrics = model.task.metrics() if model.task is not None else {}
    plain = Score(
        provider=model.session.get_providers()[0],
        agreement=Agreement(metrics.get("pixels", math.nan), math.nan, sqnr),
        metrics=metrics,
        outputs=tuple(
            OutputError(name, errors.sqnr_db(name), errors.cosine(name), name in judged)
            for name in errors.names
        ),
    )
    if model.agreement is not None:
        plain = replace(plain, agreement=model.agreement.result())
    if isinstance(model.task, NextTokenTally):
        plain = replace(plain, agreement=model.task.agreement(sqnr), language=model.task.figures())
    if model.classes is not None and base.classes is not None:
        if not reading.uses_labels:
            return _agreement_score(plain, model.classes, base.classes)
        return _class_score(plain, model.classes, base.classes, dataset)
    if model.values is not None and base.values is not None:
        return _value_score(plain, model.values, base.values)
    return plain


def _with_headlines(
    scores: Sequence[Score], models: Sequence[_Model], reading: Reading, reporter: Reporter
) -> tuple[Score, ...]:
    """The task's figure of every model; of the outputs as they are where the base gives nothing to match."""
    found = [
        score.headline or (model.task.headline() if model.task is not None else None)
        for score, model in zip(scores, models, strict=True)
    ]
    told = next((one for one in found[1:] or found if one is not None), None)
    if told is None:
        # The outputs that were named; all there are where those hold nothing that could be lost.
        found = [model.errors.headline(reading.judgement.outputs) for model in models]
        if found[0] is None:
            found = [model.errors.headline() for model in models]
    else:
        # A variant without a figure beside one that has it finds as little as the base does.
        same = replace(told, value=told.base, loss=NO_LOSS)
        found = [same, *(one or same for one in found[1:])]
    if told is not None or not any(model.task for model in models):
        found = [one and replace(one, caveat=reading.caveat) for one in found]
        return tuple(replace(score, headline=one) for score, one in zip(scores, found, strict=True))
    reporter.message(
        "The base finds nothing on this data that a variant could find again: outputs are compared as values",
        Severity.WARNING,
    )
    found = [one and replace(one, caveat=NOTHING_FOUND) for one in found]
    return tuple(replace(s, headline=h, metrics={}) for s, h in zip(scores, found, strict=True))


def _agreement_score(plain: Score, tally: ClassTally, base: ClassTally) -> Score:
    same = (base.predicted == tally.predicted) & (base.predicted >= 0)
    flipped = np.flatnonzero(base.predicted != tally.predicted)[:MAX_FLIPPED]
    changed = len(same) - int(same.sum())
    low, high = wilson_interval(changed, len(same)) if tally is not base else (0.0, 0.0)
    loss = Interval(100 * changed / len(same), 100 * low, 100 * high)
    found = headline(AGREEMENT, 1.0, float(same.mean()), loss)
    return replace(plain, headline=found, **_flips(flipped, tally))


def _class_score(plain: Score, tally: ClassTally, base: ClassTally, dataset: DatasetLike) -> Score:
    base_right, right = base.right(), tally.right()
    paired = paired_accuracy(base_right, right)
    is_base = tally is base
    drop = NO_LOSS if is_base else paired.drop
    return replace(
        plain,
        metrics=tally.metrics(),
        headline=headline(TOP1, float(base_right.mean()), float(right.mean()), drop),
        drop=drop,
        drop_method="" if is_base else "mcnemar",
        p_value=None if is_base else paired.p_value,
        per_class=accuracy_by_class(
            np.asarray(dataset.labels, dtype=np.int64), base_right, right, dataset.class_names
        ),
        segments=accuracy_by_segment(dataset.segments, base_right, right),
        **_flips(np.flatnonzero(base_right & ~right)[:MAX_FLIPPED], tally),
    )


def _flips(indices: NDArray[np.int64], tally: ClassTally) -> dict[str, Any]:
    return {
        "flipped": tuple(int(i) for i in indices),
        "flipped_to": tuple(int(c) for c in tally.predicted[indices]),
    }


def _value_score(plain: Score, tally: ValueTally, base: ValueTally) -> Score:
    metrics = tally.metrics()
    score = replace(plain, metrics=metrics)
    spread = tally.spread
    if spread > 0:
        pairs = np.stack([base.squared, tally.squared], axis=1)
        lost = bootstrap_interval(pairs, lambda means: 100 * (means[:, 1] - means[:, 0]) / spread)
        found = headline(TARGETS, base.metrics()["r2"], metrics["r2"], lost if tally is not base else NO_LOSS)
        score = replace(score, headline=found)
    if tally is base:
        return replace(score, drop=NO_LOSS)
    if not base.squared.any():
        return score  # nothing is a percentage of no error at all
    drop = bootstrap_interval(
        np.stack([base.squared, tally.squared], axis=1),
        lambda means: 100 * (np.sqrt(means[:, 1] / np.maximum(means[:, 0], np.finfo(float).tiny)) - 1),
    )
    return replace(score, drop=drop, drop_method="bootstrap")
