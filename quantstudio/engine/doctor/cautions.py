"""What is wrong with data, said so that a person can act on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from quantstudio.core.data_spec import Transform
from quantstudio.core.diagnosis import Caution, ClassCount, DataFigure, Ground, InputFacts, Trouble
from quantstudio.core.errors import DataError, in_one_line
from quantstudio.core.figures import count, number, percent
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.doctor.overlap import Overlap
from quantstudio.engine.doctor.proposal import Bench
from quantstudio.engine.doctor.scores import Score, beats

# Accuracies nearer than this are no reason to speak of a wrong transform.
_POINT = 0.01
_CONSTANT_SHARE = 0.95
_ENOUGH = 32
_SAMPLES_PER_CLASS = 10
_NAMED = 4
_OVERLAP_SHARE = 0.01
# Between two halves of one data set means differ far less, and deviations too.
_UNLIKE_MEAN = 1.0
_UNLIKE_SPREAD = 2.5
# Of what batch normalizations remember, nats: an eighth of a deviation is 0.008.
_MISFIT = 0.05
_TOLD_SHARE = 0.1

USE_PROPOSED = Hint("Use the proposed transform", HintAction.USE_TRANSFORM)


def wrong_transform(
    ground: Ground, used: tuple[Score, float], proposed: tuple[Score, float], transform: Transform
) -> Caution | None:
    """That the transform asked about does worse than the proposed one; each with its figure."""
    (score, value), (best, best_value) = used, proposed
    if ground is Ground.LABELS:
        is_worse = beats(best.marks, score.marks) and best_value - value >= _POINT
        is_share = len(best.answers) > 0
        texts = [percent(v, 1) if is_share else f"R² {number(v, 3)}" for v in (value, best_value)]
        text = f"This transform gives {texts[0]}; the proposed one gives {texts[1]} on the same samples"
    elif ground is Ground.CONFIDENCE:
        is_worse = beats(best.marks, score.marks) and best_value - value >= _TOLD_SHARE * best_value
        text = (
            f"With this transform the answers tell {number(value, 2)} nats of each sample; with the proposed "
            f"one {number(best_value, 2)}"
        )
    elif ground is Ground.STATISTICS:
        is_worse = -value > _MISFIT and -value > 2 * -best_value
        text = (
            "With this transform the network sees other values than in training: what reaches its batch "
            f"normalizations is {number(-value, 2)} nats from what they remember; with the proposed one "
            f"{number(-best_value, 3)}"
        )
    else:
        return None
    return Caution(Trouble.WRONG_TRANSFORM, f"{text}.", USE_PROPOSED, transform) if is_worse else None


def does_not_fit(error: DataError, transform: Transform) -> Caution:
    """That the data does not fit the network with the transform asked about."""
    text = in_one_line(error.what[:1].upper() + error.what[1:], hint=error.hint.text)
    return Caution(Trouble.WRONG_TRANSFORM, text, USE_PROPOSED, transform)


def about_answers(
    bench: Bench, score: Score, figure: DataFigure | None, *, is_proposed: bool, is_test: bool
) -> Iterator[Caution]:
    """Answers that are all alike, or no better than chance.

    Args:
        bench: The data set.
        score: How the network does on it.
        figure: The figure of that, where there are labels.
        is_proposed: Whether calibration data goes through the transform that is proposed.
        is_test: Whether this is test data, on which no transform was tried.
    """
    answers = score.answers
    if len(answers) < _ENOUGH:
        return
    values, counts = np.unique(answers, return_counts=True)
    share = float(counts.max()) / len(answers)
    labels = bench.answers.labels_of(score.indices)
    common = _commonest(np.asarray(labels)) if labels is not None and figure is not None else 0.0
    cure = "The network may have been trained with another transform"
    if is_proposed and is_test:
        cure = "Test data may need a transform of its own, or count its classes in another order"
    elif is_proposed:
        cure = (
            "No transform that was tried does better: the network and the data may not belong together, or "
            "the labels count the classes in another order"
        )
    if share >= _CONSTANT_SHARE and common < share - _POINT:
        name = _class_name(bench, int(values[counts.argmax()]))
        yield Caution(Trouble.CONSTANT_ANSWERS, f"{percent(share, 0)} of the answers are {name}. {cure}.")
    elif figure is not None and figure.is_share:
        chance = max(1 / bench.answers.classes if bench.answers.classes else 0.0, common)
        if figure.low <= chance:
            yield Caution(
                Trouble.NEAR_CHANCE,
                f"{percent(figure.value, 1)} is no better than chance ({percent(chance, 1)}). {cure}.",
            )


def about_labels(bench: Bench, classes: Sequence[ClassCount], where: str) -> Iterator[Caution]:
    """Labels that are missing, out of range, or meant as numbers."""
    name = Path(where).name
    if bench.fitting.labels_fault:
        known = np.asarray(bench.fitting.labels)
        text = f"The labels of {name} run from {int(known.min())} to {int(known.max())}"
        told = bench.answers.classes or bench.fitting.classes or 0
        shift = " Labels that start at 1 must start at 0." if int(known.min()) == 1 else ""
        yield Caution(
            Trouble.LABELS_OUT_OF_RANGE,
            f"{text}, but the network tells {told} classes apart (0 to {told - 1}).{shift}",
            Hint("Store labels that name the network's classes", HintAction.CHOOSE_DATA),
        )
    if bench.answers.are_targets:
        yield Caution(
            Trouble.WHOLE_TARGETS,
            f"The labels of {name} are whole numbers, but the network gives one number a sample: they are "
            "taken as targets, not as classes.",
            is_certain=False,
        )
    missing = [one for one in classes if one.count == 0]
    if missing and not bench.fitting.labels_fault:
        total = sum(one.count for one in classes)
        if total >= _SAMPLES_PER_CLASS * len(classes):
            names = ", ".join(one.name for one in missing[:_NAMED])
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            yield Caution(
                Trouble.MISSING_CLASSES,
                f"{name} holds no samples of {len(missing)} of {count(len(classes))} classes: {names}{more}.",
                Hint("Choose data that holds every class", HintAction.CHOOSE_DATA),
                is_certain=False,
            )


def about_overlap(found: Overlap, calibration: str, test: str) -> Caution | None:
    """Test samples that are calibration samples too."""
    if found.shared < max(1, _OVERLAP_SHARE * found.looked_at):
        return None
    share = found.shared / found.looked_at
    looked = "test samples" if found.is_whole else "test samples looked at"
    return Caution(
        Trouble.OVERLAP,
        f"{count(found.shared)} of {count(found.looked_at)} {looked} ({percent(share, 1)}) are among the "
        f"calibration samples of {Path(calibration).name}: accuracy on {Path(test).name} will look too good.",
        Hint("Choose test data of its own", HintAction.CHOOSE_DATA),
        is_certain=share > 1 / 2,
    )


def about_ranges(calibration: Sequence[InputFacts], test: Sequence[InputFacts]) -> Iterator[Caution]:
    """Test values unlike those that set the ranges."""
    known = {one.name: one for one in calibration}
    for one in test:
        other = known.get(one.name)
        if other is None or not _is_unlike(one, other):
            continue
        yield Caution(
            Trouble.UNLIKE_RANGE,
            f"Test data gives {one.name} values from {number(one.low, 2)} to {number(one.high, 2)} (mean "
            f"{number(one.mean, 2)}), calibration data from {number(other.low, 2)} to "
            f"{number(other.high, 2)} (mean {number(other.mean, 2)}): ranges set on the one do not "
            "fit the other.",
            Hint("Give both data sets the transform each of them needs", HintAction.CHECK_DATA),
        )


def _is_unlike(one: InputFacts, other: InputFacts) -> bool:
    spread = max(one.std, other.std)
    if spread == 0:
        return one.mean != other.mean
    smaller = min(one.std, other.std)
    return abs(one.mean - other.mean) > _UNLIKE_MEAN * spread or smaller * _UNLIKE_SPREAD < spread


def _commonest(labels: np.ndarray) -> float:
    _, counts = np.unique(labels, return_counts=True)
    return float(counts.max()) / max(len(labels), 1)


def _class_name(bench: Bench, index: int) -> str:
    names = bench.fitting.dataset.class_names
    return names[index] if 0 <= index < len(names) else f"class {index}"
