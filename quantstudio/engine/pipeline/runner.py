"""From a recipe to the graph that is quantized and the plan it is quantized by: the one door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

from quantstudio.core.effective_plan import EffectivePlan, resolve
from quantstudio.core.errors import DataError
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import Recipe
from quantstudio.core.recovered import StepBegun
from quantstudio.core.results import AppliedStep
from quantstudio.core.statistics import Statistics
from quantstudio.core.statistics_file import statistics_digest
from quantstudio.core.steps import Need, Step, completed_steps, steps_before, with_outcomes
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.pipeline.discovery import find_steps
from quantstudio.engine.pipeline.observed import collected
from quantstudio.engine.pipeline.recovering import Recovering
from quantstudio.engine.pipeline.registry import StepDefinition
from quantstudio.engine.pipeline.store import StepStore, step_key


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a recipe comes to before anything is quantized.

    Attributes:
        graph: The graph after the steps.
        plan: What its layers become.
        steps: What each step did, in order.
    """

    graph: Graph
    plan: EffectivePlan
    steps: tuple[AppliedStep, ...] = ()


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What the steps of a recipe may use besides the graph.

    Attributes:
        dataset: Samples, or None.
        statistics: Activation statistics of the graph before the first step, or None.
        device: torch device to compute on.
    """

    dataset: Dataset | None = None
    statistics: Statistics | None = None
    device: str = "cpu"


def completed(recipe: Recipe) -> Recipe:
    """The recipe with every setting of its steps written out.

    Raises:
        RecipeError: a step is unknown or a setting wrong.
    """
    if not recipe.steps:
        return recipe
    infos = [definition.info for definition in find_steps().values()]
    return replace(recipe, steps=completed_steps(recipe.steps, infos))


def resolved(recipe: Recipe, graph: Graph) -> EffectivePlan:
    """The plan of a recipe for a graph, its steps checked and their settings filled in.

    Raises:
        RecipeError: the recipe does not fit the graph, a step is unknown or a setting wrong.
    """
    definitions = find_steps().values() if recipe.steps else ()
    return resolve(recipe, graph.layers, [definition.info for definition in definitions])


def prepare(
    graph: Graph,
    recipe: Recipe,
    inputs: StepInputs | None = None,
    *,
    behind: Prepared | None = None,
    store: StepStore | None = None,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> Prepared:
    """Run the steps of a recipe that are on, in order.

    A step whose inputs are the same as before is not run again: its graph is taken from the store. So a run
    that was cancelled or killed goes on behind the last step it finished.

    Args:
        graph: Normalised model.
        recipe: The recipe.
        inputs: What the steps may use.
        behind: Go on behind the steps that are done already, the first ones of the recipe.
        store: Where finished steps are kept; None for the cache folder.
        reporter: Told of every step, and by each step of its own progress.
        cancel: Looked at between steps, and by each step; a pause waits there, too.

    Raises:
        RecipeError: the recipe does not fit the graph, a step is unknown or a setting wrong.
        DataError: a step needs data or labels and there are none.
        JobCancelled: `cancel` was set.
    """
    token = cancel or never_cancelled()
    applied = list(behind.steps) if behind is not None else []
    original = graph
    graph = behind.graph if behind is not None else graph
    plan = resolved(recipe, graph)
    if len(applied) == len(plan.steps):
        return Prepared(graph, plan, tuple(applied))
    given = inputs or StepInputs()
    definitions = find_steps()
    for step in plan.steps:
        _check_needs(definitions[step.name], given)
    kept = store or StepStore()
    unrounded: Graph | None = None
    for index, step in enumerate(plan.steps[len(applied) :], len(applied)):
        token.raise_if_set()
        definition = definitions[step.name]
        reporter.progress(index, len(plan.steps), "steps", definition.info.label)
        if unrounded is None and not definition.info.group.keeps_floats:
            unrounded = graph
        context = StepContext(
            plan=plan,
            seed=plan.seed,
            device=given.device,
            data=given.dataset,
            collect=partial(_statistics, given, plan, reporter, token),
            original=original,
            unrounded=unrounded or graph,
        )
        reporter.found(StepBegun(index, step.name))
        told = Recovering(reporter, index)
        outcome, seconds, is_stored = _applied(graph, definition, step, context, kept, given, told, token)
        step = replace(step, settings={**step.settings, **outcome.settings})
        applied.append(_applied_step(definition, step, outcome, seconds, is_stored=is_stored))
        reporter.message(f"{definition.info.label}: {outcome.summary}")
        if outcome.settings:  # the plan is that of the recipe which gives this
            infos = [one.info for one in definitions.values()]
            recipe = replace(
                recipe, steps=with_outcomes(recipe.steps, [one.settings for one in applied], infos)
            )
        if outcome.settings or outcome.graph.layers != graph.layers:
            plan = resolved(recipe, outcome.graph)
        graph = outcome.graph
    reporter.found(StepBegun(len(plan.steps), ""))
    reporter.progress(len(plan.steps), len(plan.steps), "steps", "Steps done")
    return Prepared(graph, plan, tuple(applied))


def _applied_step(
    definition: StepDefinition, step: Step, outcome: StepOutcome, seconds: float, *, is_stored: bool
) -> AppliedStep:
    return AppliedStep(
        name=step.name,
        label=definition.info.label,
        settings=dict(step.settings),
        summary=outcome.summary,
        seconds=seconds,
        graph_digest=outcome.graph.digest,
        details=dict(outcome.details),
        is_stored=is_stored,
    )


def prepare_before(
    graph: Graph,
    recipe: Recipe,
    inputs: StepInputs | None = None,
    *,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> Prepared:
    """Run the steps of a recipe up to the first that looks at precisions (see `core.steps.steps_before`).

    What comes of them is the graph that sensitivity, costs and searches are about; the precisions of the
    recipe play no part in it.

    Raises:
        RecipeError: a step is unknown or a setting wrong.
        DataError: a step needs data or labels and there are none.
        JobCancelled: `cancel` was set.
    """
    start = completed(recipe.bare)
    infos = [definition.info for definition in find_steps().values()] if start.steps else ()
    first = replace(start, steps=steps_before(start.steps, infos))
    return prepare(graph, first, inputs, reporter=reporter, cancel=cancel)


def observed_after(
    prepared: Prepared, inputs: StepInputs, *, reporter: Reporter, cancel: CancelToken
) -> Statistics:
    """Activation statistics of the graph after the steps: what they changed is observed again.

    Raises:
        DataError: the statistics have to be collected and there are no samples.
        CalibrationError: a tensor holds NaN or infinity.
        JobCancelled: `cancel` was set.
    """
    return _statistics(inputs, prepared.plan, reporter, cancel, prepared.graph)


def _check_needs(definition: StepDefinition, given: StepInputs) -> None:
    info = definition.info
    if info.needs_data and given.dataset is None:
        raise DataError(
            f"the step needs {'labelled ' if Need.LABELS in info.needs else ''}data",
            where=f"step {info.name}",
            hint=Hint("Choose data", HintAction.CHOOSE_DATA),
        )
    if Need.LABELS in info.needs and given.dataset is not None and given.dataset.labels is None:
        raise DataError(
            "the step needs labels, and the data has none",
            where=f"step {info.name}",
            hint=Hint("Take the step out of the recipe, or choose data with labels", HintAction.CHOOSE_DATA),
        )


def _applied(
    graph: Graph,
    definition: StepDefinition,
    step: Step,
    context: StepContext,
    store: StepStore,
    given: StepInputs,
    reporter: Recovering,
    cancel: CancelToken,
) -> tuple[StepOutcome, float, bool]:
    """What a step does, the seconds that takes or took, and whether it was in the store."""
    key = step_key(_key_inputs(graph, definition, step, context, given))
    known = store.find(key)
    if known is not None:
        reporter.repeat(known[0])
        return *known, True
    started, paused = perf_counter(), cancel.paused_s
    done = definition.apply(
        graph, replace(context, key=key), definition.settings_of(step), reporter=reporter, cancel=cancel
    )
    outcome = reporter.with_layers(done)
    seconds = perf_counter() - started - (cancel.paused_s - paused)
    if outcome.settings:
        step = replace(step, settings={**step.settings, **outcome.settings})
        key = step_key(_key_inputs(graph, definition, step, context, given))
    store.put(key, outcome, seconds)
    return outcome, seconds, False


def _key_inputs(
    graph: Graph, definition: StepDefinition, step: Step, context: StepContext, given: StepInputs
) -> Mapping[str, Any]:
    """All that decides what a step makes, and nothing that does not."""
    info = definition.info
    inputs: dict[str, Any] = {
        "graph": graph.digest,
        "step": step.name,
        "settings": dict(step.settings),
        "version": info.version,
        "origin": definition.origin,
    }
    if info.uses_data and given.dataset is not None:
        inputs["data"] = given.dataset.digest
    if Need.STATISTICS in info.needs:
        own = given.statistics if given.statistics and given.statistics.graph_digest == graph.digest else None
        inputs["statistics"] = statistics_digest(own) if own else context.plan.calibration.samples
    if Need.PLAN in info.needs:
        inputs["plan"] = context.plan.without_steps.digest
    if Need.FLOAT in info.needs:
        for name, one in (("original", context.original), ("unrounded", context.unrounded)):
            inputs[name] = one.digest if one is not None else ""
    if info.uses_seed:
        inputs["seed"] = context.seed
    return inputs


def _statistics(
    given: StepInputs, plan: EffectivePlan, reporter: Reporter, cancel: CancelToken, graph: Graph
) -> Statistics:
    return collected(
        graph,
        given.dataset,
        plan.calibration.samples,
        given=given.statistics,
        reporter=reporter,
        cancel=cancel,
    )
