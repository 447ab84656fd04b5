"""What other programs do to the machine while runs are timed."""

from __future__ import annotations

import psutil


class LoadMeter:
    """Measures from its making on how busy other programs keep the processors.

    What waits for a disk counts as idle; programs outside a container count, they take the same processors.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = self._seconds()

    def other_share(self) -> float | None:
        """Share of all processors, 0 to 1, that other programs used since; None if no time has passed."""
        total, busy, own = (now - then for now, then in zip(self._seconds(), self._start, strict=True))
        return min(1.0, max(0.0, (busy - own) / total)) if total > 0 else None

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
