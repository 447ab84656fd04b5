"""GPTQ with the targets of GPTAQ: weights chosen together, so that errors cancel at a layer's output."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.codec import to_json
from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step

# To be raised with every change of what is computed.
VERSION = 4


@dataclass(frozen=True, slots=True)
class GptqSettings:
    """How weights are chosen."""

    samples: int = setting(
        512, "Samples", "Samples of the calibration data that go through the network.", low=2, unit="samples"
    )
    sweeps: int = setting(
        3,
        "Refits",
        """How often scales and tables are fitted to the weights chosen so far and the weights chosen anew; a
        layer that gains nothing more stops earlier.""",
        low=0,
        high=100,
        unit="times",
    )
    asymmetric: bool = setting(
        default=True,
        label="Make up for layers before",
        explanation="""A layer is to give what it gives in the float network although it reads what the
        quantized layers before it made, and what is missing in what its output is added to besides; off, it
        is to do to its inputs what its float weights would.""",
    )
    joint: bool = setting(
        default=False,
        label="Channels together",
        explanation="""Where channels have tables of their own, they are chosen once more so that their errors
        cancel in what the answers hang on, as far as the gradients of 128 samples tell. On Fashion-MNIST vit
        the divergence of answers falls by a fifth at 4 and at 3 bits; a MobileNet did not
        gain. Layers of many hundred inputs a channel, and language models, are left out.""",
    )
    bias: bool = setting(
        default=True,
        label="Correct biases",
        explanation="The mean error of every channel goes into the bias of its layer, behind its weights.",
    )


@step(
    name="gptq",
    label="Choose weights together",
    explanation="""Rounds the weights of a layer one column after the other and spreads the error of each over
    those still to come, so that errors cancel over the inputs the layer really gets; scales, and the tables
    of codebooks, are fitted again by least squares in between. Each layer is solved behind the quantized ones
    before it and aims at what the float network gives, so that it makes up for their errors, too: those in
    what it reads, and those in what its output is added to, as in residual networks. Channels can be
    chosen together besides, so that their errors cancel in what the answers hang on. It needs a few
    hundred samples and no labels, and costs about as much as a hundred runs over them. It is what makes 2
    to 4 bits usable.""",
    source="Frantar et al. 2022, GPTQ, arXiv:2210.17323, algorithm 1; "
    "Li et al. 2025, GPTAQ, arXiv:2504.02692; Lin and Wan 2025, LoaQ, arXiv:2509.06297 (sums); "
    "Tseng et al. 2025, YAQA, arXiv:2505.22988 (channels together)",
    needs=(Need.DATA, Need.STATISTICS, Need.PLAN),
    version=VERSION,
    group=StepGroup.ROUND,
)
def choose_weights(
    graph: Graph, context: StepContext, settings: GptqSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights that lie on the grids of the plan already, where errors cancel best."""
    if min(settings.samples, len(context.dataset)) < 2:
        raise CalibrationError(
            "one sample says nothing of what varies", hint=Hint("Choose more data", HintAction.CHOOSE_DATA)
        )
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.recovery.gptq_run import GptqOptions
    from quantstudio.engine.recovery.gptq_solve import solved

    options = GptqOptions(settings.asymmetric, settings.sweeps, settings.bias, settings.joint)
    own = {"version": VERSION, "settings": to_json(settings)}
    return solved(graph, context, options, settings.samples, own, reporter, cancel)
