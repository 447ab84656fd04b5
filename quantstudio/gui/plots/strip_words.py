"""What the strip of bars says in words: its summary, the tip of a bar, its figures as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantstudio.core import figures
from quantstudio.core.sensitivity_rows import EXACT
from quantstudio.gui.plots.sensitivity_scale import SensitivityScale, StripRow

NAMED = 3


def strip_summary(rows: Sequence[StripRow], scale: SensitivityScale | None) -> str:
    """How many layers are analyzed and which of them are the most sensitive, in one line."""
    known = [(row.title, row.kl) for row in rows if row.kl is not None]
    if not known:
        return "No layer has been analyzed yet."
    worst = sorted(known, key=lambda one: -one[1])[:NAMED]
    names = ", ".join(f"{layer} {figures.significant(kl)}" for layer, kl in worst)
    limit = ""
    if scale is not None and scale.losses is not None:
        budget = f"the budget of {figures.number(scale.losses.budget, 1)} points"
        limit = f" {scale.breaking} break {budget}." if scale.breaking else f" The plan keeps {budget}."
    return f"{len(known)} of {len(rows)} layers analyzed; most sensitive: {names}.{limit}"


def strip_tip(row: StripRow, scale: SensitivityScale | None = None) -> str:
    """Everything a bar stands for."""
    if row.kl is None:
        return f"{row.title}\nnot analyzed yet"
    low, high = figures.significant(row.low), figures.significant(row.high)
    how = "measured" if row.method == EXACT else "predicted"
    figure = f"KL {figures.significant(row.kl)}  [{low}, {high}]  {how}"
    own = scale.words(row.layer) if scale is not None else ""
    return "\n".join(part for part in (row.title, figure, own, row.note) if part)


def strip_table(rows: Iterable[StripRow]) -> tuple[tuple[str, ...], ...]:
    """The bars as they stand, with a header; KL and its 95 % interval in nats."""
    return (
        ("layer", "kl_nats", "low_nats", "high_nats", "method"),
        *(
            (row.title, f"{row.kl:.6g}", f"{row.low:.6g}", f"{row.high:.6g}", row.method)
            for row in rows
            if row.kl is not None
        ),
    )
