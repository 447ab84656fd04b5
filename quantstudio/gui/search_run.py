"""The search of the window: started, followed while it runs, its outcome kept and loaded."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal

from quantstudio.core.codec import from_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import ErrorInfo, LayerFinished
from quantstudio.core.figures import points, size
from quantstudio.core.folders import cache_folder
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import LayerSensitivity, SensitivityResult
from quantstudio.core.search_results import (
    BudgetObstacle,
    PlanPoint,
    SearchFront,
    SearchResult,
    searched_precisions,
)
from quantstudio.gui.workflow import SENSITIVITY_SAMPLES, new_group
from quantstudio.jobs.queue import Work
from quantstudio.jobs.rows import JobRow
from quantstudio.jobs.spec import JobSpec
from quantstudio.workspace.runs import job_specs
from quantstudio.workspace.search_terms import SearchTerms, budget_text
from quantstudio.workspace.state import BuiltVariant

if TYPE_CHECKING:
    from quantstudio.gui.session import Session


class SearchRun(QObject):
    """What is known of the search. Emits `changed` when any of it is different."""

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._job_id = ""
        self._draft: SearchFront | None = None
        self._obstacle: BudgetObstacle | None = None
        self._terms: SearchTerms | None = None
        self._made: dict[str, Any] = {}
        self._digests: dict[int, tuple[Recipe, str]] = {}
        session.model_changed.connect(self._forget)
        session.data_changed.connect(self._on_data_changed)

    # What is known.

    @property
    def result(self) -> SearchResult | None:
        """The last search that ended, kept in the project."""
        return self._session.state.search

    @property
    def front(self) -> SearchFront | None:
        """The trade-off: of the search under way, else of the last one."""
        if self._draft is not None:
            return self._draft
        found = self.result
        if found is None:
            return None
        return SearchFront(found.front, found.tried, found.metric_name, found.base_metric, found.samples)

    @property
    def chosen(self) -> PlanPoint | None:
        """The plan the last search chose; None while another search draws its front."""
        return self.result.chosen if self.result is not None and self._draft is None else None

    @property
    def obstacle(self) -> BudgetObstacle | None:
        """The bound that could not be kept, if the last search failed on one."""
        return self._obstacle

    @property
    def terms(self) -> SearchTerms | None:
        """What was asked last in this sitting."""
        return self._terms

    @property
    def job(self) -> JobRow | None:
        """The search in the job list, while it waits or runs."""
        row = next((row for row in self._session.jobs if row.job_id == self._job_id), None)
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
        return self.plans if result is None else (*self.plans, result.chosen, *result.front, *result.tried)

    def digest_of(self, point: PlanPoint) -> str:
        """Digest of a plan's recipe; views ask for it on every redraw."""
        recipe = point.recipe
        known = self._digests.get(id(recipe))
        if known is None or known[0] is not recipe:
            known = self._digests[id(recipe)] = (recipe, recipe.digest)
        return known[1]

    # What the user does.

    def start(self, terms: SearchTerms) -> None:
        """Search with what is known; what is missing of it is made first and kept."""
        session, group = self._session, new_group()
        self._terms, self._obstacle = terms, None
        session.workflow.calibrate(group)
        session.workflow.sensitivity(group, precisions=searched_precisions())
        session.workflow.costs(group)
        made: dict[str, Any] = {}
        work = Work(
            "search",
            "Search",
            lambda: self._spec(terms, made),
            lambda found: self._finished(found, terms, made),
            lambda event: self._on_layer(event, made),
            group,
            on_failure=self._failed,
            reads=partial(from_json, SearchResult),
        )
        self._job_id = session.job_queue.add(work)
        session.workflow.measure(group, variant=lambda: str(made.get("variant", "")))
        self.changed.emit()

    def cancel(self) -> None:
        """Stop the search, or the work it waits for."""
        row = self.job
        if row is None:
            return
        running = self._session.job_queue.running
        if running is not None and running.job_id != row.job_id:
            self._session.cancel(running.job_id)
        self._session.cancel(row.job_id)

    def load(self, point: PlanPoint, *, as_plan: bool = False) -> None:
        """Make a plan's recipe the active one's, or a plan of its own; one undo step."""
        name = plan_name(point, is_chosen=point == self.chosen)
        if as_plan:
            self._session.add_plan(name, point.recipe)
        else:
            self._session.set_recipe(point.recipe, f"Load {name}")

    # The job.

    def _spec(self, terms: SearchTerms, made: dict[str, Any]) -> JobSpec:
        session = self._session
        state = session.state
        model, data = session.model, session.calibration_data
        if model is None or data is None:
            raise CalibrationError("a search needs a model and data", hint="Choose data with Model, Data")
        folder = cache_folder("variants")
        test = session.test_data if terms.is_judged_on_test else None
        made.update(recipe=session.recipe, digest=state.statistics_digest, data=data, test=test)
        self._made = made
        return job_specs.search_job(
            model,
            data,
            terms,
            output=folder / f"{model.digest[:16]}-search-{uuid.uuid4().hex[:12]}.onnx",
            samples=SENSITIVITY_SAMPLES,
            statistics=state.statistics_path,
            sensitivity=self._sensitivity(),
            costs=state.costs,
            calibration=session.recipe.calibration,
            test_data=test,
        )

    def _sensitivity(self) -> SensitivityResult | None:
        state = self._session.state
        rows = tuple(
            state.sensitivity[layer.name] for layer in self._session.layers if layer.name in state.sensitivity
        )
        if not rows:
            return None
        run = state.sensitivity_run or SensitivityResult("fisher", SENSITIVITY_SAMPLES, 0.0, "int4", ())
        return replace(run, layers=tuple(replace(row, by_class=()) for row in rows), curve=state.curve)

    def _finished(self, found: SearchResult, terms: SearchTerms, made: dict[str, Any]) -> str:
        session = self._session
        if self._is_outdated(made):
            return "not kept: other data was chosen meanwhile"
        self._draft = self._obstacle = None
        session.adopt_search(found)
        recipe = found.chosen.recipe
        untouched: Recipe = made["recipe"]
        is_unedited = session.recipe == untouched != recipe
        name = f"Search {budget_text(terms.budget)}"
        plan = session.active_plan if session.recipe == recipe else name
        built = session.workflow.named(found.build, recipe, plan, made["digest"])
        session.adopt_build(built)
        made["variant"] = built.build.variant
        if is_unedited:  # whoever went on editing meanwhile keeps the plan on the screen
            session.add_plan(name, recipe)
        self.changed.emit()
        return _outcome(found, built)

    def _failed(self, error: ErrorInfo) -> bool:
        values = error.details.get("obstacle")
        self._obstacle = from_json(BudgetObstacle, values) if values is not None else None
        self.changed.emit()
        return self._obstacle is not None

    def _on_layer(self, event: LayerFinished, made: dict[str, Any]) -> None:
        if self._is_outdated(made):
            return
        if event.kind == "front":
            self._draft = from_json(SearchFront, event.values)
            self._digests.clear()
            self.changed.emit()
        elif event.kind == "sensitivity":
            self._session.adopt_sensitivity([from_json(LayerSensitivity, event.values)])

    def _is_outdated(self, made: dict[str, Any]) -> bool:
        """Whether a search that was sent off looks at data that is no longer the session's."""
        data: DataSpec = made["data"]
        test: DataSpec | None = made["test"]
        is_judged_elsewhere = test is not None and test != self._session.test_data
        return is_judged_elsewhere or data != self._session.calibration_data

    def _on_data_changed(self) -> None:
        """A search that waits will take the new data; one under way has no use any more."""
        self._draft = self._obstacle = self._terms = None
        self._digests.clear()
        running = self._session.job_queue.running
        if running is not None and running.job_id == self._job_id and self._is_outdated(self._made):
            self._session.cancel(self._job_id)
        self.changed.emit()

    def _forget(self) -> None:
        self._job_id = ""
        self._on_data_changed()


def plan_name(point: PlanPoint, *, is_chosen: bool = False) -> str:
    """What a plan is called: "INT8 everywhere", "4.7 bits", "4.7 bits, chosen"."""
    figures = point.measured or point.predicted
    name = point.name or f"{figures.average_bits:.1f} bits"
    return f"{name}, chosen" if is_chosen else name


def _outcome(found: SearchResult, built: BuiltVariant) -> str:
    figures = found.chosen.measured or found.chosen.predicted
    parts = [f"{built.name}: {size(figures.weight_bytes)} packed, {size(built.build.size_bytes)} file"]
    if figures.drop is not None:
        parts.append(points(-figures.drop))
    parts.append(f"{found.builds} plans measured")
    return ", ".join(parts)
