"""What a view says about one job: how far it is and how long it will take."""

from __future__ import annotations

from quantstudio.core.events import JobState
from quantstudio.core.figures import count
from quantstudio.jobs.rows import JobRow

# Units that are not all alike, so that their number alone says little.
_UNLIKE = ("steps", "stages")


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
    """One line about a job under way: "Calibrate 8 / 16 batches, 3 s left"; with what a single step does."""
    parts = [f"{row.title}: {doing}" if (doing := _step(row)) else row.title]
    if row.total:
        parts.append(f"{count(row.done)} / {count(row.total)} {row.unit}".rstrip())
    text = "  ".join(parts)
    if row.state is JobState.PAUSED:
        return f"{text}, paused"
    if row.state is JobState.CANCELLING:
        return f"{row.title}: stopping"
    return f"{text}, {time_left(row.seconds_left)}" if row.seconds_left is not None else text


def opening_text(row: JobRow) -> tuple[str, str]:
    """What is said in the place of a model that is being opened: a heading, and what is done now."""
    doing = _without_file(row)
    counted = f"step {min(row.done + 1, row.total)} of {row.total}" if row.total else ""
    return row.title.replace("Open ", "Opening ", 1), "  ·  ".join(part for part in (doing, counted) if part)


def _step(row: JobRow) -> str:
    """What the step under way does, where steps are unlike: one of few may take most of the time."""
    if row.unit not in _UNLIKE or row.state is not JobState.RUNNING:
        return ""
    doing = _without_file(row)
    return doing[:1].lower() + doing[1:]


def _without_file(row: JobRow) -> str:
    """What is done, less the file, spaces in its name or not, that stands in the title already."""
    return row.label.removesuffix(row.title.partition(" ")[2]).rstrip()
