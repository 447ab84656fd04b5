"""What this machine can compute on."""

from __future__ import annotations

from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.task_results import Devices
from quantstudio.engine.graph.runtime import available_providers


def devices(*, reporter: Reporter = NULL_REPORTER, cancel: CancelToken | None = None) -> Devices:
    """Execution providers and torch devices that are installed here."""
    from quantstudio.engine.torch_graph.device import available_devices  # imports torch

    del reporter
    (cancel or never_cancelled()).raise_if_set()
    return Devices(available_providers(), available_devices())
