"""Latency of several models from interleaved runs, so that a drifting machine slows all of them alike.

Every round gives each model one turn, in an order that changes from round to round. A turn starts with an
untimed run, which refills caches and lets the thread pool of the model before it come to rest, and then times
as many runs as fill `TURN_MS`: the timer's resolution and the cost of a Python call do not show in a model of
a few microseconds. Nothing is profiled: profiling adds time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.results import Interval, LatencyResult
from quantstudio.engine.evaluation.machine_load import LoadMeter, processor_mhz
from quantstudio.engine.graph.runtime import (
    Feed,
    fitted_feed,
    open_session,
    resolve_provider,
    run,
    run_failures,
    worker_threads,
)

TURN_MS = 2.0
MAX_REPEATS = 1000
# A model this slow gets no untimed run before each turn: what the run before left behind is small against it.
SLOW_MS = 500.0
WARMUP_RUNS = 3
BOOTSTRAP_RESAMPLES = 2000
# How finely the load of other programs is told from what ran during a pause, seconds.
LOAD_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class LatencyBudget:
    """How long to measure.

    Attributes:
        seconds: Time for all models together; rounds stop when it is spent.
        min_rounds: Rounds (timed turns of every model) taken even if they need more time.
        max_rounds: Rounds after which more would change nothing.
    """

    seconds: float = 4.0
    min_rounds: int = 15
    max_rounds: int = 300


@dataclass(frozen=True, slots=True)
class LatencyComparison:
    """Latency of every model, and how many times faster than the first each is.

    Attributes:
        results: One per model, in the order given.
        speedups: Median over rounds of (first model's time / this model's time) with its 95 % interval;
            exactly 1 for the first.
    """

    results: tuple[LatencyResult, ...]
    speedups: tuple[Interval, ...]


@dataclass(slots=True)
class _Runner:
    session: ort.InferenceSession
    feed: dict[str, NDArray[np.generic]]
    provider: str
    repeats: int = 1
    settle: bool = True

    def turn_ms(self, cancel: CancelToken) -> float:
        """Mean time of one run in this turn, milliseconds.

        Raises:
            MeasureError: the runtime fails.
            JobCancelled: `cancel` was set.
        """
        options = ort.RunOptions()
        run_once, feed = self.session.run, self.feed
        with cancel.on_set(partial(setattr, options, "terminate", True)), run_failures(cancel):
            if self.settle:
                run_once(None, feed, options)
            start = perf_counter()
            for _ in range(self.repeats):
                run_once(None, feed, options)
            return (perf_counter() - start) * 1e3 / self.repeats


def interleaved_latency(
    models: Sequence[Path],
    feeds: Feed | Sequence[Feed],
    *,
    threads: int | None = None,
    provider: str = "cpu",
    batch: int = 1,
    budget: LatencyBudget | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> LatencyComparison:
    """Time all models side by side.

    Args:
        models: Model files; speed-ups are against the first.
        feeds: One feed for all models, or one per model. Each holds `batch` samples.
        threads: Intra-op threads; None for `worker_threads()`.
        provider: Execution provider, short or full name.
        batch: Samples in a feed.
        budget: How long to measure.
        reporter: Told of every round.
        cancel: Ends a run in progress, too.

    Raises:
        MeasureError: no model, a provider that is not installed, or a model that does not run on its feed.
        ModelLoadError: the runtime refuses a model.
        JobCancelled: `cancel` was set.
    """
    if not models:
        raise MeasureError("no model to time", hint="Name at least one model file")
    budget = budget or LatencyBudget()
    threads = threads or worker_threads()
    full_name = resolve_provider(provider)
    per_model = [feeds] * len(models) if isinstance(feeds, Mapping) else list(feeds)
    runners = []
    token = cancel or never_cancelled()
    for path, feed in zip(models, per_model, strict=True):
        token.raise_if_set()
        runners.append(_prepared(Path(path), dict(feed), threads, full_name, reporter, token))
    with token.timing():
        load = LoadMeter()
        times_ms = _rounds(runners, budget, load, reporter, token)
        other_load, mhz = load.other_share(), processor_mhz()
    results = tuple(
        replace(
            _result(times_ms[:, i], batch, threads, runner.repeats, runner.provider),
            other_load=other_load,
            processor_mhz=mhz,
        )
        for i, runner in enumerate(runners)
    )
    return LatencyComparison(results, paired_speedups(times_ms))


def paired_speedups(times_ms: NDArray[np.float64], seed: int = 0) -> tuple[Interval, ...]:
    """Speed-up of every column against the first, from paired rounds.

    The interval is a percentile bootstrap over whole rounds, which keeps what disturbed a round together.

    Args:
        times_ms: Time of each model in each round, shape [rounds, models].
        seed: Of the resampling; the same times give the same interval.
    """
    rounds, count = times_ms.shape
    ratios = times_ms[:, :1] / times_ms
    picks = np.random.default_rng(seed).integers(0, rounds, size=(BOOTSTRAP_RESAMPLES, rounds))
    intervals = [Interval(1.0, 1.0, 1.0)]
    for column in range(1, count):
        medians = np.median(ratios[picks, column], axis=1)
        low, high = np.percentile(medians, (2.5, 97.5))
        intervals.append(Interval(float(np.median(ratios[:, column])), float(low), float(high)))
    return tuple(intervals)


def _prepared(
    path: Path,
    feed: dict[str, NDArray[np.generic]],
    threads: int,
    provider: str,
    reporter: Reporter,
    cancel: CancelToken,
) -> _Runner:
    session = open_session(path, threads=threads, provider=provider, cancel=cancel)
    actual = session.get_providers()[0]
    if actual != provider:
        reporter.message(f"{path.name} runs on {actual}: {provider} could not start", Severity.WARNING)
    feed = fitted_feed(session, feed)
    runner = _Runner(session, feed, actual)
    for _ in range(WARMUP_RUNS):
        start = perf_counter()
        run(session, feed, cancel=cancel)
        once_ms = (perf_counter() - start) * 1e3
        if once_ms > SLOW_MS:
            break
    runner.settle = once_ms <= SLOW_MS
    runner.repeats = int(np.clip(np.ceil(TURN_MS / max(once_ms, 1e-6)), 1, MAX_REPEATS))
    return runner


def _rounds(
    runners: Sequence[_Runner],
    budget: LatencyBudget,
    load: LoadMeter,
    reporter: Reporter,
    cancel: CancelToken,
) -> NDArray[np.float64]:
    """Time of each model in each round, shape [rounds, models]; `load` leaves out what a pause spoiled."""
    count = len(runners)
    load_kept = perf_counter()
    times: list[list[float]] = []
    share = 0.0
    started = perf_counter() - cancel.paused_s
    with _collector_paused():
        while len(times) < budget.max_rounds:
            paused_s = cancel.paused_s
            elapsed = perf_counter() - started - paused_s
            if len(times) >= budget.min_rounds and elapsed >= budget.seconds:
                break
            row = [0.0] * count
            for index in _order(len(times), count):
                cancel.raise_if_set()
                row[index] = runners[index].turn_ms(cancel)
            if cancel.paused_s > paused_s:
                # What one model got before the pause cannot be paired with what another got after it.
                load.leave_out()
                continue
            times.append(row)
            if perf_counter() - load_kept >= LOAD_STEP_S:
                load.keep()
                load_kept = perf_counter()
            # Rounds that take longer than the first ones must not move the bar back.
            done = len(times)
            share = max(share, done / _expected(done, elapsed, budget))
            reporter.progress(done, max(done, int(done / share + 1e-9)), "rounds", "Timing")
    reporter.progress(len(times), len(times), "rounds", "Timing")
    return np.asarray(times, dtype=np.float64)


def _order(turn: int, count: int) -> list[int]:
    """Who goes when: rotated each round, and reversed each full rotation, so neighbours change too."""
    order = [(turn + i) % count for i in range(count)]
    return order[::-1] if (turn // count) % 2 else order


def _expected(done: int, elapsed: float, budget: LatencyBudget) -> int:
    """Rounds there will be, judged by the pace so far."""
    by_time = done if elapsed <= 0 else round(done * budget.seconds / elapsed)
    return max(done, min(max(by_time, budget.min_rounds), budget.max_rounds))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A garbage collection in the middle of a run would be timed as the model's."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _result(
    times_ms: NDArray[np.float64], batch: int, threads: int, repeats: int, provider: str
) -> LatencyResult:
    p50, p90, p99 = (float(v) for v in np.percentile(times_ms, (50, 90, 99)))
    return LatencyResult(
        p50=p50,
        p90=p90,
        p99=p99,
        mean=float(times_ms.mean()),
        throughput=batch * 1e3 / p50,
        batch=batch,
        threads=threads,
        runs=len(times_ms) * repeats,
        provider=provider,
        samples_ms=tuple(float(v) for v in times_ms),
    )
