"""Named recipes side by side, with their undo history."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantstudio.core.recipe import Recipe
from quantstudio.gui.session_values import Plan


@dataclass(frozen=True, slots=True)
class PlanPage:
    """All plans at one moment, and which of them is edited."""

    plans: tuple[Plan, ...]
    active: str


class PlanBook:
    """Plans and their history; every method that changes something says whether it did."""

    def __init__(self, first: Plan) -> None:
        self._pages: list[tuple[str, PlanPage]] = [("", PlanPage((first,), first.name))]
        self._at = 0

    @property
    def page(self) -> PlanPage:
        """The plans as they are now."""
        return self._pages[self._at][1]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All plans."""
        return self.page.plans

    @property
    def active(self) -> str:
        """Name of the plan that is edited."""
        return self.page.active

    @property
    def active_plan(self) -> Plan:
        """The plan that is edited."""
        return next(p for p in self.plans if p.name == self.active)

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to bring back."""
        return self._at + 1 < len(self._pages)

    @property
    def undo_text(self) -> str:
        """Name of the last edit."""
        return self._pages[self._at][0]

    @property
    def redo_text(self) -> str:
        """Name of the edit taken back last."""
        return self._pages[self._at + 1][0] if self.can_redo else ""

    def edit(self, label: str, recipe: Recipe) -> bool:
        """Give the active plan another recipe."""
        plans = tuple(replace(p, recipe=recipe) if p.name == self.active else p for p in self.plans)
        return self._turn(label, PlanPage(plans, self.active))

    def add(self, name: str, recipe: Recipe) -> bool:
        """A new plan, made active."""
        free = self._free(name)
        return self._turn(f"Add plan {free}", PlanPage((*self.plans, Plan(free, recipe)), free))

    def duplicate(self, name: str) -> bool:
        """A copy of a plan, made active."""
        source = next((p for p in self.plans if p.name == name), None)
        if source is None:
            return False
        free = self._free(f"{name} copy")
        return self._turn(f"Duplicate plan {name}", PlanPage((*self.plans, replace(source, name=free)), free))

    def rename(self, name: str, new_name: str) -> bool:
        """Another name, unless a plan has it already."""
        new_name = new_name.strip()
        if not new_name or any(p.name == new_name for p in self.plans):
            return False
        plans = tuple(replace(p, name=new_name) if p.name == name else p for p in self.plans)
        active = new_name if self.active == name else self.active
        return self._turn(f"Rename plan {name}", PlanPage(plans, active))

    def delete(self, name: str) -> bool:
        """One plan less; the last one stays."""
        kept = tuple(p for p in self.plans if p.name != name)
        if not kept or len(kept) == len(self.plans):
            return False
        active = self.active if self.active != name else kept[-1].name
        return self._turn(f"Delete plan {name}", PlanPage(kept, active))

    def activate(self, name: str) -> bool:
        """Edit another plan."""
        if name == self.active or all(p.name != name for p in self.plans):
            return False
        return self._turn(f"Switch to plan {name}", PlanPage(self.plans, name))

    def undo(self) -> bool:
        """Back to the page before."""
        if not self.can_undo:
            return False
        self._at -= 1
        return True

    def redo(self) -> bool:
        """Forward to the page after."""
        if not self.can_redo:
            return False
        self._at += 1
        return True

    def _turn(self, label: str, page: PlanPage) -> bool:
        if page == self.page:
            return False
        self._pages[self._at + 1 :] = [(label, page)]
        self._at += 1
        return True

    def _free(self, wanted: str) -> str:
        taken = {p.name for p in self.plans}
        if wanted not in taken:
            return wanted
        number = 2
        while f"{wanted} {number}" in taken:
            number += 1
        return f"{wanted} {number}"
