"""Results that arrive layer by layer, read from the JSON values of an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quantstudio.core.codec import CodecError
from quantstudio.core.events import LayerFinished
from quantstudio.core.statistics import Histogram, WeightStatistics

_CHANNEL_FIELDS = ("channel_low", "channel_high", "channel_p1", "channel_p99", "channel_median")


def weights_from_event(event: LayerFinished) -> WeightStatistics | None:
    """Weight statistics of one layer; None where the event carries a summary without a histogram.

    Raises:
        CodecError: a value is missing or of the wrong kind.
    """
    values: Mapping[str, Any] = event.values
    histogram = values.get("histogram")
    if not isinstance(histogram, Mapping):
        return None
    try:
        return WeightStatistics(
            layer=event.layer,
            histogram=Histogram(
                counts=np.asarray(histogram["counts"], dtype=np.int64),
                low=float(histogram["low"]),
                high=float(histogram["high"]),
                minimum=float(histogram["minimum"]),
                maximum=float(histogram["maximum"]),
            ),
            mean=float(values["mean"]),
            std=float(values["std"]),
            kurtosis=float(values["kurtosis"]),
            outlier_share=float(values["outlier_share"]),
            **{name: np.asarray(values[name], dtype=np.float32) for name in _CHANNEL_FIELDS},
            sqnr_db={
                key: float("inf") if value is None else float(value)
                for key, value in values.get("sqnr_db", {}).items()
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CodecError(f"weights of {event.layer}: {error!r}") from error
