"""Opening a model."""

from __future__ import annotations

from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.layers import ModelSummary
from quantstudio.engine.model.open import open_model as open_graph


def open_model(
    *,
    path: str,
    trust: bool = False,
    factory: str = "",
    state: str = "",
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> ModelSummary:
    """Open a model file, normalise it into the cache, prove it, list its layers."""
    return open_graph(
        path, trust=trust, factory=factory, state=state, reporter=reporter, cancel=cancel or never_cancelled()
    ).summary
