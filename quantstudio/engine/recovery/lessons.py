"""What tuning learns from: few samples, mixed into many, and what the float network answers to each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantstudio.core.events import CancelToken
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.recovery.distillation import BATCH, Distillation, feed_size, kept_batches
from quantstudio.engine.recovery.mixtures import Feed, mixed
from quantstudio.engine.recovery.walk import sample_sizes
from quantstudio.engine.torch_graph.module import TorchGraph

Tensor = torch.Tensor
# Part of the samples kept out of training, by which the best state is chosen.
HELD_OUT = 0.2


# Bytes of activations a step may hold, each tensor with its gradient and what rounding keeps for it, and
# multiplications of the network that all steps may take.
_STEP_BYTES, _COPIES, _WORK = 768 * 2**20, 3, 400_000_000_000


def samples_a_step(graph: Graph, steps: int) -> int:
    """Samples of a batch: fewer where one takes much memory, or much work in so many steps.

    By what the network is, not by the time it takes, so that a recipe gives the same bytes anywhere.
    """
    work = steps * sum(layer.macs or 0 for layer in graph.layers)
    return max(1, min(BATCH, samples_that_fit(graph), _WORK // max(work, 1)))


def samples_that_fit(graph: Graph) -> int:
    """Samples whose activations, with their gradients, a step of training may hold at once; at least one."""
    return max(1, _STEP_BYTES // max(4 * _COPIES * sum(sample_sizes(graph)), 1))


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch.

    Attributes:
        feed: Inputs.
        answers: What the float network answers, by place of the output.
    """

    feed: Feed
    answers: list[Tensor]


class Lessons:
    """Batches to train on, without end, and those that judge.

    A network that was fitted to these very samples looks better on them than on any others. Then samples are
    mixed in pairs, those that judge among themselves only; inputs that cannot be mixed, as tokens, come as
    they are.

    Args:
        dataset: The samples.
        samples: How many of them, at most.
        teacher: The float network.
        distillation: Which outputs are compared; it is told their variances.
        seed: For the order and the mixtures.
        is_fitted: Whether a step before was fitted to the samples.
        most: Most samples of a batch.
        cancel: Looked at between batches.

    Attributes:
        first: A batch that judges, as it is.
        held: The batches that judge.
        held_samples: Samples in these.
        are_mixed: Whether they are mixtures.

    Raises:
        DataError: too few samples.
        JobCancelled: `cancel` was set.
    """

    def __init__(
        self,
        dataset: Dataset,
        samples: int,
        teacher: TorchGraph,
        distillation: Distillation,
        seed: int,
        cancel: CancelToken,
        *,
        is_fitted: bool,
        most: int = BATCH,
    ) -> None:
        self._teacher, self._distillation = teacher, distillation
        self._axes = dataset.sample_axes
        self._generator = torch.Generator().manual_seed(seed)
        self._feeds = kept_batches(dataset, samples, HELD_OUT, cancel, most)
        held, trained = _parts(len(self._feeds))
        self._plain = self._lessons_of(self._feeds, cancel)
        distillation.set_scale([one.answers for one in self._plain])
        self.first = self._feeds[held[0]]
        self._order = _Order(trained, self._generator)
        pairs = zip(held, [*held[1:], held[0]], strict=True)
        mixtures = [self._mixed(one, other) for one, other in pairs if is_fitted]
        self.are_mixed = bool(mixtures) and None not in mixtures
        self.held = [one for one in mixtures if one] or [self._plain[place] for place in held]
        size, total = feed_size(dataset, samples, HELD_OUT, most), min(samples, len(dataset))
        self.held_samples = sum(min(size, total - place * size) for place in held)

    @property
    def judged_on(self) -> str:
        """What judges, in words."""
        kind = "mixtures of samples" if self.are_mixed else "samples"
        return f"{self.held_samples} {kind} kept out of training"

    def next(self) -> Lesson:
        """A batch to train on: all samples come before any comes again."""
        place = self._order.next()
        found = self._mixed(place, self._order.next()) if self.are_mixed else None
        return found or self._plain[place]

    def _mixed(self, place: int, other: int) -> Lesson | None:
        feed = mixed(self._feeds[place], self._feeds[other], self._axes, self._generator)
        return None if feed is None else Lesson(feed, self._answers(feed))

    def _lessons_of(self, feeds: Sequence[Feed], cancel: CancelToken) -> list[Lesson]:
        found = []
        for feed in feeds:
            cancel.raise_if_set()
            found.append(Lesson(feed, self._answers(feed)))
        return found

    def _answers(self, feed: Feed) -> list[Tensor]:
        asked = {name: feed[name] for name in self._teacher.input_names if name in feed}
        with torch.no_grad():
            found = self._teacher.run(asked, self._distillation.wanted)
        return [found[name] for name in self._distillation.wanted]


def _parts(count: int) -> tuple[list[int], list[int]]:
    """Batches kept out of training, evenly from the whole, and batches trained on."""
    number = max(1, round(HELD_OUT * count))
    held = sorted({math.floor((place + 0.5) * count / number) for place in range(number)})
    return held, [place for place in range(count) if place not in held]


class _Order:
    """Batches in random order, all of them once before any comes again."""

    def __init__(self, places: Sequence[int], generator: torch.Generator) -> None:
        self._places, self._generator = list(places), generator
        self._left: list[int] = []

    def next(self) -> int:
        if not self._left:
            self._left = torch.randperm(len(self._places), generator=self._generator).tolist()
        return self._places[self._left.pop()]
