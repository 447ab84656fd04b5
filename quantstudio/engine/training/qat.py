"""Quantization-aware training: weights, grids and activation ranges learn through their rounding."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step
from quantstudio.engine.training.settings import TrainingSettings


@step(
    name="qat",
    label="Train through the rounding",
    explanation="""Quantization-aware training: goes on training the network while every weight and
    activation is rounded as the plan will round it, so that it learns to live with that. Weights, biases,
    scales, the entries of codebooks and the ranges of activations are learned; which integer or entry a
    weight has is decided anew at every step. It learns from labels, from the answers of the original
    network, or from both, and keeps the state that is best on samples left out of training. It is the
    strongest and the slowest of the steps: it needs thousands of samples and costs five to six runs of the
    network a sample and epoch. Best behind a step that chooses good integers, and the last of a recipe.""",
    source="Esser et al. 2020, Learned Step Size Quantization, arXiv:1902.08153, eq. 1 to 5; Han et al. "
    "2016, arXiv:1510.00149, section 3.3 (entries of a codebook); Liu et al. 2020, ReActNet, "
    "arXiv:2003.03488 (signs); Hinton et al. 2015, arXiv:1503.02531, eq. 4 (the teacher)",
    needs=(Need.DATA, Need.STATISTICS, Need.GRADIENTS, Need.PLAN, Need.SEED, Need.FLOAT),
    group=StepGroup.TRAIN,
)
def qat(
    graph: Graph, context: StepContext, settings: TrainingSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights and ranges that were trained through the rounding of the plan."""
    if all(scheme.is_float for scheme in context.plan.schemes.values()):
        return StepOutcome(
            graph, "No layer is quantized: there is no rounding to train through.", {"steps": 0}
        )
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.training.runs import trained_quantized

    return trained_quantized(graph, context, settings, reporter, cancel)
