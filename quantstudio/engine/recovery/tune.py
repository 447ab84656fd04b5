"""Label-free distillation of what a file holds beside its integers: scales, table entries and biases."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """How long and how fast to train."""

    steps: int = setting(
        300, "Steps", "Steps of training, on 32 samples each.", low=1, high=100_000, unit="steps"
    )
    samples: int = setting(
        512,
        "Samples",
        "Samples of the calibration data; a fifth of them only judges.",
        low=2,
        unit="samples",
    )
    rate: float = setting(
        0.001,
        "Learning rate",
        "How far a step goes: scales as a part of themselves, biases of the spread of a layer's output.",
        low=1e-7,
        high=1.0,
    )


@step(
    name="tune",
    label="Tune scales and biases",
    explanation="""Trains the scales of the weights, the entries of codebooks and the biases, and nothing
    else, so that the quantized network answers as the float network did before any step: a few hundred steps
    of gradient descent through the very rounding the plan will emit, without labels. Which integer a weight
    has stays as it was, so it is best behind a step that chooses those well. The best state on samples kept
    out of training is taken, so the result is never worse there than before. It costs about three runs of
    the network a step.""",
    source="Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531, eq. 2; "
    "Bengio et al. 2013, arXiv:1308.3432 (gradient through rounding)",
    needs=(Need.DATA, Need.STATISTICS, Need.GRADIENTS, Need.PLAN, Need.SEED, Need.FLOAT),
    group=StepGroup.TUNE,
)
def tune(
    graph: Graph, context: StepContext, settings: TuneSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with scales, table entries and biases that were trained towards the float network."""
    if all(scheme.is_float for scheme in context.plan.schemes.values()):
        return StepOutcome(graph, "No layer is quantized: nothing to tune.", {"steps": 0})
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.recovery.tuning import Training, tuned

    training = Training(settings.steps, settings.samples, settings.rate)
    return tuned(graph, context, training, reporter, cancel)
