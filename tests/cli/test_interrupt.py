"""Ctrl+C ends a command within two seconds, whatever it is doing, and leaves nothing half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantstudio.cli import execution
from quantstudio.cli.main import invoke
from quantstudio.core.events import CancelToken
from quantstudio.core.files import discard_unfinished, written_beside
from quantstudio.core.samples import sample

SAMPLE = sample("digits_resnet")
NET = str(SAMPLE.model)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl+C alone")


def press() -> None:
    """Ctrl+C; called by the task, so that it comes while the task runs."""
    os.kill(os.getpid(), signal.SIGINT)


def test_that_a_task_that_looks_at_its_token_is_cancelled_at_once(monkeypatch, capsys):
    def polite(*, cancel: CancelToken, **_: Any) -> None:
        press()
        asked = threading.Event()
        with cancel.on_set(asked.set):
            asked.wait()
        cancel.raise_if_set()

    monkeypatch.setattr("quantstudio.engine.tasks.models.open_model", polite)
    monkeypatch.setattr(execution, "GRACE_SECONDS", float("inf"))  # only the task itself can end this
    assert invoke(["inspect", NET]) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "quantstudio: cancelled\n")


def test_that_a_task_deep_in_a_native_call_is_left_behind(monkeypatch, capsys, tmp_path):
    released = threading.Event()
    target = tmp_path / "m.onnx"

    def deaf(**_: Any) -> None:
        with written_beside(target) as temporary:
            temporary.write_bytes(b"half")
            press()
            released.wait()
            raise OSError("never written")

    monkeypatch.setattr("quantstudio.engine.tasks.models.open_model", deaf)
    try:
        assert invoke(["inspect", NET]) == 130
        assert not released.is_set()
        assert capsys.readouterr().err == "quantstudio: cancelled\n"
        assert list(tmp_path.iterdir())
        discard_unfinished()
        assert not list(tmp_path.iterdir())
    finally:
        released.set()


def test_that_leaving_with_an_abandoned_task_cleans_up_first(monkeypatch, tmp_path):
    begun, released = threading.Event(), threading.Event()
    left: list[int] = []
    target = tmp_path / "m.onnx"

    def deaf() -> None:
        with written_beside(target):
            begun.set()
            released.wait()
            raise OSError("never written")

    monkeypatch.setattr(os, "_exit", left.append)
    thread = threading.Thread(target=deaf, name=execution._THREAD, daemon=True)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    thread.start()
    try:
        begun.wait()
        leave: Callable[[int], None] = execution.leave  # returns here, as the process is not really ended
        leave(130)
        assert left == [130]
        assert not list(tmp_path.iterdir())
    finally:
        released.set()
        thread.join()


def test_that_what_user_code_prints_stays_out_of_the_json(monkeypatch, capsys, tmp_path: Path):
    (tmp_path / "talkative.py").write_text(
        "import numpy as np\nprint('importing')\n"
        "def data():\n    print('loading')\n    return np.zeros((4, 1, 8, 8), np.float32)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["calibrate", NET, "--data", "talkative:data", "--trust", "-o", "s.npz", "--json", "-"]
    assert invoke(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("{")
    assert "loading" in captured.err


@pytest.mark.parametrize("where", ["typer", "numpy", "torch", "quantstudio.engine.tasks"])
def test_that_an_interrupt_while_modules_load_is_one_line_and_130(tmp_path, where):
    """The import itself sends Ctrl+C, so that it strikes in the middle of loading wherever this runs."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {where!r} and 'quantstudio.cli' in sys.modules:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "QUANTSTUDIO_CACHE": str(tmp_path)}
    data = ["--data", str(SAMPLE.train), "--transform", SAMPLE.transform]
    ended = subprocess.run(
        [sys.executable, "-m", "quantstudio", "sensitivity", NET, *data],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "quantstudio: cancelled\n")
