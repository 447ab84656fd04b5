"""Waiting for what another process or thread does: by looking again, never by guessing how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 600.0  # only a hang takes this long, on a busy machine too
_LOOK_EVERY_S = 0.01


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """Return as soon as something holds; fail when it does not come."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain {what}".rstrip()
        time.sleep(_LOOK_EVERY_S)


class FakeClock:
    """Seconds that pass only when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def run_until(self, condition: Callable[[], object], step_s: float) -> None:
        """Let time pass, a step at each look, until something holds."""

        def holds() -> bool:
            self.now += step_s
            return bool(condition())

        wait_until(holds)
