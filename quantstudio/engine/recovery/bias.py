"""Empirical bias correction: takes out of every layer the shift that quantization puts into its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.recovered import LayerRecovered
from quantstudio.core.steps import Need
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import run
from quantstudio.engine.model.derive import derived_graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step
from quantstudio.engine.quantization.emit import emit_with_plan
from quantstudio.engine.recovery.bias_targets import BiasTarget, find_targets, set_bias
from quantstudio.engine.recovery.channel_means import (
    ChannelMean,
    Samples,
    before_quantizing,
    part_session,
    prefix_session,
)
from quantstudio.engine.recovery.layer_means import LayerMeans

FloatArray = NDArray[np.float64]
MEASURE = "shift of the mean output, of its spread"


class Inputs(StrEnum):
    """What a quantized layer reads while its shift is measured."""

    QUANTIZED = "quantized"
    FLOAT = "float"


@dataclass(frozen=True, slots=True)
class BiasSettings:
    """How shifts are measured."""

    samples: int = setting(
        512, "Samples", "Samples of the calibration data the means are taken over.", low=1, unit="samples"
    )
    inputs: Inputs = setting(
        Inputs.QUANTIZED,
        "Inputs of a layer",
        """quantized: what the quantized layers before it give, their biases corrected already, so that errors
        that add up are seen; one run up to every layer. float: what the float network gives; one run in all,
        for large networks.""",
    )


@step(
    name="bias",
    label="Correct biases",
    explanation="""Rounding weights shifts the mean of a layer's outputs, because errors do not cancel over
    the inputs it really gets. The shift of every output channel is measured on calibration data, against the
    float network and with the very weights and activations the plan will emit, and taken off the bias: layer
    by layer, in the order of execution. It helps most at few bits, with one scale per weight and in depthwise
    layers, whose channels have few weights. It costs one run of the network up to every layer.""",
    source="Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, "
    "arXiv:1906.04721, section 4.2",
    needs=(Need.DATA, Need.STATISTICS, Need.PLAN),
)
def correct_biases(
    graph: Graph, context: StepContext, settings: BiasSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with biases that make up for what quantization will do to it."""
    schemes = context.plan.schemes
    targets = [target for target in find_targets(graph) if not schemes[target.layer].is_float]
    if not targets:
        return StepOutcome(graph, "No layer with a bias is quantized: nothing to correct.", {"layers": 0})
    statistics = context.statistics(graph) if context.plan.is_static else None
    samples = Samples(context.dataset, settings.samples, cancel)
    means = LayerMeans(graph, graph, context, statistics, samples)
    work = _Work(means, targets, reporter)
    shifts = work.sequential() if settings.inputs is Inputs.QUANTIZED else work.at_once()
    worst = max(shifts, key=lambda name: shifts[name])
    average = float(np.mean(list(shifts.values())))
    summary = (
        f"Corrected the biases of {counted(len(targets), 'layer')}: outputs were off by "
        f"{percent(average, 1)} of their spread on average, by {percent(shifts[worst], 1)} in {worst}."
    )
    details = {
        "layers": len(targets),
        "samples": min(settings.samples, len(context.dataset)),
        "shift": shifts,
    }
    return StepOutcome(derived_graph(graph, means.now.proto, summary), summary, details)


@dataclass(slots=True)
class _Work:
    """The correction under way.

    Attributes:
        means: The network under correction, and what is measured of it.
        targets: Its layers, in order of execution.
        reporter: Told of every layer.
    """

    means: LayerMeans
    targets: Sequence[BiasTarget]
    reporter: Reporter

    def sequential(self) -> dict[str, float]:
        """Correct each layer behind the corrected ones before it; root mean square shift by layer."""
        expected = self.means.expected(self.targets)
        shifts: dict[str, float] = {}
        for position, target in enumerate(self.targets):
            self.means.samples.cancel.raise_if_set()
            self.reporter.progress(position, len(self.targets), "layers", f"Correcting {target.layer}")
            (found,) = self.means.found([target])
            shifts[target.layer] = self._correct(target, expected[position], found)
            self._tell(target, shifts[target.layer])
        self._check(expected, shifts)
        return shifts

    def _check(self, expected: Sequence[ChannelMean], shifts: Mapping[str, float]) -> None:
        """Tell what is left of every shift, all biases corrected: one run more."""
        self.reporter.progress(len(self.targets), len(self.targets), "layers", "Checking what is left")
        left = self.means.found(self.targets)
        for target, mean, now in zip(self.targets, expected, left, strict=True):
            self._tell(target, shifts[target.layer], _share(mean, mean.mean - now.mean))

    def at_once(self) -> dict[str, float]:
        """Correct each layer by what it makes of float inputs; root mean square shift by layer."""
        graph, samples = self.means.graph, self.means.samples
        context, cancel = self.means.context, samples.cancel
        model = emit_with_plan(graph, self.means.statistics, context.plan, cancel).model
        names = list(
            dict.fromkeys(name for target in self.targets for name in (target.source, target.output))
        )
        inputs = {value.name for value in graph.proto.graph.input}
        made = [name for name in names if name not in inputs]
        whole = prefix_session(graph.proto, graph, made, cancel)
        sources = [before_quantizing(model, target.source) for target in self.targets]
        outputs = [before_quantizing(model, target.output) for target in self.targets]
        parts = [part_session(model, *ends, cancel) for ends in zip(sources, outputs, strict=True)]
        expected = [ChannelMean(target.channel_axis) for target in self.targets]
        found = [ChannelMean(target.channel_axis) for target in self.targets]
        total = min(samples.count, len(context.dataset))
        for batch, values in samples.values(whole.session, names):
            for position, target in enumerate(self.targets):
                expected[position].add(values[target.output])
                feed = {sources[position]: values[target.source]}
                found[position].add(run(parts[position], feed, [outputs[position]], cancel=cancel)[0])
            self.reporter.progress(batch.start + batch.count, total, "samples", "Correcting biases")
        shifts = {}
        for position, target in enumerate(self.targets):
            shifts[target.layer] = self._correct(target, expected[position], found[position])
            self._tell(target, shifts[target.layer])
        return shifts

    def _correct(self, target: BiasTarget, expected: ChannelMean, found: ChannelMean) -> float:
        shift = expected.mean - found.mean
        set_bias(self.means.now.proto, target, shift)
        return _share(expected, shift)

    def _tell(self, target: BiasTarget, before: float, after: float | None = None) -> None:
        self.reporter.found(LayerRecovered(target.layer, before, after, MEASURE))


def _share(expected: ChannelMean, shift: FloatArray) -> float:
    """Root mean square of a shift of the channels, as a share of how far their outputs spread."""
    return float(np.sqrt(np.mean(shift**2))) / max(expected.deviation, 1e-12)
