"""Everything a person can change: the recipe of the active plan, the plans; each change is one undo step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from quantstudio.core.effective_plan import LayerList
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.precision import LayerScheme, WeightFormat
from quantstudio.core.recipe import ActivationScope, CalibrationSettings, LayerRule, Recipe
from quantstudio.core.schemes import as_scheme
from quantstudio.core.steps import SettingValue, Step
from quantstudio.core.target import target_named
from quantstudio.core.variants import Variant
from quantstudio.jobs.rows import NoticeLevel
from quantstudio.project.state import Plan, ProjectState
from quantstudio.workspace import recipe_edits as edits
from quantstudio.workspace import step_edits
from quantstudio.workspace.known import Known
from quantstudio.workspace.names import content_name, following_name
from quantstudio.workspace.recipe_edits import Edit


class Edits:
    """Edits with undo. What cannot follow is told as a notification and stays as it was.

    Args:
        known: What is open.
    """

    def __init__(self, known: Known) -> None:
        self._known = known

    # The recipe.

    def set_scheme(self, names: Sequence[str], scheme: LayerScheme | str) -> None:
        """Put layers in a scheme (or one of `core.schemes.NAMED_SCHEMES` by name)."""
        known = self._known
        self.apply(edits.with_scheme(known.recipe, known.layers, names, as_scheme(scheme)))

    def set_precision(self, names: Sequence[str], weights: WeightFormat) -> None:
        """Put each layer in the first form of a precision it can have."""
        self.apply(edits.with_precision(self._known.recipe, self._listed, names, weights))

    def set_threshold(
        self, above: Sequence[str], below: Sequence[str], *, keep: WeightFormat, rest: WeightFormat | None
    ) -> None:
        """Put layers above a line in one precision, and those below in another unless `rest` is None."""
        known = self._known
        self.apply(edits.with_threshold(known.recipe, known.layers, above, below, keep=keep, rest=rest))

    def set_scheme_by_type(self, op_type: str, scheme: LayerScheme | str) -> None:
        """Put every layer of an operator type in a scheme."""
        self.apply(edits.with_type(self._known.recipe, op_type, as_scheme(scheme)))

    def choices(self, op_type: str = "", names: Sequence[str] | None = None) -> tuple[str, ...]:
        """Schemes that layers of an operator type, or of these names, or any can have, by name."""
        chosen = None if names is None else frozenset(names)
        return edits.choices(
            self._known.recipe,
            (
                layer
                for layer in self._known.layers
                if (not op_type or layer.op_type == op_type) and (chosen is None or layer.name in chosen)
            ),
        )

    def add_rule(self, rule: LayerRule) -> None:
        """Append a rule; later rules win."""
        self.apply(edits.with_rule(self._known.recipe, rule))

    def replace_rule(self, index: int, rule: LayerRule) -> None:
        """Put another rule in the place of one."""
        self.apply(edits.replaced_rule(self._known.recipe, index, rule))

    def remove_rule(self, index: int) -> None:
        """Take a rule out."""
        self.apply(edits.without_rule(self._known.recipe, index))

    def move_rule(self, index: int, to: int) -> None:
        """Move a rule; later rules win."""
        self.apply(edits.moved_rule(self._known.recipe, index, to))

    # Its steps.

    def add_step(self, name: str, **settings: SettingValue) -> None:
        """Append a step by name, with settings that differ from its defaults.

        Raises:
            RecipeError: the step or a setting is unknown, or a value does not fit. Both are known once
                `Runs.describe_steps` found the steps; before, the build says so.
        """
        self.apply(step_edits.with_step(self._known.recipe, Step(name, settings), self._known.steps))

    def set_step(self, index: int, **settings: SettingValue) -> None:
        """Change settings of a step; the others stay.

        Raises:
            RecipeError: as for `add_step`.
        """
        self.apply(step_edits.with_settings(self._known.recipe, index, settings, self._known.steps))

    def switch_step(self, index: int, *, is_on: bool) -> None:
        """Switch a step on or off; one that is off keeps its place and does nothing."""
        self.apply(step_edits.with_switch(self._known.recipe, index, self._known.steps, is_on=is_on))

    def move_step(self, index: int, to: int) -> None:
        """Move a step; steps are run in order."""
        self.apply(step_edits.moved_step(self._known.recipe, index, to, self._known.steps))

    def remove_step(self, index: int) -> None:
        """Take a step out."""
        self.apply(step_edits.without_step(self._known.recipe, index, self._known.steps))

    # Ranges.

    def set_activation_range(self, tensor: str, low: float, high: float) -> None:
        """Set an activation range by hand."""
        self.apply(edits.with_activation_range(self._known.recipe, tensor, low, high))

    def set_weight_range(self, layer: str, low: float, high: float) -> None:
        """Set the clip range of a layer's weights by hand."""
        self.apply(edits.with_weight_range(self._known.recipe, layer, low, high, self._title(layer)))

    def clear_activation_range(self, tensor: str) -> None:
        """Go back to the calibrated range."""
        self.apply(edits.without_activation_range(self._known.recipe, tensor))

    def clear_weight_range(self, layer: str) -> None:
        """Go back to the range of the scheme's own rule."""
        self.apply(edits.without_weight_range(self._known.recipe, layer, self._title(layer)))

    def _title(self, layer: str) -> str:
        """What the table calls a layer."""
        found = self._known.model.layer(layer) if self._known.model is not None else None
        return found.title if found is not None else layer

    def set_calibration(self, settings: CalibrationSettings) -> None:
        """Choose how activation ranges are read off the histograms."""
        self.apply(edits.with_calibration(self._known.recipe, settings))

    def set_target(self, name: str) -> None:
        """Choose the hardware and runtime the model is quantized for."""
        self.apply(edits.with_target(self._known.recipe, target_named(name)))

    def set_activation_scope(self, scope: ActivationScope) -> None:
        """Choose which tensors static quantization covers."""
        self.apply(edits.with_activation_scope(self._known.recipe, scope))

    def set_recipe(self, recipe: Recipe, label: str) -> None:
        """Replace the active plan's recipe as a whole."""
        self.apply(Edit(label, recipe))

    def load_variant(self, variant: Variant) -> None:
        """Make a variant's recipe the active plan's."""
        self.apply(Edit(f"Load {variant.name}", variant.recipe))

    def apply(self, edit: Edit) -> None:
        """Make an edit of the active plan's recipe; tell of the layers that could not follow."""
        known = self._known
        if edit.recipe != known.recipe:
            state = self._with_recipe(edit.recipe)
            self._change(lambda: known.project.edit(state, edit.label, merge_key=edit.merge_key))
        if edit.skipped:
            name, reason = edit.skipped[0]
            layer = known.model.layer(name) if known.model is not None else None
            name = layer.title if layer is not None else name
            more = f" and {len(edit.skipped) - 1} more" if len(edit.skipped) > 1 else ""
            known.notify(NoticeLevel.WARNING, f"{name}{more} unchanged", reason)

    # Plans.

    def add_plan(self, name: str = "", recipe: Recipe | None = None) -> None:
        """A new plan with that recipe, or the default one, made active; it says what it holds by default."""
        known = self._known
        state = known.project.state
        recipe = recipe or edits.default_recipe(known.layers)
        wanted = name.strip() or (content_name(recipe, known.layers) if known.layers else "Plan")
        free = _free_name(wanted, [p.name for p in state.plans])
        plan = Plan(free, recipe)
        self._change(lambda: known.project.edit(state.with_plan(plan), f"Add plan {free}"))

    def duplicate_plan(self, name: str) -> None:
        """A copy of a plan, made active."""
        project = self._known.project
        state = project.state
        free = _free_name(f"{name} copy", [p.name for p in state.plans])
        self._change(
            lambda: project.edit(
                state.with_plan(replace(state.plan(name), name=free)), f"Duplicate plan {name}"
            )
        )

    def rename_plan(self, name: str, new_name: str) -> None:
        """Another name for a plan."""
        project = self._known.project
        self._change(
            lambda: project.edit(project.state.renamed(name, new_name.strip()), f"Rename plan {name}")
        )

    def delete_plan(self, name: str) -> None:
        """Delete a plan; the last one stays."""
        project = self._known.project
        self._change(lambda: project.edit(project.state.without_plan(name), f"Delete plan {name}"))

    def activate_plan(self, name: str) -> None:
        """Edit another plan."""
        project = self._known.project
        self._change(lambda: project.edit(project.state.activated(name), f"Switch to plan {name}"))

    # Undo.

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return bool(self.undo_text)

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to bring back."""
        return bool(self.redo_text)

    @property
    def undo_text(self) -> str:
        """Name of the edit undo takes back; empty if there is none."""
        return self._known.project.undo_label

    @property
    def redo_text(self) -> str:
        """Name of the edit redo brings back; empty if there is none."""
        return self._known.project.redo_label

    def undo(self) -> None:
        """Take back the last edit; everything that was known before it is known again."""
        self._change(self._known.project.undo)

    def redo(self) -> None:
        """Bring back the edit taken back last."""
        self._change(self._known.project.redo)

    # Inside.

    @property
    def _listed(self) -> LayerList:
        """The model's layers, with what decides what they can have: for what is worked out on every edit."""
        subject = self._known.subject
        return subject.listed if subject is not None else LayerList(())

    def _with_recipe(self, recipe: Recipe) -> ProjectState:
        """The plans with another recipe in the active one; a name that says a precision follows."""
        state, plan = self._known.project.state, self._known.plan_of(recipe)
        others = {plan.name for plan in state.plans} - {state.active}
        asked = plan.asked if plan is not None else None
        name = following_name(state.active, recipe, self._listed, others, asked)
        changed = state.with_recipe(recipe)
        return changed if name == state.active else changed.renamed(state.active, name)

    def _change(self, change: Callable[[], bool]) -> None:
        """Change the plans; tell the views if it changed anything, the user if it could not."""
        try:
            changed = change()
        except QuantStudioError as error:
            self._known.notify_of(error)
            return
        if changed:
            self._known.tell_edited()


def _free_name(wanted: str, taken: Sequence[str]) -> str:
    if wanted not in taken:
        return wanted
    return next(name for i in range(2, len(taken) + 3) if (name := f"{wanted} {i}") not in taken)
