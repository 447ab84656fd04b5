"""Block-wise soft rounding: which of two levels each weight takes is learned from what its block gives."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step
from quantstudio.engine.recovery.training_settings import RoundSettings


@step(
    name="round",
    label="Round block by block",
    explanation="""Rounds each weight up or down by what is best for the output of its block, not for the
    weight itself: every weight may go to the other of its two nearest levels (of the grid, or of the
    channel's codebook), and gradient descent decides, block after block, each behind the quantized blocks
    before it. Biases are trained along. With activations of 4 bits, half of the values pass unrounded while
    it trains, which keeps it from fitting their noise. A block that became no better stays as it was. It
    costs some hundred runs of every block.""",
    source="Nagel et al. 2020, Up or Down? Adaptive Rounding, arXiv:2004.10568, eq. 21-25; Li et al. 2021, "
    "BRECQ, arXiv:2102.05426; Wei et al. 2022, QDrop, arXiv:2203.05740",
    needs=(Need.DATA, Need.STATISTICS, Need.GRADIENTS, Need.PLAN, Need.SEED, Need.FLOAT),
    group=StepGroup.ROUND,
)
def round_blocks(
    graph: Graph, context: StepContext, settings: RoundSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights on levels that were chosen block by block."""
    if not any(scheme.weights.is_integer for scheme in context.plan.schemes.values()):
        return StepOutcome(graph, "No layer has integer weights: nothing to round.", {"blocks": 0})
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.recovery.block_rounding import rounded_graph

    return rounded_graph(graph, context, settings, reporter, cancel)
