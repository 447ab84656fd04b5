"""Predicted against measured on random mixed plans: `python -m tests.benchmarks.prediction [NET ...]`.

Every plan gives each layer a weight precision drawn from a mix of its own (FP32, INT8, INT6, INT4, INT3,
INT2; activations INT8 wherever a layer is not float), so that plans reach from untouched to ruined.
Predictions use sensitivities of 512 calibration samples; truth is the built file on test samples the
predictor never saw. They are made three times: from the first state, where nothing but FP32 was measured;
from five measured plans, each of the others predicted; and with every plan left out of what it is predicted
from. A second table holds ranges set by hand (of weights or of activations, on INT8 or INT4, cut to a sixth
up to the whole), predicted from the first state and from the unclipped plan, and the time of plans one edit
from a measured one, all of them interleaved with FP32 in one run, one thread. A plan that only gets a bound
counts as held where it lost as much.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from quantstudio.core.activation_ranges import activation_range
from quantstudio.core.affine import IntegerGrid
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.effective_plan import resolve
from quantstudio.core.precision import FP32, STATIC_INT4, STATIC_INT8, LayerScheme, Precision, at_weights
from quantstudio.core.predict.check import Figure, PredictionPoint, plan_point, prediction_points, trust
from quantstudio.core.predict.clip_loss import Distributions
from quantstudio.core.predict.model import Judged, MeasuredPlan, judged_base, measured_plan
from quantstudio.core.predict.table import PredictionTable, fit_prediction
from quantstudio.core.recipe import (
    ActivationScope,
    CalibrationSettings,
    RangeOverride,
    Recipe,
    uniform_recipe,
)
from quantstudio.core.samples import sample, sample_names
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.core.target import DEFAULT_TARGET
from quantstudio.engine.analysis.costs import cost_table
from quantstudio.engine.analysis.sensitivity import fisher_sensitivity
from quantstudio.engine.analysis.weights import weight_statistics
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.evaluation.compare import compare
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model
from tests.engine.recipe_builds import emit
from tests.shared_data import MODELS, TEST, TRAIN, TRANSFORM

NETS = ("fmnist_resnet", "fmnist_mobilenet", "fmnist_vit")
PRECISIONS = (
    None, Precision.INT8, Precision.INT6, Precision.INT4, Precision.INT3, Precision.INT2,
)  # fmt: skip
SENSITIVITIES = ("int8", "int6", "int4", "int3", "int2", "int8-activations")
SAMPLES = 512
FIRST_PLANS = 5
TIMED_PLANS, EDITS_A_PLAN = 5, 3
MIN_RANK, MIN_COVERAGE, MAX_LATENCY_OFF = 0.95, 0.85, 0.08


@dataclass(frozen=True)
class Case:
    """A network with its data and tables."""

    graph: Graph
    train: Dataset
    test: Dataset
    statistics: Statistics
    table: PredictionTable
    weights: Mapping[str, WeightStatistics]


def main() -> None:
    """Print one row a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--plans", type=int, default=50)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-samples", type=int, default=10_000)
    parser.add_argument("--no-latency", action="store_true")
    arguments = parser.parse_args()
    plans = Table(
        title=f"{arguments.plans} random mixed plans, seed {arguments.seed}; sensitivity of {SAMPLES} "
        f"calibration samples, truth on up to {arguments.test_samples:,} test samples; intervals of 90 %"
    )
    for column in (
        "network", "rank first", "rank left out", "limit", "held first", f"after {FIRST_PLANS}", "left out",
        "limit", "only a bound", "KL held", "class held", "points off: first", f"after {FIRST_PLANS}",
        "left out",
    ):  # fmt: skip
        plans.add_column(column, justify="right")
    edits = Table(
        title=f"{arguments.clips} random ranges set by hand; times of plans one edit from a measured one"
    )
    for column in (
        "network", "clips held first", "after the whole", "limit", "points off: first", "after the whole",
        "time off: mean", "largest", f"within {100 * MAX_LATENCY_OFF:.0f} %", "unmeasured: mean", "largest",
        "other load",
    ):  # fmt: skip
        edits.add_column(column, justify="right")
    for name in arguments.nets:
        case = prepared(name, arguments.test_samples, with_costs=not arguments.no_latency)
        rng = np.random.default_rng(arguments.seed)
        plans.add_row(name, *plan_row(case, arguments.plans, rng))
        edits.add_row(
            name,
            *clip_row(case, arguments.clips, rng),
            *(() if arguments.no_latency else time_row(case, rng)),
        )
    Console(width=220).print(plans, edits)


def plan_row(case: Case, count: int, rng: np.random.Generator) -> list[str]:
    """Random plans of one network."""
    judged, plans = measured(case, [random_recipe(case.graph, rng) for _ in range(count)])
    known = [plan for plan in plans if plan.kl is not None and np.isfinite(plan.kl)]
    taught = [known[i] for i in rng.permutation(len(known))[:FIRST_PLANS]]
    first = answers(case, known, judged, [])
    after = answers(case, [plan for plan in known if plan not in taught], judged, taught)
    left_out = [
        one
        for plan in known
        for one in answers(case, [plan], judged, [other for other in known if other is not plan])
    ]
    model = fit_prediction(case.table, (), judged)
    kl_first = [one for plan in known if (one := plan_point(case.table, plan, model, Figure.KL)) is not None]
    kl_left_out = prediction_points(case.table, known, judged, Figure.KL)
    classes = prediction_points(case.table, known, judged, Figure.WORST_CLASS)
    bounds = [f"{sum(one.is_bound for one in found)}" for found in (first, after, left_out)]
    return [
        f"{rank(kl_first):.3f}", f"{rank(kl_left_out):.3f}", f"{MIN_RANK}",
        held(first), held(after), held(left_out), f"{100 * MIN_COVERAGE:.0f} %", ", ".join(bounds),
        share(kl_left_out), share(classes), error(first), error(after), error(left_out),
    ]  # fmt: skip


def clip_row(case: Case, count: int, rng: np.random.Generator) -> list[str]:
    """Ranges set by hand on one network."""
    whole = [uniform_recipe(one, activation_scope=scope_of(case.graph)) for one in (STATIC_INT8, STATIC_INT4)]
    judged, plans = measured(case, [*whole, *(clipped(case, whole, rng) for _ in range(count))])
    first, after = (answers(case, plans[2:], judged, taught) for taught in ([], plans[:2]))
    return [held(first), held(after), f"{100 * MIN_COVERAGE:.0f} %", error(first), error(after)]


def clipped(case: Case, whole: Sequence[Recipe], rng: np.random.Generator) -> Recipe:
    """A recipe with the range of one weight or of one activation cut."""
    layers = [one for one in case.graph.layers if "static-int8" in one.schemes and one.weight_name]
    layer, part = layers[int(rng.integers(len(layers)))], float(rng.uniform(0.15, 1.0))
    recipe = whole[int(rng.integers(len(whole)))]
    if rng.uniform() < 0.6:
        found = case.weights[layer.name].histogram
        reach = part * max(abs(found.minimum), abs(found.maximum))
        return replace(recipe, weight_ranges=(RangeOverride(layer.name, -reach, reach),))
    tensor = layer.inputs[0]
    grid = IntegerGrid(8, signed=False)
    low, high = activation_range(case.statistics.tensors[tensor], CalibrationSettings(), grid)
    return replace(recipe, activation_ranges=(RangeOverride(tensor, part * low, part * high),))


def time_row(case: Case, rng: np.random.Generator) -> list[str]:
    """Plans one edit from a measured one, of layers that are FP32 or integer."""
    able = [layer.name for layer in case.graph.layers if "static-int8" in layer.schemes]
    scope = scope_of(case.graph)
    starts = [uniform_recipe(STATIC_INT8, activation_scope=scope)]
    for chance in rng.uniform(0.3, 0.9, TIMED_PLANS - 1):
        names = [name for name in able if rng.uniform() < chance] or able[:1]
        starts.append(Recipe(activation_scope=scope).assign(names, STATIC_INT8))
    recipes, near = list(starts), []
    for index, start in enumerate(starts):
        for name in rng.permutation(able)[:EDITS_A_PLAN]:
            now = resolve(start, case.graph.layers).schemes[name]
            near.append(index)
            recipes.append(start.assign([str(name)], FP32 if now.is_static else STATIC_INT8))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(case.graph.summary.graph_path), *written(case, recipes, Path(folder))]
        timed = interleaved_latency(
            paths, next(case.train.batches(1)).feed, threads=1, budget=LatencyBudget(30.0, 40, 300)
        )
    plans = [
        MeasuredPlan(f"plan {index}", resolve(recipe, case.graph.layers), 0, latency_ratio=1 / speed.value)
        for index, (recipe, speed) in enumerate(zip(recipes, timed.speedups[1:], strict=True))
    ]
    edited = plans[len(starts) :]
    off = [time_off(case, plan, [plans[index]]) for plan, index in zip(edited, near, strict=True)]
    alone = [time_off(case, plan, []) for plan in edited]
    load = timed.results[0].other_load
    meanwhile = "" if load is None else f"{100 * load:.0f} %"
    return [
        f"{100 * np.mean(off):.1f} %", f"{100 * max(off):.0f} %",
        f"{sum(one <= MAX_LATENCY_OFF for one in off)} of {len(off)}",
        f"{100 * np.mean(alone):.1f} %", f"{100 * max(alone):.0f} %", meanwhile,
    ]  # fmt: skip


def time_off(case: Case, plan: MeasuredPlan, taught: Sequence[MeasuredPlan]) -> float:
    """Relative error of a time that is predicted from some measured plans."""
    found = case.table.predict(plan.plan, fit_prediction(case.table, taught))
    assert found.latency_ms is not None
    assert found.fp32_ms
    assert plan.latency_ratio
    return abs(found.latency_ms / found.fp32_ms / plan.latency_ratio - 1)


def prepared(name: str, test_samples: int, *, with_costs: bool) -> Case:
    """Model, data, calibration, sensitivity and costs."""
    if name in sample_names():
        own = sample(name)
        files = own.model, own.train, own.test, own.transform
    else:
        files = MODELS / f"{name}.onnx", TRAIN, TEST, TRANSFORM
    graph = open_model(files[0])
    transform = parse_transform(files[3])
    train = open_dataset(DataSpec(str(files[1]), transform, SAMPLES), graph.summary.inputs)
    test = open_dataset(DataSpec(str(files[2]), transform, test_samples), graph.summary.inputs)
    statistics = calibrate(graph, train, samples=SAMPLES)
    sensitivity = fisher_sensitivity(
        graph, train, samples=SAMPLES, precisions=SENSITIVITIES, statistics=statistics
    )
    weights = {one.layer: one for one in weight_statistics(graph)}
    table = PredictionTable(
        graph.layers,
        costs=cost_table(graph, statistics, train, threads=1) if with_costs else None,
        sensitivity={layer.name: layer for layer in sensitivity.layers},
        curve=sensitivity.curve,
        classes=sensitivity.classes,
        distributions=Distributions(weights, statistics.tensors),
        edges=graph.summary.edges,
        weight_bits=DEFAULT_TARGET.weight_bits,
    )
    return Case(graph, train, test, statistics, table, weights)


def random_recipe(graph: Graph, rng: np.random.Generator) -> Recipe:
    """A scheme for every layer, from a mix of precisions of the plan's own."""
    mix = rng.dirichlet(np.full(len(PRECISIONS), 0.5))
    names: dict[LayerScheme, list[str]] = {}
    for layer in graph.layers:
        if "static-int8" not in layer.schemes:
            continue
        precision = PRECISIONS[rng.choice(len(PRECISIONS), p=mix)]
        if precision is None:
            continue
        takes_any = layer.weight_name and layer.op_type in ("Conv", "Gemm", "MatMul")
        scheme = at_weights(STATIC_INT8, precision) if takes_any else STATIC_INT8
        names.setdefault(scheme, []).append(layer.name)
    recipe = Recipe(activation_scope=scope_of(graph))
    for scheme, layers in names.items():
        recipe = recipe.assign(layers, scheme)
    return recipe


def scope_of(graph: Graph) -> ActivationScope:
    """Static activations throughout suit convolutions; around attention they stay at the layers."""
    convolutions = sum(layer.op_type == "Conv" for layer in graph.layers)
    return ActivationScope.ALL if 2 * convolutions > len(graph.layers) else ActivationScope.WEIGHTED


def measured(case: Case, recipes: list[Recipe]) -> tuple[Judged, list[MeasuredPlan]]:
    """Plans built and run on the test samples."""
    with tempfile.TemporaryDirectory() as folder:
        paths = written(case, recipes, Path(folder))
        found = compare(
            Path(case.graph.summary.graph_path), paths, case.test, latency=False, footprint=False
        ).variants
    base = found[0]
    plans = [
        measured_plan(f"plan {index}", resolve(recipe, case.graph.layers), result, base)
        for index, (recipe, result) in enumerate(zip(recipes, found[1:], strict=True))
    ]
    return judged_base(base), plans


def written(case: Case, recipes: list[Recipe], folder: Path) -> list[Path]:
    """The files of plans."""
    paths = [folder / f"plan{index}.onnx" for index in range(len(recipes))]
    for path, recipe in zip(paths, recipes, strict=True):
        model = emit(case.graph, case.statistics, recipe)
        path.write_bytes(model.SerializeToString(deterministic=True))
    return paths


@dataclass(frozen=True)
class Answer:
    """What is predicted of a measured plan: accuracy with its interval, or a bound and no value."""

    value: float | None
    low: float
    high: float
    measured: float

    @property
    def is_bound(self) -> bool:
        """Whether it says "more than so much is lost" and nothing else."""
        return self.value is None


def answers(
    case: Case, plans: Sequence[MeasuredPlan], judged: Judged, taught: Sequence[MeasuredPlan]
) -> list[Answer]:
    """Plans against what is predicted of them from some others."""
    model, found = fit_prediction(case.table, taught, judged), []
    for plan in plans:
        said = case.table.predict(plan.plan, model)
        assert plan.accuracy is not None
        if said.accuracy is not None:
            own = said.accuracy
            found.append(Answer(own.value, own.low, own.high, plan.accuracy))
        elif said.accuracy_at_most is not None:
            found.append(Answer(None, 0.0, said.accuracy_at_most, plan.accuracy))
    return found


def rank(found: Sequence[PredictionPoint]) -> float:
    """Spearman's correlation of predicted and measured."""
    return float(spearmanr([p.predicted for p in found], [p.measured for p in found]).statistic)


def share(found: Sequence[PredictionPoint]) -> str:
    """Part of the points inside their interval."""
    summary = trust(found)
    return f"{100 * summary.inside / max(summary.plans, 1):.0f} %"


def held(found: Sequence[Answer]) -> str:
    """Part of the plans inside their interval, or at least as bad as their bound."""
    inside = sum(one.low - 1e-9 <= one.measured <= one.high + 1e-9 for one in found)
    return f"{100 * inside / max(len(found), 1):.0f} %"


def error(found: Sequence[Answer]) -> str:
    """Median distance of predicted and measured accuracy and median width of the interval, in points."""
    valued = [(one.value, one) for one in found if one.value is not None]
    if not valued:
        return ""
    off = np.median([abs(value - one.measured) for value, one in valued])
    return f"{100 * off:.2f} ({100 * np.median([one.high - one.low for _, one in valued]):.1f})"


if __name__ == "__main__":
    main()
