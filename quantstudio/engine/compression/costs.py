"""What a network costs as a function of how many units each of its groups has: work and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from quantstudio.engine.compression.dependencies import Dependencies
from quantstudio.engine.compression.labels import Labels
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import element_bits, tensor_bytes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """A sum of products: each a factor times the lengths of some axes.

    Attributes:
        fixed: What no unit changes.
        factors: One a product.
        axes: Axes of each product, shape [products, most axes]; the last axis, of length one, fills up.
        lengths: Length of each axis with all units, shape [axes].
        places: Places that a unit of each group has on each axis, shape [groups, axes].
    """

    fixed: float
    factors: FloatArray
    axes: NDArray[np.int64]
    lengths: FloatArray
    places: FloatArray

    def after(self, gone: FloatArray) -> float:
        """The cost without some units of each group, shape [groups]."""
        left = self.lengths - gone @ self.places
        return self.fixed + float((self.factors * left[self.axes].prod(axis=1)).sum())

    def touched(self) -> NDArray[np.bool_]:
        """Which groups share a product, so that what one saves hangs on the other; shape [groups, groups]."""
        held = cast("NDArray[np.bool_]", (self.places > 0)[:, self.axes].any(axis=2))
        return cast("NDArray[np.bool_]", np.matmul(held, held.T))


def work_costs(found: Dependencies) -> Costs:
    """Multiply-accumulates of one sample."""
    terms = [(work.factor, work.axes) for work in found.flow.work]
    return _costs(found, 0.0, terms)


def byte_costs(graph: Graph, found: Dependencies) -> Costs:
    """Bytes of all constants."""
    fixed, terms = 0.0, []
    for tensor in graph.proto.graph.initializer:
        axes = found.flow.constant_axes(tensor)
        live = tuple(axis for axis in axes if axis is not None)
        if not live:
            fixed += tensor_bytes(tensor)
            continue
        rest = np.prod([size for size, axis in zip(tensor.dims, axes, strict=True) if axis is None])
        terms.append((float(rest) * element_bits(tensor.data_type) / 8, live))
    inside = graph.summary.weight_bytes - sum(tensor_bytes(t) for t in graph.proto.graph.initializer)
    return _costs(found, fixed + max(0, inside), terms)


def _costs(found: Dependencies, fixed: float, terms: Sequence[tuple[float, tuple[Labels, ...]]]) -> Costs:
    numbers: dict[bytes, int] = {}
    labels: list[Labels] = []
    rows = []
    for _factor, axes in terms:
        row = []
        for axis in axes:
            roots = found.flow.labels.roots(axis)
            key = roots.tobytes()
            if key not in numbers:
                numbers[key] = len(labels)
                labels.append(roots)
            row.append(numbers[key])
        rows.append(row)
    most = max((len(row) for row in rows), default=0)
    filler = len(labels)
    places = np.zeros((len(found.prunable), filler + 1))
    group_of = np.full(found.flow.labels.count, -1)
    for place, group in enumerate(found.prunable):
        group_of[found.units[group.name]] = place
    for number, roots in enumerate(labels):
        held, counts = np.unique(group_of[roots], return_counts=True)
        for group_number, count in zip(held.tolist(), counts.tolist(), strict=True):
            if group_number >= 0:
                places[group_number, number] = count / found.prunable[group_number].units
    return Costs(
        fixed=fixed,
        factors=np.array([factor for factor, _axes in terms], dtype=np.float64),
        axes=np.array([row + [filler] * (most - len(row)) for row in rows], dtype=np.int64).reshape(-1, most),
        lengths=np.array([*(len(axis) for axis in labels), 1], dtype=np.float64),
        places=places,
    )
