"""Proof that a normalised graph computes what the original does, on random input."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from quantstudio.core.errors import (
    MeasureError,
    ModelLoadError,
    QuantStudioError,
    UnsupportedOpError,
    VerificationError,
)
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.graph.protos import NATIVE_TYPES, Array, all_graphs, as_array, type_name
from quantstudio.engine.graph.runtime import Optimization, first_line, open_session, run
from quantstudio.engine.graph.shapes import Shape, shape_of

# Folding a normalization rounds each weight once more (2^-24 relative); a hundred layers of that stay an
# order of magnitude below this. A wrong fold is off by far more than one part in a thousand.
TOLERANCE = 1e-4
# Half precision keeps 11 bits, bfloat16 8.
HALF_TOLERANCE = 1e-2
BFLOAT16_TOLERANCE = 5e-2

_RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    }
)
_SEEDS = (0, 1)
# A damaged or unlucky Loop may count to 2^60; a real model answers for two samples long before this.
RUN_LIMIT_S = 60.0
_LARGEST_INPUT_ELEMENTS = 1 << 28
# Lengths of dynamic axes tried in turn until the original runs: text and small axes, then images.
_LENGTHS = (8, 32, 64, 224, 1)
# A graph exported with one input baked in accepts only its lengths: those in its shape constants are tried.
_MAX_BAKED_LENGTHS = 24
_LONGEST_BAKED = 1024

# How ONNX Runtime 1.31 says that it lacks an operator or the kernel of one.
_MISSING_KERNEL = re.compile(r"(\w+)\(-?\d+\) is not a registered|find an implementation for (\w+)\(")

Feed = dict[str, Array]
Model = Path | bytes


class _GiveUpError(Exception):
    """The model cannot be tried out; the message says why."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Outcome of a verification.

    Attributes:
        error: Largest output difference relative to the output's largest magnitude; NaN when not verified.
        notes: What could not be checked, or what the run showed.
    """

    error: float
    notes: tuple[str, ...] = ()


def verify(
    original: Model,
    normalised: Model,
    model: ModelProto,
    *,
    repaired: Callable[[], bytes] | None = None,
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
        The largest relative difference.

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
    after = open_session(normalised, optimization=Optimization.NONE, cancel=token)
    least = widened_tolerance(widened)
    try:
        size, notes = _working_size(before, model, token)
        error = 0.0
        for seed in _SEEDS:
            feed = random_feed(model, size, seed)
            for name, wanted, got in _both(before, after, feed, model, token):
                difference = relative_difference(wanted, got)
                if difference > max(least, tolerance_of(wanted)):
                    is_float = wanted.dtype.kind == "f"
                    _explain(original, normalised, feed, name, difference, least=least, may_tie=not is_float)
                elif wanted.dtype.kind == "f":
                    error = max(error, difference)
    except _GiveUpError as reason:
        return Proof(float("nan"), (f"Not verified: {reason}.",))
    return Proof(error, (*notes, *_widening_notes(widened, error, least, stands_in)))


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
    repaired: Callable[[], bytes] | None,
    model: ModelProto,
    widened: frozenset[int],
    token: CancelToken,
) -> tuple[Model, ort.InferenceSession, bool]:
    """The original, its session, and whether it is a float32 form that stands in for it."""
    if repaired is not None and TensorProto.BFLOAT16 in widened:
        # numpy has no bfloat16 to feed it with.
        mended = repaired()
        return mended, open_session(mended, optimization=Optimization.NONE, cancel=token), True
    try:
        return original, open_session(original, optimization=Optimization.NONE, cancel=token), False
    except ModelLoadError as error:
        missing = _MISSING_KERNEL.search(error.what)
        if missing and not widened:
            op_type = missing[1] or missing[2]
            raise UnsupportedOpError(
                f"ONNX Runtime has no operator {op_type}",
                where=_first_node(model, op_type),
                hint="Export the model with standard ONNX operators",
            ) from error
        if repaired is None:
            raise
    mended = repaired()
    return mended, open_session(mended, optimization=Optimization.NONE, cancel=token), bool(widened)


def _first_node(model: ModelProto, op_type: str) -> str:
    names = [n.name for _scope, g in all_graphs(model.graph) for n in g.node if n.op_type == op_type]
    return f"node {names[0]!r}" if names else ""


def _both(
    before: ort.InferenceSession,
    after: ort.InferenceSession,
    feed: Feed,
    model: ModelProto,
    token: CancelToken,
) -> list[tuple[str, Array, Array]]:
    """Name, original and normalised value of each output that is a tensor.

    Nothing where the original refuses the input: larger random integers are not valid for every model.
    """
    outputs = [value.name for value in model.graph.output]
    try:
        expected = _watched_run(before, feed, outputs, token)
    except MeasureError:
        return []
    try:
        found = _watched_run(after, feed, outputs, token)
    except MeasureError as error:
        raise VerificationError(
            f"the normalised graph fails where the original runs: {error.what}",
            hint="Please report the model; exporting it with opset 21 may avoid the rewrite",
        ) from error
    return [
        (name, wanted, got)
        for name, wanted, got in zip(outputs, expected, found, strict=True)
        if isinstance(wanted, np.ndarray) and isinstance(got, np.ndarray)
    ]


def _watched_run(
    session: ort.InferenceSession, feed: Feed, outputs: list[str], token: CancelToken
) -> list[Array]:
    """One run that ends when cancelled or after `RUN_LIMIT_S`."""
    token.raise_if_set()
    options = ort.RunOptions()
    finished = threading.Event()
    deadline = time.monotonic() + RUN_LIMIT_S

    def watch() -> None:
        while not finished.wait(0.1):
            if token.is_set() or time.monotonic() > deadline:
                options.terminate = True
                return

    watcher = threading.Thread(target=watch, name="verification limit", daemon=True)
    watcher.start()
    try:
        return run(session, feed, outputs, options)
    except MeasureError:
        token.raise_if_set()
        if options.terminate:
            raise _GiveUpError(f"one run takes longer than {RUN_LIMIT_S:.0f} s") from None
        raise
    finally:
        finished.set()
        watcher.join()


def random_feed(model: ModelProto, size: tuple[int, int], seed: int) -> Feed:
    """Random values for every input.

    Args:
        model: Model whose inputs to fill.
        size: Batch, and length of the other dynamic axes; one symbol has one length everywhere.
        seed: 0 draws small values (integers 0 and 1, floats from a normal distribution), others larger.
    """
    generator = np.random.default_rng(seed)
    symbols: dict[str, int] = {}
    feed = {}
    for value in model.graph.input:
        shape = _concrete(shape_of(value) or (), size, symbols)
        if math.prod(shape) > _LARGEST_INPUT_ELEMENTS:
            raise _GiveUpError(f"input {value.name!r} of shape {list(shape)} is too large to try")
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        feed[value.name] = _random(generator, shape, dtype, seed)
    return feed


def relative_difference(expected: Array, found: Array) -> float:
    """Largest absolute difference over the largest finite magnitude expected.

    Equal infinities and NaNs agree. Integers and booleans: the share of elements that differ.
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if not expected.size:
        return 0.0
    if expected.dtype.kind != "f":
        return float(np.mean(expected != found))
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    if not (np.isfinite(a[~same]).all() and np.isfinite(b[~same]).all()):
        return float("inf")
    finite = np.abs(a[np.isfinite(a)])
    largest = max(float(finite.max()), float(np.finfo(np.float32).eps))
    return float(np.abs(a[~same] - b[~same]).max()) / largest


def tolerance_of(expected: Array) -> float:
    """Largest accepted relative difference for an output of this type; 0 for integers."""
    if expected.dtype.kind != "f":
        return 0.0
    return HALF_TOLERANCE if expected.dtype == np.float16 else TOLERANCE


def _why_not(model: ModelProto) -> str:
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0
        if kind not in NATIVE_TYPES:
            return f"input {value.name!r} is not a tensor of numbers"
    for _scope, graph in all_graphs(model.graph):
        for node in graph.node:
            if node.op_type in _RANDOM:
                return f"node {node.name!r} ({node.op_type}) draws random numbers"
    return ""


def _working_size(
    session: ort.InferenceSession, model: ModelProto, token: CancelToken
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Batch and length of other dynamic axes the original accepts, and what that says about it."""
    shapes = [shape_of(value) or () for value in model.graph.input]
    has_batch = any(shape and not isinstance(shape[0], int) for shape in shapes)
    has_other = any(not isinstance(dim, int) for shape in shapes for dim in shape[1:])
    outputs = [value.name for value in model.graph.output]
    failure: MeasureError | None = None
    for size in _candidate_sizes(model, has_batch, has_other):
        try:
            _watched_run(session, random_feed(model, size, _SEEDS[0]), outputs, token)
        except MeasureError as error:
            failure = failure or error
            continue
        only_one = has_batch and size[0] == 1
        return size, ("Runs on single samples only, although its batch axis is dynamic.",) if only_one else ()
    cause = first_line(failure.__cause__ or failure) if failure else ""
    if not has_other:
        raise ModelLoadError(
            f"the model fails on input of its own shape: {cause}",
            hint="A declared shape or a weight is wrong; export the model again",
        ) from failure
    raise _GiveUpError(f"no input size was found that the model accepts ({cause})")


def _candidate_sizes(model: ModelProto, has_batch: bool, has_other: bool) -> Iterator[tuple[int, int]]:
    baked = _baked_lengths(model)
    lengths = list(dict.fromkeys([*_LENGTHS, *baked])) if has_other else [1]
    batches = list(dict.fromkeys([2, 1, *baked[:4]])) if has_batch else [1]
    for batch in batches:
        yield from ((batch, length) for length in lengths)


def _baked_lengths(model: ModelProto) -> list[int]:
    """Numbers in the graph's shape constants, the most frequent first."""
    counts: Counter[int] = Counter()
    for _scope, graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.INT64 and len(tensor.dims) == 1 and tensor.dims[0] <= 8:
                counts.update(int(v) for v in as_array(tensor) if 1 < v <= _LONGEST_BAKED)
    return [length for length, _count in counts.most_common(_MAX_BAKED_LENGTHS)]


def _concrete(shape: Shape, size: tuple[int, int], symbols: dict[str, int]) -> tuple[int, ...]:
    batch, other = size
    lengths = []
    for axis, dim in enumerate(shape):
        if isinstance(dim, int):
            lengths.append(dim)
        else:
            length = batch if axis == 0 else other
            lengths.append(symbols.setdefault(dim, length) if dim else length)
    return tuple(lengths)


def _random(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[np.generic], seed: int
) -> Array:
    if dtype.kind == "f":
        values: NDArray[np.float64] = (
            generator.standard_normal(shape) if seed == 0 else generator.random(shape)
        )
        return np.asarray(values.astype(dtype))
    if dtype.kind == "b":
        return np.asarray(generator.integers(0, 2, shape).astype(bool))
    if dtype == np.uint8:
        return np.asarray(generator.integers(0, 256, shape).astype(dtype))
    # Indices, lengths and masks: 0 and 1 are valid in nearly every model.
    return np.asarray(generator.integers(0, 2 if seed == 0 else 5, shape).astype(dtype))


def _explain(
    original: Model,
    normalised: Model,
    feed: Feed,
    output: str,
    difference: float,
    *,
    least: float,
    may_tie: bool,
) -> None:
    """Name the first node whose result differs.

    A flipped integer output is not a fault when no float tensor before it differs: it is a tie.
    """
    node = ""
    for name, label, wanted, got in _intermediates(original, normalised, feed):
        apart = relative_difference(wanted.astype(got.dtype), got) if wanted.dtype.kind == "f" else 0.0
        if apart > max(least, tolerance_of(wanted)):
            node, output, difference = label, name, apart
            break
    else:
        if may_tie and difference <= 1.0:
            return
    raise VerificationError(
        f"tensor {output!r} differs from the original by {difference:.1e} of its largest value after "
        f"normalisation (at most {max(least, TOLERANCE):.0e} is accepted)",
        where=f"node {node!r}" if node else f"output {output!r}",
        hint="Please report the model; exporting it with opset 21 may avoid the rewrite",
    )


def _intermediates(original: Model, normalised: Model, feed: Feed) -> Iterator[tuple[str, str, Array, Array]]:
    """Tensors both graphs have, in order of execution: name, node, value before and after."""
    before, after = _loaded(original), _loaded(normalised)
    shared = {name for node in before.graph.node for name in node.output if name}
    makers = {name: node.name for node in after.graph.node for name in node.output if name in shared}
    names = list(makers)
    values = []
    for model in (before, after):
        present = {value.name for value in model.graph.output}
        model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in present)
        try:
            session = open_session(model.SerializeToString(), optimization=Optimization.NONE)
            values.append(run(session, feed, names))
        except (QuantStudioError, ValueError):
            return
    yield from (
        (name, makers[name], wanted, got)
        for name, wanted, got in zip(names, values[0], values[1], strict=True)
        if isinstance(wanted, np.ndarray)
    )


def _loaded(model: Model) -> ModelProto:
    return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
