"""A session with a runner that replays canned events, and windows on it in a fixed theme."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PySide6.QtCore import QCoreApplication, QObject
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QDialog
from pytestqt.qtbot import QtBot

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.findings import VARIANT
from quantstudio.gui.feature import Feature
from quantstudio.gui.features.jobs.log_panel import LogPanel
from quantstudio.gui.session import Session
from quantstudio.gui.shell.features import FEATURES
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.theme import LIGHT, ThemeChoice, apply_theme, ui_font
from quantstudio.project.state import ProjectState
from quantstudio.workspace.subject import Subject
from quantstudio.workspace.values import EngineOptions
from tests import waiting
from tests.gui.sample_session import close_sample_sessions
from tests.gui.settling import settled
from tests.workspace.canned import ANSWERS, OUTLINE, ReplayRunner

PATIENCE_MS = int(waiting.PATIENCE_S * 1000)


def wait_until(condition: Callable[[], object]) -> None:
    """Turn the event loop until something holds; for fixtures that outlive one test."""

    def holds() -> bool:
        QCoreApplication.processEvents()
        return bool(condition())

    waiting.wait_until(holds)


class PatientBot(QtBot):
    """A qtbot for busy machines: a wait ends when its condition holds, and only a hang takes this long."""

    waitUntil = partialmethod(QtBot.waitUntil, timeout=PATIENCE_MS)  # noqa: N815
    waitSignal = partialmethod(QtBot.waitSignal, timeout=PATIENCE_MS)  # noqa: N815
    waitExposed = partialmethod(QtBot.waitExposed, timeout=PATIENCE_MS)  # noqa: N815


@pytest.fixture
def qtbot(qapp: QApplication, request: pytest.FixtureRequest) -> QtBot:
    return PatientBot(request)


W = TypeVar("W", bound=QObject)


def find(parent: QObject, kind: type[W], name: str = "") -> W:
    """The child of that kind and name, which must be there."""
    found = parent.findChild(kind, name) if name else parent.findChild(kind)
    assert found is not None, name
    return found


def settle(window: MainWindow) -> None:
    """Wait until no job runs, files are read, and throttled signals have come."""
    known = window.session.workspace
    wait_until(lambda: not known.jobs.is_busy and not known.background.is_busy)
    settled(window.session)


@pytest.fixture(autouse=True, scope="session")
def _no_collection_on_other_threads() -> Iterator[None]:
    """Cycles that hold widgets die on this thread only, as they do in the program."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _only_new_objects_are_collected(_no_collection_on_other_threads: None) -> None:
    """What lives before a module's first test is looked at once, not after each of its tests."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _collection_after_each_test(qapp: QApplication) -> Iterator[None]:
    yield
    close_sample_sessions()
    gc.collect()


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


def shown_window(app: QApplication, session: Session, features: Sequence[Feature] = FEATURES) -> MainWindow:
    """A window on a session, active, its plots there."""
    app.setStyle("Fusion")
    app.setFont(ui_font())
    apply_theme(app, LIGHT)
    window = MainWindow(session, Settings(), app, features)
    shown: list[bool] = []
    window.plots_shown.connect(lambda: shown.append(True))
    window.resize(1280, 720)
    window.show()
    wait_until(lambda: shown)
    activate(window)
    return window


def activate(window: MainWindow) -> None:
    """Make the window the one that keys go to."""
    window.activateWindow()
    assert QTest.qWaitForWindowActive(window, PATIENCE_MS)


@pytest.fixture
def window(qapp: QApplication, replayed_session: Session) -> Iterator[MainWindow]:
    """A window of its own with nothing opened."""
    made = shown_window(qapp, replayed_session)
    yield made
    made.close()
    made.deleteLater()


@dataclass
class Shared:
    """A window that several tests look at, brought back to where it was after each."""

    window: MainWindow
    runner: ReplayRunner
    plans: ProjectState
    subject: Subject
    findings: dict[tuple[str, str], dict[str, Any]]
    options: EngineOptions

    def reset(self) -> None:
        self.runner.is_holding = False
        self.runner.answers = dict(ANSWERS)
        self.runner.release()
        settle(self.window)
        for dialog in self.window.findChildren(QDialog):
            dialog.close()
            if dialog is not self.window.palette_dialog:
                dialog.deleteLater()
        for toast in self.window.toasts.toasts:
            toast.closed.emit(toast)
        settled(self.window.session)
        session = self.window.session
        known = session.workspace
        known.subject, known.options = self.subject, self.options
        known.documents._asked = None
        known.project.edit(self.plans, "Reset")
        known.findings._known = {name: dict(rows) for name, rows in self.findings.items()}
        known.findings._whole.clear()
        known.findings._whole[VARIANT.name] = {
            key: None for name, key in self.findings if name == VARIANT.name
        }
        known.tell_everything()
        self.window.settings.theme = ThemeChoice.LIGHT
        self.window.views.tabs.setCurrentIndex(0)
        self.window.views.below_dock.hide()
        find(self.window, LogPanel).clear()
        activate(self.window)


@pytest.fixture(scope="module")
def shared(qapp: QApplication, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A window with everything analyzed, built and measured; use it through `full`."""
    home = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(home / "cache"))
        patch.setenv("QUANTSTUDIO_CONFIG", str(home / "config"))
        model, data = home / "net.onnx", home / "data.npz"
        model.write_bytes(OUTLINE)
        np.savez(data, x=np.zeros((4, 3, 32, 32), np.float32))
        runner = ReplayRunner()
        made = shown_window(qapp, Session(runner.attach))
        _analyse(made, model, data)
    known = made.session.workspace
    assert known.subject is not None
    findings = {name: dict(rows) for name, rows in known.findings._known.items()}
    yield Shared(made, runner, known.project.state, known.subject, findings, known.options)
    made.close()
    made.deleteLater()


def _analyse(window: MainWindow, model: Path, data: Path) -> None:
    window.session.workspace.documents.open_path(str(model))
    settle(window)
    window.session.workspace.opening.set_data(DataSpec(str(data)), None)
    window.session.workspace.runs.run_all()
    settle(window)


@pytest.fixture
def full(shared: Shared) -> Iterator[MainWindow]:
    """The shared window; whatever a test does to it is taken back."""
    yield shared.window
    shared.reset()


@pytest.fixture
def runner(shared: Shared) -> ReplayRunner:
    """The runner behind `full`."""
    return shared.runner
