"""Sparse weights: single weights that matter least become zero, anywhere or in a pattern."""

from __future__ import annotations

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import Need, StepGroup
from quantstudio.engine.compression.pruning_settings import SparsifySettings
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.registry import step


@step(
    name="sparsify",
    label="Set weights to zero",
    explanation="""Sets the weights that matter least to zero, anywhere in a layer or in a pattern such as
    2:4. The network runs as before, dense: ONNX Runtime multiplies zeros like any other number, so that it is
    no faster, and the file is no smaller until it is compressed, as a zip archive does. It is for runtimes
    that skip zeros, and for downloads. A weight matters by its size times the size of what it multiplies,
    measured on samples; one run of the network over them. To make a network faster everywhere, prune its
    channels.""",
    source="Sun et al. 2023, A Simple and Effective Pruning Approach for Large Language Models (Wanda), "
    "arXiv:2306.11695, eq. 1; Mishra et al. 2021, Accelerating Sparse Deep Neural Networks, "
    "arXiv:2104.08378 (2:4); Han et al. 2015, arXiv:1506.02626 (magnitude)",
    needs=(Need.DATA,),
    group=StepGroup.COMPRESS,
)
def sparsify(
    graph: Graph, context: StepContext, settings: SparsifySettings, *, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with weights at zero."""
    # Here, so that steps can be listed without loading torch.
    from quantstudio.engine.compression.sparsifying import sparsified

    return sparsified(graph, context, settings, reporter, cancel)
