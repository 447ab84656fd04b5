"""One pass over the data for all models: accuracy paired sample by sample, and agreement with the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.results import Agreement, ClassAccuracy, Interval
from quantstudio.engine.evaluation.accuracy import (
    ClassTally,
    ValueTally,
    accuracy_by_class,
    accuracy_by_segment,
)
from quantstudio.engine.evaluation.agreement import AgreementTally
from quantstudio.engine.evaluation.outputs import OutputForm, output_form
from quantstudio.engine.evaluation.uncertainty import bootstrap_interval, paired_accuracy
from quantstudio.engine.graph.runtime import Feed, fitted_feed, open_session, resolve_provider, run

if TYPE_CHECKING:
    import onnxruntime as ort

MAX_FLIPPED = 200
# Inputs of one batch stay below this, so that large images do not need gigabytes of activations.
BATCH_BYTES = 4 << 20
# Outputs of one batch and one model; comparing them takes several times as much in float64.
OUTPUT_BYTES = 8 << 20
MAX_BATCH = 128
# Enough to tell probabilities from logits.
FORM_SAMPLES = 64
NO_LOSS = Interval(0.0, 0.0, 0.0)


class BatchLike(Protocol):
    """Some samples by input name; only the first `count` rows are valid."""

    @property
    def feed(self) -> Mapping[str, NDArray[Any]]:
        """Arrays by input name."""

    @property
    def count(self) -> int:
        """Valid samples."""

    @property
    def start(self) -> int:
        """Index of the first."""


class DatasetLike(Protocol):
    """What a comparison needs of a data set."""

    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.float32] | None:
        """Classes, targets or None."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; may be empty."""

    @property
    def segments(self) -> Mapping[str, NDArray[Any]]:
        """Other columns."""

    def __len__(self) -> int: ...

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[BatchLike]:
        """Samples in order."""


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


@dataclass(slots=True)
class _Model:
    path: Path
    session: ort.InferenceSession
    classes: ClassTally | None = None
    values: ValueTally | None = None
    agreement: AgreementTally | None = None

    def output(self, feed: Feed, count: int, cancel: CancelToken | None) -> NDArray[np.generic]:
        """First output, one row a valid sample."""
        try:
            own = fitted_feed(self.session, feed)
            found = run(self.session, own, [self.session.get_outputs()[0].name], cancel=cancel)[0]
        except MeasureError as error:
            raise MeasureError(error.what, where=str(self.path), hint=error.hint) from error
        if not isinstance(found, np.ndarray):
            raise MeasureError("the model's first output is not a tensor", where=str(self.path))
        if count == 1 and (found.ndim == 0 or len(found) != 1):
            found = found[None]  # a model for single samples may have no batch axis
        if len(found) < count:
            raise MeasureError(
                f"the model's first output has shape {list(found.shape)} for {count} samples",
                where=str(self.path),
                hint="Its first axis must be the batch",
            )
        return found[:count]


def score_models(
    paths: Sequence[Path],
    dataset: DatasetLike,
    *,
    threads: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken | None,
) -> tuple[tuple[Score, ...], OutputForm]:
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
    models = []
    for path in paths:
        token.raise_if_set()
        models.append(_Model(path, open_session(path, threads=threads, provider=full_name, cancel=token)))
    size = _batch_size(dataset, models[0], token)
    form: OutputForm | None = None
    undefined = 0
    for batch in dataset.batches(size):
        outputs = [model.output(batch.feed, batch.count, token) for model in models]
        if form is None:
            form = _form(models[0], dataset, outputs[0], size, token)
            _start(models, form, dataset)
        undefined += _rows_without_numbers(outputs[0])
        _add(models, outputs, batch.start)
        reporter.progress(batch.start + batch.count, len(dataset), "samples", "Measuring accuracy")
    if form is None:
        raise MeasureError("the data holds no samples")
    if undefined == len(dataset):
        raise MeasureError(
            f"the base computes no numbers (NaN) on any of {undefined} samples, so nothing compares with it",
            where=str(models[0].path),
            hint=Hint(
                "Check the data and its transform, or look for broken weights in the list of layers",
                HintAction.LIST_LAYERS,
            ),
        )
    if undefined:
        reporter.message(
            f"{models[0].path.name} itself outputs values that are not numbers on {undefined} of "
            f"{len(dataset)} samples; check the data and its transform",
            Severity.WARNING,
        )
    for model in models[1:]:
        _warn_of_nan(model, reporter)
    scores = []
    for model in models:
        token.raise_if_set()
        scores.append(_score(model, models[0], dataset))
    return tuple(scores), form


def _form(
    base: _Model, dataset: DatasetLike, first: NDArray[np.generic], size: int, cancel: CancelToken
) -> OutputForm:
    """How outputs are read, judged by the first batch.

    One number a sample is a probability or a logit, and a few logits may all lie between 0 and 1 by chance.
    """
    last = min(FORM_SAMPLES, len(dataset))
    if first.size == len(first) < last:
        parts = [base.output(b.feed, b.count, cancel) for b in dataset.batches(size, stop=last)]
        first = np.concatenate([part.reshape(-1) for part in parts])
    return output_form(first, dataset.labels)


def _rows_without_numbers(output: NDArray[np.generic]) -> int:
    """Samples with NaN; an infinity may be the mask of a class."""
    if output.dtype.kind != "f":
        return 0
    return int(np.isnan(output).reshape(len(output), -1).any(axis=1).sum())


def _batch_size(dataset: DatasetLike, base: _Model, cancel: CancelToken) -> int:
    first = next(iter(dataset.batches(1, stop=1)), None)
    if first is None:
        return 1
    given = sum(array.nbytes for array in first.feed.values())
    found = base.output(first.feed, first.count, cancel).nbytes
    return max(1, min(MAX_BATCH, BATCH_BYTES // max(given, 1), OUTPUT_BYTES // max(found, 1)))


def _start(models: Sequence[_Model], form: OutputForm, dataset: DatasetLike) -> None:
    labels = dataset.labels
    classes = _class_labels(labels, form)
    for model in models:
        model.agreement = AgreementTally(form)
        if form.is_class_per_sample:
            model.classes = ClassTally(classes, len(dataset), form)
        elif labels is not None:
            model.values = ValueTally(np.asarray(labels, dtype=np.float64))


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


def _add(models: Sequence[_Model], outputs: Sequence[NDArray[np.generic]], start: int) -> None:
    for model, output in zip(models, outputs, strict=True):
        if output.shape != outputs[0].shape:
            raise MeasureError(
                f"the first output has shape {list(output.shape)}, the base's has {list(outputs[0].shape)}",
                where=str(model.path),
                hint="Compare models that were made from the same network",
            )
        if model.classes is not None:
            model.classes.add(start, output)
        if model.values is not None:
            model.values.add(start, output)
        if model.agreement is not None:
            model.agreement.add(outputs[0], output)


def _warn_of_nan(model: _Model, reporter: Reporter) -> None:
    if model.agreement is not None and model.agreement.has_nan:
        reporter.message(
            f"{model.path.name} outputs values that are not numbers; they count as wrong", Severity.WARNING
        )


def _score(model: _Model, base: _Model, dataset: DatasetLike) -> Score:
    assert model.agreement is not None, "the pass starts every tally"
    plain = Score(provider=model.session.get_providers()[0], agreement=model.agreement.result())
    if model.classes is not None and base.classes is not None:
        if dataset.labels is None:
            flipped = np.flatnonzero(base.classes.predicted != model.classes.predicted)[:MAX_FLIPPED]
            return replace(plain, **_flips(flipped, model.classes))
        return _class_score(plain, model.classes, base.classes, dataset)
    if model.values is not None and base.values is not None:
        return _value_score(plain, model.values, base.values)
    return plain


def _class_score(plain: Score, tally: ClassTally, base: ClassTally, dataset: DatasetLike) -> Score:
    base_right, right = base.right(), tally.right()
    paired = paired_accuracy(base_right, right)
    is_base = tally is base
    return replace(
        plain,
        metrics=tally.metrics(),
        drop=NO_LOSS if is_base else paired.drop,
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
    score = replace(plain, metrics=tally.metrics())
    if tally is base:
        return replace(score, drop=NO_LOSS)
    if not base.squared.any():
        return score  # nothing is a percentage of no error at all
    drop = bootstrap_interval(
        np.stack([base.squared, tally.squared], axis=1),
        lambda means: 100 * (np.sqrt(means[:, 1] / np.maximum(means[:, 0], np.finfo(float).tiny)) - 1),
    )
    return replace(score, drop=drop, drop_method="bootstrap")
