"""What a network is for, from labels, shapes, operators and names; when unsure, unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from quantstudio.core.errors import MeasureError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.judgement import Task
from quantstudio.engine.evaluation.boxes import CONFIDENCE
from quantstudio.engine.evaluation.class_rules import SOFTMAX, classify, decisions, is_decisions
from quantstudio.engine.evaluation.heads import find_head, raw_map_channels
from quantstudio.engine.evaluation.language import read_language
from quantstudio.engine.evaluation.network_facts import OutputFacts
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm
from quantstudio.engine.evaluation.reading import Kind, Reading
from quantstudio.engine.evaluation.scene import NUMBER_NAMES, VECTOR_NAMES, Scene

_TOKEN_NAMES = "logits?|lm|tokens?|vocab|vocabulary"
_MASK_NAMES = "seg|segmentation|mask|masks|semantic|sem"
# No hidden size of an encoder is this large; vocabularies are.
_VOCABULARY = 4096
_UNIT_TOLERANCE = 0.01
# Said at the figure of a detector whose boxes nobody here can make.
RAW_MAPS = "raw maps, boxes not decoded"

Rule = Callable[[Scene, bool], Reading | None]


def infer_reading(scene: Scene) -> Reading:
    """How the outputs of a network are read, with the reason.

    Raises:
        MeasureError: the user's choice of task or output does not fit, or there is nothing to compare.
    """
    chosen = scene.judging.task
    if chosen is not None:
        found = _RULES[chosen](scene, True)
        if found is None:
            raise MeasureError(
                f"the outputs cannot be read as {chosen.value}: "
                + "; ".join(f"{one.name} is {list(scene.shape(one))} a sample" for one in scene.outputs),
                hint=Hint("Choose another task, or the output that is judged", HintAction.CHOOSE_TASK),
            )
        return found
    language = read_language(scene)
    if language is not None:
        return language
    for rule in (_targets, classify, _detect, _raw_maps, _segment, _tokens, _embed, _signal, _regress):
        found = rule(scene, False)
        if found is not None:
            return found
    return _unknown(scene, False)


# -- numbers -------------------------------------------------------------------------------------------


def _targets(scene: Scene, is_chosen: bool) -> Reading | None:
    """Labels that are no classes: targets of a regression, or yes and no for several labels at once."""
    labels = scene.labels
    if labels is None or scene.has_classes or not scene.floats:
        return None
    size = int(np.prod(labels.shape[1:], dtype=np.int64))
    sizes = {one.name: int(np.prod(scene.shape(one), dtype=np.int64)) for one in scene.floats}
    output = next((one for one in scene.floats if sizes[one.name] == size), scene.floats[0])
    if size > 1 and size == sizes[output.name] and bool(np.isin(labels, (0, 1)).all()):
        is_probability = output.last == "Sigmoid" or scene.is_inside_one(output)
        return scene.reading(
            Task.CLASSIFY,
            Kind.DECISIONS,
            f"labels are yes or no for each of {size} values of output {output.name!r}",
            output.name,
            is_probability=is_probability,
            uses_labels=True,
        )
    what = "one number" if size == 1 else f"{size} numbers"
    return scene.reading(
        Task.REGRESS,
        Kind.TARGETS,
        f"labels are {what} a sample, targets of output {output.name!r}",
        output.name,
        uses_labels=True,
    )


def _regress(scene: Scene, is_chosen: bool) -> Reading | None:
    if is_chosen and (found := _targets(scene, True)) is not None and found.kind is Kind.TARGETS:
        return found
    small = [one for one in scene.floats if len([n for n in scene.shape(one) if n > 1]) <= 1]
    if not small or (len(small) < len(scene.floats) and not is_chosen):
        return None
    sizes = [int(np.prod(scene.shape(one), dtype=np.int64)) for one in small]
    called = [one for one in small if scene.is_called(one, NUMBER_NAMES)]
    if not (is_chosen or max(sizes) == 1 or called):
        return None
    why = (
        "the output is one number a sample"
        if sizes == [1]
        else f"output {called[0].name!r} is called values"
        if called
        else f"outputs are {sum(sizes)} numbers a sample"
    )
    return scene.reading(Task.REGRESS, Kind.NUMBERS, why, *(one.name for one in small))


def _embed(scene: Scene, is_chosen: bool) -> Reading | None:
    rated = [(why, one) for one in scene.floats if (why := _vector_evidence(scene, one, is_chosen))]
    if not rated:
        return None
    # One vector a sample before one for each token.
    why, output = min(rated, key=lambda pair: len(scene.shape(pair[1])))
    return scene.reading(Task.EMBED, Kind.VECTORS, f"output {output.name!r} {why}", output.name)


def _vector_evidence(scene: Scene, output: OutputFacts, is_chosen: bool) -> str:
    shape = scene.shape(output)
    if not shape or shape[-1] < 2 or len(shape) > 2:
        return ""
    rows = np.asarray(scene.rows[output.name], dtype=np.float64)
    if scene.is_called(output, VECTOR_NAMES):
        return f"is called a vector, of {shape[-1]} numbers"
    if len(shape) == 1 and shape[0] >= 16:
        norms = np.sqrt(np.square(rows).sum(axis=-1))
        if np.allclose(norms, 1, atol=_UNIT_TOLERANCE):
            return f"is vectors of {shape[0]} numbers with length one"
    is_normed = "LayerNormalization" in output.behind[:3] or (
        output.last in ("Add", "Mul") and {"Sqrt", "ReduceMean", "Div"} <= set(output.behind)
    )
    if scene.reads_tokens and is_normed:
        return f"ends in a LayerNormalization over {shape[-1]} numbers: hidden states of an encoder"
    return f"is a vector of {shape[-1]} numbers" if is_chosen else ""


# -- boxes, masks, tokens, signals ---------------------------------------------------------------------


def _detect(scene: Scene, is_chosen: bool) -> Reading | None:
    found = find_head(scene, is_certain=is_chosen)
    if found is None:
        return None
    head, why, names = found
    why = f"{why}; boxes of a confidence of {CONFIDENCE} and more count"
    return scene.reading(Task.DETECT, Kind.BOXES, why, *names, head=head)


def _raw_maps(scene: Scene, is_chosen: bool) -> Reading | None:
    """Maps of a detector that are decoded outside the file: how, and by which anchors, nothing in it says."""
    channels = raw_map_channels(scene)
    if channels is None:
        return None
    why = (
        f"outputs are {len(scene.floats)} maps of {channels} numbers a cell, as detectors write them whose "
        "boxes are made outside the file; sizes of the anchors are not in it: values are compared"
    )
    return scene.reading(Task.UNKNOWN, Kind.VALUES, why, caveat=RAW_MAPS)


def _segment(scene: Scene, is_chosen: bool) -> Reading | None:
    for output in scene.outputs:
        shape, rows = scene.shape(output), scene.rows[output.name]
        if rows.dtype.kind in "iub":
            flat = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
            if len(flat) == 2 and output.last and (output.last == "ArgMax" or is_chosen) and scene.pictures():
                why = f"output {output.name!r} is the class of each pixel"
                return scene.reading(Task.SEGMENT, Kind.MASKS, why, output.name)
            continue
        if len(shape) != 3 or rows.dtype.kind != "f":
            continue
        found = _mask_axis(scene, output, is_chosen)
        if found is not None:
            axis, why = found
            return scene.reading(
                Task.SEGMENT,
                Kind.MASKS,
                f"output {output.name!r} {why}",
                output.name,
                class_axis=axis,
                is_probability=output.last in ("Sigmoid", "Softmax") or scene.is_inside_one(output),
            )
    return None


def _mask_axis(scene: Scene, output: OutputFacts, is_chosen: bool) -> tuple[int, str] | None:
    """Axis of the classes with samples first, 0 for a mask of one class, and why it is one."""
    shape = scene.shape(output)
    named = scene.is_called(output, _MASK_NAMES)
    for height, width, channels in scene.pictures():
        for axis in (1, 3):
            classes = shape[axis - 1]
            area = shape[1:] if axis == 1 else shape[:2]
            is_whole = area == (height, width)
            is_part = not is_whole and all(
                n > 1 and big % n == 0 for n, big in zip(area, (height, width), strict=True)
            )
            if not (is_whole or (is_part and (named or is_chosen))):
                continue
            if classes == 1 and (output.last == "Sigmoid" or named or is_chosen):
                return 0, "is one share for each pixel: a mask"
            if classes < 2:
                continue
            if output.last in SOFTMAX or named or is_chosen:
                return axis, f"is scores of {classes} classes for each pixel"
            if is_whole and classes > 4 and classes != channels:
                return axis, f"is {classes} maps as large as the picture, one a class"
    return None


def _tokens(scene: Scene, is_chosen: bool) -> Reading | None:
    if is_chosen and (found := read_language(scene)) is not None:
        return found
    for output in scene.floats:
        shape = scene.shape(output)
        if len(shape) == 3 and 1 in shape[:2]:
            shape = (max(shape[:2]), shape[2])
        if len(shape) != 2 or shape[1] < 2:
            continue
        why = _token_evidence(scene, output, shape[1], is_chosen)
        if why:
            rows = scene.rows[output.name]
            probabilities = output.last == "Softmax" or scene.sums_to_one(output, rows.ndim - 1)
            form = OutputForm(Meaning.TOKENS, probabilities, classes=shape[1])
            return scene.reading(
                Task.TOKENS,
                Kind.CLASSES,
                f"output {output.name!r} {why}",
                output.name,
                form=form,
                has_blank=bool(scene.pictures()) or not scene.reads_tokens,
            )
    sigmoids = [one for one in scene.floats if is_decisions(scene, one)]
    if sigmoids and not is_chosen:
        return decisions(scene, *sigmoids)
    return None


def _token_evidence(scene: Scene, output: OutputFacts, classes: int, is_chosen: bool) -> str:
    what = f"scores of {classes} classes at each position"
    if output.last in SOFTMAX and output.axis in (None, -1, len(output.info.shape) - 1):
        return f"is a {output.last}: {what}"
    if scene.is_called(output, _TOKEN_NAMES):
        return f"is called {what}"
    if classes >= _VOCABULARY and output.last in ("Gemm", "MatMul", "Conv", "Add", "Mul"):
        return f"is as wide as a vocabulary: {what}"
    return f"is {what}" if is_chosen else ""


def _signal(scene: Scene, is_chosen: bool) -> Reading | None:
    shapes = list(scene.probe.input_shapes().values())
    for output in scene.floats:
        shape = scene.shape(output)
        is_long = max(shape, default=0) >= 64 or int(np.prod(shape, dtype=np.int64)) >= 256
        if is_chosen or (is_long and any(_is_signal_of(shape, given) for given in shapes)):
            why = f"output {output.name!r} has the form of an input"
            return scene.reading(Task.SIGNAL, Kind.VALUES, why if not is_chosen else "as chosen", output.name)
    return None


def _is_signal_of(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether an output has the rank and channels of an input, and its size or a multiple."""
    if len(shape) != len(given) or not shape:
        return False
    if shape == given:
        return True
    if len(shape) == 3 and shape[0] == given[0] <= 4:
        ratios = {(a % b, a // b) for a, b in zip(shape[1:], given[1:], strict=True) if b}
        return len(ratios) == 1 and next(iter(ratios))[0] == 0
    return False


def _unknown(scene: Scene, is_chosen: bool) -> Reading:
    if not scene.floats:
        raise MeasureError(
            "no output of the model holds float numbers, so there is nothing to compare",
            hint="A form of it without the ArgMax or Cast at its end is needed",
        )
    shapes = ", ".join(f"{one.name} {list(scene.shape(one))}" for one in scene.floats[:4])
    said = "neither labels nor names nor operators say what the outputs are"
    why = "no meaning is asked for" if scene.judging.task is Task.UNKNOWN else said
    return scene.reading(Task.UNKNOWN, Kind.VALUES, f"{why} ({shapes} a sample): values are compared")


_RULES: Mapping[Task, Rule] = {
    Task.CLASSIFY: classify,
    Task.SEGMENT: _segment,
    Task.DETECT: _detect,
    Task.REGRESS: _regress,
    Task.EMBED: _embed,
    Task.TOKENS: _tokens,
    Task.SIGNAL: _signal,
    Task.UNKNOWN: _unknown,
}
