"""Reporter calls turned into events: at most twenty progress events per second, each with the time left."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from quantstudio.core.events import CancelToken, Event, Message, Part, PartFound, Progress, Severity

PROGRESS_INTERVAL_S = 0.05
# Recent speed counts more than old speed: after this many seconds a unit's weight is 1/e.
SMOOTHING_S = 8.0
FIRST_ESTIMATE_S = 0.5


class TimeLeft:
    """Seconds left, from the speed of the units finished lately."""

    def __init__(self) -> None:
        self._phase: tuple[str, int] | None = None
        self._since = self._at = 0.0
        self._done = 0
        self._seconds = self._units = 0.0

    def update(self, done: int, total: int, unit: str, now: float) -> float | None:
        """Seconds until `done` reaches `total`, or None while there is no basis for an estimate.

        Args:
            done: Units finished.
            total: Units in all; 0 when unknown.
            unit: Another unit or total, or fewer done than before, starts a new phase.
            now: Seconds of a steady clock.
        """
        if self._phase != (unit, total) or done < self._done:
            self._phase, self._since, self._at, self._done = (unit, total), now, now, done
            self._seconds = self._units = 0.0
            return None
        if done > self._done:
            elapsed = now - self._at
            kept = math.exp(-elapsed / SMOOTHING_S)
            self._seconds = self._seconds * kept + elapsed
            self._units = self._units * kept + done - self._done
            self._at, self._done = now, done
        if total <= 0 or self._units <= 0 or now - self._since < FIRST_ESTIMATE_S:
            return None
        # A unit that takes longer than the last ones did must not leave the figure standing still.
        pace = self._seconds / self._units
        return max(0.0, (total - done) * pace - min(now - self._at, pace))


def working_clock(token: CancelToken, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """A steady clock in seconds that stands still while the token, which has the same clock, is paused."""
    return lambda: clock() - token.paused_s


class EventReporter:
    """A Reporter that emits events; may be called from several threads.

    Progress that comes faster than twenty a second is held back: the newest is emitted at the next call that
    is due, or by `flush`. Parts and messages are never held back, dropped or reordered.
    """

    def __init__(self, emit: Callable[[Event], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._emit = emit
        self._clock = clock
        self._lock = threading.RLock()
        self._time_left = TimeLeft()
        self._pending: Progress | None = None
        self._emitted_at = -math.inf
        self._spoke_at = clock()

    @property
    def quiet_s(self) -> float:
        """Seconds since the task last said anything."""
        return self._clock() - self._spoke_at

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """Emit progress with the time left, now or when the next one is due."""
        with self._lock:
            now = self._spoke_at = self._clock()
            left = self._time_left.update(int(done), int(total), unit, now)
            self._pending = Progress(int(done), int(total), unit, label, left)
            self._emit_due(now)

    def found(self, part: Part) -> None:
        """Emit a part of the result at once."""
        with self._lock:
            self._spoke_at = self._clock()
            self._emit(PartFound(part))

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Emit a message at once."""
        with self._lock:
            self._spoke_at = self._clock()
            self._emit(Message(severity, text))

    def flush(self, *, final: bool = False) -> None:
        """Emit the progress held back: if it is due, or in any case when nothing more will come."""
        with self._lock:
            if final:
                self._emitted_at = -math.inf
            self._emit_due(self._clock())

    def _emit_due(self, now: float) -> None:
        if self._pending is not None and now - self._emitted_at >= PROGRESS_INTERVAL_S:
            pending, self._pending, self._emitted_at = self._pending, None, now
            self._emit(pending)
