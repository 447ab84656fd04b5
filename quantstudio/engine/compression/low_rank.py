"""Low rank: a layer becomes two small ones with few channels between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import setting, step


class RankBy(StrEnum):
    """What ranks are chosen by."""

    PARAMETERS = "parameters"
    MACS = "macs"
    ENERGY = "energy"
    RANK = "rank"


class Metric(StrEnum):
    """What an error at a layer's output counts."""

    ANSWERS = "answers"
    OUTPUTS = "outputs"


@dataclass(frozen=True, slots=True)
class LowRankSettings:
    """How layers are factored."""

    by: RankBy = setting(
        RankBy.PARAMETERS,
        "Ranks by",
        """parameters, macs: a budget over all layers, spent where the answers would suffer most. energy: what
        every layer keeps of its output by itself. rank: the same rank for all, or for those named.""",
    )
    share: float = setting(
        0.6,
        "Budget",
        """Part of the weights, or of the operations, of the layers that can be factored which is kept.""",
        low=0.0,
        high=1.0,
    )
    energy: float = setting(
        0.99, "Energy kept", "Part of the power of a layer's output that its factors keep.", low=0.0, high=1.0
    )
    rank: int = setting(16, "Rank", "Channels between two factors, where they are given by hand.", low=1)
    layers: str = setting(
        "",
        "Layers",
        """Names of layers that may be factored, with commas between them; * and ? stand for any characters.
        Empty: every layer that can be.""",
    )
    keep: str = setting("", "Layers kept", "Names of layers that stay as they are, written alike.")
    metric: Metric = setting(
        Metric.ANSWERS,
        "Errors by",
        """answers: what errors of all channels do to the answers, by the gradients of 128 samples. outputs:
        their power, as part of that of the layer's output; networks of very wide layers take these, too.""",
    )
    round_to: int = setting(
        8,
        "Ranks are multiples of",
        "Kernels run channels in blocks. Layers narrower than two of them take any rank.",
        low=1,
        high=64,
        unit="channels",
    )
    samples: int = setting(
        512, "Samples", "Samples of the calibration data that go through the network.", low=2, unit="samples"
    )


@step(
    name="low-rank",
    label="Factor layers",
    explanation="""Writes a layer as two small ones with few channels between them: a matrix as a product of
    two, a convolution as one with few channels and one of a single pixel, or as one along columns and one
    along lines. What is lost is least in what the layer writes for the inputs it really gets, weighed by what
    the answers hang on, and every layer is factored behind those before it, whose errors it makes up for; the
    rest of the mean goes into biases. Ranks come from a budget over all layers, from the power each layer
    keeps, or by hand; a layer stays as it was where two are no cheaper. It is for wide layers and for
    transformers; fine-tuning afterwards wins back most of what is lost. It needs a few hundred samples and no
    labels.""",
    source="Wang et al. 2024, SVD-LLM, arXiv:2403.07378, section 3.1; Jaderberg et al. 2014, "
    "arXiv:1405.3866, scheme 2 (lines); Martens & Grosse 2015, arXiv:1503.05671, section 3 (answers)",
    needs=(Need.DATA,),
    group=StepGroup.COMPRESS,
)
def factor_layers(
    graph: Graph, context: StepContext, settings: LowRankSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with layers written as two where that is cheaper."""
    if min(settings.samples, len(context.dataset)) < 2:
        raise CalibrationError(
            "one sample says nothing of what varies", hint=Hint("Choose more data", HintAction.CHOOSE_DATA)
        )
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.compression.low_rank_run import factored

    return factored(graph, context, settings, reporter, cancel)
