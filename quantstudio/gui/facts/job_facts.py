"""What a view says about one job: how far it is and how long it will take."""

from __future__ import annotations

from quantstudio.core.events import JobState
from quantstudio.core.figures import count
from quantstudio.jobs.rows import JobRow


def time_left(seconds: float) -> str:
    """A rough remaining time: "3 s left", "2 min left"."""
    if seconds < 1:
        return "almost done"
    if seconds < 90:
        return f"{seconds:.0f} s left"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left"


def progress_text(row: JobRow) -> str:
    """One line about a job under way: "Calibrate 8 / 16 batches, 3 s left"."""
    parts = [row.title]
    if row.total:
        parts.append(f"{count(row.done)} / {count(row.total)} {row.unit}".rstrip())
    text = "  ".join(parts)
    if row.state is JobState.PAUSED:
        return f"{text}, paused"
    if row.state is JobState.CANCELLING:
        return f"{row.title}: stopping"
    return f"{text}, {time_left(row.seconds_left)}" if row.seconds_left is not None else text
