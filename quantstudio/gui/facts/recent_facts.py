"""What a list says about sessions and projects: when, where, and what was measured."""

from __future__ import annotations

import time
from pathlib import Path

from quantstudio.core import figures
from quantstudio.core.quality import METRIC_NAMES, metric_text
from quantstudio.core.session_summary import ShownVariant
from quantstudio.workspace.sessions import RecentEntry, RecentKind

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SECONDS_A_DAY = 86_400


def when_text(changed: float, now: float) -> str:
    """A moment as people say it: "today 14:02", "yesterday 9:30", "12 Nov 2026"."""
    then, today = time.localtime(changed), time.localtime(now)
    clock = f"{then.tm_hour}:{then.tm_min:02d}"
    if then[:3] == today[:3]:
        return f"today {clock}"
    if then[:3] == time.localtime(now - _SECONDS_A_DAY)[:3]:
        return f"yesterday {clock}"
    return f"{then.tm_mday} {_MONTHS[then.tm_mon - 1]} {then.tm_year}"


def kind_text(entry: RecentEntry, now: float) -> str:
    """What an entry is and when it was used: "Session, today 14:02"."""
    if entry.kind is RecentKind.MODEL:
        return "Model, not open yet"
    what = "Session" if entry.kind is RecentKind.SESSION else f"Project on {Path(entry.model).name}"
    if entry.kind is RecentKind.PROJECT and not entry.model:
        what = "Project"
    return f"{what}, {when_text(entry.changed, now)}" if entry.changed else what


def headline_text(shown: ShownVariant, *, is_short: bool = False) -> str:
    """The three figures that decide: "96.67 % · 1.29× speed · 29 % size", or without the words."""
    parts = []
    speed, size = ("", "") if is_short else (" speed", " size")
    if shown.value is not None:
        parts.append(metric_text(shown.metric, shown.value))
    if shown.speedup is not None:
        parts.append(f"{figures.ratio(shown.speedup)}{speed}")
    parts.append(f"{figures.percent(shown.size_share, 0)}{size}")
    return " · ".join(parts)


def headline_tip(shown: ShownVariant) -> str:
    """The same in whole words."""
    parts = [f"{shown.name}, measured"]
    if shown.value is not None:
        known = METRIC_NAMES.get(shown.metric, shown.metric)
        label = shown.headline.label if shown.headline is not None else known
        parts.append(f"{label}: {metric_text(shown.metric, shown.value)}")
    if shown.speedup is not None:
        parts.append(f"FP32 takes {figures.ratio(shown.speedup)} its time")
    parts.append(f"its file has {figures.percent(shown.size_share, 0)} of the size of FP32's")
    return "\n".join(parts)


def state_text(entry: RecentEntry) -> str:
    """What stands where there is no measured variant."""
    if entry.trouble:
        return f"Cannot be read: {entry.trouble}"
    summary = entry.summary
    if summary is None:
        return ""
    return f"{figures.counted(summary.layers, 'layer')}, {figures.size(summary.model_bytes)}"
