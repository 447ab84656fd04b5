"""The one state object of the window: what is known, and everything the user can do to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PySide6.QtCore import QObject

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.precision import LayerScheme, WeightFormat
from quantstudio.core.recipe import ActivationScope, CalibrationSettings, LayerRule, Recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.target import target_named
from quantstudio.gui.documents import Documents
from quantstudio.gui.search_run import SearchRun
from quantstudio.gui.session_results import SessionResults
from quantstudio.gui.workflow import Workflow, new_group
from quantstudio.jobs.backends.backend import BackendFactory
from quantstudio.jobs.rows import JobRow, NoticeLevel
from quantstudio.project.store import Project
from quantstudio.workspace import recipe_edits as edits
from quantstudio.workspace.recipe_edits import Edit
from quantstudio.workspace.values import Notification, Plan, Variant

__all__ = ["JobRow", "NoticeLevel", "Notification", "Plan", "Session", "Variant"]


class Session(SessionResults):
    """What the window shows and what its commands do; views read properties and listen to signals."""

    def __init__(
        self,
        backend_factory: BackendFactory,
        parent: QObject | None = None,
        *,
        project: Project | None = None,
    ) -> None:
        super().__init__(backend_factory, parent, project=project)
        self.workflow = Workflow(self)
        self.documents = Documents(self)
        self.search = SearchRun(self)

    # Files; see `Documents`.

    def open_path(self, path: str) -> None:
        """Open a project, model, data set or recipe, whichever it is."""
        self.documents.open_path(path)

    def open_sample(self, name: str) -> None:
        """Open a bundled sample and analyse it."""
        self.documents.open_sample(name)

    def choose_data(self, calibration: DataSpec | None, test: DataSpec | None) -> None:
        """Use other data and analyse the model with it."""
        self.documents.choose_data(calibration, test)

    def check_data(self, spec: DataSpec, on_checked: Callable[[Mapping[str, Any]], None]) -> str:
        """Open a data set in the worker and hand what is in it to a callback; returns the job's id."""
        return self.workflow.check_data(spec, on_checked)

    def export(self, path: str) -> None:
        """Write the current variant and its recipe, building it first where needed."""
        self.documents.export(path)

    def export_recipe(self, path: str) -> None:
        """Write the recipe alone."""
        self.documents.export_recipe(path)

    def write_report(self, path: str) -> None:
        """Write an HTML report of everything known now."""
        self.documents.write_report(path)

    # Recipe edits: each is one undo step.

    def set_scheme(self, names: Sequence[str], scheme: LayerScheme | str) -> None:
        """Put layers in a scheme (or one of `core.schemes.NAMED_SCHEMES` by name)."""
        self._apply(edits.with_scheme(self.recipe, self.layers, names, _scheme(scheme)))

    def set_precision(self, names: Sequence[str], weights: WeightFormat) -> None:
        """Put each layer in the first form of a precision it can have."""
        self._apply(edits.with_precision(self.recipe, self.layers, names, weights))

    def set_threshold(
        self, above: Sequence[str], below: Sequence[str], *, keep: WeightFormat, rest: WeightFormat | None
    ) -> None:
        """Put layers above a line in one precision, and those below in another unless `rest` is None."""
        self._apply(edits.with_threshold(self.recipe, self.layers, above, below, keep=keep, rest=rest))

    def set_scheme_by_type(self, op_type: str, scheme: LayerScheme | str) -> None:
        """Put every layer of an operator type in a scheme."""
        self._apply(edits.with_type(self.recipe, op_type, _scheme(scheme)))

    def choices(self, op_type: str = "", *, selected: bool = False) -> tuple[str, ...]:
        """Schemes that layers of an operator type, or selected ones, or any can have, by name."""
        chosen = frozenset(self.selection)
        return edits.choices(
            self.recipe,
            (
                layer
                for layer in self.layers
                if (not op_type or layer.op_type == op_type) and (not selected or layer.name in chosen)
            ),
        )

    def add_rule(self, rule: LayerRule) -> None:
        """Append a rule; later rules win."""
        self._apply(edits.with_rule(self.recipe, rule))

    def replace_rule(self, index: int, rule: LayerRule) -> None:
        """Put another rule in the place of one."""
        self._apply(edits.replaced_rule(self.recipe, index, rule))

    def remove_rule(self, index: int) -> None:
        """Take a rule out."""
        self._apply(edits.without_rule(self.recipe, index))

    def move_rule(self, index: int, to: int) -> None:
        """Move a rule; later rules win."""
        self._apply(edits.moved_rule(self.recipe, index, to))

    def set_activation_range(self, tensor: str, low: float, high: float) -> None:
        """Set an activation range by hand."""
        self._apply(edits.with_activation_range(self.recipe, tensor, low, high))

    def set_weight_range(self, layer: str, low: float, high: float) -> None:
        """Set the clip range of a layer's weights by hand."""
        self._apply(edits.with_weight_range(self.recipe, layer, low, high))

    def clear_activation_range(self, tensor: str) -> None:
        """Go back to the calibrated range."""
        self._apply(edits.without_activation_range(self.recipe, tensor))

    def clear_weight_range(self, layer: str) -> None:
        """Go back to the range of the scheme's own rule."""
        self._apply(edits.without_weight_range(self.recipe, layer))

    def set_calibration(self, settings: CalibrationSettings) -> None:
        """Choose how activation ranges are read off the histograms."""
        self._apply(edits.with_calibration(self.recipe, settings))

    def set_target(self, name: str) -> None:
        """Choose the hardware and runtime the model is quantized for."""
        self._apply(edits.with_target(self.recipe, target_named(name)))

    def set_activation_scope(self, scope: ActivationScope) -> None:
        """Choose which tensors static quantization covers."""
        self._apply(edits.with_activation_scope(self.recipe, scope))

    def set_recipe(self, recipe: Recipe, label: str) -> None:
        """Replace the active plan's recipe as a whole."""
        self._apply(Edit(label, recipe))

    def load_variant(self, variant: Variant) -> None:
        """Make a variant's recipe the active plan's."""
        self._apply(Edit(f"Load {variant.name}", variant.recipe))

    # Plans and undo.

    def add_plan(self, name: str = "", recipe: Recipe | None = None) -> None:
        """A new plan with that recipe, or the default one, made active."""
        state = self._project.state
        free = _free_name(name.strip() or "Plan", [p.name for p in state.plans])
        plan = Plan(free, recipe or edits.default_recipe(self.layers))
        self._edit(lambda: self._project.edit(state.with_plan(plan), f"Add plan {free}"))

    def duplicate_plan(self, name: str) -> None:
        """A copy of a plan, made active."""
        state = self._project.state
        free = _free_name(f"{name} copy", [p.name for p in state.plans])
        self._edit(
            lambda: self._project.edit(
                state.with_plan(replace(state.plan(name), name=free)), f"Duplicate plan {name}"
            )
        )

    def rename_plan(self, name: str, new_name: str) -> None:
        """Another name for a plan."""
        state = self._project.state
        self._edit(lambda: self._project.edit(state.renamed(name, new_name.strip()), f"Rename plan {name}"))

    def delete_plan(self, name: str) -> None:
        """Delete a plan; the last one stays."""
        state = self._project.state
        self._edit(lambda: self._project.edit(state.without_plan(name), f"Delete plan {name}"))

    def activate_plan(self, name: str) -> None:
        """Edit another plan."""
        state = self._project.state
        self._edit(lambda: self._project.edit(state.activated(name), f"Switch to plan {name}"))

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return bool(self._project.undo_label)

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to bring back."""
        return bool(self._project.redo_label)

    @property
    def undo_text(self) -> str:
        """Name of the edit undo takes back; empty if there is none."""
        return self._project.undo_label

    @property
    def redo_text(self) -> str:
        """Name of the edit redo brings back; empty if there is none."""
        return self._project.redo_label

    def undo(self) -> None:
        """Take back the last edit."""
        self._edit(self._project.undo)

    def redo(self) -> None:
        """Bring back the edit taken back last."""
        self._edit(self._project.redo)

    # Engine work; returns at once, results stream in.

    def calibrate(self) -> None:
        """Run the calibration data through the model again."""
        self.workflow.calibrate(again=True)

    def analyze(self) -> None:
        """Weight statistics and the sensitivity of every layer."""
        group = new_group()
        self.workflow.weights(group)
        self.workflow.calibrate(group)
        self.workflow.sensitivity(group, again=True)
        self.workflow.costs(group)

    def analyze_at(self, precisions: Sequence[str]) -> None:
        """Estimate every layer in further precisions; what is known stays and is not computed again."""
        if precisions:
            group = new_group()
            self.workflow.calibrate(group)
            self.workflow.sensitivity(group, precisions=tuple(precisions))

    def exact_sensitivity(
        self,
        names: Sequence[str],
        *,
        precisions: Sequence[str] = (),
        all_but: bool = False,
        accumulated: bool = False,
    ) -> None:
        """Measure layers one at a time, and where asked with all the others quantized too.

        Without `precisions` in the usual ones.
        """
        if names:
            self.workflow.sensitivity(
                exact=tuple(names), precisions=tuple(precisions), all_but=all_but, accumulated=accumulated
            )

    def quantize(self, *, on_built: Callable[[], None] | None = None) -> None:
        """Build the recipe, calibrating first where that is missing."""
        group = new_group()
        self._calibrate_if_needed(group)
        self.workflow.quantize(group, on_built=on_built)

    def quantize_preset(self, preset: str) -> None:
        """Let a preset choose the precisions; its recipe becomes the plan's, as one undo step."""
        group = new_group()
        self._calibrate_if_needed(group)
        self.workflow.quantize(group, preset=preset)

    def measure(self) -> None:
        """Measure the recipe as it is, building it first if needed."""
        group = new_group()
        self._calibrate_if_needed(group)
        self.workflow.quantize(group)
        self.workflow.measure(group)

    def measure_every(self) -> None:
        """Measure every variant built so far, interleaved."""
        self.workflow.measure(every=True)

    def run_all(self) -> None:
        """Everything from weights to measurement; what is known already is left out."""
        self.workflow.run_all()

    def resume(self) -> None:
        """After a project was opened: find again what the cache no longer holds."""
        self.workflow.resume()

    def pause_job(self, job_id: str) -> None:
        """Let the running job wait."""
        self.job_queue.pause(job_id)

    def resume_job(self, job_id: str) -> None:
        """Let it go on."""
        self.job_queue.resume(job_id)

    def cancel(self, job_id: str | None = None) -> None:
        """Stop one job, or all."""
        self.job_queue.cancel(job_id)

    def close(self) -> None:
        """End the worker and let go of the project; nothing is lost."""
        self._fall_silent()
        self._loop_calls.close()
        self.job_queue.close()
        self.background.close()
        self._project.close()

    # Inside.

    def _calibrate_if_needed(self, group: str) -> None:
        if self.calibration_data is not None:
            self.workflow.calibrate(group)

    def _apply(self, edit: Edit) -> None:
        if edit.recipe != self.recipe:
            state = self._project.state.with_recipe(edit.recipe)
            self._edit(lambda: self._project.edit(state, edit.label, merge_key=edit.merge_key))
        if edit.skipped:
            name, reason = edit.skipped[0]
            more = f" and {len(edit.skipped) - 1} more" if len(edit.skipped) > 1 else ""
            self.notify(NoticeLevel.WARNING, f"{name}{more} unchanged", reason)


def _free_name(wanted: str, taken: Sequence[str]) -> str:
    if wanted not in taken:
        return wanted
    return next(name for i in range(2, len(taken) + 3) if (name := f"{wanted} {i}") not in taken)


def _scheme(scheme: LayerScheme | str) -> LayerScheme:
    return NAMED_SCHEMES[scheme] if isinstance(scheme, str) else scheme
