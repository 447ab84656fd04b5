"""The guard against leaks sees each kind, and says what to do."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from PySide6.QtWidgets import QDialog, QWidget

from tests import leaks
from tests.leaks import nothing_left


@contextmanager
def left_thread(_: Path) -> Iterator[None]:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="forgotten")
    thread.start()
    yield
    go_on.set()
    thread.join()


@contextmanager
def left_process(_: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "input()  # forgotten"], stdin=subprocess.PIPE) as process:
        yield
        process.kill()


@contextmanager
def left_window(_: Path) -> Iterator[None]:
    window = QWidget()
    window.setObjectName("forgotten")
    yield
    window.deleteLater()


@contextmanager
def left_dialog(_: Path) -> Iterator[None]:
    owner = QWidget()
    dialog = QDialog(owner)
    dialog.setObjectName("forgotten")
    dialog.open()
    yield
    owner.deleteLater()


@contextmanager
def left_file(folder: Path) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="forgotten", dir=folder):
        yield


@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        pytest.param(left_thread, "thread", id="thread"),
        pytest.param(left_process, "process", id="process"),
        pytest.param(left_window, "window", id="window"),
        pytest.param(left_dialog, "window", id="dialog"),
        pytest.param(left_file, "temporary file", id="file"),
    ],
)
def test_that_what_is_left_behind_is_named_with_its_remedy(
    qapp: object,
    monkeypatch: pytest.MonkeyPatch,
    temporary_folder: Path,
    leak: Callable[[Path], AbstractContextManager[None]],
    kind: str,
) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)
    left = leak(temporary_folder)
    with (
        pytest.raises(pytest.fail.Exception, match=f"(?s)the test leaves behind.*{kind} .*forgotten") as said,
        nothing_left(temporary_folder, "the test"),
    ):
        left.__enter__()
    left.__exit__(None, None, None)
    assert leaks._REMEDIES[kind] in str(said.value)


def test_that_what_was_there_before_may_stay(qapp: object, temporary_folder: Path) -> None:
    with (
        left_file(temporary_folder),
        left_window(temporary_folder),
        left_thread(temporary_folder),
        nothing_left(temporary_folder, "the test"),
    ):
        pass
