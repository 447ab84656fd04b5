"""Recipes as they are resolved for what is open: their plans, and the graphs these are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from quantstudio.core.effective_plan import EffectivePlan, fitting
from quantstudio.core.findings import variant_key
from quantstudio.core.recipe import CalibrationSettings, Recipe
from quantstudio.core.steps import Step, StepInfo, changing_steps, filled_in, steps_before
from quantstudio.workspace.subject import Subject

MAX_KEPT = 1000

GroundKey = tuple[str, tuple[Step, ...], str]


@dataclass(frozen=True, slots=True)
class Ground:
    """What the precisions of a recipe are chosen on: a graph that is the same whatever the layers become.

    Attributes:
        graph: Stands for the graph in keys; its digest where no step comes before the precisions.
        steps: The steps that were run by then.
        later: Steps that look at the precisions, and what comes after those.
        changing: Names of steps that were run and change what the float network computes.
        target: What the precisions are for.
        calibration: How ranges are chosen; searches are about plans that share it.
    """

    graph: str = ""
    steps: tuple[Step, ...] = ()
    later: tuple[Step, ...] = ()
    changing: tuple[str, ...] = ()
    target: str = ""
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)

    @property
    def kept(self) -> Recipe:
        """What the plans of a search share besides their steps."""
        return Recipe(target=self.target, calibration=self.calibration)

    @property
    def key(self) -> GroundKey:
        """Tells one from another."""
        return self.graph, self.later, self.target


@dataclass(slots=True)
class _Resolved:
    recipe: Recipe
    ground: Ground
    plan: EffectivePlan | None
    keys: dict[str, str]


class ResolvedRecipes:
    """Plans, grounds and keys by recipe. Views ask on every redraw; each is worked out once, in milliseconds.

    Everything is forgotten where the model, the data or what is known of steps is another.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Resolved] = {}
        self._of: tuple[Subject | None, Sequence[StepInfo]] = (None, ())

    def ground(self, subject: Subject, steps: Sequence[StepInfo], recipe: Recipe) -> Ground:
        """What the precisions of a recipe are chosen on."""
        return self._get(subject, steps, recipe).ground

    def plan(self, subject: Subject, steps: Sequence[StepInfo], recipe: Recipe) -> EffectivePlan | None:
        """What a recipe comes to; None where it does not fit the model."""
        return self._get(subject, steps, recipe).plan

    def key(self, subject: Subject, steps: Sequence[StepInfo], recipe: Recipe, statistics: str) -> str:
        """Key of the variant a recipe gives with the statistics of that digest."""
        found = self._get(subject, steps, recipe)
        if statistics not in found.keys:
            found.keys[statistics] = variant_key(subject.model.digest, recipe, found.plan, statistics)
        return found.keys[statistics]

    def _get(self, subject: Subject, steps: Sequence[StepInfo], recipe: Recipe) -> _Resolved:
        if self._of[0] is not subject or self._of[1] is not steps or len(self._known) > MAX_KEPT:
            self._known.clear()
            self._of = (subject, steps)
        # The recipe is kept with what it comes to, so that a new one at its address is not taken for it.
        found = self._known.get(id(recipe))
        if found is None or found.recipe is not recipe:
            # A default that is left out and one that is given must come to the same.
            filled = replace(recipe, steps=filled_in(recipe.steps, steps))
            plan = fitting(filled, subject.listed)
            found = _Resolved(recipe, ground_of(subject, steps, filled), plan, {})
            self._known[id(recipe)] = found
        return found


def ground_of(subject: Subject, steps: Sequence[StepInfo], recipe: Recipe) -> Ground:
    """What the precisions of a recipe are chosen on."""
    on = tuple(step for step in recipe.steps if step.is_on)
    before = steps_before(on, steps)
    graph = subject.graph_key(before, steps, recipe)
    return Ground(
        graph, before, on[len(before) :], changing_steps(before, steps), recipe.target, recipe.calibration
    )
