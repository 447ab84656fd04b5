"""What a later sensitivity run adds to what is known of a layer: measurements stay, estimates are refined."""

from __future__ import annotations

import math
from dataclasses import replace

from quantstudio.core.results import LayerSensitivity

EXACT = "exact"


def measured_precisions(row: LayerSensitivity) -> frozenset[str]:
    """Precisions whose KL was measured; the others of `by_precision` are estimates."""
    if row.measured or row.method != EXACT:
        return frozenset(row.measured)
    return frozenset(row.by_precision)


def joined(known: LayerSensitivity | None, found: LayerSensitivity) -> LayerSensitivity:
    """One row of both: precisions, classes and directions that only one of them has are kept.

    A measurement wins over an estimate whichever came first; among equals the later one wins.
    """
    if known is None:
        return found
    before, now = measured_precisions(known), measured_precisions(found)
    kept = before - now
    taken = {name for name in found.by_precision if name not in kept}
    head = known if known.method == EXACT and found.method != EXACT else found
    return replace(
        head,
        sqnr_db=known.sqnr_db if math.isnan(found.sqnr_db) else found.sqnr_db,
        accuracy_drop=known.accuracy_drop if found.accuracy_drop is None else found.accuracy_drop,
        by_precision=known.by_precision | {name: found.by_precision[name] for name in taken},
        error_by_precision=_errors(known, found, taken),
        by_class=head.by_class or found.by_class or known.by_class,
        kl_all_but=known.kl_all_but if found.kl_all_but is None else found.kl_all_but,
        accumulated_sqnr_db=(
            known.accumulated_sqnr_db if found.accumulated_sqnr_db is None else found.accumulated_sqnr_db
        ),
        measured=tuple(sorted(before | now)),
    )


def _errors(known: LayerSensitivity, found: LayerSensitivity, taken: set[str]) -> dict[str, float]:
    """Standard errors that belong to the figures kept; an old one must not stand beside a new figure."""
    kept = {name: error for name, error in known.error_by_precision.items() if name not in taken}
    return kept | {name: error for name, error in found.error_by_precision.items() if name in taken}
