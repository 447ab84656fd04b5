"""Weight sharing: the weights of a layer take few values, which a table in the file holds."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.compression.share_settings import ShareSettings
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step


@step(
    name="share",
    label="Share weights",
    explanation="""Lets the weights of a layer take few values, 2 to 256, which lie in a table of floats: the
    file holds a small index a weight, and a runtime looks the weights up when it loads it. Layers go on
    computing in floats, at the speed they had; 16 values make the weights an eighth of their size. Without
    data the table is that of the least squared error (k-means). With data, whose labels are not needed, and
    at most 64 entries, values are chosen so that errors cancel over what a layer really reads, tables are
    fitted by least squares, and every layer makes up for those before it. Grouped convolutions, and weights
    so few that the table costs what it saves, stay as they are.""",
    source="Han et al. 2016, Deep Compression, arXiv:1510.00149, section 3; Frantar et al. 2022, GPTQ, "
    "arXiv:2210.17323 (with data)",
    needs=(Need.DATA_IF_ANY,),
    group=StepGroup.COMPRESS,
)
def share_weights(
    graph: Graph, context: StepContext, settings: ShareSettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights that take few values."""
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.compression.share_run import shared

    return shared(graph, context, settings, reporter, cancel)
