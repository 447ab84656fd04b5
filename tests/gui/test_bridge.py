"""Events cross from the runner's thread to the event loop in order, a few milliseconds a turn."""

import threading

from PySide6.QtCore import QTimer

from quantstudio.core.events import Message, Severity
from quantstudio.gui import bridge as module
from quantstudio.gui.bridge import EventBridge


def _said(number):
    return Message(Severity.INFO, str(number))


def test_that_events_of_another_thread_arrive_in_order(qtbot):
    bridge, arrived = EventBridge(), []
    bridge.arrived.connect(lambda job, event: arrived.append((job, int(event.text), threading.get_ident())))

    def send() -> None:
        for number in range(50):
            bridge.post("job", _said(number))

    sender = threading.Thread(target=send)
    sender.start()
    sender.join()
    assert arrived == []
    qtbot.waitUntil(lambda: len(arrived) == 50)
    assert arrived == [("job", i, threading.get_ident()) for i in range(50)]


def test_that_a_burst_is_spread_over_turns(qtbot, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    turns: list[int] = []
    arrived: list[tuple[int, int]] = []

    def take(_job, event):
        now[0] += 0.003
        arrived.append((int(event.text), len(turns)))

    bridge = EventBridge()
    bridge.arrived.connect(take)
    timer = QTimer()
    timer.timeout.connect(lambda: turns.append(1))
    timer.start(0)
    for number in range(9):
        bridge.post("job", _said(number))
    qtbot.waitUntil(lambda: len(arrived) == 9)
    assert [number for number, _ in arrived] == list(range(9))
    # Three of 3 ms fill a turn of 8 ms.
    assert len({turn for _, turn in arrived}) == 3


def test_that_nothing_arrives_after_closing(qtbot):
    bridge, arrived = EventBridge(), []
    bridge.arrived.connect(lambda _job, event: arrived.append(event))
    bridge.post("job", _said(1))
    bridge.close()
    bridge.post("job", _said(2))
    qtbot.wait(20)
    assert arrived == []
