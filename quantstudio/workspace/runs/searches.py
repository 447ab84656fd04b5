"""Searches: started, followed while they run, their outcome kept and loaded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from functools import partial

from quantstudio.core.codec import from_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import ErrorInfo, Part
from quantstudio.core.findings import SEARCH, digest_of
from quantstudio.core.folders import cache_folder
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.precision import DEFAULT_REFERENCE
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import LayerSensitivity, SensitivityResult
from quantstudio.core.search_results import (
    BudgetObstacle,
    PlanPoint,
    SearchFront,
    SearchResult,
    searched_precisions,
)
from quantstudio.core.signals import Signal
from quantstudio.core.steps import filled_in
from quantstudio.jobs.queue import JobQueue, Work
from quantstudio.jobs.rows import JobRow
from quantstudio.jobs.spec import JobSpec
from quantstudio.workspace.edits import Edits
from quantstudio.workspace.known import Known
from quantstudio.workspace.resolved import ground_of
from quantstudio.workspace.runs import job_specs
from quantstudio.workspace.runs.builds import keep_build
from quantstudio.workspace.runs.outcomes import search_text
from quantstudio.workspace.runs.runs import Runs, new_group
from quantstudio.workspace.runs.sensitivity import SensitivityKeys, put_rows, sensitivity_keys
from quantstudio.workspace.search_terms import SearchTerms, budget_text
from quantstudio.workspace.subject import SENSITIVITY_SAMPLES, Subject


@dataclass(frozen=True)
class _Asked:
    """What a search was sent off with."""

    terms: SearchTerms
    subject: Subject
    recipe: Recipe
    statistics: str
    data: DataSpec
    test: DataSpec | None
    sensitivity: SensitivityKeys
    key: str


class Searches:
    """What is known of the search under way and of the last one.

    Attributes:
        changed: Any of it is different.
    """

    def __init__(self, known: Known, edits: Edits, runs: Runs, jobs: JobQueue) -> None:
        self.changed: Signal[[]] = Signal()
        self._known = known
        self._edits = edits
        self._runs = runs
        self._jobs = jobs
        self._job_id = ""
        self._draft: SearchFront | None = None
        self._obstacle: BudgetObstacle | None = None
        self._terms: SearchTerms | None = None
        self._asked: _Asked | None = None
        self._built = ""
        known.model_changed.connect(self._forget)
        known.data_changed.connect(self._on_data_changed)
        known.search_changed.connect(self.changed.emit)

    # What is known.

    @property
    def result(self) -> SearchResult | None:
        """The last search that ended, kept in the project."""
        return self._known.search_result

    @property
    def front(self) -> SearchFront | None:
        """The trade-off: of the search under way, else of the last one; predicted as any recipe is now."""
        shown = self._draft or self.result
        if shown is None:
            return None
        predicted = self._known.predicted_plans
        return SearchFront(
            predicted(shown.front),
            predicted(shown.tried),
            shown.metric_name,
            shown.base_metric,
            shown.samples,
        )

    @property
    def chosen(self) -> PlanPoint | None:
        """The plan the last search chose; None while another search draws its front."""
        if self.result is None or self._draft is not None:
            return None
        return self._known.predicted_plans((self.result.chosen,))[0]

    @property
    def obstacle(self) -> BudgetObstacle | None:
        """The bound that could not be kept, if the last search failed on one."""
        return self._obstacle

    @property
    def terms(self) -> SearchTerms | None:
        """What was asked last in this session."""
        return self._terms

    @property
    def job(self) -> JobRow | None:
        """The search in the list of jobs, while it waits or runs."""
        row = self._jobs.row(self._job_id)
        return row if row is not None and not row.state.is_final else None

    @property
    def plans(self) -> tuple[PlanPoint, ...]:
        """Every plan that is shown, the chosen one first."""
        front = self.front
        if front is None:
            return ()
        first = (self.chosen,) if self.chosen is not None else ()
        return (*first, *front.front, *front.tried)

    @property
    def found(self) -> tuple[PlanPoint, ...]:
        """Every plan a search came up with: those of the last result too, while another draws its front."""
        result = self.result
        if result is None:
            return self.plans
        last = (result.chosen, *result.front, *result.tried)
        return (*self.plans, *self._known.predicted_plans(last))

    def key_of(self, point: PlanPoint) -> str:
        """Key of the variant a plan would give now."""
        return self._known.key_of(point.recipe)

    # What the user does.

    def start(self, terms: SearchTerms) -> None:
        """Search with what is known; what is missing of it is made first and kept."""
        group = new_group()
        self._terms, self._obstacle, self._built = terms, None, ""
        self._runs.add_calibration(group)
        self._runs.add_sensitivity(group, precisions=searched_precisions())
        self._runs.add_costs(group)
        work = Work(
            "search",
            "Search",
            lambda: self._spec(terms),
            self._finished,
            self._on_part,
            group,
            on_failure=self._failed,
            reads=partial(from_json, SearchResult),
        )
        self._job_id = self._jobs.add(work)
        self._runs.add_measurement(group, variants=lambda: (self._built,))
        self.changed.emit()

    def cancel(self) -> None:
        """Stop the search, or the work it waits for."""
        row = self.job
        if row is None:
            return
        running = self._jobs.running
        if running is not None and running.job_id != row.job_id:
            self._jobs.cancel(running.job_id)
        self._jobs.cancel(row.job_id)

    def load(self, point: PlanPoint, *, as_plan: bool = False) -> None:
        """Make a plan's recipe the active one's, or a plan of its own; one undo step."""
        name = plan_name(point, is_chosen=point == self.chosen)
        if as_plan:
            self._edits.add_plan(name, point.recipe)
        else:
            self._edits.set_recipe(point.recipe, f"Load {name}")

    # The job.

    def _spec(self, terms: SearchTerms) -> JobSpec:
        known = self._known
        subject, data = known.subject, known.calibration_data
        if subject is None or data is None:
            raise CalibrationError(
                "a search needs a model and data", hint=Hint("Choose data", HintAction.CHOOSE_DATA)
            )
        test = known.test_data if terms.is_judged_on_test else None
        file, ground = known.statistics_file, known.ground
        known.keep_steps()
        self._asked = _Asked(
            terms,
            subject,
            known.recipe,
            file.digest if file is not None else "",
            data,
            test,
            sensitivity_keys(subject, ground.graph),
            subject.search_key((*ground.steps, *ground.later), known.recipe, judged_on_test=test is not None),
        )
        folder = cache_folder("variants")
        return job_specs.search_job(
            subject.model,
            data,
            terms,
            output=folder / f"{subject.model.digest[:16]}-search-{uuid.uuid4().hex[:12]}.onnx",
            samples=SENSITIVITY_SAMPLES,
            statistics=file.path if file is not None else "",
            sensitivity=self._sensitivity(),
            costs=known.costs,
            recipe=known.recipe,
            test_data=test,
        )

    def _sensitivity(self) -> SensitivityResult | None:
        known = self._known
        by_layer = known.layer_sensitivity
        rows = tuple(by_layer[layer.name] for layer in known.layers if layer.name in by_layer)
        if not rows:
            return None
        run = known.sensitivity_run or SensitivityResult(
            "fisher", SENSITIVITY_SAMPLES, 0.0, DEFAULT_REFERENCE, ()
        )
        plain = tuple(replace(row, by_class=()) for row in rows)
        return replace(run, layers=plain, curve=known.sensitivity_curve)

    def _finished(self, found: SearchResult) -> str:
        known, asked = self._known, self._asked
        assert asked is not None
        self._draft = self._obstacle = None
        for key in self._keys(asked, found):
            known.findings.put(SEARCH, key, found, row=digest_of(asked.terms)[:16])
        recipe = found.chosen.recipe
        is_unedited = known.recipe == asked.recipe != recipe
        name = f"Search {budget_text(asked.terms.budget)}"
        plan = known.active_plan if known.recipe == recipe else name
        built = keep_build(known, asked.subject, found.build, recipe, plan, asked.statistics)
        if self._is_outdated(asked):
            return "kept for the data it was made with: other data was chosen meanwhile"
        self._built = built.key
        if is_unedited:  # whoever went on editing meanwhile keeps the plan on the screen
            self._edits.add_plan(name, recipe)
        self.changed.emit()
        return search_text(found, built.name, found.build)

    def _keys(self, asked: _Asked, found: SearchResult) -> set[str]:
        """Where it is looked for: behind the steps it was sent off with, and those its plans were given."""
        keys = {asked.key}
        for recipe in {one.recipe.steps: one.recipe for one in (found.chosen, *found.front)}.values():
            filled = replace(recipe, steps=filled_in(recipe.steps, self._known.steps))
            ground = ground_of(asked.subject, self._known.steps, filled)
            steps = (*ground.steps, *ground.later)
            keys.add(asked.subject.search_key(steps, asked.recipe, judged_on_test=asked.test is not None))
        return keys

    def _failed(self, error: ErrorInfo) -> bool:
        values = error.details.get("obstacle")
        self._obstacle = from_json(BudgetObstacle, values) if values is not None else None
        self.changed.emit()
        return self._obstacle is not None

    def _on_part(self, part: Part) -> None:
        asked = self._asked
        assert asked is not None
        match part:
            case LayerSensitivity():
                put_rows(self._known.findings, asked.sensitivity, [part])
            case SearchFront() if not self._is_outdated(asked):
                self._draft = part
                self.changed.emit()

    def _is_outdated(self, asked: _Asked) -> bool:
        """Whether a search that was sent off looks at data that is no longer chosen."""
        is_judged_elsewhere = asked.test is not None and asked.test != self._known.test_data
        return is_judged_elsewhere or asked.data != self._known.calibration_data

    def _on_data_changed(self) -> None:
        """A search that waits will take the new data; one under way has no use any more."""
        self._draft = self._obstacle = self._terms = None
        row = self._jobs.running
        is_running = row is not None and row.job_id == self._job_id
        if is_running and self._asked is not None and self._is_outdated(self._asked):
            self._jobs.cancel(self._job_id)
        self.changed.emit()

    def _forget(self) -> None:
        self._job_id = ""
        self._on_data_changed()


def plan_name(point: PlanPoint, *, is_chosen: bool = False) -> str:
    """What a plan is called: "INT8 everywhere", "4.7 bits", "4.7 bits, chosen"."""
    figures = point.measured or point.predicted
    name = point.name or f"{figures.average_bits:.1f} bits"
    return f"{name}, chosen" if is_chosen else name
