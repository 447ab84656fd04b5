"""The cores a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantstudio.core import cores
from quantstudio.core.cores import allowed_cores


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups, and a process that may run on sixteen cores."""
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "_OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    (tmp_path / "groups" / "a" / "b").mkdir(parents=True)
    (tmp_path / "groups" / "cpu").mkdir()
    return tmp_path / "groups"


def test_that_without_limits_all_cores_are_allowed(groups):
    assert allowed_cores(8) == 8
    (groups / "cpu.max").write_text("max 100000\n")
    assert allowed_cores(8) == 8


def test_that_an_affinity_is_a_limit(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5}, raising=False)
    assert allowed_cores(8) == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert allowed_cores(8) == 8


@pytest.mark.parametrize(("quota", "allowed"), [("250000 100000", 3), ("50000 100000", 1), ("bad", 8)])
def test_that_a_container_is_a_limit(quota, allowed, groups):
    (groups / "cpu.max").write_text(quota)
    assert allowed_cores(8) == allowed


def test_that_the_group_of_the_process_and_those_around_it_are_limits(groups):
    (groups.parent / "own").write_text("0::/a/b\n")
    (groups / "a" / "b" / "cpu.max").write_text("600000 100000")
    assert allowed_cores(8) == 6
    (groups / "a" / "cpu.max").write_text("400000 100000")
    assert allowed_cores(8) == 4


def test_that_groups_of_the_first_version_are_limits(groups):
    (groups.parent / "own").write_text("4:cpu,cpuacct:/job\n3:memory:/job\n")
    (groups / "cpu" / "job").mkdir()
    (groups / "cpu" / "job" / "cpu.cfs_quota_us").write_text("200000")
    (groups / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000")
    assert allowed_cores(8) == 2
    (groups / "cpu" / "job" / "cpu.cfs_quota_us").write_text("-1")
    assert allowed_cores(8) == 8
