"""Trying a model out: random input of its types and shapes, sizes it accepts, runs that end in time."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from quantstudio.core.errors import MeasureError, ModelLoadError
from quantstudio.core.events import CancelToken
from quantstudio.engine.graph.protos import Array, all_graphs, as_array
from quantstudio.engine.graph.runtime import first_line, run
from quantstudio.engine.graph.shapes import Shape, shape_of

# The seed of small values, which nearly every model accepts.
FIRST_SEED = 0
# A damaged or unlucky Loop may count to 2^60; a real model answers for two samples long before this.
RUN_LIMIT_S = 60.0
_LARGEST_INPUT_ELEMENTS = 1 << 28
# Lengths of dynamic axes tried in turn until the original runs: text and small axes, then images.
_LENGTHS = (8, 32, 64, 224, 1)
# A graph exported with one input baked in accepts only its lengths: those in its shape constants are tried.
_MAX_BAKED_LENGTHS = 24
_LONGEST_BAKED = 1024


Feed = dict[str, Array]


class GiveUpError(Exception):
    """The model cannot be tried out; the message says why."""


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
            raise GiveUpError(f"input {value.name!r} of shape {list(shape)} is too large to try")
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        feed[value.name] = _random(generator, shape, dtype, seed)
    return feed


def watched_run(
    session: ort.InferenceSession, feed: Feed, outputs: list[str], token: CancelToken
) -> list[Array]:
    """One run that ends when cancelled or after `RUN_LIMIT_S`.

    Raises:
        GiveUpError: it took too long.
        MeasureError: the model does not run on this input.
        JobCancelled: `token` was set.
    """
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
            raise GiveUpError(f"one run takes longer than {RUN_LIMIT_S:.0f} s") from None
        raise
    finally:
        finished.set()
        watcher.join()


def working_size(
    session: ort.InferenceSession, model: ModelProto, token: CancelToken
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Batch and length of other dynamic axes the original accepts, and what that says about it."""
    shapes = [shape_of(value) or () for value in model.graph.input]
    has_batch, has_other = _dynamic(shapes)
    outputs = [value.name for value in model.graph.output]
    failure: MeasureError | None = None
    for size in candidate_sizes(model):
        try:
            watched_run(session, random_feed(model, size, FIRST_SEED), outputs, token)
        except MeasureError as error:
            failure = failure or error
            continue
        only_one = has_batch and size[0] == 1
        return size, ("Runs on single samples only, although its batch axis is dynamic.",) if only_one else ()
    cause = first_line(failure.__cause__ or failure) if failure else ""
    if not has_other and not _has_integers(model):
        raise ModelLoadError(
            f"the model fails on input of its own shape: {cause}",
            hint="A declared shape or a weight in it is wrong, so it runs nowhere; get the file again",
        ) from failure
    raise GiveUpError(f"no input was found that the model accepts ({cause})")


def _has_integers(model: ModelProto) -> bool:
    """Whether an input may be an index, a length or a shape, for which random numbers are seldom right."""
    kinds = (value.type.tensor_type.elem_type for value in model.graph.input)
    return any(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).kind in "iu" for kind in kinds)


def candidate_sizes(model: ModelProto) -> Iterator[tuple[int, int]]:
    """Batch and length of the other dynamic axes, to try in turn until the model runs."""
    has_batch, has_other = _dynamic([shape_of(value) or () for value in model.graph.input])
    baked = _baked_lengths(model)
    lengths = list(dict.fromkeys([*_LENGTHS, *baked])) if has_other else [1]
    batches = list(dict.fromkeys([2, 1, *baked[:4]])) if has_batch else [1]
    for batch in batches:
        yield from ((batch, length) for length in lengths)


def _dynamic(shapes: Sequence[Shape]) -> tuple[bool, bool]:
    """Whether any first axis, and whether any other one, has no fixed length."""
    has_batch = any(shape and not isinstance(shape[0], int) for shape in shapes)
    return has_batch, any(not isinstance(dim, int) for shape in shapes for dim in shape[1:])


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
            lengths.append(_length(dim, length, symbols) if dim else length)
    return tuple(lengths)


def _length(symbol: str, length: int, symbols: dict[str, int]) -> int:
    """Of a symbol; of a sum of symbols and numbers, as exporters of decoders write, what its parts make."""
    parts = [part.strip() for part in symbol.split("+")]
    if len(parts) < 2 or not all(part.isdigit() or part.isidentifier() for part in parts):
        return symbols.setdefault(symbol, length)
    return sum(int(part) if part.isdigit() else symbols.setdefault(part, length) for part in parts)


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
