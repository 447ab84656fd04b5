"""Takes the pictures of the window on a bundled sample, results computed live.

`python packaging/screenshots.py FOLDER [SIZE...]` writes one PNG a tab, theme and size, for example
inspect-light-1600x1000.png; without sizes 1600x1000 and 1280x720. Needs no display.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantstudio.gui.session import Session

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

SECONDS_TO_FINISH = 120
SETTLE_MS = 700


def take(folder: Path, sizes: list[tuple[int, int]], sample: str = "digits_resnet") -> list[Path]:
    """Pictures of every tab in both themes and every size."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["QUANTSTUDIO_CACHE"] = f"{home}/cache"
        os.environ["QUANTSTUDIO_CONFIG"] = f"{home}/config"
        return _take(folder, sizes, sample)


def _take(folder: Path, sizes: list[tuple[int, int]], sample: str) -> list[Path]:
    from PySide6.QtCore import QEventLoop, QTimer

    from quantstudio.gui.app import make_application
    from quantstudio.gui.main_window import MainWindow
    from quantstudio.gui.session import Session
    from quantstudio.gui.settings import Settings
    from quantstudio.gui.theme import DARK, LIGHT, apply_theme
    from quantstudio.jobs.process import ProcessRunner
    from quantstudio.project.store import Project

    def wait(milliseconds: int) -> None:
        loop = QEventLoop()
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    app = make_application([])
    apply_theme(app, LIGHT)
    session = Session(ProcessRunner, project=Project.temporary())
    window = MainWindow(session, Settings(), app)
    window.resize(*sizes[0])
    window.show()
    wait(1500)
    session.open_sample(sample)
    deadline = perf_counter() + SECONDS_TO_FINISH
    while not (session.costs is not None and all(row.state.is_final for row in session.jobs)):
        if perf_counter() > deadline:
            raise SystemExit(f"the analysis did not finish in {SECONDS_TO_FINISH} s")
        wait(250)
    _make_variants(session, wait)
    written = []
    for theme in (LIGHT, DARK):
        apply_theme(app, theme)
        for width, height in sizes:
            window.resize(width, height)
            for index in range(window.tabs.count()):
                window.tabs.setCurrentIndex(index)
                wait(SETTLE_MS)
                name = window.tabs.tabText(index).replace("&", "").lower()
                path = folder / f"{name}-{theme.name}-{width}x{height}.png"
                window.grab().save(str(path))
                written.append(path)
    window.close()
    session.close()
    return written


def _make_variants(session: Session, wait: Callable[[int], None]) -> None:
    """A second variant with two layers in four bits, so that the trade-off has something to show."""
    names = [layer.name for layer in session.layers]
    session.select([names[2]])
    session.set_scheme(names[3:6], "static-int4")
    session.quantize()
    session.measure()
    for _ in range(400):
        wait(250)
        if session.jobs and all(row.state.is_final for row in session.jobs):
            return


def main() -> None:
    """Write the pictures the arguments ask for."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [text.partition("x") for text in sys.argv[2:]] or [("1600", "x", "1000"), ("1280", "x", "720")]
    for path in take(folder, [(int(width), int(height)) for width, _, height in pairs]):
        print(path)


if __name__ == "__main__":
    main()
