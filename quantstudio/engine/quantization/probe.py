"""Input for the checks of a build: what calibration saw where it saw something, random values elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from quantstudio.core.statistics import Histogram, Statistics
from quantstudio.engine.model.trial import Feed, GiveUpError, candidate_sizes, random_feed


def probe_feeds(model: ModelProto, statistics: Statistics | None) -> Iterator[Feed]:
    """Feeds to try until the model runs; the same every time.

    Float inputs are drawn from their histogram where there is one, so that no value lies outside the ranges
    the variant was built for.
    """
    tried: set[tuple[tuple[int, ...], ...]] = set()
    generator = np.random.default_rng(0)
    for size in candidate_sizes(model):
        try:
            feed = random_feed(model, size, seed=0)
        except GiveUpError:
            continue  # too large at this size
        shapes = tuple(value.shape for value in feed.values())
        if shapes in tried:
            continue
        tried.add(shapes)
        for name, value in feed.items():
            histogram = statistics.tensors.get(name) if statistics is not None else None
            if histogram is not None and value.dtype.kind == "f":
                feed[name] = _drawn(histogram, value.shape, generator).astype(value.dtype)
        yield feed


def _drawn(
    histogram: Histogram, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.float64]:
    counts = histogram.counts.astype(np.float64)
    if not counts.sum():
        return generator.uniform(histogram.minimum, histogram.maximum, shape)
    edges = histogram.edges
    bins = generator.choice(len(counts), size=shape, p=counts / counts.sum())
    values = edges[bins] + generator.random(shape) * np.diff(edges)[bins]
    return np.asarray(np.clip(values, histogram.minimum, histogram.maximum))
