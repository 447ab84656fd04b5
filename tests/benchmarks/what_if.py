"""Time of a prediction after flipping layers: `python -m tests.benchmarks.what_if [--layers 500]`.

A synthetic model with costs, sensitivities of every precision, ten classes and forty measured variants. Each
turn flips a random set of layers (one to all of them) to a random precision and predicts everything: size,
KL, accuracy with its interval, worst class, latency with borders, memory with lifetimes. Then the same
through the session of the window: from `set_precision` to `prediction_changed`, the project file written on
the way. CPU time of the thread: a busy machine does not count.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table

from quantstudio.core.costs import BorderCost, CostTable, LayerCost, LayerEdge, LiveTensor
from quantstudio.core.effective_plan import LayerList, resolve
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.precision import FP32, STATIC_INT8, LayerScheme, Precision, at_weights, keyed_formats
from quantstudio.core.predict.kl_model import ACTIVATIONS
from quantstudio.core.predict.model import Judged, MeasuredPlan
from quantstudio.core.predict.table import PredictionTable, fit_prediction
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.results import AccuracyCurve, ClassAccuracy, LayerSensitivity, SensitivityResult
from quantstudio.core.schemes import NAMED_SCHEMES
from tests.workspace.putting import put_costs, put_sensitivity_run

LIMIT_MS = 16.0
CLASSES = tuple(f"class {index}" for index in range(10))
SCHEMES: tuple[LayerScheme, ...] = (
    FP32, STATIC_INT8,
    *(at_weights(STATIC_INT8, p) for p in (Precision.INT6, Precision.INT4, Precision.INT2)),
)  # fmt: skip


def main() -> None:
    """Print medians and 99th percentiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--turns", type=int, default=300)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    layers = tuple(layer(index) for index in range(arguments.layers))
    table = Table(title=f"{arguments.layers} layers, {arguments.turns} turns; limit {LIMIT_MS:.0f} ms")
    for column in ("what", "median ms", "p99 ms", "largest ms"):
        table.add_column(column, justify="right")
    for what, times in (
        ("predict after a flip", predictions(layers, arguments.turns, rng)),
        ("set_precision to prediction_changed", session_turns(layers, arguments.turns, rng)),
    ):
        found = np.asarray(times)
        table.add_row(
            what, f"{np.median(found):.2f}", f"{np.percentile(found, 99):.2f}", f"{found.max():.2f}"
        )
    Console(width=120).print(table)


def predictions(layers: tuple[LayerInfo, ...], turns: int, rng: np.random.Generator) -> list[float]:
    """Milliseconds of every flip with its full prediction."""
    table = PredictionTable(
        layers, costs=costs(layers), sensitivity=sensitivity(layers), curve=curve(), classes=CLASSES
    )
    judged = Judged(0.92, 10_000, classes=dict.fromkeys(CLASSES, (0.92, 1000)), memory_bytes=10**9)
    model = fit_prediction(table, [plan(layers, index, rng) for index in range(40)], judged)
    recipe, times, listed = uniform_recipe("static-int8"), list[float](), LayerList(layers)
    for _ in range(turns):
        names, scheme = flip(layers, rng)
        start = time.thread_time()
        recipe = recipe.assign(names, scheme)
        found = table.predict(resolve(recipe, listed), model)
        times.append(1e3 * (time.thread_time() - start))
        assert found.accuracy is not None
        assert found.worst_class is not None or found.kl == 0
        assert found.memory_bytes is not None
        assert found.latency_ms is not None
    return times


def session_turns(layers: tuple[LayerInfo, ...], turns: int, rng: np.random.Generator) -> list[float]:
    """Milliseconds through the session, without a window."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtCore import QCoreApplication  # Qt is needed for this part alone

    from quantstudio.gui.session import Session
    from tests.workspace.canned import ReplayRunner

    application = QCoreApplication.instance() or QCoreApplication([])
    session = Session(ReplayRunner().attach)
    session.workspace.opening.set_model(summary(layers))
    put_costs(session.workspace, costs(layers))
    put_sensitivity_run(
        session.workspace,
        SensitivityResult(
            "fisher", 512, 1.0, "int4", tuple(sensitivity(layers).values()), curve(), classes=CLASSES
        ),
    )
    told: list[float] = []
    session.prediction_changed.connect(lambda: told.append(time.thread_time()))
    settle(
        application,
        lambda: session.workspace.prediction is not None and session.workspace.prediction.kl is not None,
    )
    times, keys = [], keyed_formats()
    for _ in range(turns):
        names, _ = flip(layers, rng)
        key = keys[rng.integers(len(keys))]
        told.clear()
        start = time.thread_time()
        session.workspace.edits.set_precision(names, key)
        settle(application, lambda: bool(told))
        if told:
            times.append(1e3 * (told[-1] - start))
    return times


def settle(application: object, is_done: Callable[[], bool]) -> None:
    """Turn the event loop until something came about, for a second at most."""
    from PySide6.QtCore import QCoreApplication

    assert isinstance(application, QCoreApplication)
    end = time.monotonic() + 1.0
    while not is_done() and time.monotonic() < end:
        application.processEvents()


def flip(layers: tuple[LayerInfo, ...], rng: np.random.Generator) -> tuple[list[str], LayerScheme]:
    """Some layers and a precision for them."""
    count = int(rng.choice([1, 5, 50, len(layers) // 2, len(layers)]))
    chosen = rng.choice(len(layers), min(count, len(layers)), replace=False)
    return [layers[index].name for index in chosen], SCHEMES[rng.integers(len(SCHEMES))]


def layer(index: int) -> LayerInfo:
    """A convolution."""
    return LayerInfo(
        f"stage{index // 20}.block{index // 4 % 5}.conv{index % 4}#{index}",
        "Conv",
        weight_name=f"w{index}",
        weight_shape=(64, 64, 3, 3),
        parameters=36_928,
        schemes=tuple(name for name in NAMED_SCHEMES if name != "weight-int4"),
        channel_axis=0,
        inputs=(f"t{index}",),
        outputs=(f"t{index + 1}",),
    )


def sensitivity(layers: tuple[LayerInfo, ...]) -> dict[str, LayerSensitivity]:
    """Estimates of every precision, with classes."""
    rng = np.random.default_rng(1)
    found = {}
    for one in layers:
        level = float(np.exp(rng.normal(-12, 1.5)))
        by = {
            "int8": level,
            "int6": 16 * level,
            "int4": 200 * level,
            "int3": 1e3 * level,
            "int2": 4e3 * level,
        }
        classes = tuple((200 * level * rng.dirichlet(np.full(10, 2.0)) * 10).tolist())
        found[one.name] = LayerSensitivity(
            one.name, 200 * level, 0.0, 1.0, 30.0, by_precision=by | {ACTIVATIONS: level}, by_class=classes
        )
    return found


def curve() -> AccuracyCurve:
    """A curve with shares of changed answers."""
    kl = np.concatenate([[0.0], np.geomspace(1e-5, 5.0, 24)])
    accuracy = 0.92 - 0.3 * np.minimum(kl, 2.0)
    return AccuracyCurve(
        tuple(kl.tolist()), tuple(accuracy.tolist()), tuple((accuracy - 0.02).tolist()),
        tuple((accuracy + 0.02).tolist()), True, tuple((0.9 * (1 - np.exp(-0.25 * np.sqrt(kl)))).tolist()),
        (0.92,) * len(CLASSES), 512,
    )  # fmt: skip


def costs(layers: tuple[LayerInfo, ...]) -> CostTable:
    """Bytes, times, borders, lifetimes."""
    names = layers[0].schemes
    row = LayerCost(
        {name: 147_712 if name in ("fp32", "fp16") else 37_500 for name in names},
        1 / len(layers),
        dict.fromkeys(names, 0.4),
        {name: 300_000 if name in ("fp32", "fp16") else 75_000 for name in names},
    )
    return CostTable(
        {one.name: row for one in layers},
        structure_bytes=200_000,
        fp32_ms=40.0,
        provider="CPUExecutionProvider",
        edges=tuple(LayerEdge(a.name, b.name, 65_536) for a, b in pairwise(layers)),
        border=BorderCost(0.002, 1e-6, 0.002, 1e-6),
        tensors=tuple(LiveTensor(one.name, 65_536, 2 * i, 2 * i + 4) for i, one in enumerate(layers)),
        fp32_memory_bytes=10**9,
    )


def plan(layers: tuple[LayerInfo, ...], index: int, rng: np.random.Generator) -> MeasuredPlan:
    """A measured variant."""
    names, scheme = flip(layers, rng)
    recipe = Recipe().assign(names, scheme if not scheme.is_float else STATIC_INT8)
    kl = float(np.exp(rng.normal(-4, 1)))
    changed = 0.22 * kl**0.5
    return MeasuredPlan(
        f"variant {index}",
        resolve(recipe, layers),
        10_000,
        kl=kl,
        changed=changed,
        accuracy=0.92 - 0.25 * changed,
        base=0.92,
        classes=tuple(
            ClassAccuracy(name, 1000, 0.92, 0.92 - changed * rng.uniform(-0.3, 0.8), 0.0, 1.0)
            for name in CLASSES
        ),
    )


def summary(layers: tuple[LayerInfo, ...]) -> ModelSummary:
    """The model as the window knows it."""
    edges = tuple((index, index + 1) for index in range(len(layers) - 1))
    return ModelSummary(
        "model.onnx", "model.onnx", "d" * 64, "s" * 64, 21, (), (), layers, edges, 10**7, 4 * 10**7, 4 * 10**7
    )


if __name__ == "__main__":
    main()
