"""A cost table as arrays over layers, so that a recipe is a handful of sums."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.costs import ONE_SCALE, CostTable, activation_peak, container, file_name
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, LayerScheme
from quantstudio.core.predict.anchors import Trace, trace
from quantstudio.core.predict.model import Judged
from quantstudio.core.recipe import ActivationScope

Array = NDArray[np.float64]
Chosen = NDArray[np.intp]

_FLOAT_BYTES = 4
FP32_NAME = "fp32"


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One scheme over all layers; NaN where it has no price.

    Attributes:
        weight_bytes: Of the parameters.
        file_bytes: Of these and the nodes they bring.
        memory_bytes: What they add to the peak.
        time: Part of the FP32 run.
    """

    weight_bytes: Array
    file_bytes: Array
    memory_bytes: Array
    time: Array


class CostColumns:
    """Bytes, time and memory of recipes given as the number of every layer's scheme."""

    def __init__(self, layers: Sequence[LayerInfo], costs: CostTable) -> None:
        self._layers, self._costs = tuple(layers), costs
        self.fp32_ms = costs.fp32_ms
        self._columns: dict[LayerScheme, _Column] = {}
        self._names = [layer.name for layer in self._layers]
        index = {layer.name: number for number, layer in enumerate(self._layers)}
        edges = [e for e in costs.edges if e.producer in index and e.consumer in index]
        self._producers = np.asarray([index[e.producer] for e in edges], dtype=np.intp)
        self._consumers = np.asarray([index[e.consumer] for e in edges], dtype=np.intp)
        self._elements = np.asarray([e.elements for e in edges], dtype=np.float64)
        tensors = costs.tensors
        self._sizes = np.asarray([t.elements for t in tensors], dtype=np.float64)
        self._owners = np.asarray([index.get(t.layer, -1) for t in tensors], dtype=np.intp)
        self._first = np.asarray([t.first for t in tensors], dtype=np.intp)
        self._last = np.asarray([t.last for t in tensors], dtype=np.intp)
        self._kernels: dict[Hashable, int] = {}
        self._able: dict[str, NDArray[np.bool_]] = {}
        shares = self._column(FP32).time
        # A layer nobody timed still tells one plan from another.
        self._kernel_weights = np.nan_to_num(shares) + 0.1 / max(len(self._layers), 1)
        self._float_peak = self._activation_peak(np.zeros(len(self._layers), dtype=bool))

    def weight_bytes(self, chosen: Chosen, schemes: Sequence[LayerScheme]) -> int | None:
        """Bytes of all parameters with scales."""
        total = self._sum([self._column(s).weight_bytes for s in schemes], chosen)
        return None if np.isnan(total) else round(total)

    def size_bytes(self, chosen: Chosen, schemes: Sequence[LayerScheme]) -> int | None:
        """Bytes of the file."""
        layers = self._sum([self._column(s).file_bytes for s in schemes], chosen)
        return None if np.isnan(layers) else round(layers) + self._costs.structure_bytes

    def file_of(self, chosen: Chosen, schemes: Sequence[LayerScheme], scope: ActivationScope) -> bytes:
        """Stands for what the file of a plan holds of every layer: plans that share it have one size."""
        names = [(file_name(scheme), scope if scheme.is_static else None) for scheme in schemes]
        marks = [self._kernels.setdefault(name, len(self._kernels)) for name in names]
        return np.asarray(marks)[chosen].tobytes()

    def is_priced_whole(self, chosen: Chosen, schemes: Sequence[LayerScheme], scope: ActivationScope) -> bool:
        """Whether a file of just this kind was written when bytes were priced: then its size is exact.

        Those files hold one scheme in every layer that can have it, and FP32 elsewhere.
        """
        names = [file_name(scheme) for scheme in schemes]
        used = {names[index] for index in np.unique(chosen) if names[index] != FP32_NAME}
        if len(used) != 1:
            return not used
        name = used.pop()
        is_static = any(schemes[index].is_static for index in np.unique(chosen))
        able = self._able.get(name)
        if able is None:
            anchor = name.removesuffix(ONE_SCALE)
            able = self._able[name] = np.asarray([anchor in layer.schemes for layer in self._layers])
        holds = np.asarray([one == name for one in names])[chosen]
        return bool((able == holds).all()) and (scope is ActivationScope.ALL or not is_static)

    def latency_ratio(self, chosen: Chosen, schemes: Sequence[LayerScheme]) -> float | None:
        """Time over FP32 time: of the layers, and of borders between unlike neighbours."""
        if self.fp32_ms <= 0:
            return None
        own = self._sum([self._column(s).time for s in schemes], chosen)
        unowned = 1.0 - float(self._column(schemes[0]).time.sum())
        written = self._costs.written_ratio
        ratio = written * (own + unowned) + self._border_ms(chosen, schemes) / self.fp32_ms
        return None if np.isnan(ratio) else max(ratio, 0.0)

    def kernels(self, chosen: Chosen, schemes: Sequence[LayerScheme], scope: ActivationScope) -> Trace:
        """What a plan's time consists of: the kernels of its layers, by their part of the FP32 run.

        Formats that live in one container run on the same kernels, whatever range they have.
        """
        marks = np.asarray([self._kernel(scheme, scope) for scheme in schemes])[chosen]
        return trace(marks, self._kernel_weights)

    def _kernel(self, scheme: LayerScheme, scope: ActivationScope) -> int:
        kernel = (container(scheme), scope if scheme.is_static else None, scheme.is_simulated)
        return self._kernels.setdefault(kernel, len(self._kernels))

    def memory_bytes(
        self, chosen: Chosen, schemes: Sequence[LayerScheme], judged: Judged | None
    ) -> int | None:
        """Peak memory of a fresh process, from the measured one of FP32 and what differs."""
        measured = judged.memory_bytes if judged is not None and judged.memory_bytes else None
        base = measured or self._costs.fp32_memory_bytes
        if not base:
            return None
        weights = self._sum([self._column(s).memory_bytes for s in schemes], chosen)
        weights -= float(self._column(schemes[0]).memory_bytes.sum())
        if np.isnan(weights):
            return None
        is_static = np.asarray([scheme.is_static for scheme in schemes])[chosen]
        return round(base + weights + self._activation_peak(is_static) - self._float_peak)

    def _border_ms(self, chosen: Chosen, schemes: Sequence[LayerScheme]) -> float:
        is_static = np.asarray([scheme.is_static for scheme in schemes])[chosen]
        before, after = is_static[self._producers], is_static[self._consumers]
        border = self._costs.border
        into, out = after & ~before, before & ~after
        return float(
            border.quantize_ms * into.sum()
            + border.quantize_element_ms * self._elements[into].sum()
            + border.dequantize_ms * out.sum()
            + border.dequantize_element_ms * self._elements[out].sum()
        )

    def _activation_peak(self, is_static: NDArray[np.bool_]) -> float:
        """Largest sum of activations held at one time, in bytes."""
        is_byte = np.append(is_static, False)[self._owners]
        return activation_peak(self._sizes * np.where(is_byte, 1, _FLOAT_BYTES), self._first, self._last)

    def _sum(self, columns: Sequence[Array], chosen: Chosen) -> float:
        if not self._layers:
            return 0.0
        return float(np.stack(columns)[chosen, np.arange(len(self._layers))].sum())

    def _column(self, scheme: LayerScheme) -> _Column:
        known = self._columns.get(scheme)
        if known is None:
            known = self._columns[scheme] = self._priced(scheme)
        return known

    def _priced(self, scheme: LayerScheme) -> _Column:
        return _Column(*map(np.asarray, self._costs.columns(self._names, scheme)))
