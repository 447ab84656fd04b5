"""The training behind `qat`, `distill` and `finetune`: steps, looks, the best state, stands on disk."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.errors import DataError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.trained import TrainingPoint
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.recovery.adam import Adam
from quantstudio.engine.recovery.mixtures import mixed
from quantstudio.engine.training.augmentation import augmented
from quantstudio.engine.training.checkpoints import Checkpoint, Stand, in_order, named
from quantstudio.engine.training.objective import Objective
from quantstudio.engine.training.samples import Feed, Picked, Samples
from quantstudio.engine.training.schedule import Schedule
from quantstudio.engine.training.students import Student

Tensor = torch.Tensor
# Samples of a look, seconds between stands on disk.
_LOOK_BATCH, _BETWEEN_STANDS_S = 250, 45.0
# A look keeps no gradients: it takes so many times the samples of a step.
_LOOKED_AT = 4


@dataclass(frozen=True, slots=True)
class Changes:
    """What is done to samples before they are trained on.

    Attributes:
        flip: Whether pictures are mirrored.
        crop: Pixels they are moved by.
        mix: Whether samples are mixed in pairs, whose answers the teacher gives.
    """

    flip: bool = False
    crop: int = 0
    mix: bool = False

    @property
    def are_none(self) -> bool:
        """Whether samples stay as they are."""
        return not (self.flip or self.crop or self.mix)


@dataclass(slots=True)
class _Best:
    loss: float
    step: int
    state: list[Tensor]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to.

    Attributes:
        best_step: Steps before the best state; 0 where none was better than the beginning.
        done: Steps that were done.
        curve: What was seen on the way.
        note: Why it ended before its time; empty where it did not.
        stopped: Whether it was ended by hand.
    """

    best_step: int
    done: int
    curve: tuple[TrainingPoint, ...]
    note: str = ""
    stopped: bool = False


class Training:
    """One training under way; its student is left in the best state.

    Args:
        student: The network.
        objective: What it is trained for.
        samples: What it is trained on.
        schedule: How long, and how.
        rate: Largest learning rate.
        changes: What is done to samples.
        context: Seed, and key of the step for the stand on disk.
        at_once: Samples whose activations may be in memory together: a batch is added up from so many.
        label: What is being done, for a person.
        reporter: Told of progress, and of every look.
        cancel: Looked at before every step.
    """

    def __init__(
        self,
        student: Student,
        objective: Objective,
        samples: Samples,
        schedule: Schedule,
        *,
        rate: float,
        changes: Changes,
        context: StepContext,
        at_once: int,
        label: str,
        reporter: Reporter,
        cancel: CancelToken,
    ) -> None:
        self._at_once, self._look_size = at_once, min(_LOOK_BATCH, _LOOKED_AT * at_once)
        self._student, self._objective, self._samples = student, objective, samples
        self._schedule, self._changes, self._label = schedule, changes, label
        self._axes = context.dataset.sample_axes
        self._seed = context.seed
        self._reporter, self._cancel = reporter, cancel
        self._checkpoint = Checkpoint(context.key)
        self._parameters = [one for group in student.groups for one in group.tensors]
        self._optimizer = Adam(*((group.tensors, rate * group.rate) for group in student.groups))
        self._answers: dict[int, list[Tensor]] = {}
        self._curve: list[TrainingPoint] = []
        self._losses: list[float] = []
        self._done = 0
        self._note = ""
        self._stopped = False

    def run(self) -> Trained:
        """Train, and leave the student in the best state.

        Raises:
            DataError: outputs are not finite before the first step.
            MeasureError: the user's loss fails.
            JobCancelled: `cancel` was set; where it stands is kept.
        """
        self._held = [self._samples.pick(places) for places in self._samples.held_batches(self._look_size)]
        self._held_answers = [self._ask(picked.feed) for picked in self._held]
        self._objective.set_scale(self._held_answers)
        self._float_right = self._original_right()
        found = self._resumed()
        if found is None:
            best, done = self._begin(), 0
        else:
            best, done = found
        try:
            done = self._train(best, done)
        except BaseException:
            self._keep(best, self._done)
            raise
        self._restore(best.state)
        self._student.refresh()
        self._checkpoint.forget()
        return Trained(best.step, done, tuple(self._curve), self._note, self._stopped)

    def _begin(self) -> _Best:
        before, right = self._look()
        if not math.isfinite(before):
            raise DataError(
                "the network's outputs are not finite on the data before anything was trained",
                hint=Hint("Choose other data, or other precisions", HintAction.CHOOSE_DATA),
            )
        self._tell(0, None, before, right, is_best=True)
        return _Best(before, 0, self._state())

    def _train(self, best: _Best, done: int) -> int:
        schedule, last = self._schedule, self._schedule.last
        self._done, kept = done, time.monotonic()
        if done and self._is_due(done) and self._curve[-1].done < done:
            self._look_at(done, best)  # the run before was ended in the middle of this look
        for step in range(done + 1, last + 1):
            self._cancel.raise_if_set()
            if self._cancel.is_asked_to_finish:
                self._stopped = True
                self._note = f" Ended by hand behind step {step - 1} of {schedule.steps}."
                if self._curve[-1].done < step - 1:
                    self._look_at(step - 1, best)
                break
            self._reporter.progress(step - 1, last, "steps", self._label)
            loss = self._step(step)
            if not math.isfinite(loss):
                self._note = f" Stopped at step {step}: the loss was no longer a number{self._where()}."
                break
            self._losses.append(loss)
            self._done = step
            if self._is_due(step):
                self._look_at(step, best)
                if schedule.is_stuck(step, best.step):
                    self._note = (
                        f" Stopped at step {step}: {schedule.patience:g} epochs brought nothing better."
                    )
                    break
            if time.monotonic() - kept > _BETWEEN_STANDS_S:
                self._keep(best, step)
                kept = time.monotonic()
        self._reporter.progress(last, last, "steps", self._label)
        return self._done

    def _is_due(self, step: int) -> bool:
        return step % self._schedule.between_looks == 0 or step == self._schedule.last

    def _look_at(self, step: int, best: _Best) -> None:
        """Look at the samples kept out, and keep the state where it is the best."""
        held, right = self._look()
        is_better = held < best.loss
        if is_better:
            best.loss, best.step, best.state = held, step, self._state()
        self._tell(step, sum(self._losses) / max(len(self._losses), 1), held, right, is_best=is_better)
        self._losses.clear()

    def _step(self, step: int) -> float:
        """One step down the gradients of a batch, some samples of it at a time where memory is short."""
        places, total = self._samples.places_of(step - 1, self._seed), 0.0
        size = len(places) if self._samples.is_fixed else self._at_once
        for start in range(0, len(places), size):
            part = self._samples.pick(places[start : start + size])
            picked, answers = self._changed(part, step, start)
            self._student.refresh()
            found = self._student.run(picked.feed, self._objective.outputs)
            loss = self._objective.loss(found, answers, picked) * (len(picked.places) / len(places))
            total += float(loss.detach())
            if not math.isfinite(total):
                return total
            torch.autograd.backward(loss)
        self._optimizer.step(self._schedule.share_of_rate(step))
        return total

    def _changed(self, picked: Picked, step: int, start: int) -> tuple[Picked, list[Tensor]]:
        """Samples as they are trained on, with the teacher's answers to them."""
        changes = self._changes
        if changes.are_none:
            return picked, self._kept_answers(picked)
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + step + (start << 40)) % (1 << 62))
        feed = augmented(
            picked.feed,
            self._axes,
            flip=changes.flip,
            crop=changes.crop,
            generator=generator,
        )
        if changes.mix:
            feed = mixed(feed, feed, self._axes, generator) or feed
        return replace(picked, feed=feed), self._ask(feed)

    def _kept_answers(self, picked: Picked) -> list[Tensor]:
        """The teacher's answers, kept from epoch to epoch where they are few numbers."""
        if not self._objective.is_distilled:
            return []
        if any(place not in self._answers for place in picked.places):
            answers = self._ask(picked.feed)
            count = len(picked.places)
            if not all(len(one) == count and one[0].numel() <= _FEW_NUMBERS for one in answers):
                return answers
            for row, place in enumerate(picked.places):
                self._answers[place] = [one[row] for one in answers]
            return answers
        rows = [self._answers[place] for place in picked.places]
        return [torch.stack(column) for column in zip(*rows, strict=True)]

    def _ask(self, feed: Feed) -> list[Tensor]:
        return self._objective.answers(feed)

    # Looks.

    def _look(self) -> tuple[float, float | None]:
        """Loss and share of right answers on the samples kept out."""
        losses, counts = [], []
        with torch.no_grad():
            self._student.refresh()
            shares = []
            for picked, answers in zip(self._held, self._held_answers, strict=True):
                self._cancel.raise_if_set()
                found = self._student.run(picked.feed, self._objective.outputs)
                losses.append(float(self._objective.loss(found, answers, picked)))
                shares.append(self._objective.right(found, answers, picked))
                counts.append(len(picked.places))
        return _mean(losses, counts), _mean_known(shares, counts)

    def _original_right(self) -> float | None:
        """Share of right answers of the original network on the samples kept out."""
        counts = [len(picked.places) for picked in self._held]
        shares = [
            self._objective.float_right(answers, picked)
            for picked, answers in zip(self._held, self._held_answers, strict=True)
        ]
        return _mean_known(shares, counts)

    def _tell(
        self, done: int, loss: float | None, held: float, right: float | None, *, is_best: bool
    ) -> None:
        point = TrainingPoint(
            done=done,
            steps=self._schedule.steps,
            epochs=self._schedule.epochs_of(done),
            loss=loss,
            held_loss=held if math.isfinite(held) else float(np.finfo(np.float32).max),
            right=right,
            float_right=self._float_right,
            is_best=is_best,
            is_labelled=self._objective.judges_by_labels,
        )
        self._curve.append(point)
        self._reporter.found(point)

    def _where(self) -> str:
        """Where numbers stopped being finite, in words."""
        broken = next(
            (
                name
                for group in self._student.groups
                for name, one in zip(group.layers, group.tensors, strict=True)
                if not bool(torch.isfinite(one).all())
            ),
            "",
        )
        if broken:
            return f"; it begins in the weights of {broken}"
        picked = self._held[0]
        with torch.no_grad():
            self._student.refresh()
            for name, value in self._student.record(picked.feed).items():
                if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                    return f"; it begins at the output {name}"
        return ""

    # States.

    def _state(self) -> list[Tensor]:
        return [one.detach().clone() for one in self._parameters]

    def _restore(self, state: list[Tensor]) -> None:
        with torch.no_grad():
            for one, kept in zip(self._parameters, state, strict=True):
                one.copy_(kept)

    def _keep(self, best: _Best, step: int) -> None:
        means, squares = self._optimizer.moments
        arrays: dict[str, NDArray[np.generic]] = {
            **named("now", _arrays(self._parameters)),
            **named("mean", _arrays(means)),
            **named("square", _arrays(squares)),
            **named("best", _arrays(best.state)),
        }
        losses = tuple(self._losses)
        self._checkpoint.write(Stand(step, best.step, best.loss, losses, tuple(self._curve), arrays))

    def _resumed(self) -> tuple[_Best, int] | None:
        stand = self._checkpoint.read()
        if stand is None:
            return None
        now, mean, square, best = (
            [torch.from_numpy(np.array(one)) for one in in_order(name, stand.arrays)]
            for name in ("now", "mean", "square", "best")
        )
        shapes = [one.shape for one in self._parameters]
        if any([one.shape for one in part] != shapes for part in (now, mean, square, best)):
            return None
        self._restore(now)
        self._optimizer.resume(stand.step, mean, square)
        self._losses = list(stand.losses)
        for point in stand.curve:
            self._curve.append(point)
            self._reporter.found(point)
        self._reporter.message(f"{self._label}: goes on behind step {stand.step}")
        device = self._parameters[0].device
        return _Best(stand.best_loss, stand.best_step, [one.to(device) for one in best]), stand.step


# Numbers of one answer that are kept from epoch to epoch.
_FEW_NUMBERS = 2000


def summary_of(trained: Trained, samples: Samples, objective: Objective) -> str:
    """What a training did, one line for a person."""
    what = "labels" if objective.uses_labels else ""
    asked = "the original network's answers" if objective.is_distilled else ""
    aims = " and ".join(one for one in (what, asked) if one) or "the loss that was given"
    first = trained.curve[0]
    if trained.best_step == 0:
        return (
            f"Changed nothing: no state was better than a loss of {first.held_loss:.3g} on "
            f"{counted(len(samples.held), 'sample')} kept out of training.{trained.note}"
        )
    best = next(point for point in reversed(trained.curve) if point.is_best)
    right = ""
    if first.right is not None and best.right is not None:
        kind = "right" if objective.judges_by_labels else "as the original network's"
        right = f", answers {kind} from {100 * first.right:.2f} to {100 * best.right:.2f} %"
    return (
        f"Trained for {best.epochs:.3g} epochs of {counted(len(samples.trained), 'sample')} towards {aims}: "
        f"on {len(samples.held)} kept out the loss fell from {first.held_loss:.3g} to {best.held_loss:.3g}"
        f"{right}.{trained.note}"
    )


def _arrays(tensors: list[Tensor]) -> list[NDArray[np.generic]]:
    return [one.detach().cpu().numpy() for one in tensors]


def _mean(values: list[float], counts: list[int]) -> float:
    return sum(one * count for one, count in zip(values, counts, strict=True)) / sum(counts)


def _mean_known(values: list[float | None], counts: list[int]) -> float | None:
    known = [one for one in values if one is not None]
    return _mean(known, counts) if len(known) == len(values) else None
