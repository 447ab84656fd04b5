"""The levels of one output channel, for a screen that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.levels import ChannelLevels
from quantstudio.core.precision import LayerScheme
from quantstudio.engine.analysis.levels import channel_levels as levels_of
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.cache import graphs_folder
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.inputs import value_of


def channel_levels(
    *,
    graph_path: str,
    layer: str,
    scheme: Mapping[str, Any],
    channel: int,
    max_bits: int = 8,
    clip: Sequence[float] = (),
    is_narrow: bool = False,
    rounded: str = "",
    written: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> ChannelLevels:
    """Levels of one output channel in a scheme; see `analysis.levels.channel_levels`.

    Args:
        rounded: Digest of a graph behind steps that only prepared the model: what was rounded.
        written: Digest of the graph behind all steps.
    """
    del reporter
    (cancel or never_cancelled()).raise_if_set()

    def kept(digest: str) -> Graph:
        return load_graph(str(graphs_folder() / f"{digest}.onnx"))

    return levels_of(
        kept(rounded) if rounded else load_graph(graph_path),
        layer,
        value_of(LayerScheme, scheme, "scheme"),
        channel,
        max_bits=max_bits,
        clip=(clip[0], clip[1]) if len(clip) == 2 else None,
        is_narrow=is_narrow,
        written=kept(written) if written else None,
    )
