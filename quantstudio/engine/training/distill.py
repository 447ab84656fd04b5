"""Label-free training: the network learns to answer as the original did."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step
from quantstudio.engine.training.settings import DistillSettings


@step(
    name="distill",
    label="Learn from the original",
    explanation="""Trains the network to answer as the original did before any step, without labels: the
    answers of the original, and if you name nodes their outputs as well, are all it learns from. Layers that
    the plan quantizes are trained through their rounding, as in quantization-aware training; without any, the
    float network is trained, as after pruning. Samples are mixed in pairs, so that a few thousand do for many
    steps. It costs about six runs of the network a sample and epoch.""",
    source="Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531, eq. 4; "
    "Romero et al. 2015, FitNets, arXiv:1412.6550, eq. 3 (features); Zhang et al. 2018, mixup, "
    "arXiv:1710.09412, eq. 1",
    needs=(Need.DATA, Need.STATISTICS, Need.GRADIENTS, Need.PLAN, Need.SEED, Need.FLOAT),
    group=StepGroup.TRAIN,
)
def distill(
    graph: Graph, context: StepContext, settings: DistillSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights that were trained towards the answers of the original network."""
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.training.runs import distilled

    return distilled(graph, context, settings, reporter, cancel)
