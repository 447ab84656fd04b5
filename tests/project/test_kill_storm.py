"""A few rounds of the kill storm on every run of the tests; fifty of each is the script's business."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.benchmarks.kill_storm import storm_application, storm_worker


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("storm", [storm_worker, storm_application])
def test_that_kills_at_random_moments_lose_nothing_finished(storm, tmp_path: Path) -> None:
    tally = storm(2, 1, tmp_path)
    assert tally.faults == []
    assert tally.kills >= 1
