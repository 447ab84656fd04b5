"""A pytest plugin: the run fails when a room's line coverage falls under its floor.

Loaded by the full run only (`-p tests.coverage_gate`); a run of a few tests is not judged. Floors go up,
never down: when a room has gained a point the run says so, and the new floor belongs in the same commit.
"""

import io
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[1] / "quantstudio"

# Percent of lines, about half a point under what is measured: a few lines run only when processes race. What
# runs only with a display, a GPU or another system is the rest.
FLOORS = {
    "cli": 97.5,
    "core": 98.5,
    "engine": 96.5,
    "gui": 97.0,
    "jobs": 97.5,
    "project": 97.5,
    "report": 98.5,
    "workspace": 97.0,
}
_GAIN = 1.0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Compare every room with its floor once pytest-cov has combined the data."""
    if hasattr(session.config, "workerinput"):
        return
    measured = coverage.Coverage()
    measured.load()
    rooms = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
    lines, has_fallen = [], False
    for room in rooms:
        try:
            percent = measured.report(include=[f"*/quantstudio/{room}/*"], file=io.StringIO())
        except coverage.exceptions.NoDataError:
            percent = 0.0
        line, is_low = _judged(room, percent)
        has_fallen |= is_low
        lines.append(line)
    if has_fallen and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    session.config.stash[_LINES] = lines


def _judged(room: str, percent: float) -> tuple[str, bool]:
    floor = FLOORS.get(room)
    if floor is None:
        return f"{room}: {percent:.1f} % of lines  HAS NO FLOOR in tests/coverage_gate.py", True
    text = f"{room}: {percent:.1f} % of lines (floor {floor:.1f} %)"
    if percent < floor:
        return f"{text}  FELL BELOW ITS FLOOR: test what is new, `coverage report -m` lists the lines", True
    if percent >= floor + _GAIN:
        return f"{text}  has gained: raise its floor", False
    return text, False


_LINES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the rooms above pytest's own last line."""
    terminalreporter.section("line coverage by room")
    for line in config.stash.get(_LINES, []):
        terminalreporter.write_line(line)
