from __future__ import annotations

import pytest

from quantstudio.core.signals import Signal


def test_that_listeners_are_called_in_the_order_they_connected() -> None:
    heard: list[str] = []
    signal: Signal[[int]] = Signal()
    signal.connect(lambda value: heard.append(f"first {value}"))
    signal.connect(lambda value: heard.append(f"second {value}"))
    signal.emit(3)
    assert heard == ["first 3", "second 3"]


def test_that_a_listener_that_disconnects_while_it_is_called_is_not_called_again() -> None:
    heard: list[int] = []
    signal: Signal[[int]] = Signal()

    def once(value: int) -> None:
        heard.append(value)
        signal.disconnect(once)

    signal.connect(once)
    signal.emit(1)
    signal.emit(2)
    assert heard == [1]


def test_that_disconnecting_a_stranger_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in list"):
        Signal[[]]().disconnect(lambda: None)
