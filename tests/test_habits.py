"""No test measures time or sleeps: a busy machine would fail it, an idle one would wait."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# The helpers that wait for conditions, the guard with its grace, and tasks whose very work is to take time.
MAY = {"waiting.py", "leaks.py", "gui/settling.py", "jobs/fake_tasks.py"}
CLOCKS = {"perf_counter", "monotonic", "process_time", "time_ns", "perf_counter_ns"}
SLEEPS = {"sleep", "qWait", "qSleep", "wait_ms"}


def offences(tree: ast.AST) -> Iterator[str]:
    """Calls that read a clock or sleep, as `line: text`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        text = ast.unparse(node.func)
        last = text.rpartition(".")[2]
        if last in CLOCKS | SLEEPS or text == "qtbot.wait":
            yield f"{node.lineno}: {text}"


def test_that_no_test_reads_a_clock_or_sleeps() -> None:
    found = []
    for path in TESTS.rglob("*.py"):
        name = path.relative_to(TESTS).as_posix()
        if name in MAY or name.startswith("benchmarks/"):
            continue
        found += [f"{name}:{one}" for one in offences(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == [], "wait for a condition (tests/waiting.py), or hand in a clock"


@pytest.mark.parametrize(
    "code", ["time.sleep(1)", "qtbot.wait(20)", "QTest.qWait(5)", "a = time.perf_counter() - b", "sleep(2)"]
)
def test_that_each_offence_is_seen(code: str) -> None:
    assert list(offences(ast.parse(code)))


def test_that_waiting_for_a_condition_is_fine() -> None:
    assert not list(
        offences(ast.parse("qtbot.waitUntil(f, timeout=9)\nevent.wait(5)\nQTest.qWaitForWindowActive(w)"))
    )
