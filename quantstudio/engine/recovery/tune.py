"""Label-free distillation of what a file holds beside its integers: scales, table entries and biases."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step
from quantstudio.engine.recovery.training_settings import TuneSettings


@step(
    name="tune",
    label="Tune scales and biases",
    explanation="""Trains the scales of the weights, the entries of codebooks and the biases, and nothing
    else, so that the quantized network answers as the float network did before any step: a few hundred steps
    of gradient descent through the very rounding the plan will emit, without labels. Which integer a weight
    has stays as it was, so it is best behind a step that chooses those well; as that was fitted to the
    samples, they are then mixed in pairs (tokens cannot be). Samples kept out of training say whether the
    result is better beyond chance; if it is not, nothing is changed. It costs three to four runs of the
    network a step.""",
    source="Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531, eq. 2; "
    "Zhang et al. 2018, mixup, arXiv:1710.09412, eq. 1; "
    "Bengio et al. 2013, arXiv:1308.3432 (gradient through rounding)",
    needs=(Need.DATA, Need.STATISTICS, Need.GRADIENTS, Need.PLAN, Need.SEED, Need.FLOAT),
    version=3,
    group=StepGroup.TUNE,
)
def tune(
    graph: Graph, context: StepContext, settings: TuneSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with scales, table entries and biases that were trained towards the float network."""
    if all(scheme.is_float for scheme in context.plan.schemes.values()):
        return StepOutcome(graph, "No layer is quantized: nothing to tune.", {"steps": 0})
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.recovery.tuning import tuned

    return tuned(graph, context, settings, reporter, cancel)
