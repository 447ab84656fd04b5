"""Functions cross from any thread to the event loop in order, a few milliseconds per turn."""

import threading
from functools import partial

from PySide6.QtCore import QTimer

from quantstudio.gui import bridge as module
from quantstudio.gui.bridge import LoopCalls


def test_that_functions_of_another_thread_run_in_order_on_the_loops_thread(qtbot):
    calls, ran = LoopCalls(), []

    def note(number: int) -> None:
        ran.append((number, threading.get_ident()))

    def send() -> None:
        for number in range(50):
            calls.call_soon(partial(note, number))

    sender = threading.Thread(target=send)
    sender.start()
    sender.join()
    assert ran == []
    qtbot.waitUntil(lambda: len(ran) == 50)
    assert ran == [(i, threading.get_ident()) for i in range(50)]


def test_that_a_burst_is_spread_over_turns(qtbot, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    turns: list[int] = []
    ran: list[tuple[int, int]] = []

    def take(number: int) -> None:
        now[0] += 0.003
        ran.append((number, len(turns)))

    calls = LoopCalls()
    timer = QTimer()
    timer.timeout.connect(lambda: turns.append(1))
    timer.start(0)
    for number in range(9):
        calls.call_soon(partial(take, number))
    qtbot.waitUntil(lambda: len(ran) == 9)
    assert [number for number, _ in ran] == list(range(9))
    # Three of 3 ms fill a turn of 8 ms.
    assert len({turn for _, turn in ran}) == 3


def test_that_nothing_runs_after_closing(qtbot):
    calls, ran, last = LoopCalls(), [], LoopCalls()
    calls.call_soon(lambda: ran.append(1))
    calls.close()
    calls.call_soon(lambda: ran.append(2))
    seen: list[int] = []
    last.call_soon(lambda: seen.append(1))
    qtbot.waitUntil(lambda: bool(seen))
    assert ran == []
