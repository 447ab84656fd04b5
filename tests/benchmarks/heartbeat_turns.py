"""Turns of the event loop: their length, the processor time they took, and what they were in."""

import cProfile
import threading
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, thread_time

TICK_MS = 5
LONG_MS = 30.0
ROWS = 40


@dataclass
class Turn:
    """The time between two beats.

    Attributes:
        job: Job under way.
        doing: What the hand did last.
        wall_ms: Time on the clock.
        cpu_ms: Processor time of the window's thread.
        queued_ms: Time in which the thread could have run but got no core; 0 where the system does not say.
        seen: Functions it was in, where asked for.
    """

    job: str
    doing: str
    wall_ms: float
    cpu_ms: float
    queued_ms: float
    seen: tuple = ()


class Heart:
    """Beats on a timer of the event loop and writes down every turn."""

    def __init__(self, running, witness=None) -> None:
        from PySide6.QtCore import Qt, QTimer

        self._running = running
        self.doing = ""
        self.turns: list[Turn] = []
        self._witness = witness
        self._schedule = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._has_schedule = self._schedule.exists()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)

    def start(self) -> None:
        """Begin with the next turn."""
        self._wall, self._cpu, self._queued = perf_counter(), thread_time(), self._queued_now()
        if self._witness is not None:
            self._witness.turn_begins()
        self._timer.start(TICK_MS)

    def pause(self) -> None:
        """Leave turns out until the next start."""
        self._timer.stop()
        if self._witness is not None:
            self._witness.stop()

    def stop(self) -> None:
        """End."""
        self._timer.stop()
        if self._witness is not None:
            self._witness.stop()

    def _queued_now(self) -> float:
        return int(self._schedule.read_text().split()[1]) / 1e6 if self._has_schedule else 0.0

    def _beat(self) -> None:
        wall, cpu, queued = perf_counter(), thread_time(), self._queued_now()
        turn = Turn(
            self._running(),
            self.doing,
            (wall - self._wall) * 1000,
            (cpu - self._cpu) * 1000,
            queued - self._queued,
        )
        if self._witness is not None:
            if turn.cpu_ms > LONG_MS:
                turn.seen = self._witness.seen()
            self._witness.turn_begins()
        self.turns.append(turn)
        self._wall, self._cpu, self._queued = perf_counter(), thread_time(), self._queued_now()


class Witness:
    """Profiles each turn: its functions by the time spent in them and in what they called.

    A sampler on another thread would keep frames, and with them widgets, alive where they must not be freed.
    """

    def __init__(self) -> None:
        self._profile = cProfile.Profile()

    def turn_begins(self) -> None:
        """Forget the turn before."""
        self._profile.clear()
        self._profile.enable()

    def seen(self) -> tuple:
        """What the turn was in: (ms with what was called, ms alone, calls, place), the longest first."""
        self._profile.disable()
        rows = [
            (entry.totaltime * 1000, entry.inlinetime * 1000, entry.callcount, _place(entry.code))
            for entry in self._profile.getstats()
        ]
        return tuple(sorted(rows, reverse=True)[:ROWS])

    def stop(self) -> None:
        """End."""
        self._profile.disable()


def _place(code) -> str:
    if isinstance(code, str):
        return code
    return f"{Path(code.co_filename).name}:{code.co_firstlineno} {code.co_qualname}"
