"""Samples in random order: what is trained on, and what is kept out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from quantstudio.core.errors import DataError
from quantstudio.core.events import CancelToken
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.data.dataset import Dataset

Tensor = torch.Tensor
Feed = dict[str, Tensor]

# Part of the samples kept out of training, and the most of them.
HELD_OUT, MOST_HELD = 0.05, 2000
# Bytes of samples that are kept in memory, made into what the network reads; more are read again each time.
_KEPT_BYTES = 1 << 30
_READ = 256


@dataclass(frozen=True, slots=True)
class Picked:
    """Some samples.

    Attributes:
        places: Their numbers in the data.
        feed: What the network reads.
        labels: Their labels; None without.
    """

    places: list[int]
    feed: Feed
    labels: Tensor | None


class Samples:
    """Samples of a data set by number.

    Args:
        dataset: The data.
        count: How many, from the first; 0 for all.
        batch: Samples of a step.
        device: Where they are needed.
        cancel: Looked at while they are read.

    Attributes:
        held: Numbers of the samples that only judge, evenly from the whole.
        trained: Numbers of the others.
        batch: Samples of a step: what the model insists on, if it does.

    Raises:
        DataError: there are too few to keep some out of training.
        JobCancelled: `cancel` was set.
    """

    def __init__(
        self, dataset: Dataset, count: int, batch: int, device: torch.device, cancel: CancelToken
    ) -> None:
        self._dataset, self._device = dataset, device
        total = min(count, len(dataset)) if count else len(dataset)
        fixed = dataset.fixed_batch or 1
        held = max(1, min(math.ceil(HELD_OUT * total / fixed), MOST_HELD // fixed))
        units = total // fixed
        if units < 2:
            raise DataError(
                f"{total} samples are too few to train on: some are kept out to judge",
                hint=Hint(
                    "Give at least two batches of samples, better some thousand", HintAction.CHOOSE_DATA
                ),
            )
        places = {math.floor((place + 0.5) * units / held) for place in range(held)}
        # A network with a batch of its own is fed whole batches as they lie in the data.
        groups = [range(unit * fixed, (unit + 1) * fixed) for unit in range(units)]
        self._groups = dict(enumerate(groups))
        self.held = [place for unit in sorted(places) for place in groups[unit]]
        self.trained = [unit for unit in range(units) if unit not in places]
        self.batch = dataset.fixed_batch or max(1, min(batch, len(self.trained)))
        self._kept: Feed | None = None
        self._labels = None if dataset.labels is None else torch.from_numpy(np.asarray(dataset.labels))
        if dataset.next_tokens is not None:
            self._labels = torch.from_numpy(np.asarray(dataset.next_tokens))
        if not dataset.fixed_batch:
            self._keep(total, cancel)

    @property
    def is_fixed(self) -> bool:
        """Whether the model insists on the batch."""
        return bool(self._dataset.fixed_batch)

    def steps(self, epochs: float) -> int:
        """Steps that so many epochs have."""
        each = 1 if self._dataset.fixed_batch else self.batch
        return max(1, round(epochs * len(self.trained) / each))

    def pick(self, places: list[int]) -> Picked:
        """Samples by number.

        Raises:
            DataError: one cannot be read.
        """
        if self._kept is not None:
            index = torch.tensor(places)
            axes = self._dataset.sample_axes
            feed = {
                name: value.index_select(axes[name], index) if name in axes else value
                for name, value in self._kept.items()
            }
        else:
            feed = self._read(places)
        feed = {name: value.to(self._device) for name, value in feed.items()}
        labels = None if self._labels is None else self._labels[places].to(self._device)
        return Picked(places, feed, labels)

    def held_batches(self, size: int) -> list[list[int]]:
        """Numbers of the samples that judge, in batches."""
        size = self._dataset.fixed_batch or size
        return [self.held[start : start + size] for start in range(0, len(self.held), size)]

    def places_of(self, step: int, seed: int) -> list[int]:
        """The samples of a step, counted from 0: all of them once in every epoch, in an order of its own.

        It depends on nothing but its arguments, so that a training goes on where it was.
        """
        each = 1 if self._dataset.fixed_batch else self.batch
        found: list[int] = []
        position = step * each
        while len(found) < each:
            epoch, start = divmod(position, len(self.trained))
            order = self._order(epoch, seed)
            taken = order[start : start + each - len(found)]
            found += taken
            position += len(taken)
        return [place for unit in found for place in self._groups[unit]]

    def _order(self, epoch: int, seed: int) -> list[int]:
        if getattr(self, "_ordered", None) != (epoch, seed):
            generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
            order = torch.randperm(len(self.trained), generator=generator).tolist()
            self._ordered, self._today = (epoch, seed), [self.trained[place] for place in order]
        return self._today

    def _keep(self, total: int, cancel: CancelToken) -> None:
        """Read them all at once, where that is not too much."""
        first = next(self._dataset.batches(1))
        axes = self._dataset.sample_axes
        each = sum(array.nbytes for name, array in first.feed.items() if name in axes)
        if each * total > _KEPT_BYTES:
            return
        parts: dict[str, list[Tensor]] = {}
        for batch in self._dataset.batches(_READ, stop=total):
            cancel.raise_if_set()
            for name, array in batch.feed.items():
                if name in axes or name not in parts:
                    parts.setdefault(name, []).append(torch.tensor(array))
        self._kept = {
            name: torch.cat(found, axes[name]) if name in axes else found[0] for name, found in parts.items()
        }

    def _read(self, places: list[int]) -> Feed:
        if self._dataset.fixed_batch:
            batch = next(self._dataset.batches(1, start=places[0], stop=places[-1] + 1))
            return {name: torch.tensor(array) for name, array in batch.feed.items()}
        axes = self._dataset.sample_axes
        feeds = [next(self._dataset.batches(1, start=place, stop=place + 1)).feed for place in places]
        return {
            name: torch.tensor(
                np.concatenate([feed[name] for feed in feeds], axes[name]) if name in axes else value
            )
            for name, value in feeds[0].items()
        }
