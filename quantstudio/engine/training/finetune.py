"""Training of the float network: after pruning or factoring, or to adapt it to other data."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step
from quantstudio.engine.training.settings import TrainingSettings


@step(
    name="finetune",
    label="Fine-tune",
    explanation="""Goes on training the float network, before anything is rounded: what pruning, factoring or
    sharing took away, the other weights take up. It learns from labels, from the answers of the original
    network, or from both. Weights that are exactly zero stay zero, and weights that share a table go on
    sharing it. The state that is best on samples left out of training is kept. It costs three to four runs of
    the network a sample and epoch.""",
    source="Hinton et al. 2015, arXiv:1503.02531, eq. 4 (the teacher); Loshchilov & Hutter 2017, SGDR, "
    "arXiv:1608.03983, eq. 5 (learning rate)",
    needs=(Need.DATA, Need.GRADIENTS, Need.SEED, Need.FLOAT),
    group=StepGroup.COMPRESS,
)
def finetune(
    graph: Graph, context: StepContext, settings: TrainingSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights that were trained further."""
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.training.runs import trained_float

    return trained_float(graph, context, settings, reporter, cancel)
