"""CPU time from the start of the interpreter to the first paint of the window.

`python -m tests.benchmarks.first_paint [RUNS]` starts the window in fresh processes and prints CPU and wall
seconds, and whether a runtime was loaded.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

_PROBE = """
import json, sys, time
started = time.perf_counter()
from PySide6.QtCore import QEvent, QObject, QTimer
from quantstudio.gui.app import make_application
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.session import Session
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.theme import LIGHT, apply_theme
from quantstudio.jobs.backends.process import ProcessBackend
from quantstudio.project.store import Project
app = make_application([])
apply_theme(app, LIGHT)
session = Session(ProcessBackend, project=Project.temporary())
window = MainWindow(session, Settings(), app)
class FirstPaint(QObject):
    def eventFilter(self, watched, event):
        if event.type() == QEvent.Type.Paint:
            heavy = [name for name in ("torch", "onnx", "onnxruntime") if name in sys.modules]
            wall_s = time.perf_counter() - started
            print(json.dumps({"cpu_s": time.process_time(), "wall_s": wall_s, "heavy": heavy}), flush=True)
            watched.removeEventFilter(self)
            QTimer.singleShot(0, app.quit)
        return False
paint = FirstPaint()
window.installEventFilter(paint)
window.show()
app.exec()
session.close()
"""


def main() -> None:
    """Print the median of several starts."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as home:
            environment = dict(
                os.environ, QUANTSTUDIO_CACHE=f"{home}/cache", QUANTSTUDIO_CONFIG=f"{home}/config"
            )
            out = subprocess.run(
                [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, check=True
            ).stdout
            rows.append(json.loads(out.splitlines()[0]))
    cpu, wall = ([row[key] for row in rows] for key in ("cpu_s", "wall_s"))
    heavy = sorted({name for row in rows for name in row["heavy"]})
    print(f"first paint, {runs} starts: CPU {statistics.median(cpu):.2f} s (max {max(cpu):.2f})")
    print(f"wall {statistics.median(wall):.2f} s; runtimes loaded: {heavy or 'none'}")


if __name__ == "__main__":
    main()
