"""Parts of a result, as long work tells them before it ends."""

from __future__ import annotations

from collections.abc import Iterable

from quantstudio.core.events import Event, PartFound
from quantstudio.core.results import LayerSensitivity


def layer_found(name: str, kl: float = 1.0) -> LayerSensitivity:
    """The sensitivity of one layer."""
    return LayerSensitivity(name, kl, 0.5 * kl, 2 * kl, 20.0)


def layers_of(events: Iterable[Event]) -> list[LayerSensitivity]:
    """The layers among events, in order."""
    parts = [event.part for event in events if isinstance(event, PartFound)]
    return [part for part in parts if isinstance(part, LayerSensitivity)]
