"""A limit on the time that work may take, as a token the work looks at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from typing_extensions import override

from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken


class TimeBox(CancelToken):
    """Stops work like the token it is made from, and besides when its time is over.

    Pauses of that token do not count. A native call under way is not ended early, only the next look is.

    Args:
        cancel: The token of the whole.
        seconds: How long; 0 for no limit.
        clock: Seconds that grow steadily.
    """

    def __init__(
        self, cancel: CancelToken, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock)
        self._outer = cancel
        self._seconds = seconds
        self._now = clock
        self._begun, self._paused_before = clock(), cancel.paused_s

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        spent = self._now() - self._begun - (self._outer.paused_s - self._paused_before)
        return 0 < self._seconds <= spent

    @property
    @override
    def paused_s(self) -> float:
        return self._outer.paused_s

    @override
    def is_set(self) -> bool:
        return self._outer.is_set() or self.is_over

    @override
    def raise_if_set(self) -> None:
        self._outer.raise_if_set()
        if self.is_over:
            raise JobCancelled

    @contextmanager
    @override
    def timing(self) -> Iterator[None]:
        with self._outer.timing():
            yield

    @contextmanager
    @override
    def on_set(self, action: Callable[[], None]) -> Iterator[None]:
        with self._outer.on_set(action):
            yield
