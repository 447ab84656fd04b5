"""Means and spreads of layers' outputs, in the float network and in a quantized one under correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quantstudio.core.statistics import Statistics
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.derive import editable_copy
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.quantization.emit import emit_with_plan
from quantstudio.engine.quantization.quantized_weights import KnownWeights
from quantstudio.engine.recovery.bias_targets import BiasTarget
from quantstudio.engine.recovery.channel_means import (
    ChannelMean,
    Samples,
    before_quantizing,
    prefix_session,
)


@dataclass(slots=True)
class LayerMeans:
    """A network whose layers are corrected one after the other, and what is measured of it in between.

    Attributes:
        graph: The network before any correction.
        reference: The network to come close to.
        context: The plan.
        statistics: Statistics of the activations; None where nothing static is planned.
        samples: What means are taken over.
        now: The network as far as it is corrected, to be edited in place.
        weights: Integers of the weights, which stay the same while biases change; those of a weight that is
            edited are to be forgotten.
    """

    graph: Graph
    reference: Graph
    context: StepContext
    statistics: Statistics | None
    samples: Samples
    now: Graph = field(init=False)
    weights: KnownWeights = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = Graph(editable_copy(self.graph), self.graph.summary)

    def expected(self, targets: Sequence[BiasTarget]) -> list[ChannelMean]:
        """What the outputs of layers are in the network to come close to."""
        return self._means(self.reference, targets, [target.output for target in targets])

    def found(self, targets: Sequence[BiasTarget]) -> list[ChannelMean]:
        """What they are as quantized now, behind the layers that are corrected already."""
        model = emit_with_plan(
            self.now, self.statistics, self.context.plan, self.samples.cancel, self.weights
        ).model
        names = [before_quantizing(model, target.output) for target in targets]
        return self._means(Graph(model, self.graph.summary), targets, names)

    def _means(self, graph: Graph, targets: Sequence[BiasTarget], names: Sequence[str]) -> list[ChannelMean]:
        means = [ChannelMean(target.channel_axis) for target in targets]
        prefix = prefix_session(graph.proto, graph, names, self.samples.cancel)
        for _, values in self.samples.values(prefix.session, names):
            for mean, name in zip(means, names, strict=True):
                mean.add(values[name])
        return means
