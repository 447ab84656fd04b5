"""What a decoder's cache would cost on integers: keys and values rounded to INT8 between steps, simulated.

No file holds such a cache: the model is run window by window in a few steps, and what it keeps of each step
goes into the next one rounded, with a scale for each head of each token. What later tokens then lose is what
an INT8 cache costs; bytes are those such a cache takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import SMALLEST_SCALE
from quantstudio.core.errors import DataError, MeasureError
from quantstudio.core.events import CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.language import RoundedCache
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.text_inputs import batch_axis, cache_axis, is_cache
from quantstudio.engine.evaluation.agreement import log_probabilities
from quantstudio.engine.evaluation.generation import Decoder
from quantstudio.engine.evaluation.outputs import OutputForm
from quantstudio.engine.evaluation.probe import DatasetLike
from quantstudio.engine.evaluation.uncertainty import bootstrap_interval
from quantstudio.engine.graph.runtime import open_session, resolve_provider

# Tokens judged at most: each costs two runs of it.
TOKENS = 4096
# A window is read in so many steps, with the cache rounded between them.
STEPS = 4
# Neighbouring tokens are drawn together when an interval is made.
_BLOCK = 32
_LARGEST = 127
_SCALE_BYTES = 4

FloatArray = NDArray[np.float32]


def int8_caches(
    models: Sequence[Path],
    dataset: DatasetLike,
    form: OutputForm,
    *,
    threads: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken | None = None,
) -> tuple[RoundedCache | None, ...]:
    """What an INT8 cache would cost each model; None for one without a cache that grows.

    Args:
        models: Model files.
        dataset: Text.
        form: How scores are read.
        threads: Intra-op threads.
        provider: Execution provider, short or full name.
        reporter: Told of every batch, and of a model that does not run step by step.
        cancel: Ends a run in progress, too.

    Raises:
        ModelLoadError: the runtime refuses a model.
        JobCancelled: `cancel` was set.
    """
    token, full_name = cancel or never_cancelled(), resolve_provider(provider)
    found: list[RoundedCache | None] = []
    for path in models:
        session = open_session(path, threads=threads, provider=full_name, cancel=token)
        try:
            decoder = Decoder(session)
        except (DataError, MeasureError):
            found.append(None)
            continue
        try:
            found.append(rounded_cache(decoder, dataset, form, reporter, token))
        except MeasureError as error:
            reporter.message(f"An INT8 cache was not simulated: {error.what}", Severity.WARNING)
            found.append(None)
    return tuple(found)


def rounded_cache(
    decoder: Decoder,
    dataset: DatasetLike,
    form: OutputForm,
    reporter: Reporter,
    cancel: CancelToken,
) -> RoundedCache | None:
    """Perplexity with an INT8 cache over that with the float one, on the beginning of a text.

    Args:
        decoder: The model.
        dataset: Windows of tokens.
        form: How scores are read.
        reporter: Told of every batch.
        cancel: Ends a run in progress, too.

    Returns:
        The figures; None where windows are too short to be read in steps.

    Raises:
        MeasureError: the runtime fails.
        JobCancelled: `cancel` was set.
    """
    blocks: list[NDArray[np.float64]] = []
    seen = judged = 0
    for batch in dataset.batches(1):
        tokens = np.ascontiguousarray(next(iter(batch.feed.values())), np.int64)
        if tokens.shape[1] < 2 * STEPS or seen >= TOKENS:
            break
        seen += tokens.size
        float_, rounded = (
            _losses(decoder, tokens, form, is_rounded=one, cancel=cancel) for one in (False, True)
        )
        judged += float_.size
        blocks.append(_sums(float_, rounded))
        reporter.progress(min(seen, TOKENS), TOKENS, "tokens", "Simulating an INT8 cache")
    if not blocks:
        return None
    growth = bootstrap_interval(np.concatenate(blocks), lambda m: np.exp((m[:, 1] - m[:, 0]) / m[:, 2]))
    return RoundedCache(int8_bytes_per_token(decoder.inputs.inputs), growth, judged)


def _losses(
    decoder: Decoder, tokens: NDArray[np.int64], form: OutputForm, *, is_rounded: bool, cancel: CancelToken
) -> NDArray[np.float64]:
    """Negative log-likelihood of each token that is foretold from a cache, [n, tokens]."""
    starts = np.linspace(0, tokens.shape[1], STEPS + 1).astype(int)
    kept: dict[str, FloatArray] = {}
    found = []
    for start, stop in pairwise(starts):
        scores, kept = decoder.read(tokens[:, start:stop], kept, int(start), cancel)
        if is_rounded:
            kept = {name: rounded_by_head(kept[name], info) for name, info in _caches(decoder)}
        if start == 0:
            continue  # it read no cache
        following = tokens[:, start + 1 : stop + 1]
        for row, wanted in zip(scores, following, strict=True):
            shares = log_probabilities(np.asarray(row[: len(wanted)], np.float32), form)
            found.append(-np.take_along_axis(shares, wanted[:, None], axis=1)[:, 0])
    return np.concatenate(found)


def _caches(decoder: Decoder) -> list[tuple[str, TensorInfo]]:
    return [(info.name, info) for info in decoder.inputs.caches]


def rounded_by_head(kept: FloatArray, info: TensorInfo) -> FloatArray:
    """Keys or values on 8 symmetric bits, with a scale for each head of each token, as float again.

    Args:
        kept: A cache, of the shape that `info` states.
        info: The input it goes into; a head's numbers lie along its last axis of fixed length.
    """
    axis = _head_axis(info)
    scale = np.maximum(np.abs(kept).max(axis=axis, keepdims=True) / _LARGEST, SMALLEST_SCALE)
    return np.asarray(np.rint(kept / scale) * scale, dtype=kept.dtype)


def int8_bytes_per_token(inputs: Iterable[TensorInfo]) -> int:
    """Bytes an INT8 cache takes for each token read: a byte a number, and a scale a head."""
    total = 0
    for info in inputs:
        if is_cache(info) and cache_axis(info) is not None:
            fixed = {k: size for k, size in enumerate(info.shape) if k != batch_axis(info)}
            heads = [size for k, size in fixed.items() if isinstance(size, int) and k != _head_axis(info)]
            width = fixed[_head_axis(info)]
            assert isinstance(width, int)
            total += math.prod(heads) * (width + _SCALE_BYTES)
    return total


def _head_axis(info: TensorInfo) -> int:
    samples = batch_axis(info)
    return max(k for k, size in enumerate(info.shape) if k != samples and isinstance(size, int))


def _sums(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over blocks of neighbouring tokens: float, rounded, and how many; [blocks, 3]."""
    edges = np.arange(0, len(ours), _BLOCK)
    counts = np.diff(np.append(edges, len(ours))).astype(np.float64)
    return np.stack([np.add.reduceat(ours, edges), np.add.reduceat(theirs, edges), counts], axis=1)
