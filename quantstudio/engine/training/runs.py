"""What the steps that train have in common: a student, an objective, a training, a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from quantstudio.core.errors import RecipeError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.steps import SettingValue
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.model.open import open_model
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.recovery.lessons import samples_that_fit
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings
from quantstudio.engine.training.objective import Objective, Wanted
from quantstudio.engine.training.samples import Samples
from quantstudio.engine.training.schedule import Schedule
from quantstudio.engine.training.settings import DistillSettings, TrainingSettings
from quantstudio.engine.training.students import FloatStudent, QuantizedStudent, Student
from quantstudio.engine.training.training import Changes, Trained, Training, summary_of

Settings = TrainingSettings | DistillSettings


def trained_quantized(
    graph: Graph, context: StepContext, settings: TrainingSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph trained through the rounding of its plan."""
    label = "Training through the rounding"
    return _outcome(graph, context, settings, _wanted(settings), label, reporter, cancel, is_quantized=True)


def trained_float(
    graph: Graph, context: StepContext, settings: TrainingSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The float graph trained further."""
    wanted = _wanted(settings)
    return _outcome(graph, context, settings, wanted, "Fine-tuning", reporter, cancel, is_quantized=False)


def distilled(
    graph: Graph, context: StepContext, settings: DistillSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph trained towards the original network's answers, through the rounding of its plan if any."""
    names = tuple(name.strip() for name in settings.features.split(",") if name.strip())
    wanted = Wanted(temperature=settings.temperature, features=names)
    teacher = _teacher(graph, settings)
    if teacher is not None:
        context = replace(context, original=teacher)
    is_quantized = not all(scheme.is_float for scheme in context.plan.schemes.values())
    label = "Learning from the original"
    return _outcome(graph, context, settings, wanted, label, reporter, cancel, is_quantized=is_quantized)


def _teacher(graph: Graph, settings: DistillSettings) -> Graph | None:
    """The network that is to be learned from, where the settings name one.

    Raises:
        ModelLoadError: it cannot be opened.
        RecipeError: it is another network than the recipe was made with, or answers something else.
    """
    if not settings.original:
        return None
    found = open_model(Path(settings.original))
    if settings.original_digest not in ("", found.digest):
        raise RecipeError(
            "the network to learn from is another than the recipe was made with", where=settings.original
        )
    for kind in ("inputs", "outputs"):
        own, other = ([one.name for one in getattr(each.summary, kind)] for each in (graph, found))
        if own != other:
            raise RecipeError(
                f"the two networks have other {kind}: {', '.join(own)} and {', '.join(other)}",
                where=settings.original,
                hint="Export both with the same names",
            )
    return found


def _wanted(settings: TrainingSettings) -> Wanted:
    return Wanted(settings.teacher, settings.temperature, loss=settings.loss, needs_labels=True)


def _outcome(
    graph: Graph,
    context: StepContext,
    settings: Settings,
    wanted: Wanted,
    label: str,
    reporter: Reporter,
    cancel: CancelToken,
    *,
    is_quantized: bool,
) -> StepOutcome:
    device, dataset = resolve_device(context.device), context.dataset
    with torch_settings(worker_threads()):
        objective = Objective(graph, context.original or graph, dataset, wanted, device, cancel)
        samples = Samples(dataset, settings.samples, settings.batch, device, cancel)
        student: Student
        if is_quantized:
            statistics = context.statistics(graph) if context.plan.is_static else None
            student = QuantizedStudent(graph, statistics, context.plan, device)
        else:
            student = FloatStudent(graph, device)
        mix = isinstance(settings, DistillSettings) and settings.mix
        steps = samples.steps(settings.epochs)
        training = Training(
            student,
            objective,
            samples,
            Schedule(steps, settings.epochs, settings.stop, settings.patience),
            rate=settings.rate,
            changes=Changes(settings.flip, settings.crop, mix),
            context=context,
            at_once=samples_that_fit(graph),
            label=label,
            reporter=reporter,
            cancel=cancel,
        )
        found = training.run()
        summary = summary_of(found, samples, objective)
        ended: Mapping[str, SettingValue] = {"stop": max(found.done, 1)} if found.stopped else {}
        if found.best_step == 0:
            return StepOutcome(graph, summary, _details(found), ended)
        model = editable_copy(graph)
        student.write(model)
        made = derived_graph(graph, model, f"{label}: {found.best_step} steps.")
    return StepOutcome(made, summary, _details(found), ended)


def _details(found: Trained) -> dict[str, float | int]:
    best = next((point for point in reversed(found.curve) if point.is_best), found.curve[0])
    return {
        "before": found.curve[0].held_loss,
        "after": best.held_loss,
        "steps": found.best_step,
        "done": found.done,
    }
