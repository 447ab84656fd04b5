"""What every layer takes in every scheme on one machine: bytes, time, and what borders and tensors add."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import WeightCount, code_bytes, unpacking_bytes
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP32,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Granularity,
    LayerScheme,
    Precision,
)
from quantstudio.core.schemes import scheme_name

# Behind the name of a scheme whose weights have one scale for the tensor.
ONE_SCALE = "/tensor"
# Behind the name of a container: what a layer takes in a file of packed weights besides their integers.
PACKED = "/packed"


class FileForm(StrEnum):
    """How a file holds integers.

    INT8 a byte each, as in files without fewer bits and in older ones; PACKED in their bits; UNPACKED a byte
    each, in a file that has the short names of packed ones; SHARED as PACKED, with floats that take few
    values as indices into tables.
    """

    INT8 = "int8"
    PACKED = "packed"
    UNPACKED = "unpacked"
    SHARED = "shared"

    @property
    def packs(self) -> bool:
        """Whether integers lie in their bits."""
        return self in (FileForm.PACKED, FileForm.SHARED)


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer takes in each scheme.

    Attributes:
        weight_bytes: Bytes of the layer's parameters with scales, by scheme name; exact.
        time_share: Part of the FP32 run spent in the layer, measured by profiling.
        time_ratio: Time against FP32 by scheme name, measured on this machine; 1.0 where not measured.
        memory_bytes: What the parameters add to the peak memory of a process, by scheme name: the runtime
            keeps copies, and some weights it unpacks.
        count: What the bytes of packed integers follow from.
    """

    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    time_share: float = 0.0
    time_ratio: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    count: WeightCount = field(default_factory=WeightCount)


@dataclass(frozen=True, slots=True)
class LayerEdge:
    """A tensor on its way from one layer to the next, through operators that own no weights.

    Attributes:
        producer: Layer that makes it.
        consumer: Layer that reads it.
        elements: Its elements for one sample.
    """

    producer: str
    consumer: str
    elements: int


@dataclass(frozen=True, slots=True)
class LiveTensor:
    """An activation and how long it is held while the graph runs in order.

    Attributes:
        layer: Layer whose scheme decides the width of its elements; empty where nothing quantizes it.
        elements: Its elements for one sample.
        first: Step (node of the graph) that makes it; -1 for an input.
        last: Last step that reads it.
    """

    layer: str
    elements: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class BorderCost:
    """What a change of precision between two neighbouring layers costs, in milliseconds.

    Attributes:
        quantize_ms: For every tensor that goes from a float layer into a static integer one.
        quantize_element_ms: For each of its elements.
        dequantize_ms: For every tensor that goes the other way.
        dequantize_element_ms: For each of its elements.
    """

    quantize_ms: float = 0.0
    quantize_element_ms: float = 0.0
    dequantize_ms: float = 0.0
    dequantize_element_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class PricedNetwork:
    """The layers of a graph whose steps made others of those that were opened.

    Attributes:
        layers: In execution order.
        edges: Producer and consumer by index.
    """

    layers: tuple[LayerInfo, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class CostTable:
    """Costs of every layer of one graph on one machine.

    Attributes:
        layers: Cost by layer name.
        structure_bytes: File bytes that no scheme changes: graph, names, other initializers.
        overhead_bytes: Bytes of extra nodes and names a layer brings, by scheme name: a mean over layers, so
            that their sum is exact where all layers have the scheme.
        fp32_ms: Median latency of the opened model in milliseconds; 0 where not measured.
        provider: Execution provider of the times.
        edges: Tensors between neighbouring layers.
        border: What a change of precision along an edge costs.
        tensors: Activations with their lifetimes.
        written_ratio: Time of the model written with every layer FP32 over that of the model as opened:
            what is written says less of its tensors, and the runtime fuses more.
        fp32_memory_bytes: Peak memory of a fresh process that runs FP32 once; 0 where not measured.
        threads: Threads of the timed runs; 0 where nothing was timed, as in older projects.
        other_load: Share of the processors, 0 to 1, that other programs used meanwhile; None where not known.
        processor_mhz: Frequency of the processors at the end of it; None where the system does not say.
        network: What was priced, where steps left other layers than the model had; else None.
    """

    layers: Mapping[str, LayerCost]
    structure_bytes: int
    overhead_bytes: Mapping[str, float] = field(default_factory=dict)
    fp32_ms: float = 0.0
    provider: str = ""
    edges: tuple[LayerEdge, ...] = ()
    border: BorderCost = field(default_factory=BorderCost)
    tensors: tuple[LiveTensor, ...] = ()
    written_ratio: float = 1.0
    fp32_memory_bytes: int = 0
    threads: int = 0
    other_load: float | None = None
    processor_mhz: float | None = None
    network: PricedNetwork | None = None

    def file_bytes_of(self, layer: str, scheme: LayerScheme, *, form: FileForm) -> float:
        """Bytes a layer adds to the file beyond `structure_bytes`; NaN where nobody priced its scheme.

        Args:
            layer: Its name; one that is not known adds nothing.
            scheme: What it becomes.
            form: Of the whole file.
        """
        return self._bytes(layer, scheme, file_name(scheme), container_name(scheme), form=form)[1]

    def time_of(self, layer: str, scheme: LayerScheme) -> float:
        """Time of a layer as part of the written FP32 model's; NaN where the scheme was not timed.

        Float schemes that were not timed take what FP32 takes.
        """
        return self._time(layer, container_name(scheme), 1.0 if scheme.is_float else math.nan)

    def columns(
        self, layers: Sequence[str], scheme: LayerScheme, *, form: FileForm
    ) -> tuple[list[float], ...]:
        """Bytes of the parameters, bytes in the file, bytes of the peak memory, and time of many layers.

        The second are `file_bytes_of`, the last `time_of`; NaN where nobody priced the scheme.
        """
        names, untimed = (file_name(scheme), container_name(scheme)), 1.0 if scheme.is_float else math.nan
        taken = [self._bytes(layer, scheme, *names, form=form) for layer in layers]
        return (
            [weights for weights, _ in taken],
            [file for _, file in taken],
            [self._memory_bytes(layer, names[1]) for layer in layers],
            [self._time(layer, names[1], untimed) for layer in layers],
        )

    def _bytes(
        self, layer: str, scheme: LayerScheme, name: str, held_as: str, *, form: FileForm
    ) -> tuple[float, float]:
        """What a layer's parameters take, and with the nodes and names they bring.

        Args:
            layer: Its name.
            scheme: What it becomes.
            name: `file_name` of that.
            held_as: `container_name` of that; asked once for many layers.
            form: Of the whole file.
        """
        row = self.layers.get(layer)
        if row is None:
            return 0.0, 0.0
        own, rest = float(row.weight_bytes.get(name, math.nan)), f"{held_as}{PACKED}"
        if form is FileForm.SHARED and scheme == FP32 and rest in row.weight_bytes:
            own = float(row.weight_bytes[rest])
            return own, own + self.overhead_bytes.get(rest, 0)
        if form is FileForm.INT8 or not scheme.weights.is_integer or scheme.is_packed:
            return own, own + self.overhead_bytes.get(name, 0)
        if rest not in row.weight_bytes:
            # Not priced in short names: a byte a weight differs from the plain file by names alone.
            is_whole = scheme.weights == Precision.INT8
            return (own, own + self.overhead_bytes.get(name, 0)) if is_whole else (math.nan, math.nan)
        weights = scheme.weights if form.packs else Precision.INT8
        own = row.weight_bytes[rest] + code_bytes(weights, row.count)
        if name.endswith(ONE_SCALE):  # fewer scales
            own += row.weight_bytes.get(name, math.nan) - row.weight_bytes.get(held_as, math.nan)
        return own, own + self.overhead_bytes.get(rest, 0) + unpacking_bytes(weights, row.count)

    def _memory_bytes(self, layer: str, name: str) -> float:
        row = self.layers.get(layer)
        return 0.0 if row is None else float(row.memory_bytes.get(name, math.nan))

    def _time(self, layer: str, name: str, untimed: float) -> float:
        row = self.layers.get(layer)
        return 0.0 if row is None else row.time_share * row.time_ratio.get(name, untimed)


def activation_peak(sizes: NDArray[np.float64], first: NDArray[np.intp], last: NDArray[np.intp]) -> float:
    """Largest sum of tensors held at one time.

    Args:
        sizes: Bytes of each.
        first: Step that makes it, from -1.
        last: Last step that reads it.
    """
    if not sizes.size:
        return 0.0
    steps = int(last.max()) + 3
    held = np.bincount(first + 1, sizes, steps) - np.bincount(last + 2, sizes, steps)
    return float(np.cumsum(held).max())


def container(scheme: LayerScheme) -> LayerScheme:
    """The scheme that takes the same time: all but groups of four bits run as INT8."""
    if scheme.is_float:
        return LayerScheme(scheme.weights)
    if scheme.is_static:
        return STATIC_INT8
    if scheme.is_dynamic:
        return DYNAMIC_INT8
    return WEIGHT_INT4 if scheme.is_packed else WEIGHT_INT8


def container_name(scheme: LayerScheme) -> str:
    """The name a scheme is priced under: that of its container."""
    return scheme_name(container(scheme))


def file_name(scheme: LayerScheme) -> str:
    """The name the bytes of a scheme are priced under in a file that packs nothing.

    One scale a tensor takes fewer than one a channel.
    """
    name = container_name(scheme)
    is_one = scheme.granularity is Granularity.PER_TENSOR and scheme.weights.is_integer
    return f"{name}{ONE_SCALE}" if is_one and not scheme.is_dynamic else name
