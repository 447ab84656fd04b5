"""Takes the screenshots of the window on a bundled sample, results computed live.

`python packaging/screenshots.py FOLDER [SIZE...]` writes one PNG a view, theme and size, for example
inspect-light-1600x1000.png; without sizes 1600x1000 and 1280x720. Needs no display.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantstudio.gui.session import Session
    from quantstudio.gui.shell.main_window import MainWindow

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

SECONDS_TO_FINISH = 240
SETTLE_MS = 700
# Longer than a notification stays: none belongs in a screenshot.
QUIET_MS = 9500


def take(folder: Path, sizes: list[tuple[int, int]], sample: str = "digits_resnet") -> list[Path]:
    """Screenshots of every view in both themes and every size."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["QUANTSTUDIO_CACHE"] = f"{home}/cache"
        os.environ["QUANTSTUDIO_CONFIG"] = f"{home}/config"
        return _take(folder, sizes, sample)


def _take(folder: Path, sizes: list[tuple[int, int]], sample: str) -> list[Path]:
    from PySide6.QtTest import QTest

    from quantstudio.gui.app import make_application
    from quantstudio.gui.collector import MainThreadCollector
    from quantstudio.gui.session import Session
    from quantstudio.gui.shell.main_window import MainWindow
    from quantstudio.gui.shell.settings import Settings
    from quantstudio.gui.theme import DARK, LIGHT, apply_theme
    from quantstudio.jobs.backends.process import ProcessBackend
    from quantstudio.project.store import Project

    app = make_application([])
    collector = MainThreadCollector()
    collector.start()
    apply_theme(app, LIGHT)
    session = Session(ProcessBackend, project=Project.temporary())
    window = MainWindow(session, Settings(), app)
    window.resize(*sizes[0])
    window.show()
    QTest.qWait(1500)
    session.workspace.documents.open_sample(sample)
    QTest.qWait(2000)
    _finish(session)
    _make_results(session, window)
    QTest.qWait(QUIET_MS)
    written = []
    for theme in (LIGHT, DARK):
        apply_theme(app, theme)
        for width, height in sizes:
            window.resize(width, height)
            for name, show in _views(window).items():
                show()
                QTest.qWait(SETTLE_MS)
                path = folder / f"{name}-{theme.name}-{width}x{height}.png"
                window.grab().save(str(path))
                written.append(path)
    window.close()
    session.close()
    return written


def _make_results(session: Session, window: MainWindow) -> None:
    """Two more variants and a search, so that the trade-off and the predictions have something to show."""
    from quantstudio.core.search_results import SearchBudget
    from quantstudio.gui.features.search.search_panel import SearchPanel
    from quantstudio.workspace.search_terms import SearchTerms

    names = [layer.name for layer in session.workspace.layers]
    for scheme, some in (("static-int4", names[3:6]), ("weight-int4", names[-4:])):
        session.workspace.edits.set_scheme(some, scheme)
        session.workspace.runs.quantize()
        session.workspace.runs.measure()
        _finish(session)
    budget = SearchBudget(max_drop=0.5, average_bits=5.0)
    session.workspace.searches.start(SearchTerms(budget))
    _finish(session)
    search = window.findChild(SearchPanel)
    assert search is not None
    search.set_budget(budget)
    session.workspace.edits.activate_plan(session.workspace.plans[0].name)
    session.select([names[2]])


def _finish(session: Session) -> None:
    """Wait until no job runs."""
    from PySide6.QtTest import QTest

    deadline = perf_counter() + SECONDS_TO_FINISH
    QTest.qWait(250)
    while session.workspace.jobs.is_busy:
        if perf_counter() > deadline:
            raise SystemExit(f"the jobs did not finish in {SECONDS_TO_FINISH} s")
        QTest.qWait(250)


def _views(window: MainWindow) -> Mapping[str, Callable[[], None]]:
    """What is pictured, by name of the file; in this order."""
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

    def compare() -> None:
        window.show_view("compare")

    return {
        "inspect": inspect,
        "threshold": threshold,
        "classes": classes,
        "trade-off": search,
        "prediction-check": check,
        "compare": compare,
    }


def main() -> None:
    """Write the screenshots the arguments ask for."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [text.partition("x") for text in sys.argv[2:]] or [("1600", "x", "1000"), ("1280", "x", "720")]
    for path in take(folder, [(int(width), int(height)) for width, _, height in pairs]):
        print(path)


if __name__ == "__main__":
    main()
