"""Kill the worker, then the whole application, at random moments of a scripted job; lose nothing.

    python -m tests.benchmarks.kill_storm [--kills 50] [--seed 0]

A fact counts as finished when the one who made it wrote it down outside: the worker's task appends each
layer to a file after reporting it, the application appends each commit after the call returned. Whatever is
in that file must be in the project afterwards. Exit code 1 and a list of what was lost otherwise.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from quantstudio.core.events import CancelToken, Event, JobEnded, JobState, PartFound, Reporter
from quantstudio.core.findings import KNOWN_DATA
from quantstudio.core.precision import FP16, FP32
from quantstudio.core.results import LayerSensitivity
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.jobs.spec import new_job
from quantstudio.project.state import ProjectState
from quantstudio.project.store import Project

TASK = "tests.benchmarks.kill_storm:analyse"
LAYERS = 400
# Steps undone and redone after each kill; all of them after the last.
WALK = 50
ROOT = Path(__file__).parents[2]


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    facts: int = 0
    states: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def count(self, state: str) -> None:
        self.states[state] = self.states.get(state, 0) + 1


def analyse(ledger: str, run: str, *, reporter: Reporter, cancel: CancelToken) -> dict[str, Any]:
    """The scripted job: a layer every few milliseconds, each written down after it was reported."""
    with Path(ledger).open("ab", buffering=0) as file:
        for i in range(LAYERS):
            cancel.raise_if_set()
            time.sleep(0.002)
            reporter.found(LayerSensitivity(f"layer{i}", i / LAYERS, 0.0, 1.0, 20.0, method=run))
            reporter.progress(i + 1, LAYERS, "layers", "Analysing")
            file.write(f"{run} layer{i}\n".encode())
    return {"layers": LAYERS}


def storm_worker(kills: int, seed: int, folder: Path) -> Tally:
    """Kill the worker `kills` times while one application goes on."""
    tally, chance = Tally(), random.Random(seed)
    path, ledger = folder / "worker.qstudio", folder / "worker.ledger"
    ledger.touch()
    ended: dict[str, list[JobEnded]] = {}
    runs: dict[str, str] = {}
    changed = threading.Condition()

    def receive(job: str, event: Event) -> None:
        if isinstance(event, PartFound) and isinstance(event.part, LayerSensitivity):
            project.findings.put(KNOWN_DATA, runs[job], {event.part.name: str(event.part)})
        elif isinstance(event, JobEnded):
            with changed:
                ended.setdefault(job, []).append(event)
                changed.notify_all()

    with Project.create(path) as project:
        runner = ProcessBackend(receive, tasks_under=["tests."])
        for i in range(kills):
            job = new_job(TASK, {"ledger": str(ledger), "run": f"run{i}"})
            runs[job.id] = f"run{i}"
            runner.submit(job)
            time.sleep(chance.uniform(0.0, 1.2))
            pid = runner.health.pid
            if pid is not None:
                psutil.Process(pid).kill()
                tally.kills += 1
            with changed:
                if not changed.wait_for(functools.partial(ended.__contains__, job.id), 30):
                    tally.faults.append(f"run{i} never ended")
                    continue
            tally.count(ended[job.id][0].state.value)
        after = new_job(TASK, {"ledger": str(ledger), "run": "last"})
        runs[after.id] = "last"
        runner.submit(after)
        with changed:
            changed.wait_for(lambda: after.id in ended, 60)
        runner.close()
    if [end.state for end in ended.get(after.id, [])] != [JobState.SUCCEEDED]:
        tally.faults.append("the job after the storm did not succeed")
    tally.faults += [f"{runs[job]} ended {len(ends)} times" for job, ends in ended.items() if len(ends) != 1]
    _compare_layers(path, ledger, tally)
    return tally


def _compare_layers(path: Path, ledger: Path, tally: Tally) -> None:
    with Project.open(path) as project:
        kept: dict[str, dict[str, str]] = {}
        for line in ledger.read_text().splitlines():
            run, layer = line.split()
            if run not in kept:
                kept[run] = project.findings.rows(KNOWN_DATA, run)
            tally.facts += 1
            if layer not in kept[run]:
                tally.faults.append(f"{run} {layer} was finished and is lost")


def application(path: Path, ledger: Path, run: str) -> None:
    """The application to be killed: a job in the background, edits, undo and redo in the foreground."""
    project = Project.open(path) if path.exists() else Project.create(path)
    record_lock = threading.Lock()
    chance = random.Random(run)
    with ledger.open("ab", buffering=0) as file:

        def record(kind: str, *values: Any) -> None:
            with record_lock:
                file.write((json.dumps([kind, run, *values]) + "\n").encode())

        def receive(job: str, event: Event) -> None:
            if isinstance(event, PartFound) and isinstance(event.part, LayerSensitivity):
                project.findings.put(KNOWN_DATA, run, {event.part.name: str(event.part)})
                record("layer", event.part.name)

        runner = ProcessBackend(receive, tasks_under=["tests."])
        runner.submit(new_job(TASK, {"ledger": os.devnull, "run": run}))
        for i in range(100_000):
            _edit(project, chance, f"{run} edit {i}")
            record("state", project.state.recipe.digest, project.undo_label)
            time.sleep(0.003)
        runner.close()


def _edit(project: Project, chance: random.Random, label: str) -> None:
    action = chance.random()
    if action < 0.15:
        project.undo()
    elif action < 0.25:
        project.redo()
    else:
        recipe = project.state.recipe.assign(
            [f"layer{chance.randrange(LAYERS)}"], chance.choice([FP16, FP32])
        )
        project.edit(project.state.with_recipe(recipe), label)


def storm_application(kills: int, seed: int, folder: Path) -> Tally:
    """Kill the application `kills` times; each next start goes on in the same project."""
    tally, chance = Tally(), random.Random(seed)
    path = folder / "application.qstudio"
    for i in range(kills):
        ledger = folder / f"application-{i}.ledger"
        ledger.touch()
        command = [sys.executable, "-m", "tests.benchmarks.kill_storm", "--application", str(path)]
        with subprocess.Popen(
            [*command, str(ledger), f"run{i}"], cwd=ROOT, start_new_session=True
        ) as process:
            if i == kills - 1:
                # However slowly it starts on a busy machine, one kill at least falls into its work.
                _wait_for_facts(ledger, process)
            time.sleep(chance.uniform(0.25, 1.8))
            children = _children(process.pid)
            process.kill()
            process.wait()
        tally.kills += 1
        _check_after_kill(path, ledger, f"run{i}", tally)
        _, alive = psutil.wait_procs(children, timeout=6)
        tally.faults += [f"run{i} left process {child.pid}" for child in alive]
    with Project.open(path) as project:
        tally.faults += _walk(project, "the end", len(project.history()))
    return tally


def _wait_for_facts(ledger: Path, process: subprocess.Popen[bytes]) -> None:
    while not ledger.stat().st_size and process.poll() is None:
        time.sleep(0.02)


def _children(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _check_after_kill(path: Path, ledger: Path, run: str, tally: Tally) -> None:
    facts = [json.loads(line) for line in ledger.read_text().splitlines()]
    tally.facts += len(facts)
    if not path.exists():
        if facts:
            tally.faults.append(f"{run}: the project is gone")
        tally.count("killed before the project existed")
        return
    with Project.open(path) as project:
        layers = project.findings.rows(KNOWN_DATA, run)
        for fact in facts:
            if fact[0] == "layer" and fact[2] not in layers:
                tally.faults.append(f"{run} {fact[2]} was committed and is lost")
        states = [fact[2:] for fact in facts if fact[0] == "state"]
        if states and not _is_state_or_next(project, states[-1]):
            tally.faults.append(f"{run}: the last edit is lost")
        tally.count("reopened")
        tally.faults += _walk(project, run, WALK)


def _is_state_or_next(project: Project, last: list[Any]) -> bool:
    """The state written down last, or the one edit, undo or redo that was under way when the kill came."""

    def now() -> list[Any]:
        return [project.state.recipe.digest, project.undo_label]

    if now() == last:
        return True
    for there, back in ((project.undo, project.redo), (project.redo, project.undo)):
        if there():
            found = now() == last
            back()
            if found:
                return True
    return False


def _walk(project: Project, run: str, most: int) -> list[str]:
    """Undo some steps and redo them: every state on the way can be read."""
    state, steps = project.state, 0
    while steps < most and project.undo():
        steps += 1
    is_first = steps == most or project.state == ProjectState()
    for _ in range(steps):
        project.redo()
    faults = [] if is_first else [f"{run}: the first state is not the first"]
    return faults if project.state == state else [*faults, f"{run}: undo then redo is not identity"]


def report(name: str, tally: Tally, seconds: float) -> None:
    states = ", ".join(f"{state} {count}" for state, count in sorted(tally.states.items()))
    sys.stdout.write(
        f"{name}: {tally.kills} kills, {tally.facts} finished facts, {len(tally.faults)} lost or wrong,"
        f" {seconds:.0f} s ({states})\n"
    )
    for fault in tally.faults[:20]:
        sys.stdout.write(f"  {fault}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--application", nargs=3, metavar=("PROJECT", "LEDGER", "RUN"))
    options = parser.parse_args()
    if options.application:
        path, ledger, run = options.application
        application(Path(path), Path(ledger), run)
        return 0
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUANTSTUDIO_CACHE"] = str(Path(folder) / "cache")
        os.environ["QUANTSTUDIO_CONFIG"] = str(Path(folder) / "config")
        for name, storm in (("worker", storm_worker), ("application", storm_application)):
            begun = time.monotonic()
            tally = storm(options.kills, options.seed, Path(folder))
            report(name, tally, time.monotonic() - begun)
            faults += len(tally.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
