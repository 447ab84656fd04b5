"""Which channels of a model can be taken away, and what goes with each."""

from __future__ import annotations

from quantstudio.core.channel_groups import ChannelGroups
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.engine.compression.dependencies import dependencies
from quantstudio.engine.model.open import load_graph


def channel_groups(
    *, graph_path: str, reporter: Reporter = NULL_REPORTER, cancel: CancelToken | None = None
) -> ChannelGroups:
    """The dependency groups of a model: channels that stand or fall together, and those that have to stay."""
    del reporter
    (cancel or never_cancelled()).raise_if_set()
    return ChannelGroups(dependencies(load_graph(graph_path).proto).groups)
