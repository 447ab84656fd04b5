"""What both ways of scoring layers start from: layers, precisions, weights, ranges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.errors import DataError
from quantstudio.core.events import CancelToken, Reporter, Severity, never_cancelled
from quantstudio.core.figures import counted
from quantstudio.core.layers import LayerInfo
from quantstudio.core.recipe import CalibrationSettings
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.statistics import Statistics
from quantstudio.core.statistics_file import statistics_digest
from quantstudio.engine.analysis.classes import SampleClasses
from quantstudio.engine.analysis.divergence import Objective, objective_of
from quantstudio.engine.analysis.mean_interval import mean_interval, standard_error
from quantstudio.engine.analysis.precisions import Trial, reads_floats, trial
from quantstudio.engine.analysis.store import Entries, NoEntries, ResultStore
from quantstudio.engine.calibration.ranges import activation_range
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import all_graphs, as_array


@dataclass(frozen=True, slots=True, eq=False)
class SensitivityJob:
    """Everything both methods start from."""

    graph: Graph
    dataset: Dataset
    objective: Objective
    layers: tuple[LayerInfo, ...]
    weights: dict[str, NDArray[np.float32]]
    trials: dict[str, Trial]
    reference: str
    samples: int
    statistics: Statistics | None
    entries: Entries
    ranges_name: str
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
        store: ResultStore | None = None,
    ) -> SensitivityJob:
        """Check what was asked and collect what it takes.

        Raises:
            RecipeError: a precision is unknown.
            DataError: there are no samples.
            MeasureError: no output of the model holds float numbers.
        """
        asked = [trial(name) for name in (*precisions, reference)]
        trials = {one.name: one for one in asked}
        count = min(samples, len(dataset))
        if count < 1:
            raise DataError("sensitivity needs at least one sample", hint="Ask for more samples")
        candidates = [layer for layer in graph.layers if layer.quantizable]
        weights = _initializers(graph, {layer.weight_name for layer in candidates} - {""})
        candidates = _without_broken(candidates, weights, reporter)
        obstacles = {
            (layer.name, one.name): one.obstacle(layer, weights.get(layer.weight_name))
            for layer in candidates
            for one in trials.values()
        }
        for one in trials.values():
            _say_left_out(one, candidates, obstacles, reporter)
        objective = objective_of(graph, dataset, cancel)
        kept_under = (graph.digest, dataset.digest, str(count), objective.key)
        return cls(
            graph=graph,
            dataset=dataset,
            objective=objective,
            layers=tuple(
                layer for layer in candidates if not all(obstacles[layer.name, name] for name in trials)
            ),
            weights=weights,
            trials=trials,
            reference=asked[-1].name,
            samples=count,
            statistics=statistics,
            entries=store.entries(*kept_under) if store else NoEntries(),
            ranges_name=statistics_digest(statistics)[:32] if store and statistics else "",
            reporter=reporter,
            cancel=cancel or never_cancelled(),
        )

    def trials_of(self, layer: LayerInfo) -> dict[str, Trial]:
        """Precisions this layer can have."""
        weight = self.weights.get(layer.weight_name)
        return {name: one for name, one in self.trials.items() if not one.obstacle(layer, weight)}

    def rounded(self, layer: LayerInfo, one: Trial) -> NDArray[np.float32]:
        """The layer's weights as a precision stores them."""
        return one.rounded(self.weights[layer.weight_name], layer.channel_axis)

    def key_of(self, one: Trial) -> str:
        """What results of a precision are kept under: only those of activations depend on their ranges."""
        return one.name if one.activations is None else f"{one.name} {self.ranges_name}".rstrip()

    @property
    def grids(self) -> dict[str, IntegerGrid]:
        """Grid by activation precision, also of those asked for together with weights."""
        return {t.activations_name: t.activations for t in self.trials.values() if t.activations is not None}

    def headline(self, available: Collection[str]) -> str:
        """The reference precision, or the first of those a layer can have."""
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
        classes: Class of each of the samples; None for outputs that are not class scores.
    """
    values = divergences[headline]
    low, high = mean_interval(values)
    return LayerSensitivity(
        name=layer.name,
        kl=_mean(values),
        kl_low=low,
        kl_high=high,
        sqnr_db=float(sqnr),
        accuracy_drop=accuracy_drop,
        by_precision={precision: _mean(v) for precision, v in divergences.items()},
        method=method,
        error_by_precision={precision: standard_error(v) for precision, v in divergences.items()},
        by_class=classes.means(values) if classes is not None else (),
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean divergence; one that is zero may come out below by rounding."""
    return max(float(values.mean()), 0.0)


def _without_broken(
    layers: Sequence[LayerInfo], weights: Mapping[str, NDArray[np.float32]], reporter: Reporter
) -> list[LayerInfo]:
    """The layers whose weights are numbers; the others, which no format can hold, are named in a warning."""
    broken = {name for name, weight in weights.items() if not np.isfinite(weight).all()}
    for layer in layers:
        if layer.weight_name in broken:
            reporter.message(
                f"Layer {layer.name!r} is left out: its weight {layer.weight_name!r} holds NaN or infinity",
                Severity.WARNING,
            )
    return [layer for layer in layers if layer.weight_name not in broken]


def _say_left_out(
    one: Trial, layers: Sequence[LayerInfo], obstacles: Mapping[tuple[str, str], str], reporter: Reporter
) -> None:
    """Layers that own weights and cannot have a precision of weights; that a product has none is plain."""
    if one.weights is None:
        return
    reasons = {
        layer.name: obstacles[layer.name, one.name]
        for layer in layers
        if layer.weight_name and obstacles[layer.name, one.name]
    }
    if reasons:
        name, why = next(iter(reasons.items()))
        others = f" and {counted(len(reasons) - 1, 'more layer')}" if len(reasons) > 1 else ""
        reporter.message(f"{one.name} is not tried on {name}{others}: {why}")


def _initializers(graph: Graph, names: set[str]) -> dict[str, NDArray[np.float32]]:
    """Float initializers by name, from the main graph and all bodies."""
    return {
        tensor.name: np.asarray(as_array(tensor), dtype=np.float32)
        for _, part in all_graphs(graph.proto.graph)
        for tensor in part.initializer
        if tensor.name in names
    }
