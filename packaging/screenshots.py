"""Takes the screenshots of the window on a bundled sample, results computed live.

`python packaging/screenshots.py FOLDER [SIZE...]` writes one PNG a view, theme and size, for example
inspect-light-1600x1000.png. A size is pixels of the screen, with its scale factor behind an @:
1600x1000@2 is a window of 800 by 500 points. Without sizes 1600x1000, 1280x720 and 1600x1000@2. Needs no
display.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PySide6.QtGui import QPixmap
    from PySide6.QtWidgets import QApplication, QDialog

    from quantstudio.gui.session import Session
    from quantstudio.gui.shell.main_window import MainWindow

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

SIZES = ("1600x1000", "1280x720", "1600x1000@2")
SAMPLE = "digits_resnet"
# What the page of steps is pictured with: it begins at two bits, and is recovered.
RECOVERED = "digits_two_bits"
SECONDS_TO_FINISH = 240
SETTLE_MS = 700
# Turns of the event loop after which nothing is left to draw, however busy the machine is: each draws a view.
CALM_TURNS, THROTTLE_MS = 40, 200
# Points around a dialog, and how dark it makes what lies behind.
AIR, SHADE = 10, 110
# Longer than a notification stays: none belongs in a screenshot.
QUIET_MS = 9500
_PROJECT = "results.qstudio"
_RECOVERED = "recovered.qstudio"
_PICTURES = "--pictures"
_RECOVER = "--recover"


@dataclass(frozen=True, slots=True)
class Size:
    """A window in pixels of a screen with a scale factor."""

    width: int
    height: int
    scale: int
    text: str

    @classmethod
    def read(cls, text: str) -> Size:
        """The size an argument names."""
        pixels, _, scale = text.partition("@")
        width, _, height = pixels.partition("x")
        return cls(int(width), int(height), int(scale or 1), text)

    @property
    def points(self) -> tuple[int, int]:
        """Width and height as Qt counts them."""
        return self.width // self.scale, self.height // self.scale


def take(folder: Path, sizes: list[Size]) -> None:
    """Screenshots of every view in both themes and every size; a scale factor needs a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["QUANTSTUDIO_CACHE"] = f"{home}/cache"
        os.environ["QUANTSTUDIO_CONFIG"] = f"{home}/config"
        session, window, _ = _window(sizes[0])
        _make_results(session)
        session.workspace.documents.save_as(f"{home}/{_PROJECT}")
        _finish(session)
        window.close()
        # Both samples are one network: in one home they would be one project.
        alone = {**os.environ, "QUANTSTUDIO_CONFIG": f"{home}/recovered"}
        command = [sys.executable, __file__, _RECOVER, f"{home}/{_RECOVERED}", sizes[0].text]
        subprocess.run(command, check=True, env=alone)
        for scale in sorted({size.scale for size in sizes}):
            wanted = [size.text for size in sizes if size.scale == scale]
            command = [sys.executable, __file__, _PICTURES, str(folder), f"{home}/{_PROJECT}", *wanted]
            subprocess.run(command, check=True, env={**os.environ, "QT_SCALE_FACTOR": str(scale)})


def _window(size: Size) -> tuple[Session, MainWindow, QApplication]:
    """A window with nothing opened, as it is after its first paint."""
    from PySide6.QtTest import QTest

    from quantstudio.gui.app import make_application
    from quantstudio.gui.collector import MainThreadCollector
    from quantstudio.gui.session import Session
    from quantstudio.gui.shell.main_window import MainWindow
    from quantstudio.gui.shell.settings import Settings
    from quantstudio.gui.theme import LIGHT, apply_theme
    from quantstudio.jobs.backends.process import ProcessBackend
    from quantstudio.project.store import Project

    app = make_application([])
    collector = MainThreadCollector()
    collector.start()
    apply_theme(app, LIGHT)
    session = Session(ProcessBackend, project=Project.temporary())
    window = MainWindow(session, Settings(), app)
    window.resize(*size.points)
    window.show()
    QTest.qWait(1500)
    return session, window, app


def _take(folder: Path, project: str, sizes: list[Size]) -> None:
    from PySide6.QtTest import QTest

    from quantstudio.gui.theme import DARK, LIGHT, apply_theme

    session, window, app = _window(sizes[0])

    def take_all(views: Callable[[MainWindow], Mapping[str, Callable[[], object]]]) -> None:
        for theme in (LIGHT, DARK):
            apply_theme(app, theme)
            for size in sizes:
                window.resize(*size.points)
                for name, show in views(window).items():
                    dialog = show()
                    QTest.qWait(SETTLE_MS)
                    _settle(app)
                    path = folder / f"{name}-{theme.name}-{size.text}.png"
                    _picture(window, dialog).save(str(path))
                    print(path)
                    if dialog is not None:
                        dialog.close()  # type: ignore[attr-defined]

    take_all(lambda shown: {"start": lambda: shown.show_view("start")})
    session.workspace.documents.open_project(project)
    _finish(session)
    session.select([session.workspace.layers[2].name])
    QTest.qWait(QUIET_MS)
    take_all(_views)
    session.workspace.documents.open_project(str(Path(project).with_name(_RECOVERED)))
    _finish(session)
    QTest.qWait(QUIET_MS)
    take_all(lambda shown: {"improve": partial(shown.show_view, "improve")})
    window.close()
    session.close()


def _settle(app: QApplication) -> None:
    """Wait until views are laid out and drawn: on a busy machine a fixed time pictures them half done."""
    from PySide6.QtCore import QTimer
    from PySide6.QtTest import QTest

    def is_due(timer: QTimer) -> bool:
        return timer.isActive() and timer.isSingleShot() and timer.interval() <= THROTTLE_MS

    calm = 0
    while calm < CALM_TURNS:
        is_calm = not any(
            is_due(timer) for top in app.topLevelWidgets() for timer in top.findChildren(QTimer)
        )
        calm = calm + 1 if is_calm else 0
        if is_calm:
            app.processEvents()
        else:
            QTest.qWait(20)


def _picture(window: MainWindow, dialog: object) -> QPixmap:
    """The window, with a dialog where it stands over it."""
    from PySide6.QtGui import QColor, QPainter
    from PySide6.QtWidgets import QDialog

    picture = window.grab()
    if isinstance(dialog, QDialog):
        over = dialog.grab()
        painter = QPainter(picture)
        painter.fillRect(window.rect(), QColor(0, 0, 0, SHADE))
        left, top = (window.width() - dialog.width()) // 2, (window.height() - dialog.height()) // 2
        painter.drawPixmap(left, max(0, top), over)
        painter.end()
    return picture


def _make_results(session: Session) -> None:
    """Three variants and a search, so that the trade-off and the predictions have something to show."""
    from PySide6.QtTest import QTest

    from quantstudio.core.search_results import SearchBudget
    from quantstudio.workspace.search_terms import SearchTerms

    session.workspace.documents.open_sample(SAMPLE)
    QTest.qWait(2000)
    _finish(session)
    names = [layer.name for layer in session.workspace.layers]
    for scheme, some in (("static-int4", names[3:6]), ("weight-int4", names[-4:])):
        session.workspace.edits.set_scheme(some, scheme)
        session.workspace.runs.quantize()
        session.workspace.runs.measure()
        _finish(session)
    session.workspace.searches.start(SearchTerms(SearchBudget(max_drop=0.5, average_bits=5.0)))
    _finish(session)
    session.workspace.edits.activate_plan(session.workspace.plans[0].name)


def _recover(project: str, size: Size) -> None:
    """A project of two bits as they are rounded, and with the steps that win them back."""
    from PySide6.QtTest import QTest

    session, window, _ = _window(size)
    session.workspace.documents.open_sample(RECOVERED)
    QTest.qWait(2000)
    _finish(session)
    session.workspace.runs.quantize()
    session.workspace.runs.measure()
    _finish(session)
    session.workspace.improvement.recover(SECONDS_TO_FINISH)
    _finish(session)
    session.workspace.documents.save_as(project)
    _finish(session)
    window.close()
    session.close()


def _finish(session: Session) -> None:
    """Wait until no job runs."""
    from PySide6.QtTest import QTest

    deadline = perf_counter() + SECONDS_TO_FINISH
    QTest.qWait(250)
    while session.workspace.jobs.is_busy:
        if perf_counter() > deadline:
            raise SystemExit(f"the jobs did not finish in {SECONDS_TO_FINISH} s")
        QTest.qWait(250)


def _views(window: MainWindow) -> Mapping[str, Callable[[], object]]:
    """What is pictured, by name of the file; in this order."""
    from PySide6.QtTest import QTest

    from quantstudio.gui.features.data.data_dialog import DataDialog
    from quantstudio.gui.features.sensitivity.sensitivity_panel import BARS, SensitivityPanel
    from quantstudio.gui.features.tradeoff.tradeoff_panel import CHECK, TRADE_OFF, TradeoffPanel

    sensitivity, trade_off = window.findChild(SensitivityPanel), window.findChild(TradeoffPanel)
    assert sensitivity is not None
    assert trade_off is not None

    def inspect() -> None:
        window.show_view("inspect")
        sensitivity.threshold.setChecked(False)
        sensitivity.show_kind(BARS)

    def threshold() -> None:
        inspect()
        window.actions_list["edit.threshold"].trigger()

    def classes() -> None:
        sensitivity.threshold.setChecked(False)
        window.actions_list["view.classes"].trigger()

    def search() -> None:
        window.actions_list["run.search"].trigger()
        trade_off.view.button(TRADE_OFF).click()

    def check() -> None:
        window.show_view("tradeoff")
        trade_off.view.button(CHECK).click()

    def data() -> QDialog:
        window.show_view("inspect")
        window.actions_list["model.data"].trigger()
        dialog = [one for one in window.findChildren(DataDialog) if one.isVisible()][-1]
        while dialog.doctor.status.text() or not dialog.judged.reason.text():
            QTest.qWait(50)
        dialog.resize(dialog.width(), min(dialog.height(), window.height() - 2 * AIR))
        return dialog

    return {
        "inspect": inspect,
        "threshold": threshold,
        "classes": classes,
        "trade-off": search,
        "prediction-check": check,
        "compare": partial(window.show_view, "compare"),
        "start": partial(window.show_view, "start"),
        "data": data,
    }


def main() -> None:
    """Write the screenshots the arguments ask for."""
    arguments = sys.argv[1:]
    if arguments[:1] == [_PICTURES]:
        folder, project, *sizes = arguments[1:]
        _take(Path(folder), project, [Size.read(text) for text in sizes])
        return
    if arguments[:1] == [_RECOVER]:
        _recover(arguments[1], Size.read(arguments[2]))
        return
    folder, *sizes = arguments
    Path(folder).mkdir(parents=True, exist_ok=True)
    take(Path(folder), [Size.read(text) for text in sizes or SIZES])


if __name__ == "__main__":
    main()
