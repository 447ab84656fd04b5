"""Estimates of KL as arrays over layers, so that a plan is a handful of sums."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.layer_schemes import LayerSchemes
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, Granularity, Grid, LayerScheme, integer_formats
from quantstudio.core.predict.anchors import Trace, trace
from quantstudio.core.predict.clip_loss import (
    ONE_SCALE_DOUBT,
    Distributions,
    Range,
    RangedKl,
    clipped_inputs_kl,
    clipped_weights_kl,
    one_scale_factor,
)
from quantstudio.core.predict.kl_model import Array, kl_parts, narrowing, part_names
from quantstudio.core.results import LayerSensitivity

Chosen = NDArray[np.intp]

_WEIGHTS, _ACTIVATIONS = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What is estimated of the KL of a plan.

    Attributes:
        single: Of every layer by what it comes from, in the order of `part_names`, [parts, layers].
        unpriced: Layers nobody has an estimate of.
        by_law: Part of the KL of which a law tells and no analysis: see `clip_loss`. More than 1 where that
            law is the worse one of `ONE_SCALE_DOUBT`.
        marks: What the weights and the inputs of every layer are rounded to, [2, layers].
    """

    single: Array
    unpriced: int
    by_law: float
    marks: NDArray[np.int64]

    @property
    def parts(self) -> Array:
        """Sums over layers, in the order of `part_names`."""
        return np.asarray(self.single.sum(axis=1))

    @property
    def trace(self) -> Trace:
        """What the errors of the plan consist of."""
        weights = len(integer_formats())  # the rest is of activations
        by_kind = np.stack([self.single[:weights].sum(axis=0), self.single[weights:].sum(axis=0)])
        return trace(self.marks, by_kind)


class KlColumns:
    """Estimates of every layer in every scheme that was ever asked for.

    Args:
        layers: The layers.
        rows: What was analyzed of each; None where nothing was.
        found: Distributions of the same graph, which tell what ranges set by hand cost.
        edges: Pairs (producer, consumer) by index, through what is no layer.
        weight_bits: Bits an integer kernel of the target may take of a weight.
    """

    def __init__(
        self,
        layers: Sequence[LayerInfo],
        rows: Sequence[LayerSensitivity | None],
        found: Distributions,
        edges: Sequence[tuple[int, int]],
        weight_bits: int,
    ) -> None:
        self._layers, self._rows, self._found = tuple(layers), tuple(rows), found
        self._edges, self._weight_bits = tuple(edges), weight_bits
        self._names = [layer.name for layer in self._layers]
        self._places = {name: index for index, name in enumerate(self._names)}
        self._all = np.arange(len(self._layers))
        self._readers: dict[str, list[int]] = {}
        for index, layer in enumerate(self._layers):
            for tensor in layer.inputs:
                self._readers.setdefault(tensor, []).append(index)
        # One entry per scheme that was ever asked for, growing; index 0 is FP32.
        self._schemes: dict[LayerScheme, int] = {}
        # Rows of the parts their weights and their inputs count for, -1 for none, [2, schemes].
        self._parts = np.zeros((2, 0), dtype=np.intp)
        # Of weights, of inputs, and what of the weights rests on a law, [schemes, 3, layers].
        self._estimated = np.zeros((0, 3, len(self._layers)))
        # Where nothing is known of the weights, [schemes, layers].
        self._missing = np.zeros((0, len(self._layers)), dtype=bool)
        self._grids: list[int] = []
        self._marks: dict[Hashable, int] = {}
        self._scheme(FP32)

    @property
    def schemes(self) -> list[LayerScheme]:
        """By the numbers in `assigned`."""
        return list(self._schemes)

    def assigned(self, plan: EffectivePlan) -> Chosen:
        """The scheme of every layer, by its number."""
        own = LayerSchemes.of(plan.schemes)
        if list(own) != self._names:
            own = LayerSchemes(zip(self._names, map(own.get, self._names, repeat(FP32)), strict=True))
        numbers = [self._scheme(scheme) for scheme in own.kinds]
        return np.asarray(numbers, dtype=np.intp)[own.numbers]

    def estimates(self, chosen: Chosen, plan: EffectivePlan) -> Estimates:
        """What is estimated of a plan.

        Args:
            chosen: Its schemes, from `assigned`.
            plan: The plan.
        """
        single = np.zeros((len(part_names()), len(self._layers)))
        ranges = (plan.calibration.method, plan.calibration.percentile, plan.activation_scope)
        weight_parts, activation_parts = self._parts
        found = self._estimated[chosen, :, self._all]
        missing = self._missing[chosen, self._all]
        by_law = float(found[:, 2].sum())
        for parts, column in ((activation_parts[chosen], 1), (weight_parts[chosen], 0)):
            where = np.flatnonzero(parts >= 0)
            single[parts[where], where] = found[where, column]
        marks_of = np.zeros((2, len(self._schemes)), dtype=np.int64)
        marks_of[_WEIGHTS] = self._grids
        schemes = self.schemes
        for index in np.flatnonzero(np.bincount(chosen)):
            kind = schemes[index].activations
            marks_of[_ACTIVATIONS, index] = self._mark((kind, *ranges) if kind.is_static else kind)
        marks = marks_of[:, chosen]
        if plan.weight_ranges or plan.activation_ranges:
            by_law += self._clip(plan, chosen, single, missing, marks)
        total = float(single.sum())
        return Estimates(single, int(missing.sum()), by_law / total if total > 0 else 0.0, marks)

    # Ranges set by hand.

    def _clip(
        self,
        plan: EffectivePlan,
        chosen: Chosen,
        single: Array,
        missing: NDArray[np.bool_],
        marks: NDArray[np.int64],
    ) -> float:
        """Put in what ranges set by hand cost; what of it rests on the law is returned."""
        schemes, by_law = self.schemes, 0.0
        for name, clip in plan.weight_ranges.items():
            index = self._places.get(name)
            if index is None or not schemes[chosen[index]].weights.is_integer:
                continue
            part = self._parts[_WEIGHTS, chosen[index]]
            scheme = schemes[chosen[index]]
            known = self._clipped_weights(index, scheme, clip)
            missing[index] |= known is None
            if known is not None:
                rounding = known.rounding * narrowing(scheme, self._weight_bits)
                single[part, index] = rounding + known.by_law
                by_law += known.by_law
            marks[_WEIGHTS, index] = self._mark((int(marks[_WEIGHTS, index]), clip))
        for tensor, clip in plan.activation_ranges.items():
            for index in self._reading(tensor):
                scheme = schemes[chosen[index]]
                part = self._parts[_ACTIVATIONS, chosen[index]]
                if not scheme.is_static or part < 0:
                    continue
                known = self._clipped_inputs(index, scheme, tensor, clip, float(single[part, index]))
                missing[index] |= known is None
                if known is not None:
                    single[part, index] = known.rounding + known.by_law
                    by_law += known.by_law
                marks[_ACTIVATIONS, index] = self._mark((int(marks[_ACTIVATIONS, index]), tensor, clip))
        return by_law

    def _clipped_weights(self, index: int, scheme: LayerScheme, clip: Range) -> RangedKl | None:
        layer, row = self._layers[index], self._rows[index]
        found = self._found.weights.get(layer.name)
        return None if row is None or found is None else clipped_weights_kl(layer, row, found, scheme, clip)

    def _clipped_inputs(
        self, index: int, scheme: LayerScheme, tensor: str, clip: Range, kl: float
    ) -> RangedKl | None:
        layer, known = self._layers[index], self._found.activations
        read = tensor if tensor in layer.inputs else next(iter(layer.inputs), "")
        if tensor not in known or read not in known:
            return None
        grid = IntegerGrid(scheme.activations.bits, signed=False)
        return clipped_inputs_kl(kl, known[read], known[tensor], clip, grid)

    def _reading(self, tensor: str) -> list[int]:
        """Layers that read a tensor; of one that no layer reads as it is, those behind its maker."""
        readers = self._readers.get(tensor)
        if readers is not None:
            return readers
        maker = next((i for i, layer in enumerate(self._layers) if tensor in layer.outputs), -1)
        return sorted({after for before, after in self._edges if before == maker})

    # Schemes.

    def _scheme(self, scheme: LayerScheme) -> int:
        """The number of a scheme."""
        known = self._schemes.get(scheme)
        if known is not None:
            return known
        self._schemes[scheme] = len(self._schemes)
        own = np.zeros((3, len(self._layers)))
        names = part_names()
        part = names.index(scheme.weights.name) if scheme.weights.is_integer else -1
        activations = scheme.activations.sensitivity_name
        for index, (layer, row) in enumerate(zip(self._layers, self._rows, strict=True)):
            parts, doubt = self._parts_of(layer, row, scheme)
            own[0, index] = np.nan if parts is None else parts.get(scheme.weights.name, 0.0)
            own[1, index] = np.nan if parts is None else parts.get(activations, 0.0)
            own[2, index] = doubt * own[0, index]
        self._grids.append(self._mark(replace(scheme, activations=FP32.activations)))
        parts_of = [[part], [names.index(activations) if activations in names else -1]]
        self._parts = np.concatenate([self._parts, parts_of], axis=1)
        self._missing = np.concatenate([self._missing, np.isnan(own[:1])])
        self._estimated = np.concatenate([self._estimated, np.nan_to_num(own)[np.newaxis]])
        return self._schemes[scheme]

    def _parts_of(
        self, layer: LayerInfo, row: LayerSensitivity | None, scheme: LayerScheme
    ) -> tuple[dict[str, float] | None, float]:
        """Estimates of a layer by what they come from, and how far those of its weights rest on a law."""
        reads_floats, bits = layer.op_type != "Gather", self._weight_bits
        parts = kl_parts(row, scheme, reads_floats=reads_floats, weight_bits=bits)
        if parts is not None or scheme.granularity is not Granularity.PER_TENSOR:
            return parts, 0.0
        own = scheme.weights.name
        # One scale for a whole tensor: from another format with such a scale, else from one scale a channel.
        other = _other_width(row, scheme)
        if row is not None and other is not None:
            known = replace(row, by_precision=row.by_precision | {f"{own}/tensor": other})
            return kl_parts(known, scheme, reads_floats=reads_floats, weight_bits=bits), 1.0
        per_channel = replace(scheme, granularity=Granularity.PER_CHANNEL)
        parts = kl_parts(row, per_channel, reads_floats=reads_floats, weight_bits=bits)
        found = self._found.weights.get(layer.name)
        factor = one_scale_factor(found, scheme) if found is not None else None
        if parts is None or factor is None:
            return None, 0.0
        return parts | {own: factor * parts.get(own, 0.0)}, ONE_SCALE_DOUBT

    def _mark(self, thing: Hashable) -> int:
        """A number for a thing, the same for an equal one."""
        return self._marks.setdefault(thing, len(self._marks))


def _other_width(row: LayerSensitivity | None, scheme: LayerScheme) -> float | None:
    """KL with one scale for the tensor by that of a format of other width; None where none was analyzed."""
    if row is None or scheme.weights.grid is not Grid.UNIFORM:
        return None
    formats = [one for one in integer_formats() if one.grid is Grid.UNIFORM]
    known = [one for one in formats if f"{one.name}/tensor" in row.by_precision]
    nearest = min(known, key=lambda one: abs(one.bits - scheme.weights.bits), default=None)
    if nearest is None:
        return None
    wide, narrow = (IntegerGrid(one.bits, signed=True).high for one in (nearest, scheme.weights))
    return row.by_precision[f"{nearest.name}/tensor"] * (wide / narrow) ** 2
