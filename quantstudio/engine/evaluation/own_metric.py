"""A metric of the user's own, `module:callable`: runs only after the user agreed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError, TrustRequiredError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.judgement import OWN_METRIC
from quantstudio.core.results import Headline
from quantstudio.engine.data.factory import callable_from
from quantstudio.engine.evaluation.outputs import Labels
from quantstudio.engine.evaluation.sample_axis import Array
from quantstudio.engine.evaluation.tallies import Rows, mean_headline

Metric = Callable[[Mapping[str, Array], Any], float]


def own_metric(name: str, *, trusted: bool) -> Metric:
    """The user's callable: (outputs of one sample by name, its label or None) -> a share, higher is better.

    Raises:
        TrustRequiredError: not trusted.
        DataError: it cannot be imported.
    """
    if not trusted:
        raise TrustRequiredError(
            "this metric is a program, and using it runs its code",
            where=name,
            hint=Hint("If you know where it comes from, agree to run it", HintAction.TRUST_DATA),
        )
    return callable_from(name)


class OwnTally:
    """The user's figure of each sample, of one model and of the base."""

    def __init__(self, metric: Metric, name: str, samples: int, labels: Labels) -> None:
        self._metric, self._name, self._labels = metric, name, labels
        self._base = np.zeros(samples)
        self._value = np.zeros(samples)

    def add(self, start: int, base: Rows, other: Rows) -> None:
        """Ask the metric about the samples from `start` on.

        Raises:
            MeasureError: it fails, or gives no finite number.
        """
        for i in range(len(next(iter(base.values())))):
            index = start + i
            self._base[index] = self._asked(base, i, index)
            self._value[index] = self._base[index] if other is base else self._asked(other, i, index)

    def _asked(self, rows: Rows, i: int, index: int) -> float:
        label: NDArray[Any] | None = None if self._labels is None else self._labels[index]
        try:
            found = float(self._metric({name: array[i] for name, array in rows.items()}, label))
        except Exception as error:
            raise MeasureError(
                f"the metric failed on sample {index}: {type(error).__name__}: {error}", where=self._name
            ) from error
        if not np.isfinite(found):
            raise MeasureError(f"the metric gives {found} for sample {index}", where=self._name)
        return found

    def metrics(self) -> dict[str, float]:
        """The mean over the samples."""
        return {OWN_METRIC.metric: float(self._value.mean())}

    def headline(self) -> Headline:
        """The mean over the samples."""
        return mean_headline(OWN_METRIC, self._value, self._base)
