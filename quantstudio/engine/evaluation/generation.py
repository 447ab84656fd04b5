"""How fast decoders write: time to the first token, and of each token after it with the cache.

Models take turns, round by round, as in `latency`: what disturbs the machine meets all of them. A turn reads
a prompt and writes some tokens, the likeliest each time; keys and values stay where the runtime put them and
go back in as they are, so no copy of the cache is timed that a program which writes would not make.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quantstudio.core.errors import DataError, MeasureError
from quantstudio.core.events import CancelToken, Reporter, never_cancelled
from quantstudio.core.language import GenerationSpeed
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.text_inputs import TextInputs, cache_axis, cache_bytes_per_token, is_cache
from quantstudio.engine.evaluation.latency import LatencyBudget, paired_speedups
from quantstudio.engine.evaluation.network_facts import numpy_name
from quantstudio.engine.evaluation.probe import DatasetLike
from quantstudio.engine.graph.runtime import open_session, resolve_provider, run, run_failures

PROMPT_TOKENS = 64
NEW_TOKENS = 16
# "key_values" in a name says nothing; numbers and these words say which.
_CACHE_WORDS = re.compile(r"keys?_?values?")
_CACHE_PARTS = re.compile(r"\d+|encoder|decoder|key|value|(?<![a-z])[kv](?![a-z])")
GENERATION_BUDGET = LatencyBudget(seconds=6.0, min_rounds=5, max_rounds=40)


class Decoder:
    """A decoder with a cache that writes.

    Args:
        session: The model.

    Raises:
        DataError: it reads something that is not text.
        MeasureError: it has no cache that grows, so that nothing is written token by token.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        inputs = tuple(_info(one) for one in session.get_inputs())
        self.inputs = TextInputs(inputs, "")
        made = [_info(one) for one in session.get_outputs()]
        caches, found = self.inputs.caches, [one.name for one in made if is_cache(one)]
        if not caches or len(caches) != len(found) or any(cache_axis(one) is None for one in caches):
            raise MeasureError("the model has no cache that grows with each token")
        self._kept = cache_pairs(found, [one.name for one in caches])
        self._scores = next(one.name for one in made if one.name not in self._kept)
        self._names = [self._scores, *self._kept]

    def read(
        self,
        tokens: NDArray[np.int64],
        kept: Mapping[str, NDArray[Any]],
        read: int,
        cancel: CancelToken,
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Scores of further tokens, [n, T, V], and the cache behind them by the name of its input.

        Args:
            tokens: [n, T].
            kept: The cache before; empty for none.
            read: Tokens it holds.
            cancel: Ends the run.

        Raises:
            MeasureError: the runtime fails.
            JobCancelled: `cancel` was set.
        """
        feed = {**self.inputs.more(tokens, read), **kept} if kept else self.inputs.feed(tokens)
        scores, *caches = run(self._session, feed, self._names, cancel=cancel)
        return scores, dict(zip(self._kept.values(), caches, strict=True))

    def turn_ms(self, prompt: NDArray[np.int64], new: int, cancel: CancelToken) -> tuple[float, float]:
        """Milliseconds from the prompt, [1, P], to the first token, and of each of `new` tokens after it.

        Raises:
            MeasureError: the runtime fails.
            JobCancelled: `cancel` was set.
        """
        options = ort.RunOptions()
        values = ort.OrtValue.ortvalue_from_numpy
        with cancel.on_set(partial(setattr, options, "terminate", True)), run_failures(cancel):
            feed = {name: values(array) for name, array in self.inputs.feed(prompt).items()}
            times: list[float] = []
            for done in range(new + 1):
                start = perf_counter()
                scores, *kept = self._session.run_with_ort_values(self._names, feed, options)
                token = int(scores.numpy()[0, -1].argmax())
                times.append(1e3 * (perf_counter() - start))
                more = self.inputs.more(np.array([[token]], np.int64), prompt.shape[1] + done)
                feed = {name: values(value) for name, value in more.items()}
                feed |= dict(zip(self._kept.values(), kept, strict=True))
        # A median: whatever the machine does meanwhile takes many tokens' time at once.
        return times[0], float(np.median(times[1:]))


def cache_pairs(made: Sequence[str], read: Sequence[str]) -> dict[str, str]:
    """The input each cache that a model gives out goes back into.

    "present.3.key" goes into "past_key_values.3.key": by the numbers and parts in their
    names where these tell all of them apart, else by their order.

    Args:
        made: Outputs that hold keys and values.
        read: As many inputs.
    """
    places = {_place(name): name for name in read}
    if len(places) == len(read) and {_place(name) for name in made} == set(places):
        return {name: places[_place(name)] for name in made}
    return dict(zip(made, read, strict=True))


def _place(name: str) -> tuple[str, ...]:
    """Which cache a name speaks of: its numbers, and whether of keys or values."""
    bare = _CACHE_WORDS.sub(" ", name.lower())
    return tuple(_CACHE_PARTS.findall(bare))


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What one model's cache takes and gives.

    Attributes:
        bytes_per_token: Bytes of keys and values kept for each token.
        speed: How fast it writes; None without a cache that grows.
    """

    bytes_per_token: int
    speed: GenerationSpeed | None


def caches_of(
    models: Sequence[Path],
    dataset: DatasetLike,
    *,
    timed: bool = True,
    threads: int,
    provider: str,
    reporter: Reporter,
    budget: LatencyBudget | None = None,
    cancel: CancelToken | None = None,
) -> tuple[CacheUse, ...]:
    """What each model's cache takes and how fast it writes with it, the first being the base.

    Args:
        models: Model files.
        dataset: Text; its beginning is the prompt.
        timed: Whether to let them write; speeds are None where not, and where one has no cache.
        threads: Intra-op threads.
        provider: Execution provider, short or full name.
        reporter: Told of every round.
        budget: How long to measure.
        cancel: Ends a run in progress, too.

    Raises:
        MeasureError: a model does not run.
        JobCancelled: `cancel` was set.
    """
    token, budget = cancel or never_cancelled(), budget or GENERATION_BUDGET
    full_name = resolve_provider(provider)
    sessions = [open_session(path, threads=threads, provider=full_name, cancel=token) for path in models]
    sizes = [cache_bytes_per_token(_info(one) for one in session.get_inputs()) for session in sessions]
    if not timed:
        return tuple(CacheUse(size, None) for size in sizes)
    try:
        decoders = [Decoder(session) for session in sessions]
    except (DataError, MeasureError):
        return tuple(CacheUse(size, None) for size in sizes)
    text = next(iter(next(iter(dataset.batches(1, stop=1))).feed.values()))[:1]
    new = min(NEW_TOKENS, text.shape[1] // 2)
    if new < 1:
        return tuple(CacheUse(size, None) for size in sizes)
    prompt = np.ascontiguousarray(text[:, : min(PROMPT_TOKENS, text.shape[1] - new)], dtype=np.int64)
    times = _rounds(decoders, prompt, new, budget, reporter, token)
    ratios = [paired_speedups(times[..., part]) for part in (0, 1)]
    medians = np.median(times, axis=0)
    return tuple(
        CacheUse(
            size,
            GenerationSpeed(
                prompt_tokens=prompt.shape[1],
                new_tokens=new,
                first_token_ms=float(medians[0, 0] / ratios[0][i].value),
                token_ms=float(medians[0, 1] / ratios[1][i].value),
                tokens_per_second=float(1e3 * ratios[1][i].value / medians[0, 1]),
                first_token_speedup=ratios[0][i],
                token_speedup=ratios[1][i],
                threads=threads,
                runs=len(times),
            ),
        )
        for i, size in enumerate(sizes)
    )


def _rounds(
    decoders: Sequence[Decoder],
    prompt: NDArray[np.int64],
    new: int,
    budget: LatencyBudget,
    reporter: Reporter,
    cancel: CancelToken,
) -> NDArray[np.float64]:
    """First and further token of each model in each round, shape [rounds, models, 2]."""
    times: list[list[tuple[float, float]]] = []
    with cancel.timing():
        for decoder in decoders:
            decoder.turn_ms(prompt, new, cancel)
        started = perf_counter() - cancel.paused_s
        while len(times) < budget.max_rounds:
            paused_s = cancel.paused_s
            if len(times) >= budget.min_rounds and perf_counter() - started - paused_s >= budget.seconds:
                break
            count = len(decoders)
            row = [(0.0, 0.0)] * count
            for place in range(count):
                cancel.raise_if_set()
                index = (place + len(times)) % count
                row[index] = decoders[index].turn_ms(prompt, new, cancel)
            if cancel.paused_s > paused_s:
                continue  # what one got before the pause cannot be paired with what another got after it
            times.append(row)
            reporter.progress(len(times), max(len(times), budget.min_rounds), "rounds", "Timing each token")
    return np.asarray(times, dtype=np.float64)


def _info(one: ort.NodeArg) -> TensorInfo:
    return TensorInfo(one.name, numpy_name(one.type), tuple(one.shape))
