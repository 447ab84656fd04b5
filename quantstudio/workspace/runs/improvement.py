"""What each step of the recipe wins: measured behind one after the other, and layer by layer as steps run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from quantstudio.core.codec import from_json
from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import Part
from quantstudio.core.figures import size
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.core.recovered import LayerRecovered, StepBegun, StepTried, recovered_layers
from quantstudio.core.results import QuantizeResult
from quantstudio.core.signals import Signal
from quantstudio.core.steps import Need, Step, StepInfo
from quantstudio.core.trained import TrainingPoint, training_curve
from quantstudio.core.variants import Variant
from quantstudio.jobs.queue import JobQueue, Work
from quantstudio.jobs.rows import JobRow
from quantstudio.jobs.spec import JobSpec
from quantstudio.workspace.edits import Edits
from quantstudio.workspace.known import Known
from quantstudio.workspace.names import step_labels
from quantstudio.workspace.runs import job_specs
from quantstudio.workspace.runs.builds import keep_build
from quantstudio.workspace.runs.runs import Runs, new_group
from quantstudio.workspace.subject import Subject

UNCHANGED = "no steps"


@dataclass(frozen=True, slots=True)
class Stage:
    """The recipe up to one of its steps.

    Attributes:
        label: Of that step; "no steps" for the precisions alone.
        recipe: The recipe with the steps that are run by then.
        variant: What was built of it, with what was measured; None before.
    """

    label: str
    recipe: Recipe
    variant: Variant | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a recovery was sent off with."""

    subject: Subject
    recipe: Recipe
    plan: str
    statistics: str


@dataclass(frozen=True, slots=True)
class Trial:
    """Steps that were tried of themselves.

    Attributes:
        tried: The recipe as it was, then each step that was tried, in this order.
        recipes: What was tried on, and what came of it once that is known.
        seconds: What they had.
        untried: How many there was no time for, once all is over.
    """

    tried: tuple[StepTried, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    seconds: float = 0.0
    untried: int = 0

    @property
    def has_all(self) -> bool:
        """Whether it ended because nothing was left to win."""
        left = [one.after for one in self.tried if one.is_kept]
        return bool(left) and left[-1] == 0 and self.untried > 0

    @property
    def is_over(self) -> bool:
        """Whether it came to its end."""
        return len(self.recipes) > 1


class Improvement:
    """What is known of the steps of the recipe, and the work that finds it out.

    Attributes:
        changed: Any of it is different.
    """

    def __init__(self, known: Known, edits: Edits, runs: Runs, jobs: JobQueue) -> None:
        self.changed: Signal[[]] = Signal()
        self._known = known
        self._edits = edits
        self._runs = runs
        self._jobs = jobs
        self._parts: tuple[Recipe, ...] = ()
        self._parts_of: tuple[Recipe, Sequence[StepInfo]] | None = None
        self._told: dict[tuple[Step, ...], dict[str, LayerRecovered]] = {}
        self._curves: dict[tuple[Step, ...], tuple[TrainingPoint, ...]] = {}
        self._running: tuple[str, tuple[Step, ...], int] | None = None
        self._job_ids: tuple[str, ...] = ()
        self._trial = Trial()
        runs.build_told.connect(self._on_told)
        known.model_changed.connect(self._told.clear)
        known.model_changed.connect(self._curves.clear)
        known.data_changed.connect(self._curves.clear)
        known.model_changed.connect(self._forget_trial)
        known.data_changed.connect(self._told.clear)

    # What is known.

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The recipe without steps, then behind each that is on; the last is the recipe itself."""
        known = self._known
        labels = (UNCHANGED, *step_labels([one.name for one in running_steps(known.recipe)], known.steps))
        recipes = self._recipes()
        return tuple(
            Stage(label, recipe, known.variant_of(recipe))
            for label, recipe in zip(labels, recipes, strict=True)
        )

    @property
    def is_measured(self) -> bool:
        """Whether every stage is."""
        return all(one.variant is not None and one.variant.result is not None for one in self.stages)

    @property
    def running_step(self) -> int | None:
        """Which of the steps that are on runs now; their number while what comes of them is quantized."""
        running, row = self._running, self._jobs.running
        if running is None or row is None or row.job_id != running[0]:
            return None
        steps = running_steps(self._known.recipe)
        return running[2] if steps[: len(running[1])] == running[1] else None

    def layers(self, step: int) -> tuple[LayerRecovered, ...]:
        """Every layer before and behind a step that is on, as far as that is known; `step` counts those."""
        steps = running_steps(self._known.recipe)
        told = self._told.get(steps[: step + 1])
        if told:
            return tuple(told.values())
        variant = self._known.current_variant
        done = variant.build.steps if variant is not None and variant.build is not None else ()
        is_there = step < min(len(done), len(steps)) and done[step].name == steps[step].name
        return recovered_layers(done[step].details) if is_there else ()

    def curve(self, step: int) -> tuple[TrainingPoint, ...]:
        """How the training of a step that is on goes, or went; empty where it does not train."""
        steps = running_steps(self._known.recipe)
        told = self._curves.get(steps[: step + 1])
        if told:
            return told
        variant = self._known.current_variant
        done = variant.build.steps if variant is not None and variant.build is not None else ()
        is_there = step < min(len(done), len(steps)) and done[step].name == steps[step].name
        return training_curve(done[step].details) if is_there else ()

    @property
    def candidates(self) -> tuple[StepInfo, ...]:
        """Steps that might help and are not in the recipe: all that recover and need no labels."""
        have = {step.name for step in self._known.recipe.steps}
        return tuple(
            info
            for info in self._known.steps
            if info.name not in have and info.group.recovers and Need.LABELS not in info.needs
        )

    @property
    def trial(self) -> Trial | None:
        """What is known of the steps that were tried last, while the recipe is theirs; None without any."""
        return self._trial if self._trial.tried and self._known.recipe in self._trial.recipes else None

    @property
    def job(self) -> JobRow | None:
        """What was started here and waits or runs; the one that runs first."""
        rows = [row for name in self._job_ids if (row := self._jobs.row(name)) and not row.state.is_final]
        running = self._jobs.running
        return next((row for row in rows if running and row.job_id == running.job_id), next(iter(rows), None))

    # What the user does.

    def measure_steps(self) -> None:
        """Build the recipe up to each of its steps, what is built left out, and measure them all at once."""
        group, known = new_group(), self._known
        before = {row.job_id for row in self._jobs.rows}
        self._runs.describe_steps(group)
        self._runs.add_calibration(group)
        stages = self.stages
        for stage in stages[:-1]:
            end = f"{'up to ' * (stage.label != UNCHANGED)}{stage.label}"
            self._runs.add_build(group, of=stage.recipe, name=f"{known.active_plan}, {end}")
        self._runs.add_build(group)
        self._runs.add_measurement(group, variants=lambda: {known.key_of(stage.recipe) for stage in stages})
        self._follow(before)

    def recover(self, seconds: float) -> None:
        """Try steps that are not in the recipe; those that measure better are added, as one undo step.

        What they were tried on is a part of the calibration data: what comes of it is measured afterwards.
        """
        group = new_group()
        before = {row.job_id for row in self._jobs.rows}
        self._runs.describe_steps(group)
        self._runs.add_calibration(group)
        asked: list[_Asked] = []
        made: set[str] = set()

        def make() -> JobSpec:
            known = self._known
            subject, data, recipe = known.subject, known.calibration_data, known.recipe
            if subject is None or data is None:
                raise CalibrationError(
                    "recovering needs a model and data", hint=Hint("Choose data", HintAction.CHOOSE_DATA)
                )
            file = known.statistics_file_of(recipe)
            path, digest = (file.path, file.digest) if file is not None else ("", "")
            asked.append(_Asked(subject, recipe, known.active_plan, digest))
            steps = [Step(info.name) for info in self.candidates]
            self._trial = Trial(recipes=(recipe,), seconds=seconds)
            return job_specs.quantize_job(
                subject.model,
                recipe,
                output=job_specs.variant_path(subject.model, recipe, digest, "recovered"),
                statistics=path,
                data=data,
                candidates=steps,
                seconds=seconds,
            )

        def finished(result: QuantizeResult) -> str:
            known, sent, trial = self._known, asked[-1], self._trial
            untried = len(self.candidates) + 1 - len(trial.tried)
            self._trial = replace(trial, recipes=(sent.recipe, result.recipe), untried=untried)
            keep_build(known, sent.subject, result.build, result.recipe, sent.plan, sent.statistics)
            made.add(known.key_of(result.recipe))
            if known.recipe == sent.recipe != result.recipe:  # whoever went on editing keeps the screen
                self._edits.set_recipe(result.recipe, "Recover automatically")
            return f"{result.build.preset} {size(result.build.size_bytes)}".strip()

        reads = partial(from_json, QuantizeResult)
        title = "Recover automatically"
        self._jobs.add(
            Work("recover", title, make, finished, on_part=self._on_tried, group=group, reads=reads)
        )
        self._runs.add_measurement(group, variants=lambda: made)
        self._follow(before)

    @property
    def can_keep(self) -> bool:
        """Whether a training runs that has been looked at: it can be ended with the best it has."""
        step = self.running_step
        return step is not None and bool(self.curve(step))

    def keep_best(self) -> None:
        """End the training that runs with the best state it has; the recipe says where it ended."""
        running = self._jobs.running
        if self.can_keep and running is not None:
            self._jobs.finish(running.job_id)

    def cancel(self) -> None:
        """Stop what was started here; what is finished of it stays."""
        row = self.job
        if row is not None:
            self._jobs.cancel(row.job_id)

    # Inside.

    def _recipes(self) -> tuple[Recipe, ...]:
        """The same objects while the recipe is the same: what they come to is looked up by identity."""
        recipe, steps = self._known.recipe, self._known.steps
        of = self._parts_of
        if of is None or of[0] is not recipe or of[1] is not steps:
            on = running_steps(recipe)
            self._parts = (*(replace(recipe, steps=on[:count]) for count in range(len(on))), recipe)
            self._parts_of = (recipe, steps)
        return self._parts

    def _follow(self, before: set[str]) -> None:
        self._job_ids = tuple(row.job_id for row in self._jobs.rows if row.job_id not in before)
        self.changed.emit()

    def _forget_trial(self) -> None:
        self._trial = Trial()

    def _on_tried(self, part: Part) -> None:
        if isinstance(part, StepTried):
            self._trial = replace(self._trial, tried=(*self._trial.tried, part))
            self.changed.emit()

    def _on_told(self, recipe: Recipe, part: Part) -> None:
        steps = running_steps(recipe)
        match part:
            case StepBegun():
                row = self._jobs.running
                self._running = (row.job_id if row is not None else "", steps, part.step)
                if part.name:
                    self._told.pop(steps[: part.step + 1], None)
                    self._curves.pop(steps[: part.step + 1], None)
            case LayerRecovered():
                self._told.setdefault(steps[: part.step + 1], {})[part.layer] = part
            case TrainingPoint():
                trained = steps[: part.step + 1]
                self._curves[trained] = (*self._curves.get(trained, ()), part)
            case _:
                return
        self.changed.emit()


def running_steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of a recipe that are on."""
    return tuple(step for step in recipe.steps if step.is_on)
