"""A pytest plugin: the run fails when a room's line coverage falls under its floor.

Loaded by the full run only (`-p tests.coverage_gate`); a run of a few tests is not judged.
"""

import io

import coverage
import pytest

FLOORS = {
    "engine and core": (["*/quantstudio/engine/*", "*/quantstudio/core/*"], 90.0),
    "gui": (["*/quantstudio/gui/*"], 80.0),
    "jobs, project, report, cli": (
        ["*/quantstudio/jobs/*", "*/quantstudio/project/*", "*/quantstudio/report/*", "*/quantstudio/cli/*"],
        80.0,
    ),
}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Compare every room with its floor once pytest-cov has combined the data."""
    if hasattr(session.config, "workerinput"):
        return
    measured = coverage.Coverage()
    measured.load()
    lines = []
    for room, (patterns, floor) in FLOORS.items():
        try:
            percent = measured.report(include=patterns, file=io.StringIO())
        except coverage.exceptions.NoDataError:
            percent = 0.0
        lines.append(f"{room}: {percent:.1f} % of lines (floor {floor:.0f} %)")
        if percent < floor and exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            lines[-1] += "  BELOW THE FLOOR"
    session.config.stash[_LINES] = lines


_LINES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the rooms above pytest's own last line."""
    terminalreporter.section("line coverage by room")
    for line in config.stash.get(_LINES, []):
        terminalreporter.write_line(line)
