"""A pytest plugin: `--quick` leaves out the tests that take long, by a list made from what they took.

`bash packaging/test --note-durations` writes the list anew after a full run. It holds names of test
functions, without file or parameters, so that moving a test changes nothing; one that is not in it is fast.
"""

from collections import defaultdict
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("slow.txt")
SLOW_S = 0.3  # of a function with all its parameters; the rest is 80 % of the tests in 15 % of the time


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("quick")
    group.addoption("--quick", action="store_true", help="Leave out the tests listed in tests/slow.txt.")
    group.addoption("--note-durations", action="store_true", help="Write tests/slow.txt from this run.")


def pytest_configure(config: pytest.Config) -> None:
    """Listen to durations where the whole run is seen: in the process that hands tests out."""
    if config.getoption("--note-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Notes(), "quick notes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is listed."""
    if not config.getoption("--quick"):
        return
    slow = set(LIST.read_text(encoding="utf-8").splitlines())
    left_out = [item for item in items if _function(item.nodeid) in slow]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _function(item.nodeid) not in slow]


def _function(nodeid: str) -> str:
    return nodeid.rpartition("::")[2].partition("[")[0]


class _Notes:
    """Adds up seconds by function."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # What a shared fixture takes falls on whichever test comes first.
        if report.when == "call":
            self._seconds[_function(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        slow = sorted(name for name, seconds in self._seconds.items() if seconds >= SLOW_S)
        LIST.write_text("".join(f"{name}\n" for name in slow), encoding="utf-8")
