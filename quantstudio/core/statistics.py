"""Distributions of weights and activations, as histograms with exact ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

WEIGHT_BINS = 2048
ACTIVATION_BINS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Evenly spaced bins with the exact smallest and largest value.

    Attributes:
        counts: Values per bin, int64, shape [B].
        low: Left edge of the first bin.
        high: Right edge of the last bin.
        minimum: Exact smallest value seen.
        maximum: Exact largest value seen.
    """

    counts: NDArray[np.int64]
    low: float
    high: float
    minimum: float
    maximum: float

    @property
    def edges(self) -> NDArray[np.float64]:
        """Bin edges, shape [B + 1]."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Bin centres, shape [B]."""
        edges = self.edges
        return np.asarray((edges[1:] + edges[:-1]) / 2)

    @property
    def total(self) -> int:
        """Values counted (the histogram may be of a subsample; minimum and maximum never are)."""
        return int(self.counts.sum())

    @property
    def is_constant(self) -> bool:
        """Whether all values are the same."""
        return self.minimum == self.maximum


@dataclass(frozen=True, slots=True, eq=False)
class WeightStatistics:
    """Distribution of one layer's weights.

    Attributes:
        layer: Layer name.
        histogram: 2048 bins from minimum to maximum.
        mean: Mean.
        std: Standard deviation.
        kurtosis: Excess kurtosis; 0 for a normal distribution, large with outliers.
        outlier_share: Part of the weights further than 4 standard deviations from the mean.
        channel_low: Smallest weight per output channel, float32, shape [C].
        channel_high: Largest weight per output channel, shape [C].
        channel_p1: 1st percentile per channel, shape [C].
        channel_p99: 99th percentile per channel, shape [C].
        channel_median: Median per channel, shape [C].
        sqnr_db: SQNR in dB by scheme name, with the scheme's own granularity and range rule; "static-int8@7"
            where a target narrows its grid to 7 bits (see `core.weight_error`).
    """

    layer: str
    histogram: Histogram
    mean: float
    std: float
    kurtosis: float
    outlier_share: float
    channel_low: NDArray[np.float32]
    channel_high: NDArray[np.float32]
    channel_p1: NDArray[np.float32]
    channel_p99: NDArray[np.float32]
    channel_median: NDArray[np.float32]
    sqnr_db: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Activation distributions of one graph over one data set.

    Attributes:
        tensors: Histogram by tensor name, 4096 bins over [-R, R] with R a power of two.
        samples: Samples seen.
        graph_digest: Digest of the graph.
        data_digest: Digest of data and transform.
        masked: Tensors that also hold mask values (magnitude from 1e30 on), which their histograms leave
            out. Putting one on an integer grid would switch the mask off: keep it float.
    """

    tensors: dict[str, Histogram]
    samples: int
    graph_digest: str
    data_digest: str
    masked: tuple[str, ...] = ()
