"""A cost table as arrays over layers, so that a recipe is a handful of sums."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.costs import (
    ONE_SCALE,
    CostTable,
    FileForm,
    activation_peak,
    container,
    file_name,
)
from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import packs
from quantstudio.core.precision import FP32, LayerScheme
from quantstudio.core.predict.anchors import Trace, trace
from quantstudio.core.predict.model import Judged
from quantstudio.core.recipe import ActivationScope

Array = NDArray[np.float64]
Chosen = NDArray[np.intp]

_FLOAT_BYTES = 4
FP32_NAME = "fp32"
# Rows of a scheme's prices.
_WEIGHT, _FILE, _MEMORY, _TIME = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class GivenSchemes:
    """What the layers of a plan have, with what every price is read from.

    Attributes:
        chosen: Number of every layer's scheme, [layers].
        used: The schemes some layer has, by number.
        is_static: Whether each layer has fixed ranges, [layers].
        form: Of the file.
        totals: Sums over layers: bytes of the parameters, of these and the nodes they bring, what they add to
            the peak of memory, time as a part of the FP32 run; NaN where a layer has no price.
    """

    chosen: Chosen
    used: dict[int, LayerScheme]
    is_static: NDArray[np.bool_]
    form: FileForm
    totals: Array


class CostColumns:
    """Bytes, time and memory of recipes given as the number of every layer's scheme."""

    def __init__(self, layers: Sequence[LayerInfo], costs: CostTable) -> None:
        self._layers, self._costs = tuple(layers), costs
        self.fp32_ms = costs.fp32_ms
        # Prices of every scheme that was asked for, [4, layers]; NaN where it has none.
        self._columns: dict[tuple[LayerScheme, FileForm], Array] = {}
        self._names = [layer.name for layer in self._layers]
        self._all = np.arange(len(self._layers))
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
        as_float = self._column(FP32, form=FileForm.INT8)
        self._float_memory = float(as_float[_MEMORY].sum())
        self._unowned_time = 1.0 - float(as_float[_TIME].sum())
        # A layer nobody timed still tells one plan from another.
        self._kernel_weights = np.nan_to_num(as_float[_TIME]) + 0.1 / max(len(self._layers), 1)
        self._float_peak = self._activation_peak(np.zeros(len(self._layers), dtype=bool))

    def given(self, chosen: Chosen, schemes: Sequence[LayerScheme], *, form: FileForm) -> GivenSchemes:
        """What a plan gives its layers, priced.

        Args:
            chosen: Number of every layer's scheme.
            schemes: By number.
            form: Of its file.
        """
        used = {number: schemes[number] for number in np.flatnonzero(np.bincount(chosen)).tolist()}
        places, is_static = np.zeros(len(schemes), dtype=np.intp), np.zeros(len(schemes), dtype=bool)
        for place, (number, scheme) in enumerate(used.items()):
            places[number], is_static[number] = place, scheme.is_static
        columns = np.stack([self._column(scheme, form=form) for scheme in used.values() or (FP32,)])
        totals = columns[places[chosen], :, self._all].sum(axis=0)
        return GivenSchemes(chosen, used, is_static[chosen], form, totals)

    def weight_bytes(self, given: GivenSchemes) -> int | None:
        """Bytes of all parameters with scales."""
        total = float(given.totals[_WEIGHT])
        return None if np.isnan(total) else round(total)

    def size_bytes(self, given: GivenSchemes) -> int | None:
        """Bytes of the file."""
        layers = float(given.totals[_FILE])
        return None if np.isnan(layers) else round(layers) + self._costs.structure_bytes

    def file_of(self, given: GivenSchemes, scope: ActivationScope) -> bytes:
        """Stands for what the file of a plan holds of every layer: plans that share it have one size."""

        def held(scheme: LayerScheme) -> Hashable:
            weights = scheme.weights if given.form.packs else given.form
            return file_name(scheme), weights, scope if scheme.is_static else None

        return self._marks(given, held).tobytes()

    def is_priced_whole(self, given: GivenSchemes, scope: ActivationScope) -> bool:
        """Whether a file of just this kind was written when bytes were priced: then its size is exact.

        Those files hold one scheme in every layer that can have it, and FP32 elsewhere.
        """
        if given.form is not FileForm.INT8 and not all(
            one.is_packed or not packs(one) for one in given.used.values()
        ):
            return False
        names = {number: file_name(scheme) for number, scheme in given.used.items()}
        used = {name for name in names.values() if name != FP32_NAME}
        if len(used) != 1:
            return not used
        name = used.pop()
        able = self._able.get(name)
        if able is None:
            anchor = name.removesuffix(ONE_SCALE)
            able = self._able[name] = np.asarray([anchor in layer.schemes for layer in self._layers])
        is_it = np.zeros(max(names, default=0) + 1, dtype=bool)
        is_it[[number for number, one in names.items() if one == name]] = True
        return bool((able == is_it[given.chosen]).all()) and (
            scope is ActivationScope.ALL or not given.is_static.any()
        )

    def latency_ratio(self, given: GivenSchemes) -> float | None:
        """Time over FP32 time: of the layers, and of borders between unlike neighbours."""
        if self.fp32_ms <= 0:
            return None
        own = float(given.totals[_TIME]) + self._unowned_time
        ratio = self._costs.written_ratio * own + self._border_ms(given.is_static) / self.fp32_ms
        return None if np.isnan(ratio) else max(ratio, 0.0)

    def kernels(self, given: GivenSchemes, scope: ActivationScope) -> Trace:
        """What a plan's time consists of: the kernels of its layers, by their part of the FP32 run.

        Formats that live in one container run on the same kernels, whatever range they have.
        """

        def kernel(scheme: LayerScheme) -> Hashable:
            return container(scheme), scope if scheme.is_static else None, scheme.is_simulated

        return trace(self._marks(given, kernel), self._kernel_weights)

    def _marks(self, given: GivenSchemes, kind: Callable[[LayerScheme], Hashable]) -> NDArray[np.int64]:
        """A number for what every layer is, the same for the same thing."""
        marks = np.zeros(max(given.used, default=0) + 1, dtype=np.int64)
        for number, scheme in given.used.items():
            marks[number] = self._kernels.setdefault(kind(scheme), len(self._kernels))
        return marks[given.chosen]

    def memory_bytes(self, given: GivenSchemes, judged: Judged | None) -> int | None:
        """Peak memory of a fresh process, from the measured one of FP32 and what differs."""
        measured = judged.memory_bytes if judged is not None and judged.memory_bytes else None
        base = measured or self._costs.fp32_memory_bytes
        weights = float(given.totals[_MEMORY]) - self._float_memory
        if not base or np.isnan(weights):
            return None
        return round(base + weights + self._activation_peak(given.is_static) - self._float_peak)

    def _border_ms(self, is_static: NDArray[np.bool_]) -> float:
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

    def _column(self, scheme: LayerScheme, *, form: FileForm) -> Array:
        known = self._columns.get((scheme, form))
        if known is None:
            known = np.asarray(self._costs.columns(self._names, scheme, form=form))
            self._columns[scheme, form] = known
        return known
