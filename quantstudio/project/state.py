"""What the user edits: named plans, each with a recipe. Undo is the previous state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from quantstudio.core.errors import ProjectError
from quantstudio.core.recipe import Recipe

FIRST_PLAN = "Plan 1"


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to make the model smaller, under a name."""

    name: str
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, slots=True)
class ProjectState:
    """All plans side by side and the one on the screen; never edited, only replaced.

    Attributes:
        plans: In tab order, at least one, names unique.
        active: Name of the plan on the screen.

    Raises:
        ProjectError: no plan, a name that is empty or there twice, or an active plan that is not there.
    """

    plans: tuple[Plan, ...] = (Plan(FIRST_PLAN),)
    active: str = FIRST_PLAN

    def __post_init__(self) -> None:
        names = [plan.name for plan in self.plans]
        if not all(name.strip() for name in names):
            raise ProjectError("a plan needs a name")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ProjectError(f"there is a plan {twice!r} already", hint="Choose another name")
        if self.active not in names:
            raise ProjectError(f"there is no plan {self.active!r}")

    @property
    def recipe(self) -> Recipe:
        """Recipe of the active plan."""
        return self.plan(self.active).recipe

    def plan(self, name: str) -> Plan:
        """The plan of that name.

        Raises:
            ProjectError: there is none.
        """
        for plan in self.plans:
            if plan.name == name:
                return plan
        raise ProjectError(f"there is no plan {name!r}")

    def with_recipe(self, recipe: Recipe, plan: str | None = None) -> ProjectState:
        """The state with another recipe in the named plan (the active one by default)."""
        changed = replace(self.plan(plan or self.active), recipe=recipe)
        return replace(self, plans=tuple(changed if p.name == changed.name else p for p in self.plans))

    def with_plan(self, plan: Plan) -> ProjectState:
        """The state with one more plan, at the end and active."""
        return ProjectState((*self.plans, plan), plan.name)

    def without_plan(self, name: str) -> ProjectState:
        """The state without that plan; its left neighbour becomes active if it was.

        Raises:
            ProjectError: there is none of that name, or it is the last.
        """
        index = self.plans.index(self.plan(name))
        rest = tuple(p for p in self.plans if p.name != name)
        if not rest:
            raise ProjectError("a project keeps at least one plan", hint="Rename it or add another first")
        return ProjectState(rest, rest[max(0, index - 1)].name if self.active == name else self.active)

    def renamed(self, name: str, new_name: str) -> ProjectState:
        """The state with that plan under another name."""
        plan = self.plan(name)
        plans = tuple(replace(p, name=new_name) if p is plan else p for p in self.plans)
        return ProjectState(plans, new_name if self.active == name else self.active)

    def activated(self, name: str) -> ProjectState:
        """The state with that plan on the screen."""
        return replace(self, active=name)


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """One edit in the history.

    Attributes:
        label: What it did: "Set 3 layers to INT4".
        created: Seconds since the epoch.
        is_present: Whether the project stands here now; steps after it can be redone.
    """

    label: str
    created: float
    is_present: bool
