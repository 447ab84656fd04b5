"""How many processor cores this process may use, which may be fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def allowed_cores(cores: int) -> int:
    """Of the machine's cores, those a scheduler, a container or `taskset` leaves to this process.

    Args:
        cores: Cores of the machine.

    Returns:
        At least one. Where the system says nothing of limits, `cores`.
    """
    limits = [cores]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    quota = _quota()
    if quota is not None:
        limits.append(math.ceil(quota))
    return max(1, min(limits))


def _quota() -> float | None:
    """Processor time a control group of Linux grants, in cores; None without one."""
    grants = [grant for folder in _group_folders() if (grant := _grant(folder)) is not None]
    return min(grants, default=None)


def _group_folders() -> list[Path]:
    """The control group of this process and those it is in; version 1 keeps processor time apart."""
    folders = [_GROUPS, _GROUPS / "cpu"]
    for line in _text(_OWN_GROUP).splitlines():
        _number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or "cpu" in controllers.split(","):
            own = (_GROUPS / "cpu" if controllers else _GROUPS) / path.lstrip("/")
            folders += [own, *(parent for parent in own.parents if _GROUPS in parent.parents)]
    return folders


def _grant(folder: Path) -> float | None:
    quota, period = [*_text(folder / "cpu.max").split(), "", ""][:2]
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    try:
        granted = int(quota) / int(period)  # "max" is not a number, and means no limit
    except (ValueError, ZeroDivisionError):
        return None
    return granted if granted > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
