"""How long the doctor in the data dialog takes to say something while a search runs.

`python -m tests.benchmarks.check_data [--samples N] [--every SECONDS]` opens fmnist_mobilenet, starts a
search that is bound in latency, and asks for the data over and over until it ends: without a worker (cold),
two seconds after the dialog was opened (ready), and right after another answer (warm); every second time
while the work times runs. It prints the milliseconds from the question to the first answer in the dialog.
Answers kept are removed before each question. Offscreen is fine.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from time import perf_counter

import psutil

from tests.shared_data import MODELS, TEST, TRAIN, TRANSFORM

LIMIT_S = 900.0
CHECK_LIMIT_S = 60.0
READY_MS = 2000
KINDS = ("cold", "ready", "warm")


class Search:
    """A session with a search under way, and a person who checks data all the while."""

    def __init__(self, arguments) -> None:
        from quantstudio.core.data_spec import DataSpec, parse_transform
        from quantstudio.gui.app import make_application
        from quantstudio.gui.session import Session
        from quantstudio.gui.shell.main_window import MainWindow
        from quantstudio.gui.shell.settings import Settings
        from quantstudio.gui.theme import LIGHT, apply_theme
        from quantstudio.jobs.backends.process import ProcessBackend
        from quantstudio.project.store import Project

        self.app = make_application([])
        self.backends: list[ProcessBackend] = []
        self.session = Session(self.made_backend, project=Project.temporary())
        apply_theme(self.app, LIGHT)
        self.window = MainWindow(self.session, Settings(), self.app)
        self.window.show()
        spec = parse_transform(TRANSFORM)
        self.train = DataSpec(str(TRAIN), spec, arguments.samples)
        self.test = DataSpec(str(TEST), spec)
        self.times_ms: dict[tuple[str, bool], list[float]] = defaultdict(list)
        self.every_ms = int(arguments.every * 1000)

    def made_backend(self, on_event):
        from quantstudio.jobs.backends.process import ProcessBackend

        self.backends.append(ProcessBackend(on_event))
        return self.backends[0]

    @property
    def is_timing(self) -> bool:
        """Whether the work under way times runs."""
        row = self.session.workspace.jobs.running
        return row is not None and (row.label == "Timing" or row.title == "Cost tables")

    def run(self) -> None:
        from quantstudio.core.search_results import SearchBudget
        from quantstudio.workspace.search_terms import SearchTerms

        workspace = self.session.workspace
        workspace.documents.open_path(str(MODELS / "fmnist_mobilenet.onnx"))
        self.wait(lambda: workspace.model is not None and not workspace.jobs.is_busy)
        workspace.opening.set_data(self.train, self.test)
        workspace.searches.start(SearchTerms(SearchBudget(max_drop=0.5, max_latency_ratio=0.95)))
        started = perf_counter()
        turn = 0
        while workspace.jobs.is_busy:
            # Every second click falls into a phase of timing, as soon as there is one.
            self.check(KINDS[turn % len(KINDS)], started, is_timing_due=bool(turn % 2))
            self.rest(self.every_ms)
            turn += 1
        print(f"the search took {perf_counter() - started:.1f} s with {turn} checks")
        for row in workspace.jobs.rows:
            if not row.title.startswith("Look at"):
                print(f"  {row.title}: {row.state.value} {row.outcome}")
        self.window.close()
        self.session.close()

    def check(self, kind: str, started: float, *, is_timing_due: bool) -> None:
        from quantstudio.core.folders import cache_folder
        from quantstudio.gui.features.data.data_dialog import DataDialog

        backend = self.backends[0]
        if is_timing_due and kind == "cold":
            self.wait_for_timing()
        if kind == "cold" and (health := backend.quick_health) is not None and health.pid is not None:
            pid = health.pid
            psutil.Process(pid).kill()
            self.wait(lambda: not psutil.pid_exists(pid))
        shutil.rmtree(cache_folder("doctor"))
        dialog = DataDialog(self.window.context)
        dialog.open()
        if kind == "ready":
            self.rest(READY_MS)
        if is_timing_due:
            self.wait_for_timing()
        row = self.session.workspace.jobs.running
        what = "" if row is None else f"{row.title}: {row.label}"
        was_timing = self.is_timing
        start = perf_counter()
        dialog.calibration.path.setText(self.train.path)
        self.wait(lambda: dialog.doctor.facts.text() or not dialog.isVisible(), CHECK_LIMIT_S)
        took_ms = (perf_counter() - start) * 1e3
        self.times_ms[kind, was_timing].append(took_ms)
        print(
            f"{start - started:6.1f} s {kind:6} {'timing' if was_timing else '':7} {took_ms:7.0f} ms   {what}"
        )
        dialog.reject()
        dialog.deleteLater()

    def wait_for_timing(self) -> None:
        """Until the work times runs, or there is none."""
        jobs = self.session.workspace.jobs
        self.wait(lambda: self.is_timing or not jobs.is_busy, CHECK_LIMIT_S, is_needed=False)

    def rest(self, milliseconds: int) -> None:
        from PySide6.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    def wait(self, done, seconds: float = LIMIT_S, *, is_needed: bool = True) -> None:
        from PySide6.QtCore import QEventLoop, QTimer

        loop, end = QEventLoop(), perf_counter() + seconds
        poll = QTimer()
        poll.timeout.connect(lambda: loop.quit() if done() or perf_counter() > end else None)
        poll.start(2)
        loop.exec()
        if is_needed and not done():
            raise SystemExit(f"not finished in {seconds} s")


def show(times_ms) -> None:
    """The longest and the median of each kind of click."""
    print(f"{'worker':8} {'work':8} {'clicks':>6} {'median':>8} {'longest, ms':>12}")
    for (kind, was_timing), found in sorted(times_ms.items()):
        middle = sorted(found)[len(found) // 2]
        phase = "timing" if was_timing else "other"
        print(f"{kind:8} {phase:8} {len(found):6} {middle:8.0f} {max(found):12.0f}")


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=512, help="calibration samples")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two checks")
    arguments = parser.parse_args()
    if not MODELS.is_dir():
        sys.exit("the reference models are not beside the checkout")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUANTSTUDIO_CACHE"] = f"{folder}/cache"
        os.environ["QUANTSTUDIO_CONFIG"] = f"{folder}/config"
        search = Search(arguments)
        search.run()
        show(search.times_ms)


if __name__ == "__main__":
    main()
