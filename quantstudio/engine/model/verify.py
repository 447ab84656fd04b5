"""Proof that a normalised graph computes what the original does, on random input."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, ValueInfoProto

from quantstudio.core.errors import (
    MeasureError,
    ModelLoadError,
    QuantStudioError,
    UnsupportedOpError,
    VerificationError,
)
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.graph.mapped import holds_mapped
from quantstudio.engine.graph.protos import NATIVE_TYPES, Array, all_graphs, type_name
from quantstudio.engine.graph.runtime import Optimization, open_session
from quantstudio.engine.graph.shapes import Shape, contradicts, shape_of
from quantstudio.engine.model.check import STANDARD_OPERATORS
from quantstudio.engine.model.constants import RANDOM
from quantstudio.engine.model.difference import (
    BFLOAT16_TOLERANCE,
    HALF_TOLERANCE,
    TOLERANCE,
    bounded_sources,
    bounded_tensors,
    is_rounding,
    is_saturated,
    largest_difference,
    moved_by_rounding,
    relative_difference,
    tolerance_of,
)
from quantstudio.engine.model.reading import load_external, read_onnx
from quantstudio.engine.model.trial import (
    FIRST_SEED,
    Feed,
    GiveUpError,
    random_feed,
    watched_run,
    working_size,
)

_SEEDS = (FIRST_SEED, 1)
# How ONNX Runtime 1.31 says that it lacks an operator or the kernel of one.
_MISSING_KERNEL = re.compile(r"(\w+)\(-?\d+\) is not a registered|find an implementation for (\w+)\(")

# The user can do nothing about the file: it is as good as before.
_NOT_THE_FILE = "The file itself is sound; please report this to QuantStudio with the line above"

Model = Path | ModelProto


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor that both forms have.

    Attributes:
        name: Of the tensor.
        node: That makes it in the normalised form.
        expected: Its value in the original.
        found: Its value in the normalised form.
        moved: What rounding makes of it in the original.
    """

    name: str
    node: str
    expected: Array
    found: Array
    moved: list[Array]


@dataclass(frozen=True, slots=True)
class Proof:
    """Outcome of a verification.

    Attributes:
        error: Largest output difference relative to the output's largest magnitude, or to 1 for results of
            functions such as sigmoid; NaN when not verified.
        notes: What could not be checked, or what the run showed.
        shapes: Shape of each output whose declared shape the run contradicts: a number where both agree.
    """

    error: float
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(slots=True)
class _Trial:
    """Two forms of one network, and how far they may lie apart.

    Attributes:
        original: The model as it was, or a form of it that the runtime accepts.
        model: The normalised model in memory.
        before: Session of the original.
        after: Session of the normalised model.
        least: Tolerance that what was widened asks for.
        token: Ends the work.
        bounded: See `bounded_tensors`.
        error: Largest accepted difference so far.
        shaky: Outputs that rounding moves further than the tolerance.
        shapes: See `Proof`.
    """

    original: Model
    model: ModelProto
    before: ort.InferenceSession
    after: ort.InferenceSession
    least: float
    token: CancelToken
    bounded: frozenset[str]
    error: float = 0.0
    shaky: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)


def verify(
    original: Model,
    normalised: Model,
    model: ModelProto,
    *,
    repaired: Callable[[], ModelProto] | None = None,
    widened: frozenset[int] = frozenset(),
    cancel: CancelToken | None = None,
) -> Proof:
    """Run both on random input and compare every output.

    Args:
        original: The model as it was.
        normalised: The same model after normalisation, as it is stored.
        model: The normalised model in memory, for its inputs.
        repaired: Makes a form of the original the runtime accepts, for when it refuses the file as it is.
        widened: Element types that became float32 (see `widen`): the original rounds each result to them.
        cancel: Looked at before each run.

    Returns:
        The largest relative difference. One that rounding explains is accepted: results of functions such as
        sigmoid are exact to the rounding of 1, and an unstable network moves as far when its input is
        rounded.

    Raises:
        ModelLoadError: the original does not run although all its axes but the batch are fixed.
        VerificationError: the outputs differ; the message names the first node that does.
    """
    token = cancel or never_cancelled()
    why_not = _why_not(model)
    if why_not:
        return Proof(float("nan"), (f"Not verified: {why_not}.",))
    original, before, stands_in = _open_original(original, repaired, model, widened, token)
    token.raise_if_set()
    least = widened_tolerance(widened)
    after = _open_normalised(normalised, before, model, token)
    trial = _Trial(original, model, before, after, least, token, bounded_tensors(model))
    try:
        size, notes = working_size(before, model, token)
        for seed in _SEEDS:
            _compare(trial, random_feed(model, size, seed))
    except GiveUpError as reason:
        return Proof(float("nan"), (f"Not verified: {reason}.",))
    notes += tuple(
        f"Output {name!r} follows rounding errors: one rounding of the input moves it by about "
        f"{moved:.1g} of its largest value."
        for name, moved in trial.shaky.items()
    )
    return Proof(
        trial.error, (*notes, *_widening_notes(widened, trial.error, least, stands_in)), trial.shapes
    )


def _compare(trial: _Trial, feed: Feed) -> None:
    """Compare the outputs for one input and note what it shows.

    Raises:
        VerificationError: they differ by more than rounding.
    """
    lengths = _symbol_lengths(trial.model, feed)
    saturated = []
    for name, wanted, got in _both(trial, feed):
        _note_shape(trial, name, wanted, lengths)
        difference = relative_difference(wanted, got)
        is_float = wanted.dtype.kind == "f"
        if difference > max(trial.least, tolerance_of(wanted)):
            difference = _explain(trial, feed, name, wanted, got)
        if is_float:
            trial.error = max(trial.error, difference)
        if is_float and name in trial.bounded and is_saturated(wanted):
            saturated.append(name)
    if saturated:
        _compare_sources(trial, feed, saturated)


def _symbol_lengths(model: ModelProto, feed: Feed) -> dict[str, int]:
    lengths = {}
    for value in model.graph.input:
        pairs = zip(shape_of(value) or (), feed[value.name].shape, strict=False)
        lengths.update({dim: length for dim, length in pairs if isinstance(dim, str)})
    return lengths


def _note_shape(trial: _Trial, name: str, found: Array, lengths: Mapping[str, int]) -> None:
    """Note an output that is not of the shape the model states: the runtime only warns about it."""
    stated = next(shape_of(value) for value in trial.model.graph.output if value.name == name)
    stated = trial.shapes.get(name, stated)
    if stated is None:
        return
    wanted = tuple(lengths.get(dim, dim) if isinstance(dim, str) else dim for dim in stated)
    if not contradicts(wanted, found.shape):
        return
    if len(stated) != found.ndim:
        trial.shapes[name] = (None,) * found.ndim
        return
    trial.shapes[name] = tuple(
        None if isinstance(known, int) and known != length else dim
        for dim, known, length in zip(stated, wanted, found.shape, strict=True)
    )


def widened_tolerance(widened: frozenset[int]) -> float:
    """Largest accepted relative difference from an original that computes in these element types."""
    if TensorProto.BFLOAT16 in widened:
        return BFLOAT16_TOLERANCE
    return HALF_TOLERANCE if TensorProto.FLOAT16 in widened else 0.0


def _widening_notes(widened: frozenset[int], error: float, least: float, stands_in: bool) -> tuple[str, ...]:
    if not widened:
        return ()
    names = " and ".join(type_name(kind) for kind in sorted(widened))
    if stands_in:
        return (f"ONNX Runtime has no {names} kernels for this model: it was compared after the conversion.",)
    return (
        f"The float32 outputs differ from the {names} ones by {error:.1g} of the largest "
        f"(at most {max(least, TOLERANCE):.0e} is accepted).",
    )


def _open_original(
    original: Model,
    repaired: Callable[[], ModelProto] | None,
    model: ModelProto,
    widened: frozenset[int],
    token: CancelToken,
) -> tuple[Model, ort.InferenceSession, bool]:
    """The original, its session, and whether it is a float32 form that stands in for it."""
    if repaired is not None and TensorProto.BFLOAT16 in widened:
        # numpy has no bfloat16 to feed it with.
        mended = repaired()
        return mended, _plain(mended, model, token), True
    try:
        return original, _plain(original, model, token), False
    except ModelLoadError as error:
        missing = _MISSING_KERNEL.search(error.what)
        if missing and not widened:
            op_type = missing[1] or missing[2]
            raise UnsupportedOpError(
                f"ONNX Runtime has no operator {op_type}",
                where=_first_node(model, op_type),
                hint=STANDARD_OPERATORS,
            ) from error
        if repaired is None:
            raise
    mended = repaired()
    return mended, _plain(mended, model, token), bool(widened)


def _plain(model: Model, normalised: ModelProto, token: CancelToken) -> ort.InferenceSession:
    """A session of a model as it is, whose weights stay in their file where they are many."""
    is_large = holds_mapped(normalised)
    return open_session(model, optimization=Optimization.NONE, is_large=is_large, cancel=token)


def _open_normalised(
    normalised: Model, before: ort.InferenceSession, model: ModelProto, token: CancelToken
) -> ort.InferenceSession:
    """A session of the normalised model.

    Raises:
        ModelLoadError: the runtime refuses it, and the original does not run either.
        VerificationError: the runtime refuses it alone.
    """
    try:
        return _plain(normalised, model, token)
    except ModelLoadError as error:
        refusal = error
    try:
        working_size(before, model, token)
    except GiveUpError:
        raise ModelLoadError(refusal.what, hint=refusal.hint) from refusal
    raise VerificationError(
        f"the normalised graph is refused where the original runs: {refusal.what}", hint=_NOT_THE_FILE
    ) from refusal


def _first_node(model: ModelProto, op_type: str) -> str:
    names = [n.name for _scope, g in all_graphs(model.graph) for n in g.node if n.op_type == op_type]
    return f"node {names[0]!r}" if names else ""


def _both(trial: _Trial, feed: Feed) -> list[tuple[str, Array, Array]]:
    """Name, original and normalised value of each output that is a tensor.

    Nothing where the original refuses the input: larger random integers are not valid for every model.
    """
    outputs = [value.name for value in trial.model.graph.output]
    try:
        expected = watched_run(trial.before, feed, outputs, trial.token)
    except MeasureError:
        return []
    try:
        found = watched_run(trial.after, feed, outputs, trial.token)
    except MeasureError as error:
        raise VerificationError(
            f"the normalised graph fails where the original runs: {error.what}", hint=_NOT_THE_FILE
        ) from error
    return [
        (name, wanted, got)
        for name, wanted, got in zip(outputs, expected, found, strict=True)
        if isinstance(wanted, np.ndarray) and isinstance(got, np.ndarray)
    ]


def _why_not(model: ModelProto) -> str:
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0
        if kind not in NATIVE_TYPES:
            return f"input {value.name!r} is not a tensor of numbers"
    for _scope, graph in all_graphs(model.graph):
        for node in graph.node:
            if node.op_type in RANDOM:
                return f"node {node.name!r} ({node.op_type}) draws random numbers"
    return ""


def _explain(trial: _Trial, feed: Feed, output: str, expected: Array, found: Array) -> float:
    """The difference of an output where rounding explains it; an error that names the first wrong node else.

    A flipped integer output is not a fault when no float tensor before it differs: it is a tie.
    """
    difference = relative_difference(expected, found)
    is_float = expected.dtype.kind == "f"
    for tensor in _intermediates(trial, feed):
        wanted = tensor.expected.astype(tensor.found.dtype)
        apart = relative_difference(wanted, tensor.found) if wanted.dtype.kind == "f" else 0.0
        is_apart = apart > max(trial.least, tolerance_of(tensor.expected))
        if is_apart and not _is_rounding(trial, tensor):
            raise _differs(trial, f"node {tensor.node!r}", tensor.name, apart)
    if not is_float and difference <= 1.0:
        return 0.0
    moved = _outputs_moved(trial, feed, output)
    if not _is_rounding(trial, _Tensor(output, "", expected, found, moved)):
        raise _differs(trial, f"output {output!r}", output, difference)
    if output in trial.bounded and largest_difference(expected, found) <= TOLERANCE:
        return largest_difference(expected, found)
    trial.shaky[output] = max(relative_difference(expected, one) for one in moved)
    return difference


def _compare_sources(trial: _Trial, feed: Feed, outputs: Sequence[str]) -> None:
    """Compare what goes into functions whose outputs are all one value: those prove nothing.

    Raises:
        VerificationError: it differs by more than rounding.
    """
    sources = bounded_sources(trial.model, outputs)
    for tensor in _intermediates(trial, feed):
        apart = relative_difference(tensor.expected, tensor.found)
        is_apart = apart > max(trial.least, tolerance_of(tensor.expected))
        if tensor.name in sources and is_apart and not _is_rounding(trial, tensor):
            raise _differs(trial, f"node {tensor.node!r}", tensor.name, apart)


def _is_rounding(trial: _Trial, tensor: _Tensor) -> bool:
    is_bounded = tensor.name in trial.bounded
    return is_rounding(
        tensor.expected.astype(tensor.found.dtype), tensor.found, tensor.moved, is_bounded=is_bounded
    )


def _differs(trial: _Trial, where: str, name: str, difference: float) -> VerificationError:
    return VerificationError(
        f"tensor {name!r} differs from the original by {difference:.1e} of its largest value after "
        f"normalisation (at most {max(trial.least, TOLERANCE):.0e} is accepted)",
        where=where,
        hint=_NOT_THE_FILE,
    )


def _outputs_moved(trial: _Trial, feed: Feed, output: str) -> list[Array]:
    """What rounding makes of one output: of the input, and of the runtime's own rewrites."""
    moved = []
    try:
        for seed in _SEEDS:
            moved += watched_run(trial.before, moved_by_rounding(feed, seed), [output], trial.token)
        fast = open_session(trial.original, cancel=trial.token)
        moved += watched_run(fast, feed, [output], trial.token)
    except (MeasureError, ModelLoadError):
        return moved
    return moved


def _intermediates(trial: _Trial, feed: Feed) -> Iterator[_Tensor]:
    """Tensors both graphs have, in order of execution; nothing where they cannot be had."""
    before, after = _editable(trial.original), _editable(trial.model)
    shared = {name for node in before.graph.node for name in node.output if name}
    makers = {name: node.name for node in after.graph.node for name in node.output if name in shared}
    names = list(makers)
    try:
        first, second = (_session_with(model, names) for model in (before, after))
        expected = watched_run(first, feed, names, trial.token)
        found = watched_run(second, feed, names, trial.token)
        moved = [watched_run(first, moved_by_rounding(feed, s), names, trial.token) for s in _SEEDS]
    except (QuantStudioError, ValueError):
        trial.token.raise_if_set()
        return
    for i, name in enumerate(names):
        wanted, got = expected[i], found[i]
        if isinstance(wanted, np.ndarray) and isinstance(got, np.ndarray):
            yield _Tensor(name, makers[name], wanted, got, [run[i] for run in moved])


def _session_with(model: ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """A session that gives inner tensors too."""
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in present)
    return open_session(model, optimization=Optimization.NONE, is_large=holds_mapped(model))


def _editable(model: Model) -> ModelProto:
    """A copy of a model, with weights that are many left in their file."""
    if isinstance(model, Path):
        found = read_onnx(model)
        load_external(found, model)
        return found
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
