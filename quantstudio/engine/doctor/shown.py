"""Some samples as the network gets them: pictures, rows of numbers, tokens."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from quantstudio.core.diagnosis import ShownSample
from quantstudio.engine.data.labels import Labels
from quantstudio.engine.doctor.network import MAX_COLOUR_CHANNELS

SHOWN = 12
EDGE_PX = 64
_SMALLEST_PX = 6
_NUMBERS = 10


def chosen(indices: NDArray[np.int64], labels: Labels | None, answers: NDArray[np.int64]) -> list[int]:
    """Places of the samples to show among those looked at: one of each class in turn, else evenly."""
    kinds = labels if labels is not None and labels.dtype.kind == "i" else answers
    if not len(kinds):
        evenly = np.linspace(0, len(indices) - 1, min(SHOWN, len(indices)))
        return [int(place) for place in evenly]
    groups = [np.flatnonzero(kinds == kind).tolist() for kind in np.unique(kinds)[:SHOWN]]
    places: list[int] = []
    while len(places) < min(SHOWN, len(indices)) and any(groups):
        for group in groups:
            if group and len(places) < SHOWN:
                places.append(group.pop(0))
    return places


def shown_samples(
    given: NDArray[np.generic],
    indices: NDArray[np.int64],
    labels: Sequence[str],
    answers: Sequence[str],
) -> tuple[ShownSample, ...]:
    """Samples as the network gets them.

    Args:
        given: What one input gets, shape [n, ...].
        indices: Their numbers in the data set.
        labels: What each is; empty without labels.
        answers: What the network takes each for; empty where it tells no classes apart.
    """
    pictures = _pictures(given)
    found = []
    for place, index in enumerate(indices.tolist()):
        label = labels[place] if labels else ""
        answer = answers[place] if answers else ""
        found.append(
            ShownSample(
                index,
                _png(pictures[place]) if pictures is not None else "",
                _text(given[place]) if pictures is None else "",
                label,
                answer,
                label == answer if label and answer else None,
            )
        )
    return tuple(found)


def _pictures(given: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    """Shape [n, H, W] or [n, H, W, 3], one brightness for all; None where they are no pictures."""
    values = np.asarray(given, dtype=np.float64)
    if values.ndim == 4:
        if values.shape[1] <= MAX_COLOUR_CHANNELS < values.shape[2]:
            values = np.moveaxis(values, 1, -1)
        elif values.shape[-1] > MAX_COLOUR_CHANNELS:
            return None
        values = values[..., 0] if values.shape[-1] < 3 else values[..., :3]
    elif values.ndim != 3:
        return None
    if min(values.shape[1:3]) < _SMALLEST_PX:
        return None
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)


def _png(picture: NDArray[np.uint8]) -> str:
    image = Image.fromarray(picture)
    if max(image.size) > EDGE_PX:
        image.thumbnail((EDGE_PX, EDGE_PX), Image.Resampling.BILINEAR)
    memory = io.BytesIO()
    image.save(memory, "PNG")
    return base64.b64encode(memory.getvalue()).decode("ascii")


def _text(row: NDArray[np.generic]) -> str:
    flat = row.reshape(-1)
    parts = [
        f"{value:d}" if row.dtype.kind in "iub" else f"{value:.4g}" for value in flat[:_NUMBERS].tolist()
    ]
    return " ".join(parts) + (" …" if flat.size > _NUMBERS else "")
