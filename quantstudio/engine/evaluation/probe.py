"""A few samples through the base: what its outputs look like, and where the samples are in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.core.judgement import Judging
from quantstudio.engine.data.axes import batch_symbols, declared_axis, given_axis
from quantstudio.engine.evaluation.network_facts import NetworkFacts
from quantstudio.engine.evaluation.sample_axis import Array, SampleAxis, output_axis
from quantstudio.engine.graph.runtime import fitted_feed, run

if TYPE_CHECKING:
    import onnxruntime as ort


class BatchLike(Protocol):
    """Some samples by input name; only the first `count` of them are valid."""

    @property
    def feed(self) -> Mapping[str, NDArray[Any]]:
        """Arrays by input name."""

    @property
    def count(self) -> int:
        """Valid samples."""

    @property
    def start(self) -> int:
        """Index of the first."""

    @property
    def held(self) -> int:
        """Samples with those that fill the feed up."""


class DatasetLike(Protocol):
    """What judging and comparing need of a data set."""

    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.float32] | None:
        """Classes, targets or None."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; may be empty."""

    @property
    def segments(self) -> Mapping[str, NDArray[Any]]:
        """Other columns."""

    @property
    def fixed_batch(self) -> int | None:
        """Samples every feed has, where that is not ours to choose."""

    @property
    def sample_axes(self) -> Mapping[str, int]:
        """Axis of the samples by input."""

    @property
    def given_axes(self) -> Mapping[str, int]:
        """Axes the user named, by input or output."""

    @property
    def judging(self) -> Judging:
        """What the user said of the outputs."""

    @property
    def trusted(self) -> bool:
        """Whether code of the user may run."""

    @property
    def next_tokens(self) -> NDArray[np.int64] | None:
        """Of text, the token that follows each; None for other data."""

    def __len__(self) -> int: ...

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[BatchLike]:
        """Samples in order."""


class Probe:
    """Runs of a few samples of a data set.

    Args:
        session: The base.
        dataset: The samples.
        facts: What the base says of itself.
        cancel: Ends a run in progress, too.
    """

    def __init__(
        self, session: ort.InferenceSession, dataset: DatasetLike, facts: NetworkFacts, cancel: CancelToken
    ) -> None:
        self._session = session
        self._dataset = dataset
        self._facts = facts
        self._cancel = cancel

    @cached_property
    def first(self) -> BatchLike:
        """The first samples: two, or as many as the model insists on.

        Raises:
            MeasureError: the data holds no samples.
        """
        found = next(iter(self._dataset.batches(2, stop=min(2, len(self._dataset)))), None)
        if found is None:
            raise MeasureError("the data holds no samples")
        return found

    @cached_property
    def outputs(self) -> dict[str, Array]:
        """Every output that is a tensor, for the first samples.

        Raises:
            MeasureError: the model does not run on the data.
        """
        return self._run(self.first.feed)

    @cached_property
    def axes(self) -> dict[str, SampleAxis]:
        """Where the samples are in each output."""
        large = self._one_more()
        symbols = batch_symbols(self._facts.inputs)
        declared = {facts.name: declared_axis(facts.info, symbols) for facts in self._facts.outputs}
        return {
            name: output_axis(
                output,
                None if large is None else large.get(name),
                self.first.held,
                declared=declared.get(name),
                named=given_axis(name, output.ndim, self._dataset.given_axes),
            )
            for name, output in self.outputs.items()
        }

    @cached_property
    def rows(self) -> dict[str, Array]:
        """Every output of the first samples, samples first."""
        held, count = self.first.held, self.first.count
        return {name: self.axes[name].rows(array, held, count, name) for name, array in self.outputs.items()}

    def values(self, name: str, samples: int) -> Array:
        """One output of more samples, flattened."""
        parts = []
        for batch in self._dataset.batches(2, stop=min(samples, len(self._dataset))):
            found = self._run(batch.feed)[name]
            parts.append(self.axes[name].rows(found, batch.held, batch.count, name).reshape(-1))
        return np.concatenate(parts)

    def is_causal(self, name: str, tolerance: float) -> bool:
        """Whether no position of an output sees the tokens behind it: the last one is changed and looked for.

        Where it shows, as in an encoder, what an output says of the next token was read off the page.
        """
        ids = next(iter(self._dataset.sample_axes))
        feed = dict(self.first.feed)
        changed = np.array(feed[ids])
        changed[..., -1] = np.where(
            changed[..., -1] == changed[..., 0], changed[..., -1] // 2, changed[..., 0]
        )
        before = np.asarray(self.outputs[name], np.float64)
        after = np.asarray(self._run({**feed, ids: changed})[name], np.float64)
        apart = np.abs(after - before)[..., :-1, :].max(initial=0.0)
        return bool(apart <= tolerance * max(np.abs(before).max(initial=0.0), 1e-12))

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of each input."""
        axes = self._dataset.sample_axes
        return {
            name: tuple(n for k, n in enumerate(array.shape) if k != axes.get(name, -1))
            for name, array in self.first.feed.items()
        }

    def _one_more(self) -> dict[str, Array] | None:
        """Outputs for one sample more, the last repeated; None where the batch size is fixed."""
        if self._dataset.fixed_batch is not None:
            return None
        feed = dict(self.first.feed)
        index = [*range(self.first.held), self.first.held - 1]
        for name, axis in self._dataset.sample_axes.items():
            if name in feed:
                feed[name] = np.take(feed[name], index, axis=axis)
        try:
            return self._run(feed)
        except MeasureError:  # a model whose batch size is fixed though it says otherwise
            return None

    def _run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
        names = [output.name for output in self._session.get_outputs()]
        found = run(self._session, fitted_feed(self._session, feed), names, cancel=self._cancel)
        return {n: value for n, value in zip(names, found, strict=True) if isinstance(value, np.ndarray)}
