"""What other programs do to the machine while runs are timed."""

from __future__ import annotations

import psutil


class LoadMeter:
    """Measures from its making on how busy other programs keep the processors.

    What waits for a disk counts as idle; programs outside a container count, they take the same processors.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._last = self._seconds()
        self._total = self._busy = self._own = 0.0

    def keep(self) -> None:
        """Count the time since the last call; a tenth of a millisecond."""
        now = self._seconds()
        total, busy, own = (value - last for value, last in zip(now, self._last, strict=True))
        self._total, self._busy, self._own = self._total + total, self._busy + busy, self._own + own
        self._last = now

    def leave_out(self) -> None:
        """Do not count the time since the last call: nothing was timed in it."""
        self._last = self._seconds()

    def other_share(self) -> float | None:
        """Share of all processors, 0 to 1, that other programs used since; None if no time has passed."""
        self.keep()
        return min(1.0, max(0.0, (self._busy - self._own) / self._total)) if self._total > 0 else None

    def _seconds(self) -> tuple[float, float, float]:
        """Processor seconds of the machine, of them busy, and of this process."""
        times = psutil.cpu_times()
        # Guests are in `user` and `nice` already.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        own = self._process.cpu_times()
        return total, total - idle, own.user + own.system


def processor_mhz() -> float | None:
    """Frequency of the processors now, in MHz; None where the system does not say."""
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, OSError, NotImplementedError):
        return None
    return float(frequency.current) if frequency is not None and frequency.current else None
