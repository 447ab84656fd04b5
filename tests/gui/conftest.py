"""A session with a runner that replays canned events, and a window on it in a fixed theme."""

from collections.abc import Iterator

import pytest
from PySide6.QtWidgets import QApplication

from quantstudio.gui.main_window import MainWindow
from quantstudio.gui.session import Session
from quantstudio.gui.settings import Settings
from quantstudio.gui.theme import LIGHT, apply_theme, ui_font
from tests.gui.canned import ReplayRunner


@pytest.fixture
def replay() -> Iterator[ReplayRunner]:
    """The runner of `replayed_session`; made before it so that a test can prepare answers."""
    runner = ReplayRunner()
    yield runner
    runner.close()


@pytest.fixture
def replayed_session(qapp: QApplication, replay: ReplayRunner) -> Iterator[Session]:
    """A session whose jobs answer with canned events."""
    session = Session(replay.attach)
    yield session
    session.close()


@pytest.fixture
def window(qtbot, qapp: QApplication, replayed_session: Session) -> Iterator[MainWindow]:
    """A shown window on the replayed session, in the light theme."""
    qapp.setStyle("Fusion")
    qapp.setFont(ui_font())
    apply_theme(qapp, LIGHT)
    made = MainWindow(replayed_session, Settings(), qapp)
    made.resize(1280, 720)
    with qtbot.waitSignal(made.plots_shown, timeout=10_000):
        made.show()
    yield made
    made.close()
    made.deleteLater()
