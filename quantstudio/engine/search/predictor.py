"""The KL a plan is expected to have, corrected by the plans that were measured.

A plan's KL is a weighted sum over precisions: of the estimated KLs of all layers at that precision, and of
all activations on integers. The weights start at 1 and move towards what measured plans say. A factor for
each precision takes up what the estimate cannot know: that errors of coarse grids leave the region where the
divergence is quadratic, and that operators between layers are rounded too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import lsq_linear

from quantstudio.core.precision import LayerScheme
from quantstudio.core.results import LayerSensitivity

ACTIVATIONS = "int8-activations"

# How strongly a factor stays at 1, against one measured plan whose whole KL it explains.
_PRIOR = 0.1
_SMALLEST, _LARGEST = 0.05, 50.0
# Beyond this divergence (nats) networks are ruined, and sums of second-order terms mean nothing.
_LARGEST_KL = 0.5


@dataclass(frozen=True, slots=True)
class Predictor:
    """Factors on the estimated KLs.

    Attributes:
        scale: By weight precision ("int4", ...) and for "int8-activations"; 1 where nothing was measured.
    """

    scale: Mapping[str, float] = field(default_factory=dict)

    def kl(self, parts: Mapping[str, float]) -> float:
        """Expected KL of a plan with these parts."""
        return sum(self.scale.get(name, 1.0) * value for name, value in parts.items())


def kl_parts(row: LayerSensitivity | None, scheme: LayerScheme) -> dict[str, float] | None:
    """Estimated KL of one layer in a scheme, by what it comes from; None if a part was never estimated."""
    parts: dict[str, float] = {}
    if scheme.is_float:
        return parts
    if row is None:
        return None
    if scheme.weights.is_integer:
        weights = row.by_precision.get(scheme.weights.value)
        if weights is None:
            return None
        parts[scheme.weights.value] = weights
    if not scheme.is_weight_only:
        parts[ACTIVATIONS] = row.by_precision.get(ACTIVATIONS, 0.0)
    return parts


def plan_parts(schemes: Mapping[str, LayerScheme], rows: Mapping[str, LayerSensitivity]) -> dict[str, float]:
    """Parts of a whole plan; layers nobody estimated add nothing."""
    total: dict[str, float] = {}
    for name, scheme in schemes.items():
        for part, value in (kl_parts(rows.get(name), scheme) or {}).items():
            total[part] = total.get(part, 0.0) + value
    return total


def fitted(points: Sequence[tuple[Mapping[str, float], float]]) -> Predictor:
    """The predictor that fits measured plans, as (parts, measured KL), by relative error.

    Plans beyond 0.5 nats are left out. Without points every factor is 1.
    """
    used = [(parts, kl) for parts, kl in points if 0 < kl <= _LARGEST_KL]
    names = sorted({name for parts, _ in used for name in parts})
    if not used or not names:
        return Predictor()
    rows = [[parts.get(name, 0.0) / kl for name in names] for parts, kl in used]
    matrix = np.vstack([np.asarray(rows, dtype=np.float64), _PRIOR * np.eye(len(names))])
    target = np.concatenate([np.ones(len(used)), np.full(len(names), _PRIOR)])
    found = lsq_linear(matrix, target, bounds=(_SMALLEST, _LARGEST), method="bvls")
    return Predictor({name: float(value) for name, value in zip(names, found.x, strict=True)})
