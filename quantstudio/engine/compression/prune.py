"""Structured pruning: channels, heads and hidden units that matter least are gone from the network."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.compression.pruning_settings import PruneSettings
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step


@step(
    name="prune",
    label="Prune channels",
    explanation="""Takes channels, attention heads and hidden units away, so that the network is smaller and
    runs faster in any runtime. Channels of layers that hang together (through sums, joins, depthwise layers,
    gates) go together; what an operator might mix up stays, with the reason. Those that matter least for what
    they save go first, over all layers, until so much is left of the multiply-accumulates, of the bytes or of
    the measured time as was asked for. The network answers as before with those channels at zero, so that
    accuracy falls; a short training behind it (finetune) wins most of it back. It costs one run forward and
    backward over the samples a round.""",
    source="Fang et al. 2023, DepGraph: Towards Any Structural Pruning, arXiv:2301.12900; "
    "Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, arXiv:1906.10771, eq. 8; "
    "Theis et al. 2018, Fisher pruning, arXiv:1801.05787, eq. 6",
    needs=(Need.DATA, Need.GRADIENTS, Need.SEED),
    group=StepGroup.COMPRESS,
)
def prune(
    graph: Graph, context: StepContext, settings: PruneSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph without the units that matter least."""
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.compression.pruning import pruned

    return pruned(graph, context, settings, reporter, cancel)
