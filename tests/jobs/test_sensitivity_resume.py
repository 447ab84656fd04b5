"""A hundred layers, cancelled or killed at any moment: what was finished is there, the rest alone is done."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.events import Event, JobEnded, JobState, PartFound, Progress
from quantstudio.core.results import LayerSensitivity, SensitivityResult
from quantstudio.engine.analysis.exact import ExactScorer
from quantstudio.engine.analysis.fisher import FisherPass
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.sensitivity import sensitivity
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.jobs.spec import JobSpec, new_job
from tests.engine.sensitivity_cases import Events
from tests.hundred_layers import LAYERS, hundred_layers
from tests.waiting import PATIENCE_S

SAMPLES = 640

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return hundred_layers(tmp_path_factory.mktemp("hundred"), SAMPLES)


class Listener:
    """Counts what a worker reports, and says when it is time to kill it."""

    def __init__(self) -> None:
        self.layers: dict[str, LayerSensitivity] = {}
        self.steps: list[int] = []
        self.ended: JobEnded | None = None
        self._changed = threading.Condition()

    def __call__(self, job: str, event: Event) -> None:
        with self._changed:
            if isinstance(event, PartFound) and isinstance(event.part, LayerSensitivity):
                self.layers[event.part.name] = event.part
            elif isinstance(event, Progress):
                self.steps.append(event.done)
            elif isinstance(event, JobEnded):
                self.ended = event
            self._changed.notify_all()

    def wait(self, layers: int = 0, steps: int = 0) -> None:
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.ended is not None or (len(self.layers) >= layers and len(self.steps) >= steps),
                PATIENCE_S,
            )

    def wait_for_end(self) -> JobEnded:
        with self._changed:
            assert self._changed.wait_for(lambda: self.ended is not None, PATIENCE_S)
        assert self.ended is not None
        return self.ended


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def runner(listener: Listener) -> Iterator[ProcessBackend]:
    made = ProcessBackend(listener)
    yield made
    made.close()


def job(files: tuple[Path, Path], method: str) -> JobSpec:
    return new_job("quantstudio.engine.tasks.sensitivity:sensitivity", params(files, method))


def params(files: tuple[Path, Path], method: str) -> dict[str, Any]:
    model, data = files
    graph = open_model(path=str(model)).graph_path
    return {
        "graph_path": graph,
        "data": to_json(DataSpec(str(data))),
        "method": method,
        "samples": SAMPLES,
        "precisions": ["int4"],
    }


def kill(runner: ProcessBackend) -> None:
    pid = runner.health.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def resumed(
    files: tuple[Path, Path], method: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[SensitivityResult, int]:
    """The result of the rest, and how many layers (exact) or samples (fisher) it really ran."""
    ran: list[int] = []
    measure, run = ExactScorer.measure, FisherPass.run

    def counted_measure(scorer: ExactScorer, *arguments: Any) -> Any:
        ran.append(1)
        return measure(scorer, *arguments)

    def counted_run(fisher: FisherPass, feed: Any, count: int, size: int, **options: Any) -> Any:
        ran.append(count)
        return run(fisher, feed, count, size, **options)

    monkeypatch.setattr(ExactScorer, "measure", counted_measure)
    monkeypatch.setattr(FisherPass, "run", counted_run)
    return sensitivity(**params(files, method)), sum(ran)


@pytest.mark.parametrize("seed", [1])
def test_that_a_measurement_killed_at_any_moment_does_only_the_rest(
    files: tuple[Path, Path],
    runner: ProcessBackend,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    runner.submit(job(files, "exact"))
    listener.wait(layers=random.Random(seed).randrange(5, 70))
    kill(runner)
    assert listener.wait_for_end().state is JobState.FAILED
    finished = dict(listener.layers)
    result, measured = resumed(files, "exact", monkeypatch)
    assert len(result.layers) == LAYERS
    # Everything that was reported is kept; at most one layer was measured and not reported yet.
    assert LAYERS - len(finished) - 1 <= measured <= LAYERS - len(finished)
    rows = {row.name: to_json(row) for row in result.layers}
    assert {name: rows[name] for name in finished} == {name: to_json(row) for name, row in finished.items()}


@pytest.mark.parametrize("is_killed", [False, True], ids=["cancelled", "killed"])
def test_that_an_estimate_goes_on_where_it_was(
    files: tuple[Path, Path],
    runner: ProcessBackend,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    is_killed: bool,
) -> None:
    spec = job(files, "fisher")
    runner.submit(spec)
    listener.wait(steps=3)
    if is_killed:
        kill(runner)
    else:
        runner.cancel(spec.id)
    assert listener.wait_for_end().state is (JobState.FAILED if is_killed else JobState.CANCELLED)
    assert len(listener.layers) == LAYERS
    done = 32 * max(listener.steps)
    result, samples = resumed(files, "fisher", monkeypatch)
    assert len(result.layers) == LAYERS
    # Progress is told after a batch was kept, and not every time.
    assert 0 < samples <= SAMPLES - done
    events = Events()
    monkeypatch.setattr(FisherPass, "run", None)
    again = sensitivity(**params(files, "fisher"), reporter=events)
    assert again.layers == result.layers
    assert "nothing was computed again" in events.texts[-1]
