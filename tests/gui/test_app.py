"""The program as a whole: what it may import, how fast it paints, what it does with faults."""

import ast
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, qWarning
from PySide6.QtWidgets import QApplication

import quantstudio.gui
from quantstudio.core.errors import QuantStudioError
from quantstudio.gui.app import check_reference_counts, first_project, main, make_application, open_first
from quantstudio.gui.collector import MainThreadCollector
from quantstudio.gui.faults import Faults
from quantstudio.gui.shell.late_modules import DIALOGS, MACHINE, PAGES
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.shell.settings import Settings
from quantstudio.project.store import Project
from quantstudio.workspace.values import EngineOptions
from tests.workspace.canned import OUTLINE

GUI = Path(quantstudio.gui.__file__).parent
# Shown first where nothing is open; part of the palette, which is listed.
NEVER_LATE = {"quantstudio.gui.features.start.start_page", "quantstudio.gui.widgets.command_palette"}


def run_python(code: str, tmp_path: Path) -> str:
    environment = os.environ | {
        "QT_QPA_PLATFORM": "offscreen",
        "QUANTSTUDIO_CONFIG": str(tmp_path / "config"),
        "QUANTSTUDIO_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_that_the_window_paints_before_its_plots_and_loads_no_engine(tmp_path):
    code = """
        import sys, time
        from PySide6.QtCore import QTimer
        from quantstudio.gui.app import *
        from quantstudio.gui.app import Session, Settings, MainWindow
        from quantstudio.gui.shell.late_modules import DIALOGS, MACHINE, PAGES
        from quantstudio.gui.theme import LIGHT, apply_theme

        class Idle:
            def __init__(self, on_event): pass
            def submit(self, spec): pass
            def cancel(self, job_id): pass
            def close(self): pass

        application = make_application(["x"])
        apply_theme(application, LIGHT)
        settings = Settings()
        window = MainWindow(Session(Idle, project=first_project(settings)), settings, application)
        window.resize(1600, 1000)
        window.show()
        window.grab()
        core = ("quantstudio.core.predict.model", "quantstudio.core.diagnosis")
        late = (*MACHINE, *PAGES, *DIALOGS, *core, "psutil", "importlib.metadata")
        print([name for name in late if name in sys.modules])

        def finish():
            names = [m for m in sys.modules if m in ("torch", "onnx", "onnxruntime")]
            print(sorted(names + [m for m in sys.modules if m.startswith("quantstudio.engine")]))
            window.close()
            application.quit()

        window.plots_shown.connect(finish)
        application.exec()
    """
    late, last = run_python(code, tmp_path).splitlines()[-2:]
    assert late == "[]"
    assert last == "[]"


def test_that_what_opens_later_is_imported_by_another_thread():
    """A dialog that an action imports when it is asked for, and a page, would else hold up the window."""
    listed = {*MACHINE, *PAGES, *DIALOGS}
    actions = [path for path in GUI.rglob("*.py") if path.name in ("actions.py", "feature.py")]
    found = set()
    for path in (*actions, GUI / "app.py", *(GUI / "shell").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        lines = (line for function in functions for line in ast.walk(function))
        found |= {line.module for line in lines if isinstance(line, ast.ImportFrom)}
    assert found - NEVER_LATE <= listed
    assert all(name in found for name in listed if name.startswith("quantstudio.gui"))


def test_that_the_program_runs_until_its_window_is_closed(tmp_path, monkeypatch, qapp):
    """In this process, with the loop and the worker left out."""
    started: list[object] = []

    class NoWorker:
        def __init__(self, on_event):
            self.on_event = on_event

        def submit(self, spec):
            started.append(spec)

        def cancel(self, job_id):
            pass

        def close(self):
            pass

    def turn_the_loop(_app: QApplication) -> int:
        QCoreApplication.processEvents()
        for widget in qapp.topLevelWidgets():
            if isinstance(widget, MainWindow):
                widget.close()
                widget.deleteLater()
        return 0

    path = tmp_path / "net.onnx"
    path.write_bytes(OUTLINE)
    monkeypatch.setattr("quantstudio.gui.app.ProcessBackend", NoWorker)
    monkeypatch.setattr(QApplication, "exec", turn_the_loop)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main(str(path)) == 0
    finally:
        signal.signal(signal.SIGINT, handler)
        gc.disable()
    assert len(started) == 1
    assert not gc.isenabled()


def test_that_importing_the_program_loads_no_engine_and_no_plots(tmp_path):
    code = """
        import sys
        import quantstudio.gui.app
        heavy = ("torch", "onnx", "onnxruntime", "pyqtgraph")
        print([m for m in sys.modules if m.split(".")[0] in heavy or m.startswith("quantstudio.engine")])
    """
    assert run_python(code, tmp_path).strip() == "[]"


def test_that_void_calls_of_qt_leave_reference_counts_alone():
    check_reference_counts()


def test_that_a_leaking_qt_is_refused(monkeypatch):
    counts = iter((5000, 4000))
    monkeypatch.setattr(sys, "getrefcount", lambda thing: next(counts))
    with pytest.raises(QuantStudioError, match=r"6\.10\.3"):
        check_reference_counts()


def test_that_the_application_has_its_names_and_style(qapp):
    # A style sheet wraps the style in one without a name.
    qapp.setStyleSheet("")
    assert make_application([]) is qapp
    assert qapp.applicationName() == "QuantStudio"
    assert qapp.style().name() == "fusion"
    assert not qapp.windowIcon().isNull()


class TestFirstThingShown:
    def test_that_nothing_opens_by_itself_on_the_very_first_start(self, replay, replayed_session):
        open_first(replayed_session, "", "")
        assert replay.submitted == []

    def test_that_what_was_asked_for_comes_first(self, replay, replayed_session, tmp_path):
        path = tmp_path / "mine.onnx"
        path.write_bytes(OUTLINE)
        open_first(replayed_session, str(path), "")
        assert replay.submitted[0].params["path"] == str(path)

    def test_that_a_sample_can_be_named(self, replay, replayed_session):
        open_first(replayed_session, "", "digits_resnet")
        assert replay.submitted[0].params["path"].endswith("digits_resnet.onnx")

    def test_that_the_last_session_is_taken_up_again(self, qtbot, replay, replayed_session, tmp_path):
        path = tmp_path / "mine.onnx"
        path.write_bytes(OUTLINE)
        replayed_session.workspace.documents.open_path(str(path))
        qtbot.waitUntil(lambda: not replayed_session.workspace.jobs.is_busy)
        count = len(replay.submitted)
        open_first(replayed_session, "", "")
        assert replayed_session.workspace.model.source_path == str(path)
        assert not any("digits" in str(s.params) for s in replay.submitted[count:])

    def test_that_the_last_project_is_opened(self, tmp_path):
        settings = Settings()
        path = tmp_path / "mine.qstudio"
        Project.create(path).close()
        settings.last_project = str(path)
        with first_project(settings) as project:
            assert project.path == path

    def test_that_a_damaged_last_project_is_left_alone(self, tmp_path):
        settings = Settings()
        path = tmp_path / "mine.qstudio"
        path.write_bytes(b"damaged")
        settings.last_project = str(path)
        with first_project(settings) as project:
            assert project.is_temporary
        assert settings.last_project == ""
        assert path.read_bytes() == b"damaged"


def test_that_garbage_is_collected_on_the_event_loop_only(qtbot):
    class Node:
        def __init__(self):
            self.me = self

    collector = MainThreadCollector()
    collector.start()
    try:
        assert not gc.isenabled()
        gone = weakref.ref(Node())
        kept: list[list[int]] = [[] for _ in range(2000)]
        qtbot.waitUntil(lambda: gone() is None)
        assert kept
    finally:
        collector.stop()
        assert gc.isenabled()
        gc.disable()


class TestFaults:
    @pytest.fixture
    def faults(self, qapp):
        made = Faults()
        # The hooks pytest-qt put in are given back by `uninstall`.
        made.install()
        yield made
        made.uninstall()

    def test_that_an_uncaught_exception_is_logged_saved_and_told(self, qtbot, faults, capsys):
        with qtbot.waitSignal(faults.failed) as told:
            sys.excepthook(ValueError, ValueError("broken"), None)
        assert told.args[0] == "ValueError: broken"
        assert "Saved as" in told.args[1]
        assert "broken" in faults.log_path.read_text()
        assert "broken" in capsys.readouterr().err

    def test_that_an_exception_of_a_thread_is_told_on_the_event_loop(self, qtbot, faults, capsys):
        def fail():
            raise RuntimeError("in a thread")

        with qtbot.waitSignal(faults.failed) as told:
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
        assert told.args[0] == "RuntimeError: in a thread"

    def test_that_messages_of_qt_go_to_the_log(self, faults):
        qWarning("a warning of Qt")
        for handler in logging.getLogger("quantstudio").handlers:
            handler.flush()
        assert "a warning of Qt" in faults.log_path.read_text()

    def test_that_ctrl_c_is_no_fault(self, qtbot, faults, capsys):
        with qtbot.assertNotEmitted(faults.failed, wait=50):
            sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)

    def test_that_the_hooks_are_given_back(self, qapp):
        before = (sys.excepthook, threading.excepthook)
        made = Faults()
        made.install()
        assert sys.excepthook is not before[0]
        made.uninstall()
        assert (sys.excepthook, threading.excepthook) == before


class TestSettings:
    def test_that_everything_survives_a_restart(self, tmp_path):
        settings = Settings()
        settings.engine = EngineOptions(threads=3)
        settings.folder = "/some, where"
        settings.set_shortcut("run.all", "")
        again = Settings()
        assert (again.engine.threads, again.folder, again.shortcut("run.all")) == (3, "/some, where", "")

    def test_that_recent_files_are_few_newest_first_and_there(self, tmp_path):
        settings = Settings()
        paths = []
        for i in range(12):
            path = tmp_path / f"{i}.onnx"
            path.write_bytes(OUTLINE)
            settings.add_recent(str(path))
            paths.append(str(path.resolve()))
        settings.add_recent(paths[5])
        Path(paths[11]).unlink()
        assert settings.recent[0] == paths[5]
        assert len(settings.recent) == 9
        settings.clear_recent()
        assert settings.recent == ()

    def test_that_nonsense_in_the_file_is_the_default(self, tmp_path):
        path = tmp_path / "s.ini"
        path.write_text("[General]\ntheme=purple\nthreads=many\n")
        settings = Settings(path)
        assert settings.theme.value == "system"
        assert settings.engine == EngineOptions()
