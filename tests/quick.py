"""A pytest plugin: `--quick` leaves out the tests that take long, by a list made from what they took.

`bash packaging/test --note-durations` writes the list anew after a full run. It holds names of test
functions, without file or parameters, so that moving a test changes nothing; one that is not in it is fast.
What counts is the time of the processor, of processes that a test waited for too: a busy machine makes no
test slow.
"""

import os
from collections import defaultdict
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("slow.txt")
# What the tests of `quick` may take together, in seconds of one processor: two share it, and style, walls and
# starting take a quarter of the minute and a half that was promised.
BUDGET_S = 75.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("quick")
    group.addoption("--quick", action="store_true", help="Leave out the tests listed in tests/slow.txt.")
    group.addoption("--note-durations", action="store_true", help="Write tests/slow.txt from this run.")


def pytest_configure(config: pytest.Config) -> None:
    """Take the time where tests run; add it up where the whole run is seen, which hands them out."""
    if not config.getoption("--note-durations"):
        return
    config.pluginmanager.register(_Clock(), "quick clock")
    if not hasattr(config, "workerinput"):
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


class _Clock:
    """Writes into each report what its part of a test took of the processor."""

    def __init__(self) -> None:
        self._since = 0.0

    def pytest_runtest_logstart(self) -> None:
        self._since = _processor_s()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now = _processor_s()
        report.processor_s, self._since = now - self._since, now  # type: ignore[attr-defined]
        return report


def _processor_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class _Notes:
    """Adds up seconds by function; what fixtures take is shared by the tests of a module."""

    def __init__(self) -> None:
        self._modules: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._fixtures: dict[str, float] = defaultdict(float)
        self._tests: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        module, function = report.nodeid.partition("::")[0], _function(report.nodeid)
        took: float = report.processor_s
        if report.when == "call":
            self._modules[module][function] += took
            self._tests[module][function] += 1
        else:
            # The window of a module's tests falls on whichever comes first.
            self._fixtures[module] += took

    def pytest_sessionfinish(self) -> None:
        slow = _slow(self._seconds(), BUDGET_S)
        LIST.write_text("".join(f"{name}\n" for name in slow), encoding="utf-8")

    def _seconds(self) -> dict[str, float]:
        seconds: dict[str, float] = defaultdict(float)
        for module, functions in self._modules.items():
            tests = self._tests[module]
            fixtures_s = self._fixtures[module] / sum(tests.values())
            for function, call_s in functions.items():
                seconds[function] += call_s + fixtures_s * tests[function]
        return seconds


def _slow(seconds: Mapping[str, float], budget_s: float) -> list[str]:
    """Names of what goes over the budget when the quickest come first."""
    left, names = budget_s, sorted(seconds, key=lambda name: (seconds[name], name))
    for at, name in enumerate(names):
        left -= seconds[name]
        if left < 0:
            return sorted(names[at:])
    return []
