"""What one click costs in a window on a made-up network of hundreds of layers, without a worker.

`python -m tests.benchmarks.heartbeat_large [--layers 500] [--who] [--only WORDS]` fills a session with
made-up results and does everything a hand can do, a few times each, waiting for the window to be done in
between. It prints the longest turn of the event loop in each: on the clock, and in processor time of the
window's thread, which a busy machine does not change. Run it under a real or virtual display, or offscreen.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.heartbeat import LONG_MS, show
from tests.benchmarks.heartbeat_hand import Hand
from tests.benchmarks.heartbeat_turns import Heart, Witness
from tests.workspace.putting import put_build, put_calibration, put_comparison, put_costs

QUIET_MS = 140
STREAM_EVERY_MS = 3


class Clicks:
    """A window without a worker, and one thing after another done in it."""

    def __init__(self, arguments) -> None:
        from quantstudio.gui.app import SWITCH_SECONDS, make_application
        from quantstudio.gui.collector import MainThreadCollector
        from quantstudio.gui.session import Session
        from quantstudio.gui.shell.main_window import MainWindow
        from quantstudio.gui.shell.settings import Settings
        from quantstudio.gui.theme import LIGHT, apply_theme
        from quantstudio.project.store import Project
        from tests.workspace.canned import ReplayRunner

        self.arguments = arguments
        sys.setswitchinterval(SWITCH_SECONDS)
        self.app = make_application([])
        self.collector = MainThreadCollector()
        self.collector.start()
        apply_theme(self.app, LIGHT)
        self.runner = ReplayRunner()
        self.runner.is_holding = True
        self.session = Session(self.runner.attach, project=Project.temporary())
        self.window = MainWindow(self.session, Settings(), self.app)
        self.window.plots_shown.connect(self.collector.exempt_what_lives)
        self.window.resize(*arguments.size)
        self.heart = Heart(lambda: "", Witness() if arguments.who else None)

    def do(self, name, act, milliseconds=QUIET_MS) -> None:
        """One thing, and everything that follows from it."""
        from PySide6.QtCore import QTimer

        if self.arguments.only and not any(word in name for word in self.arguments.only):
            act()
            self.rest(milliseconds)
            return
        self.heart.doing = name
        self.heart.start()
        QTimer.singleShot(0, act)
        self.rest(milliseconds)
        self.heart.pause()

    def rest(self, milliseconds) -> None:
        """Leave the event loop to itself."""
        from PySide6.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    def run(self) -> Heart:
        """Everything in order."""
        self.window.show()
        self.rest(2500)
        self.fill()
        self.stream()
        hand = Hand(self.window, self.heart)
        for _ in range(self.arguments.rounds):
            for name, act in hand.things:
                self.do(name, act)
            self.do("theme", self.window.actions_list["view.theme"].trigger, 400)
        self.heart.stop()
        self.window.close()
        self.collector.stop()
        return self.heart

    def fill(self) -> None:
        """Open, then what the quick jobs find."""
        from quantstudio.core.data_spec import DataSpec
        from quantstudio.core.recipe import uniform_recipe
        from quantstudio.core.statistics_file import save_statistics, save_weight_statistics
        from tests.workspace import samples as made

        session, model = self.session, made.model_summary(self.arguments.layers)
        self.do("open a model", lambda: session.workspace.opening.set_model(model), 400)
        data = DataSpec("train.npz"), DataSpec("test.npz")
        self.do("choose data", lambda: session.workspace.opening.set_data(*data))
        folder = os.environ["QUANTSTUDIO_CACHE"]
        weights, activations = Path(folder, "weights.npz"), Path(folder, "activations.npz")
        rows = [made.weight_statistics(info, i % 7) for i, info in enumerate(model.layers)]
        save_weight_statistics(weights, rows)
        save_statistics(activations, made.activations(model))
        self.do("weights from a file", lambda: session.workspace.arrays.load_weights(str(weights)), 700)
        self.do(
            "activations from a file",
            lambda: put_calibration(session.workspace, str(activations), "d", 512),
            1500,
        )
        self.do("costs", lambda: put_costs(session.workspace, made.cost_table(model)))
        base = made.variant_result("FP32", model.graph_path, 0.924, 10**6, 18.4, is_base=True)
        for name, scheme in (("A", "dynamic-int8"), ("B", "weight-int8"), ("C", "static-int8")):
            recipe = uniform_recipe(scheme)
            built = made.built(model, name, recipe, 10**5)
            self.do("a build", lambda built=built: put_build(session.workspace, built))
            result = made.variant_result(name, f"{name}.onnx", 0.92, 10**5, 6.9)
            self.do("a measurement", lambda r=result: put_comparison(session.workspace, base, {r.path: r}))

    def stream(self) -> None:
        """Sensitivity of layer after layer, as the worker tells it, while somebody looks at each tab."""
        from quantstudio.core.codec import to_json
        from quantstudio.core.events import JobEnded, JobState, PartFound
        from quantstudio.core.results import SensitivityResult
        from tests.workspace import samples as made

        session = self.session
        layers = session.workspace.layers
        rows = [made.sensitivity(info, i) for i, info in enumerate(layers)]
        session.workspace.runs.add_sensitivity()
        job = self.runner.submitted[-1].id

        def tell(some) -> None:
            for row in some:
                self.runner.emit(job, PartFound(row))

        half = len(rows) // 2
        for start in range(0, half, 20):
            self.do("sensitivity streams", lambda s=start: tell(rows[s : s + 20]), 70)
        self.do("sensitivity in a burst", lambda: tell(rows[half:]), 300)
        found = SensitivityResult("fisher", 512, 0.2, "int4", tuple(rows), made.CURVE)
        ended = JobEnded(JobState.SUCCEEDED, result=to_json(found))
        self.do("sensitivity ends", lambda: self.runner.emit(job, ended), 300)


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--who", action="store_true", help=f"name the code of turns over {LONG_MS:.0f} ms")
    parser.add_argument("--only", nargs="*", default=(), help="measure what has one of these words in it")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="of the window")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUANTSTUDIO_CACHE"] = f"{folder}/cache"
        os.environ["QUANTSTUDIO_CONFIG"] = f"{folder}/config"
        show(Clicks(arguments).run())


if __name__ == "__main__":
    main()
