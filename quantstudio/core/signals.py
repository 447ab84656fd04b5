"""A signal without Qt: whoever is interested connects, whoever has news emits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Signal(Generic[P]):
    """Calls every listener, in the order they connected, on the thread that emits.

    A listener is held until it disconnects. One that connects or disconnects while the signal is emitting
    is heard, or not, from the next time on.
    """

    def __init__(self) -> None:
        self._listeners: tuple[Callable[P, object], ...] = ()

    def connect(self, listener: Callable[P, object]) -> None:
        """Call `listener` from now on; twice if it is connected twice."""
        self._listeners = (*self._listeners, listener)

    def disconnect(self, listener: Callable[P, object]) -> None:
        """Do not call `listener` any more.

        Raises:
            ValueError: it is not connected.
        """
        rest = list(self._listeners)
        rest.remove(listener)
        self._listeners = tuple(rest)

    def emit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener(*args, **kwargs)
