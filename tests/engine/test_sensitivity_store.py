"""Sensitivity kept as it is found: resumed where it was stopped, and never computed twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken
from quantstudio.core.results import SensitivityResult
from quantstudio.engine.analysis import estimate as estimating
from quantstudio.engine.analysis.exact import ExactScorer
from quantstudio.engine.analysis.fisher import FisherPass
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.analysis.store import ResultStore
from tests.engine.sensitivity_cases import Events, X, Y, data_of, perceptron

PRECISIONS = ("int8", "int4", "int4-activations", "int4+int4-activations")


class Runs:
    """Counts what is really run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.probed: list[set[str]] = []
        self.measured: list[tuple[str, int]] = []
        self.scorers = 0
        run, measure, start = FisherPass.run, ExactScorer.measure, ExactScorer._run_unchanged

        def counted_run(fisher: FisherPass, feed, count, size, **options):
            self.batches.append(count)
            self.probed.append({name for probe in fisher.probes for name in probe.trials})
            return run(fisher, feed, count, size, **options)

        def counted_measure(scorer: ExactScorer, node, edits, *rest):
            self.measured.append((node, len(edits)))
            return measure(scorer, node, edits, *rest)

        def counted_start(scorer: ExactScorer) -> None:
            self.scorers += 1
            start(scorer)

        monkeypatch.setattr(FisherPass, "run", counted_run)
        monkeypatch.setattr(ExactScorer, "measure", counted_measure)
        monkeypatch.setattr(ExactScorer, "_run_unchanged", counted_start)

    def forget(self) -> None:
        self.batches, self.probed, self.measured, self.scorers = [], [], [], 0


class StopAfter(Events):
    """Cancels when so many steps are done."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.token = CancelToken()
        self._steps = steps

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        super().progress(done, total, unit, label)
        if len(self.steps) == self._steps:
            self.token.set()


def same(a: SensitivityResult, b: SensitivityResult) -> bool:
    return repr(replace(a, seconds=0.0)) == repr(replace(b, seconds=0.0))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setitem(estimating._LARGEST_BATCH, True, 32)
    return Runs(monkeypatch)


@pytest.mark.parametrize("method", [fisher_sensitivity, exact_sensitivity])
def test_that_the_second_time_nothing_runs_and_nothing_differs(
    tmp_path: Path, runs: Runs, method: Callable[..., SensitivityResult]
) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    plain = method(graph, data, precisions=PRECISIONS)
    with ResultStore(tmp_path / "kept.sqlite") as store:
        first = method(graph, data, precisions=PRECISIONS, store=store)
    runs.forget()
    events = Events()
    with ResultStore(tmp_path / "kept.sqlite") as store:
        again = method(graph, data, precisions=PRECISIONS, store=store, reporter=events)
    assert same(plain, first)
    assert same(first, again)
    assert (runs.batches, runs.measured, runs.scorers) == ([], [], 0)
    # The window is told of every layer all the same, and of the end.
    assert {row.name for row in events.layers} == {"first", "second"}
    assert events.steps[-1][0] == events.steps[-1][1]


def test_that_a_cancelled_estimate_goes_on_with_the_next_batch(tmp_path: Path, runs: Runs) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    whole = fisher_sensitivity(graph, data, precisions=PRECISIONS)
    assert len(runs.batches) == 10
    runs.forget()
    stop = StopAfter(4)
    with ResultStore(tmp_path / "kept.sqlite") as store, pytest.raises(JobCancelled):
        fisher_sensitivity(graph, data, precisions=PRECISIONS, store=store, reporter=stop, cancel=stop.token)
    assert len(runs.batches) == 4
    runs.forget()
    with ResultStore(tmp_path / "kept.sqlite") as store:
        resumed = fisher_sensitivity(graph, data, precisions=PRECISIONS, store=store)
    assert len(runs.batches) == 6
    assert same(whole, resumed)


def test_that_more_precisions_run_only_those(tmp_path: Path, runs: Runs) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    whole = fisher_sensitivity(graph, data, precisions=PRECISIONS)
    with ResultStore(tmp_path / "kept.sqlite") as store:
        fisher_sensitivity(graph, data, precisions=("int8",), store=store)
        runs.forget()
        more = fisher_sensitivity(graph, data, precisions=PRECISIONS, store=store)
        assert all(names == {"int4-activations", "int4+int4-activations"} for names in runs.probed)
        runs.forget()
        exact_sensitivity(graph, data, precisions=("int8",), store=store)
        runs.forget()
        exact_sensitivity(graph, data, precisions=("int8", "int3"), store=store)
        assert runs.measured == [("first", 1), ("second", 1)]
        assert runs.scorers == 1
    for a, b in zip(whole.layers, more.layers, strict=True):
        assert a.by_precision == pytest.approx(b.by_precision, rel=1e-4)


def test_that_a_cancelled_measurement_goes_on_with_the_next_layer(tmp_path: Path, runs: Runs) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    whole = exact_sensitivity(graph, data)
    runs.forget()
    token = CancelToken()
    events = Events(token, cancel_after=1)
    with ResultStore(tmp_path / "kept.sqlite") as store, pytest.raises(JobCancelled):
        exact_sensitivity(graph, data, store=store, reporter=events, cancel=token)
    runs.forget()
    with ResultStore(tmp_path / "kept.sqlite") as store:
        resumed = exact_sensitivity(graph, data, store=store)
    assert [name for name, _ in runs.measured] == ["second"]
    assert same(whole, resumed)


def test_that_other_data_samples_and_ranges_are_other_results(tmp_path: Path, runs: Runs) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    with ResultStore(tmp_path / "kept.sqlite") as store:
        fisher_sensitivity(graph, data, store=store)
        for other, samples in ((data, 200), (data_of(tmp_path, graph, x=X[::-1], labels=Y), 300)):
            runs.forget()
            fisher_sensitivity(graph, other, samples=samples, store=store)
            assert sum(runs.batches) == samples


def test_that_the_store_is_bounded_by_use(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    block = {"a": np.zeros(100_000)}
    with ResultStore(path) as store:
        for name in "abc":
            store.entries(name).put({("x",): block})
        store.entries("a")
    full = path.stat().st_size
    with ResultStore(path, limit_bytes=2_000_000) as store:
        assert store.entries("a").get("x") is not None
        assert store.entries("b").get("x") is None
        assert store.entries("c").get("x") is not None
    assert path.stat().st_size < full - 700_000


def test_that_a_damaged_store_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    path.write_bytes(b"no database" * 1000)
    with ResultStore(path) as store:
        store.entries("a").put({("x",): {"a": np.arange(3)}})
    with ResultStore(path) as store:
        found = store.entries("a").get("x")
        assert found is not None
        assert found["a"].tolist() == [0, 1, 2]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET arrays = x'00'")
    with ResultStore(path) as store:
        assert store.entries("a").get("x") is None


def test_that_a_store_of_an_older_version_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE entries (place TEXT, key TEXT, arrays BLOB)")
    with ResultStore(path) as store:
        store.entries("a").put({("x",): {"a": np.arange(3)}})
        assert store.entries("a").get("x") is not None


def test_that_a_store_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    with ResultStore(tmp_path / "missing" / "kept.sqlite") as store:
        found = fisher_sensitivity(graph, data, store=store)
    assert len(found.layers) == 2
    with ResultStore(tmp_path / "kept.sqlite") as store:
        kept = store.entries("a")
        with sqlite3.connect(tmp_path / "kept.sqlite") as connection:
            connection.execute("DROP TABLE entries")
        kept.put({("x",): {"a": np.arange(3)}})
        assert kept.get("x") is None
