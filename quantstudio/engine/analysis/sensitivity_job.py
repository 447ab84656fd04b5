"""What both ways of scoring layers start from: layers, precisions, weights, ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.errors import DataError, RecipeError
from quantstudio.core.events import CancelToken, Reporter, never_cancelled
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme, Precision, WeightRange
from quantstudio.core.recipe import CalibrationSettings
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.classes import SampleClasses
from quantstudio.engine.analysis.divergence import Objective, objective_of
from quantstudio.engine.calibration.ranges import activation_range
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.model.graph import Graph
from quantstudio.engine.model.protos import all_graphs, as_array
from quantstudio.engine.quantization.weights import quantize_weight

ACTIVATIONS_SUFFIX = "-activations"
# Kind under which layers are reported as they finish.
KIND = "sensitivity"

_Z95 = 1.96


@dataclass(frozen=True, slots=True, eq=False)
class SensitivityJob:
    """Everything both methods start from."""

    graph: Graph
    dataset: Dataset
    objective: Objective
    layers: tuple[LayerInfo, ...]
    weights: dict[str, NDArray[np.float32]]
    weight_precisions: tuple[str, ...]
    grids: dict[str, IntegerGrid]
    reference: str
    samples: int
    statistics: Statistics | None
    reporter: Reporter
    cancel: CancelToken

    @classmethod
    def prepare(
        cls,
        graph: Graph,
        dataset: Dataset,
        samples: int,
        precisions: Sequence[str],
        reference: str,
        statistics: Statistics | None,
        reporter: Reporter,
        cancel: CancelToken | None,
    ) -> SensitivityJob:
        """Check what was asked and collect what it takes.

        Raises:
            RecipeError: a precision is unknown.
            DataError: there are no samples.
            MeasureError: no output of the model holds float numbers.
        """
        asked = tuple(dict.fromkeys((*precisions, reference)))
        grids = {name: grid for name in asked if (grid := activation_grid(name)) is not None}
        weight_precisions = tuple(name for name in asked if weight_scheme(name) is not None)
        layers = tuple(
            layer
            for layer in graph.layers
            if layer.quantizable
            and ((layer.weight_name and weight_precisions) or (grids and reads_floats(layer)))
        )
        count = min(samples, len(dataset))
        if count < 1:
            raise DataError("sensitivity needs at least one sample", hint="Ask for more samples")
        return cls(
            graph=graph,
            dataset=dataset,
            objective=objective_of(graph, dataset.labels),
            layers=layers,
            weights=_initializers(graph, {layer.weight_name for layer in layers} - {""}),
            weight_precisions=weight_precisions,
            grids=grids,
            reference=reference,
            samples=count,
            statistics=statistics,
            reporter=reporter,
            cancel=cancel or never_cancelled(),
        )

    def grids_of(self, layer: LayerInfo) -> dict[str, IntegerGrid]:
        """Activation precisions this layer can have."""
        return self.grids if reads_floats(layer) else {}

    def dequantized(self, layer: LayerInfo, precision: str) -> NDArray[np.float32]:
        """The layer's weights rounded to a precision."""
        scheme = weight_scheme(precision)
        assert scheme is not None
        weight = self.weights[layer.weight_name]
        return quantize_weight(weight, scheme, layer.channel_axis).dequantized

    def headline(self, layer: LayerInfo, available: Collection[str]) -> str:
        """The reference precision, or the first one this layer can have."""
        if self.reference in available:
            return self.reference
        return next(iter(available), self.reference)

    def known_ranges(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Calibrated range by tensor and precision."""
        if self.statistics is None:
            return {}
        wanted = {name for layer in self.layers if reads_floats(layer) for name in layer.inputs}
        tensors = self.statistics.tensors
        return {
            (name, precision): activation_range(tensors[name], CalibrationSettings(), grid)
            for name in sorted(wanted & set(tensors))
            for precision, grid in self.grids.items()
        }


def reads_floats(layer: LayerInfo) -> bool:
    """Whether there is an activation to quantize; an embedding reads indices."""
    return layer.op_type != "Gather" and bool(layer.inputs)


def weight_scheme(name: str) -> LayerScheme | None:
    """The weight scheme of a precision, None for one of activations.

    Raises:
        RecipeError: it is neither.
    """
    if name.endswith(ACTIVATIONS_SUFFIX):
        activation_grid(name)
        return None
    known = [p.value for p in Precision if p.is_integer]
    if name not in known:
        raise RecipeError(
            f"sensitivity does not know precision {name!r}",
            hint=f"Choose from {', '.join(known)}, int8{ACTIVATIONS_SUFFIX}, int4{ACTIVATIONS_SUFFIX}",
        )
    precision = Precision(name)
    # As the presets do: full range at 8 bits, least squared error where the grid is coarse.
    rule = WeightRange.MINMAX if precision is Precision.INT8 else WeightRange.MSE
    return LayerScheme(precision, weight_range=rule)


def activation_grid(name: str) -> IntegerGrid | None:
    """The grid of an activation precision, None for one of weights."""
    if not name.endswith(ACTIVATIONS_SUFFIX):
        return None
    bits = name.removesuffix(ACTIVATIONS_SUFFIX).removeprefix("int")
    if not bits.isdigit() or not 2 <= int(bits) <= 8:
        raise RecipeError(
            f"sensitivity does not know precision {name!r}",
            hint=f"Activations take 2 to 8 bits: int8{ACTIVATIONS_SUFFIX}",
        )
    return IntegerGrid(int(bits), signed=False)


def layer_sensitivity(
    layer: LayerInfo,
    divergences: Mapping[str, NDArray[np.float64]],
    headline: str,
    sqnr: float,
    method: str,
    accuracy_drop: float | None = None,
    classes: SampleClasses | None = None,
) -> LayerSensitivity:
    """A layer's row from the divergence of every sample in every precision.

    Args:
        layer: The layer.
        divergences: Nats by precision, each [N].
        headline: Precision of `kl`.
        sqnr: SQNR of its own output, dB.
        method: "fisher" or "exact".
        accuracy_drop: Points lost at the headline precision; None where not measured.
        classes: Class of each of the samples; None for outputs that are no class scores.
    """
    values = divergences[headline]
    mean = float(values.mean())
    errors = {precision: _standard_error(v) for precision, v in divergences.items()}
    error = errors[headline]
    return LayerSensitivity(
        name=layer.name,
        kl=mean,
        kl_low=max(mean - _Z95 * error, 0.0),
        kl_high=mean + _Z95 * error,
        sqnr_db=float(sqnr),
        accuracy_drop=accuracy_drop,
        by_precision={precision: float(v.mean()) for precision, v in divergences.items()},
        method=method,
        error_by_precision=errors,
        by_class=classes.means(values) if classes is not None else (),
    )


def _standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean; one sample says nothing about its spread, so the mean itself stands in."""
    if len(values) < 2:
        return float(values.mean())
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _initializers(graph: Graph, names: set[str]) -> dict[str, NDArray[np.float32]]:
    """Float initializers by name, from the main graph and all bodies."""
    return {
        tensor.name: np.asarray(as_array(tensor), dtype=np.float32)
        for _, part in all_graphs(graph.proto.graph)
        for tensor in part.initializer
        if tensor.name in names
    }
