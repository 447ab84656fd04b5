"""How long the window leaves the event loop alone while the worker is busy and the user clicks about.

`python -m tests.benchmarks.heartbeat [MODEL TRAIN TEST TRANSFORM]` opens the window on a model, runs every
job and a few edits in between, and prints the turns of the event loop by what was going on: the time between
two beats of a 5 ms timer, and the processor time the window's thread took of it. The bundled sample is used
without arguments. `--large` opens a made-up network of 500 layers instead; `--hand` scrolls, selects,
switches tabs, drags clip lines, flips precisions and undoes all the while; `--who` names the code that the
longest turns were in. Run it under a real or virtual display, or offscreen.
"""

import argparse
import os
import sys
import tempfile
from time import perf_counter

import numpy as np

from tests.benchmarks.heartbeat_turns import Heart, Witness

LIMIT_SECONDS = 300.0
LONG_MS = 30.0


def run(arguments) -> Heart:
    """Every turn of a scripted session."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUANTSTUDIO_CACHE"] = f"{folder}/cache"
        os.environ["QUANTSTUDIO_CONFIG"] = f"{folder}/config"
        if arguments.large:
            from tests.benchmarks.heartbeat_model import make_in_a_process

            arguments.files = make_in_a_process(folder, arguments.layers)
        return Visit(arguments).run()


class Visit:
    """A window, a session, and what a user does with them."""

    def __init__(self, arguments) -> None:
        from quantstudio.gui.app import SWITCH_SECONDS, make_application
        from quantstudio.gui.collector import MainThreadCollector
        from quantstudio.gui.session import Session
        from quantstudio.gui.shell.main_window import MainWindow
        from quantstudio.gui.shell.settings import Settings
        from quantstudio.gui.theme import LIGHT, apply_theme
        from quantstudio.jobs.backends.process import ProcessBackend
        from quantstudio.project.store import Project

        self.arguments = arguments
        sys.setswitchinterval(SWITCH_SECONDS)
        self.app = make_application([])
        self.collector = MainThreadCollector()
        self.collector.start()
        apply_theme(self.app, LIGHT)
        self.session = Session(ProcessBackend, project=Project.temporary())
        self.window = MainWindow(self.session, Settings(), self.app)
        self.window.plots_shown.connect(self.collector.exempt_what_lives)
        self.window.resize(*arguments.size)
        self.heart = Heart(self.running, Witness() if arguments.who else None)

    def running(self) -> str:
        """Title of the job under way."""
        row = self.session.workspace.jobs.running
        return row.title.split(".")[0] if row is not None else "no job"

    def run(self) -> Heart:
        """Everything in order."""
        session, heart = self.session, self.heart
        if self.arguments.start:
            heart.start()
            heart.doing = "starting"
        self.window.show()
        self.rest(2500)
        heart.start()
        heart.doing = ""
        hand = None
        if self.arguments.hand:
            from tests.benchmarks.heartbeat_hand import Hand

            hand = Hand(self.window, heart)
            hand.start()
        self.open()
        self.wait(lambda: session.workspace.costs is not None and self.idle())
        if hand is not None:
            hand.stop()
        self.edit()
        if hand is not None:
            hand.start()
        session.workspace.runs.quantize()
        self.wait(self.idle)
        session.workspace.runs.measure()
        self.wait(self.idle)
        if hand is not None:
            hand.stop()
        heart.stop()
        self.window.close()
        session.close()
        self.collector.stop()
        return heart

    def open(self) -> None:
        """A model with its data, and every analysis."""
        from quantstudio.core.data_spec import DataSpec, parse_transform
        from quantstudio.core.samples import DEFAULT_SAMPLE

        session = self.session
        if not self.arguments.files:
            session.workspace.documents.open_sample(DEFAULT_SAMPLE)
            return
        model, train, test, transform = self.arguments.files
        session.workspace.documents.open_path(model)
        self.wait(lambda: session.workspace.model is not None and self.idle())
        spec = parse_transform(transform)
        session.workspace.documents.choose_data(
            DataSpec(train, spec, self.arguments.samples), DataSpec(test, spec)
        )
        self.wait(self.idle)
        session.workspace.runs.run_all()

    def edit(self) -> None:
        """One click after another, each with the paint it causes."""
        session = self.session
        for layer in session.workspace.layers[:20]:
            self.turn(lambda name=layer.name: session.select([name]))
            if "static-int4" in layer.schemes:
                self.turn(lambda name=layer.name: session.workspace.edits.set_scheme([name], "static-int4"))
        self.turn(session.workspace.edits.undo)

    def idle(self) -> bool:
        """Whether every job has ended."""
        return bool(self.session.workspace.jobs.rows) and not self.session.workspace.jobs.is_busy

    def rest(self, milliseconds) -> None:
        """Leave the event loop to itself."""
        from PySide6.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    def wait(self, done) -> None:
        """Until something is so."""
        from PySide6.QtCore import QEventLoop, QTimer

        loop, deadline = QEventLoop(), perf_counter() + LIMIT_SECONDS
        poll = QTimer()
        poll.timeout.connect(lambda: loop.quit() if done() or perf_counter() > deadline else None)
        poll.start(50)
        loop.exec()
        if not done():
            states = [f"{row.title}: {row.state} {row.outcome}" for row in self.session.workspace.jobs.rows]
            raise SystemExit(f"not finished in {LIMIT_SECONDS} s: {states}")

    def turn(self, edit) -> None:
        """One click of a user, and the paint it causes."""
        from PySide6.QtCore import QTimer

        self.heart.doing = "an edit"
        QTimer.singleShot(0, edit)
        self.rest(120)
        self.heart.doing = ""


def show(heart, longest=12) -> None:
    """One row for each job and action, the total, and the longest turns with what they were in."""
    groups: dict[tuple[str, str], list] = {}
    for turn in heart.turns:
        groups.setdefault((turn.job, turn.doing), []).append(turn)
    print(f"{'job':30} {'hand':16} {'turns':>6} {'p99':>6} {'wall':>6} {'cpu':>6}  longest, ms")
    for (job, doing), turns in [*groups.items(), (("all", ""), heart.turns)]:
        wall = np.array([turn.wall_ms for turn in turns])
        cpu = np.array([turn.cpu_ms for turn in turns])
        print(
            f"{job[:30]:30} {doing[:16]:16} {wall.size:6d} {np.percentile(wall, 99):6.1f} "
            f"{wall.max():6.1f} {cpu.max():6.1f}"
        )
    over = [turn for turn in heart.turns if turn.wall_ms > LONG_MS or turn.cpu_ms > LONG_MS]
    print(f"{len(over)} turns over {LONG_MS:.0f} ms; the longest:")
    for turn in sorted(over, key=lambda turn: -max(turn.wall_ms, turn.cpu_ms))[:longest]:
        print(
            f"  wall {turn.wall_ms:6.1f}  cpu {turn.cpu_ms:6.1f}  waited for a core {turn.queued_ms:5.1f}  "
            f"{turn.job} / {turn.doing}"
        )
        for total, alone, calls, place in turn.seen:
            print(f"      {total:7.1f} {alone:7.1f} {calls:6d} x {place}")


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="MODEL TRAIN TEST TRANSFORM")
    parser.add_argument("--large", action="store_true", help="a made-up network")
    parser.add_argument("--layers", type=int, default=500, help="layers of the made-up network")
    parser.add_argument("--samples", type=int, default=512, help="calibration samples")
    parser.add_argument("--hand", action="store_true", help="work the window all the while")
    parser.add_argument("--who", action="store_true", help="name the code of long turns")
    parser.add_argument("--start", action="store_true", help="count the start of the window too")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="of the window")
    arguments = parser.parse_args()
    if len(arguments.files) not in (0, 4):
        parser.error("give MODEL TRAIN TEST TRANSFORM, or none of them")
    show(run(arguments))


if __name__ == "__main__":
    main()
