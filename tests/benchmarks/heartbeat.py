"""How long the window leaves the event loop alone while the worker is busy.

`python -m tests.benchmarks.heartbeat [MODEL TRAIN TEST TRANSFORM]` opens the window on a model, runs
calibrate, sensitivity, quantize, compare and a few edits, and prints the gaps between two turns of a 5 ms
timer, by what was going on. The bundled sample is used without arguments. Run it under a real or virtual
display, or offscreen.
"""

import os
import sys
import tempfile
from collections import defaultdict
from time import perf_counter

import numpy as np

TICK_MS = 5
LIMIT_SECONDS = 120.0


class Heart:
    """Records every turn of the event loop with the name of what runs."""

    def __init__(self, session) -> None:
        from PySide6.QtCore import Qt, QTimer

        self._session = session
        self._last = 0.0
        self.doing = ""
        self.gaps: dict[str, list[float]] = defaultdict(list)
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)

    def start(self) -> None:
        """Begin with the next turn."""
        self._last = perf_counter()
        self._timer.start(TICK_MS)

    def stop(self) -> None:
        """End."""
        self._timer.stop()

    def _beat(self) -> None:
        now = perf_counter()
        running = [row.title for row in self._session.jobs if not row.state.is_final]
        self.gaps[self.doing or (running[0] if running else "idle")].append((now - self._last) * 1000)
        self._last = now


def run(arguments: list[str]) -> dict[str, list[float]]:
    """Gaps in milliseconds by what was running."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUANTSTUDIO_CACHE"] = f"{folder}/cache"
        os.environ["QUANTSTUDIO_CONFIG"] = f"{folder}/config"
        return _run(arguments)


def _run(arguments: list[str]) -> dict[str, list[float]]:
    from PySide6.QtCore import QEventLoop, QTimer

    from quantstudio.core.data_spec import DataSpec, parse_transform
    from quantstudio.core.samples import DEFAULT_SAMPLE
    from quantstudio.gui.app import make_application
    from quantstudio.gui.main_window import MainWindow
    from quantstudio.gui.session import Session
    from quantstudio.gui.settings import Settings
    from quantstudio.gui.theme import LIGHT, apply_theme
    from quantstudio.jobs.process import ProcessRunner
    from quantstudio.project.store import Project

    app = make_application([])
    apply_theme(app, LIGHT)
    session = Session(ProcessRunner, project=Project.temporary())
    window = MainWindow(session, Settings(), app)
    window.resize(1280, 720)
    window.show()
    heart = Heart(session)

    def wait(done, seconds=LIMIT_SECONDS) -> None:
        loop, deadline = QEventLoop(), perf_counter() + seconds
        poll = QTimer()
        poll.timeout.connect(lambda: loop.quit() if done() or perf_counter() > deadline else None)
        poll.start(50)
        loop.exec()
        if not done():
            states = [f"{row.title}: {row.state} {row.outcome}" for row in session.jobs]
            raise SystemExit(f"not finished in {seconds} s: {states}")

    def turn(edit) -> None:
        """One click of a user, and the paint it causes."""
        heart.doing = "an edit"
        loop = QEventLoop()
        QTimer.singleShot(0, edit)
        QTimer.singleShot(120, loop.quit)
        loop.exec()
        heart.doing = ""

    def idle() -> bool:
        return bool(session.jobs) and all(row.state.is_final for row in session.jobs)

    # The plots are imported once, right after the first paint; this is about jobs.
    loop = QEventLoop()
    QTimer.singleShot(2500, loop.quit)
    loop.exec()
    heart.start()
    if arguments:
        model, train, test, transform = arguments
        session.open_path(model)
        wait(lambda: session.model is not None and idle())
        spec = parse_transform(transform)
        session.choose_data(DataSpec(train, spec, 512), DataSpec(test, spec))
        wait(idle)
        session.run_all()
    else:
        session.open_sample(DEFAULT_SAMPLE)
    wait(lambda: session.costs is not None and idle())
    for layer in session.layers:
        turn(lambda name=layer.name: session.select([name]))
        if "static-int4" in layer.schemes:
            turn(lambda name=layer.name: session.set_scheme([name], "static-int4"))
    turn(session.undo)
    session.quantize()
    wait(idle)
    session.measure()
    wait(idle)
    heart.stop()
    window.close()
    session.close()
    return heart.gaps


def main() -> None:
    """Print one row a job and the total."""
    gaps = run(sys.argv[1:])
    everything = np.array([gap for row in gaps.values() for gap in row])
    print(f"{'while':28} {'turns':>7} {'p50':>7} {'p99':>7} {'longest':>8}  ms")
    for name, values in [*gaps.items(), ("all", everything)]:
        row = np.asarray(values)
        p50, p99 = np.percentile(row, [50, 99])
        print(f"{name[:28]:28} {row.size:7d} {p50:7.1f} {p99:7.1f} {row.max():8.1f}")


if __name__ == "__main__":
    main()
