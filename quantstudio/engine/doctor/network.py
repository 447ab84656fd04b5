"""The network under trial: samples with a candidate's scale in, what it answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import Transform
from quantstudio.core.events import CancelToken
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import Batch, Dataset
from quantstudio.engine.evaluation.sample_axis import SampleAxis
from quantstudio.engine.graph.runtime import fitted_feed, open_session, run

if TYPE_CHECKING:
    import onnxruntime as ort

_PICTURE_RANK = 4
MAX_COLOUR_CHANNELS = 4
_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Some samples as they fit the network, with nothing done to their values.

    Attributes:
        batches: Them; sizes follow the network where it insists on one.
        indices: Number of each in the data set, shape [n].
        axes: Axis of the samples of each input that has one; others get the same every time.
        scaled: Those of them a transform is for, with their channel axis (None where there is none).
        is_fixed: Whether the size of a batch is not ours to choose.
    """

    batches: tuple[Batch, ...]
    indices: NDArray[np.int64]
    axes: dict[str, int]
    scaled: dict[str, int | None]
    is_fixed: bool

    def __len__(self) -> int:
        return len(self.indices)

    def values(self, name: str) -> NDArray[Any]:
        """What one input gets, shape [n, ...]; one long row of numbers where samples differ in size."""
        return stacked([rows_of(batch, batch.feed[name], self.axes[name]) for batch in self.batches])

    def head(self, count: int) -> Samples:
        """At most so many of them, spread as they are; whole batches where their size is given."""
        if count >= len(self):
            return self
        if self.is_fixed:
            wanted = max(1, count // max(1, self.batches[0].count))
            places = np.linspace(0, len(self.batches) - 1, wanted).astype(int).tolist()
            batches = tuple(self.batches[place] for place in places)
            indices = np.concatenate([np.arange(b.start, b.start + b.count) for b in batches])
            return replace(self, batches=batches, indices=indices)
        chosen = np.linspace(0, len(self) - 1, count).astype(int)
        rows = {name: self.values(name)[chosen] for name in self.axes}
        return replace(
            self,
            batches=tuple(
                self._batch(rows, start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)
            ),
            indices=self.indices[chosen],
        )

    def _batch(self, rows: dict[str, NDArray[Any]], start: int, stop: int) -> Batch:
        own = {name: np.moveaxis(array[start:stop], 0, self.axes[name]) for name, array in rows.items()}
        return Batch({**self.batches[0].feed, **own}, stop - start, start, stop - start)


def rows_of(batch: Batch, array: NDArray[Any], axis: int) -> NDArray[Any]:
    """The valid samples of what an input gets, samples first."""
    return np.moveaxis(array, axis, 0)[: batch.count]


def stacked(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Samples of several batches, shape [n, ...]; one long row of numbers where they differ in size."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    return np.concatenate([part.reshape(-1) for part in parts])


def read_samples(
    dataset: Dataset, inputs: tuple[TensorInfo, ...], blocks: Sequence[tuple[int, int]], cancel: CancelToken
) -> Samples:
    """Samples of these ranges.

    Raises:
        DataError: one cannot be read.
        JobCancelled: `cancel` was set.
    """
    batches: list[Batch] = []
    for start, stop in blocks:
        cancel.raise_if_set()
        batches.extend(dataset.batches(stop - start, start=start, stop=stop))
    feed, axes = batches[0].feed, dict(dataset.sample_axes)
    scaled = {
        info.name: channel_axis(feed[info.name])
        for info in inputs
        if axes.get(info.name) == 0
        and np.dtype(info.dtype).kind == "f"
        and (len(inputs) == 1 or feed[info.name].ndim > 2)
    }
    indices = np.concatenate([np.arange(b.start, b.start + b.count) for b in batches])
    return Samples(tuple(batches), indices, axes, scaled, dataset.fixed_batch is not None)


def channel_axis(batch: NDArray[Any]) -> int | None:
    """Axis of the channels of a batch as a network gets it; None where there is none."""
    if batch.ndim == 2:
        return 1
    if batch.ndim != _PICTURE_RANK:
        return None
    return 1 if batch.shape[1] <= MAX_COLOUR_CHANNELS or batch.shape[-1] > MAX_COLOUR_CHANNELS else 3


def scaled_feed(batch: Batch, scaled: dict[str, int | None], transform: Transform) -> dict[str, NDArray[Any]]:
    """The batch with a transform's scale, mean, deviation and order of channels."""
    feed = dict(batch.feed)
    for name, channel in scaled.items():
        values = feed[name]
        std = np.asarray(transform.std, dtype=np.float64)
        factor = np.asarray(transform.scale / std, dtype=np.float32)
        offset = np.asarray(-np.asarray(transform.mean, dtype=np.float64) / std, dtype=np.float32)
        if channel is not None:
            shape = [1] * values.ndim
            shape[channel] = -1
            factor, offset = factor.reshape(shape), offset.reshape(shape)
            if transform.channels == "BGR":
                values = np.flip(values, axis=channel)
        feed[name] = np.ascontiguousarray(values * factor + offset, dtype=batch.feed[name].dtype)
    return feed


class Network:
    """A graph that runs.

    Args:
        model: The ONNX file, or its bytes.
        cancel: Ends what is going on.

    Raises:
        ModelLoadError: the runtime refuses it.
    """

    def __init__(self, model: Path | bytes, cancel: CancelToken) -> None:
        self.session: ort.InferenceSession = open_session(model, cancel=cancel)
        self._cancel = cancel

    def answers(
        self, samples: Samples, transform: Transform, output: str, axis: SampleAxis
    ) -> NDArray[np.generic]:
        """An output for samples with a transform, one row each.

        Args:
            samples: The samples.
            transform: What is done to their values.
            output: Name of the output.
            axis: Where the samples are in it.

        Raises:
            MeasureError: it does not run on them, or gives no row a sample.
            JobCancelled: the token was set.
        """
        rows = []
        for batch in samples.batches:
            (found,) = self.run(scaled_feed(batch, samples.scaled, transform), [output])
            rows.append(axis.rows(found, batch.held, batch.count, output))
        return stacked(rows)

    def run(self, feed: dict[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[np.generic]]:
        """Some outputs for one feed.

        Raises:
            MeasureError: it does not run.
            JobCancelled: the token was set.
        """
        return run(self.session, fitted_feed(self.session, feed), outputs, cancel=self._cancel)
