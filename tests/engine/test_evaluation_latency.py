import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.errors import JobCancelled, MeasureError
from quantstudio.core.events import CancelToken, NullReporter
from quantstudio.engine.evaluation import latency
from quantstudio.engine.evaluation.latency import (
    LatencyBudget,
    _order,
    interleaved_latency,
    paired_speedups,
)
from quantstudio.engine.evaluation.machine_load import LoadMeter
from tests.engine.builders import loop_model, save
from tests.engine.evaluation_models import linear_model

SHORT = LatencyBudget(seconds=0.05, min_rounds=6, max_rounds=12)


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    weight = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    slow = linear_model(tmp_path / "slow.onnx", weight, repeats=24)
    return [slow, linear_model(tmp_path / "fast.onnx", weight)]


def test_that_less_work_is_measured_as_faster(models: list[Path]) -> None:
    feed = {"x": np.ones((16, 256), dtype=np.float32)}
    compared = interleaved_latency(models, feed, threads=1, batch=16, budget=SHORT)
    slow, fast = compared.results
    assert compared.speedups[0].value == compared.speedups[0].low == compared.speedups[0].high == 1.0
    assert compared.speedups[1].low <= compared.speedups[1].value <= compared.speedups[1].high
    assert compared.speedups[1].value > 3
    assert fast.p50 < slow.p50
    for result in compared.results:
        assert result.p50 <= result.p90 <= result.p99
        assert result.throughput == pytest.approx(16e3 / result.p50)
        assert (result.threads, result.batch, result.provider) == (1, 16, "CPUExecutionProvider")
        assert 6 <= len(result.samples_ms) <= 12


def test_that_every_time_says_what_else_the_machine_did(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadMeter, "other_share", lambda _self: 0.375)
    monkeypatch.setattr(latency, "processor_mhz", lambda: 2450.0)
    feed = {"x": np.ones((1, 256), dtype=np.float32)}
    found = interleaved_latency(models, feed, threads=1, budget=SHORT).results
    assert [(one.other_load, one.processor_mhz, one.threads) for one in found] == 2 * [(0.375, 2450.0, 1)]


def test_that_a_fast_model_is_repeated_within_a_turn(models: list[Path]) -> None:
    feed = {"x": np.ones((1, 256), dtype=np.float32)}
    fast = interleaved_latency(models[1:], [feed], threads=1, budget=SHORT).results[0]
    assert fast.runs > 5 * len(fast.samples_ms)


def test_that_the_minimum_of_rounds_beats_the_clock(models: list[Path]) -> None:
    feed = {"x": np.ones((1, 256), dtype=np.float32)}
    spent = LatencyBudget(seconds=0.0, min_rounds=4, max_rounds=9)
    assert len(interleaved_latency(models, feed, threads=1, budget=spent).results[0].samples_ms) == 4


def test_that_speedup_is_the_median_of_paired_ratios() -> None:
    drift = np.linspace(1, 5, 41)
    times = np.stack([drift * 3.0, drift, drift * 6.0], axis=1)
    first, second, third = paired_speedups(times)
    assert first.value == 1.0
    assert (second.value, second.low, second.high) == pytest.approx((3.0, 3.0, 3.0))
    assert third.value == pytest.approx(0.5)


def test_that_noise_widens_the_interval_around_the_truth() -> None:
    rng = np.random.default_rng(1)
    base = rng.lognormal(0, 0.1, size=200) * 2
    quiet = paired_speedups(np.stack([base, rng.lognormal(0, 0.01, size=200)], axis=1))[1]
    noisy = paired_speedups(np.stack([base, rng.lognormal(0, 0.5, size=200)], axis=1))[1]
    assert noisy.high - noisy.low > quiet.high - quiet.low
    assert quiet.low < 2.0 < quiet.high


def test_that_every_model_goes_first_equally_often_and_neighbours_change() -> None:
    firsts = [_order(turn, 3)[0] for turn in range(6)]
    assert sorted(firsts) == [0, 0, 1, 1, 2, 2]
    assert _order(0, 3) == [0, 1, 2]
    assert _order(3, 3) == [2, 1, 0]


def test_that_a_round_with_a_pause_in_it_is_taken_again(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    token = CancelToken(lambda: now[0])
    turns: list[float] = []
    turn_ms = latency._Runner.turn_ms

    def turn_with_a_pause(runner: latency._Runner, cancel: CancelToken) -> float:
        turns.append(turn_ms(runner, cancel))
        if len(turns) == 3:
            # The first model of the second round: its time would be paired with one after the pause.
            token.pause()
            now[0] += 1e-6  # no longer than the run takes
            token.resume()
        return float(len(turns))

    monkeypatch.setattr(latency._Runner, "turn_ms", turn_with_a_pause)
    feed = {"x": np.ones((1, 256), dtype=np.float32)}
    budget = LatencyBudget(seconds=0.0, min_rounds=3, max_rounds=9)
    compared = interleaved_latency(models, feed, threads=1, budget=budget, cancel=token)
    seen = sorted(ms for result in compared.results for ms in result.samples_ms)
    assert seen == [1, 2, 5, 6, 7, 8]


def test_that_cancel_stops_before_the_next_turn(models: list[Path]) -> None:
    token = CancelToken()

    class StopAfterTwo(NullReporter):
        rounds = 0

        def progress(self, done: int, total: int, unit: str, label: str) -> None:
            self.rounds = done
            assert total >= done
            if done == 2:
                token.set()

    reporter = StopAfterTwo()
    feed = {"x": np.ones((1, 256), dtype=np.float32)}
    with pytest.raises(JobCancelled):
        interleaved_latency(models, feed, threads=1, budget=SHORT, reporter=reporter, cancel=token)
    assert reporter.rounds == 2


def test_that_a_wrong_feed_names_what_to_compare(models: list[Path]) -> None:
    picture = np.ones((1, 256), dtype=np.float32)
    with pytest.raises(MeasureError, match="names, types and shapes"):
        interleaved_latency(models, {"nope": picture, "neither": picture}, threads=1)


def test_that_a_single_input_takes_the_feed_whatever_its_name(models: list[Path]) -> None:
    timed = interleaved_latency(models, {"pixels": np.ones((1, 256), dtype=np.float32)}, threads=1)
    assert all(result.p50 > 0 for result in timed.results)


def test_that_a_missing_provider_lists_what_is_installed(models: list[Path]) -> None:
    with pytest.raises(MeasureError, match=r"Installed here: .*cpu"):
        interleaved_latency(models, {"x": np.ones((1, 256), dtype=np.float32)}, provider="warp9")


def test_that_no_model_is_refused() -> None:
    with pytest.raises(MeasureError, match="no model"):
        interleaved_latency([], {})


def test_that_a_run_without_an_end_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    endless = save(loop_model(steps=1 << 50), tmp_path)
    token = CancelToken()
    threading.Timer(0.3, token.set).start()
    with pytest.raises(JobCancelled):
        interleaved_latency([endless], {"x": np.ones((1, 4), dtype=np.float32)}, threads=1, cancel=token)


def test_that_the_bar_never_moves_back(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets faster while it measures: ever more rounds are expected in the time there is."""
    expected = iter([20, 40, 30, 60, 200, 300, *[250] * 40])
    monkeypatch.setattr("quantstudio.engine.evaluation.latency._expected", lambda *_: next(expected))
    shares: list[float] = []

    class Watching(NullReporter):
        def progress(self, done: int, total: int, unit: str, label: str) -> None:
            shares.append(done / total)

    feed = {"x": np.ones((1, 256), dtype=np.float32)}
    rounds = LatencyBudget(seconds=0.0, min_rounds=20, max_rounds=20)
    interleaved_latency(models, feed, threads=1, budget=rounds, reporter=Watching())
    assert shares[-1] == 1.0
    assert all(b >= a for a, b in pairwise(shares))
