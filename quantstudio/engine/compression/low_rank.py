"""Low rank: a layer becomes two small ones with few channels between them."""

from __future__ import annotations

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.compression.low_rank_settings import LowRankSettings
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step


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
