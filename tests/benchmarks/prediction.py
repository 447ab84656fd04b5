"""Predicted against measured on random mixed plans: `python -m tests.benchmarks.prediction [NET ...]`.

Every plan gives each layer a weight precision drawn from a mix of its own (FP32, INT8, INT6, INT4, INT3,
INT2; activations INT8 wherever a layer is not float), so that plans reach from untouched to ruined.
Predictions use sensitivities of 512 calibration samples; truth is the built file on test samples the
predictor never saw. They are made three times: from the first state, where nothing but FP32 was measured;
from five measured plans, each of the others predicted; and with every plan left out of what it is predicted
from. Latency is checked on fewer plans, interleaved with FP32, one thread.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.effective_plan import resolve
from quantstudio.core.precision import STATIC_INT8, LayerScheme, Precision, at_weights
from quantstudio.core.predict.check import Figure, PredictionPoint, plan_point, prediction_points, trust
from quantstudio.core.predict.model import Judged, MeasuredPlan, judged_base, measured_plan
from quantstudio.core.predict.table import PredictionTable, fit_prediction
from quantstudio.core.recipe import ActivationScope, Recipe, uniform_recipe
from quantstudio.core.samples import sample, sample_names
from quantstudio.core.statistics import Statistics
from quantstudio.engine.analysis.costs import cost_table
from quantstudio.engine.analysis.sensitivity import fisher_sensitivity
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
TIMED_PLANS = 12
MIN_RANK, MIN_COVERAGE = 0.95, 0.85


@dataclass(frozen=True)
class Case:
    """A network with its data and tables."""

    graph: Graph
    train: Dataset
    test: Dataset
    statistics: Statistics
    table: PredictionTable


def main() -> None:
    """Print one row a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--plans", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-samples", type=int, default=10_000)
    parser.add_argument("--no-latency", action="store_true")
    arguments = parser.parse_args()
    table = Table(
        title=f"{arguments.plans} random mixed plans, seed {arguments.seed}; sensitivity of {SAMPLES} "
        f"calibration samples, truth on up to {arguments.test_samples:,} test samples; intervals of 90 %"
    )
    for column in (
        "network", "rank first", "rank left out", "limit", "held first", f"after {FIRST_PLANS}", "left out",
        "limit", "KL held", "class held", "points off: first", f"after {FIRST_PLANS}", "left out",
        "latency off", "worst",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for name in arguments.nets:
        table.add_row(name, *row(name, arguments))
    Console(width=220).print(table)


def row(name: str, arguments: argparse.Namespace) -> list[str]:
    """One network."""
    case = prepared(name, arguments.test_samples, with_costs=not arguments.no_latency)
    rng = np.random.default_rng(arguments.seed)
    recipes = [random_recipe(case.graph, rng) for _ in range(arguments.plans)]
    judged, plans = measured(case, recipes)
    known = [plan for plan in plans if plan.kl is not None and np.isfinite(plan.kl)]
    first = points(case, known, judged, [], Figure.ACCURACY)
    taught = [known[i] for i in rng.permutation(len(known))[:FIRST_PLANS]]
    others = [plan for plan in known if plan not in taught]
    after = points(case, others, judged, taught, Figure.ACCURACY)
    left_out = prediction_points(case.table, known, judged)
    kl_first = points(case, known, judged, [], Figure.KL)
    kl_left_out = prediction_points(case.table, known, judged, Figure.KL)
    classes = prediction_points(case.table, known, judged, Figure.WORST_CLASS)
    return [
        f"{rank(kl_first):.3f}", f"{rank(kl_left_out):.3f}", f"{MIN_RANK}",
        held(first), held(after), held(left_out), f"{100 * MIN_COVERAGE:.0f} %",
        held(kl_left_out), held(classes), error(first), error(after), error(left_out),
        *(latency(case, recipes) if not arguments.no_latency else ("", "")),
    ]  # fmt: skip


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
    table = PredictionTable(
        graph.layers,
        costs=cost_table(graph, statistics, train, threads=1) if with_costs else None,
        sensitivity={layer.name: layer for layer in sensitivity.layers},
        curve=sensitivity.curve,
        classes=sensitivity.classes,
    )
    return Case(graph, train, test, statistics, table)


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


def points(
    case: Case, plans: list[MeasuredPlan], judged: Judged, taught: list[MeasuredPlan], figure: Figure
) -> list[PredictionPoint]:
    """Plans against what is predicted of them from some others."""
    model = fit_prediction(case.table, taught, judged)
    found = [plan_point(case.table, plan, model, figure) for plan in plans]
    return [point for point in found if point is not None]


def rank(found: Sequence[PredictionPoint]) -> float:
    """Spearman's correlation of predicted and measured."""
    return float(spearmanr([p.predicted for p in found], [p.measured for p in found]).statistic)


def held(found: Sequence[PredictionPoint]) -> str:
    """Part of the plans inside their interval."""
    summary = trust(found)
    return f"{100 * summary.inside / max(summary.plans, 1):.0f} %"


def error(found: Sequence[PredictionPoint]) -> str:
    """Median distance of predicted and measured accuracy and median width of the interval, in points."""
    off = np.median([abs(p.predicted - p.measured) for p in found])
    return f"{100 * off:.2f} ({100 * np.median([p.high - p.low for p in found]):.1f})"


def latency(case: Case, recipes: list[Recipe]) -> tuple[str, str]:
    """Mean and largest relative error of latency, of plans whose layers are FP32 or INT8."""
    rng = np.random.default_rng(len(recipes))
    able = [layer.name for layer in case.graph.layers if "static-int8" in layer.schemes]
    mixed = [uniform_recipe(STATIC_INT8, activation_scope=scope_of(case.graph))]
    for _ in range(TIMED_PLANS - 1):
        share = rng.uniform(0.1, 0.9)
        names = [name for name in able if rng.uniform() < share] or able[:1]
        mixed.append(Recipe(activation_scope=scope_of(case.graph)).assign(names, STATIC_INT8))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(case.graph.summary.graph_path), *written(case, mixed, Path(folder))]
        timed = interleaved_latency(
            paths, next(case.train.batches(1)).feed, threads=1, budget=LatencyBudget(10.0, 30, 300)
        )
    errors = []
    for recipe, speed in zip(mixed, timed.speedups[1:], strict=True):
        predicted = case.table.predict(resolve(recipe, case.graph.layers)).latency_ms
        assert predicted is not None
        errors.append(abs(predicted / case.table.fp32_ms * speed.value - 1))
    return f"{100 * np.mean(errors):.1f} %", f"{100 * max(errors):.0f} %"


if __name__ == "__main__":
    main()
