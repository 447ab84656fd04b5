"""Which output is class scores, and how sure that is."""

from __future__ import annotations

import numpy as np

from quantstudio.core.judgement import Task
from quantstudio.engine.evaluation.network_facts import OutputFacts
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm, output_form
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.evaluation.scene import NUMBER_NAMES, VECTOR_NAMES, Scene

SOFTMAX = frozenset({"Softmax", "LogSoftmax"})
_SCORE_NAMES = (
    "logits?|probs?|probability|probabilities|class|classes|classifier|cls|scores?|softmax|labels?|preds?"
)
# Classes of public data sets that no other kind of output is likely to have.
_USUAL_CLASSES = frozenset({10, 100, 1000, 1001, 21841, 21843})
# Enough to tell probabilities from logits.
_FORM_SAMPLES = 64


def classify(scene: Scene, is_chosen: bool) -> Reading | None:
    """One class a sample, or yes and no value by value; None where nothing says so.

    Args:
        scene: The network with its first outputs.
        is_chosen: Whether the user says that it classifies: then the form alone is enough.
    """
    if scene.has_classes:
        found = _labelled_classes(scene)
        if found is not None:
            return found
    rated = [(_class_evidence(scene, one, is_chosen), one) for one in scene.outputs]
    best = max(rated, key=lambda pair: pair[0][0], default=None)
    if best is None or best[0][0] == 0:
        return None
    (_, why), output = best
    if is_decisions(scene, output):
        return decisions(scene, output)
    form = _class_form(scene, output, labelled=False)
    return scene.reading(Task.CLASSIFY, Kind.CLASSES, f"output {output.name!r} {why}", output.name, form=form)


def _labelled_classes(scene: Scene) -> Reading | None:
    """The output that gives each sample the class its label is about."""
    labels = scene.labels
    assert labels is not None
    top = int(labels.max()) if len(labels) else 0
    fitting = [(size, one) for one in scene.outputs if (size := _class_count(scene, one)) is not None]
    good = [(size, one) for size, one in fitting if size == 0 or size > top or (size == 1 and top <= 1)]
    ranked = sorted(good or fitting, key=lambda pair: -_class_evidence(scene, pair[1], True)[0])
    if not ranked:
        return None
    size, output = ranked[0]
    if size == 1 and top > 1:
        return None
    form = _class_form(scene, output, labelled=True)
    what = (
        "the class itself" if form.meaning is Meaning.INDEX else f"a score for each of {form.classes} classes"
    )
    return scene.reading(
        Task.CLASSIFY,
        Kind.CLASSES,
        f"labels are classes, and output {output.name!r} gives {what}",
        output.name,
        form=form,
        uses_labels=True,
    )


def _class_count(scene: Scene, output: OutputFacts) -> int | None:
    """Scores a sample, 1 for one number, 0 for the class itself; None for another form."""
    shape, rows = scene.shape(output), scene.rows[output.name]
    size = int(np.prod(shape, dtype=np.int64))
    if rows.dtype.kind in "iub":
        return 0 if size == 1 and output.last else None
    if rows.dtype.kind != "f":
        return None
    if size == 1:
        return 1
    return shape[0] if shape and size == shape[0] else None


def _class_form(scene: Scene, output: OutputFacts, *, labelled: bool) -> OutputForm:
    """How scores are read; a few logits may all lie between 0 and 1 by chance."""
    rows = scene.rows[output.name]
    single = rows.size == len(rows)
    if single and rows.dtype.kind == "f":
        inside = output.last == "Sigmoid" or _values_inside_one(scene, output)
        return OutputForm(Meaning.CLASSES, probabilities=inside, binary=True, classes=2)
    form = output_form(rows, scene.labels if labelled else None)
    if output.last in SOFTMAX:
        return OutputForm(form.meaning, output.last == "Softmax", classes=form.classes)
    return form


def _values_inside_one(scene: Scene, output: OutputFacts) -> bool:
    values = np.asarray(scene.probe.values(output.name, _FORM_SAMPLES), dtype=np.float64)
    return bool(((values >= 0) & (values <= 1)).all())


def _class_evidence(scene: Scene, output: OutputFacts, is_chosen: bool) -> tuple[int, str]:
    """How sure it is that an output is class scores, 0 for not at all, and why."""
    count = _class_count(scene, output)
    if count is None:
        return (1, "is decided value by value") if is_chosen and is_decisions(scene, output) else (0, "")
    if count == 0:
        return (3, "is the number of a class") if output.last == "ArgMax" else (0, "")
    if count == 1:
        return (3, "is one probability, behind a Sigmoid") if output.last == "Sigmoid" else (0, "")
    found = _score_evidence(scene, output, count)
    return (1, f"is {count} scores a sample") if is_chosen and not found[0] else found


def _score_evidence(scene: Scene, output: OutputFacts, count: int) -> tuple[int, str]:
    """The same of an output with several numbers a sample."""
    axis = -1 if len(scene.shape(output)) == 1 else 1
    if output.last in SOFTMAX:
        return 5, f"is a {output.last} over {count} classes"
    if output.last == "Sigmoid":
        return 4, f"is {count} probabilities, each behind a Sigmoid of its own: yes or no, value by value"
    if len(scene.class_names) == count:
        return 4, f"has as many scores as the data names classes, {count}"
    if scene.sums_to_one(output, axis):
        return 4, f"is {count} shares that add up to one"
    if scene.is_called(output, VECTOR_NAMES) or scene.is_called(output, NUMBER_NAMES):
        return 0, ""
    if scene.is_called(output, _SCORE_NAMES):
        return 3, f"is called scores, one for each of {count} classes"
    if count in _USUAL_CLASSES and len(scene.floats) == 1 and _is_linear(output):
        return 2, f"is {count} scores, a usual number of classes"
    return 0, ""


def _is_linear(output: OutputFacts) -> bool:
    return output.last in ("Gemm", "MatMul", "Conv", "GlobalAveragePool", "Add", "Mul", "ReduceMean")


def is_decisions(scene: Scene, output: OutputFacts) -> bool:
    """Whether every value is a probability of its own."""
    return output.last == "Sigmoid" and int(np.prod(scene.shape(output), dtype=np.int64)) > 1


def decisions(scene: Scene, *outputs: OutputFacts) -> Reading:
    """A reading of outputs whose every value is a probability of its own."""
    names = [one.name for one in outputs]
    what = f"output {names[0]!r}" if len(names) == 1 else f"each of {len(names)} outputs"
    return scene.reading(
        Task.CLASSIFY,
        Kind.DECISIONS,
        f"every value of {what} is behind a Sigmoid of its own: yes or no, value by value",
        *names,
        is_probability=True,
    )
