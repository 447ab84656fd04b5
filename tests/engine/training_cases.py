"""A small network with labelled samples, and what a training tells, for the tests of steps that train."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.recipe import CalibrationSettings, uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.trained import TrainingPoint
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.pipeline.observed import collected
from quantstudio.engine.quantization.emit import emit
from tests.engine.quantization_cases import NetBuilder, normal, outputs_of
from tests.engine.recovery_cases import Told

SAMPLES = 160
CALIBRATED = CalibrationSettings(samples=64)


def pictures() -> np.ndarray:
    """Samples [160, 6, 6, 6]."""
    return normal(SAMPLES, 6, 6, 6, seed=5)


def network(last: str = ""):
    """x [n, 6, 6, 6] -> Conv 40 -> Relu -> depthwise Conv -> Clip 6 -> mean -> Gemm 4."""
    net = NetBuilder(3)
    net.weight("a.w", 40, 6, 3, 3, scale=0.25)
    net.weight("a.b", 40, scale=0.2)
    net.weight("d.w", 40, 1, 3, 3, scale=0.5)
    net.weight("d.b", 40, scale=0.2)
    net.weight("c.w", 4, 40, scale=0.3)
    net.weight("c.b", 4, scale=0.1)
    x = net.op("Relu", net.op("Conv", "x", "a.w", "a.b", name="a", kernel_shape=[3, 3]), name="relu")
    x = net.op("Conv", x, "d.w", "d.b", name="d", kernel_shape=[3, 3], group=40)
    net.constant("low", np.array(0, np.float32))
    net.constant("high", np.array(6, np.float32))
    x = net.op("Clip", x, "low", "high", name="clip")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="mean"), name="flat")
    x = net.op("Gemm", x, "c.w", "c.b", name="c", transB=1)
    if last:
        x = net.op(last, x, name="last")
    return net.model({"x": ["n", 6, 6, 6]}, [x])


def context(graph: Graph, folder: Path, scheme: str, *, labels=True, key: str = "", **arrays) -> StepContext:
    """One scheme for every layer; labels tell which of two channels are bright."""
    data = arrays or {"x": pictures()}
    if labels and "y" not in data:
        bright = data["x"].mean((2, 3)) > 0
        data["y"] = 2 * bright[:, 0] + bright[:, 1]
    path = folder / f"data-{labels}-{len(data['x'])}.npz"
    np.savez(path, **data)
    dataset = open_dataset(DataSpec(str(path)), graph.summary.inputs)
    plan = replace(resolve(uniform_recipe(NAMED_SCHEMES[scheme]), graph.layers), calibration=CALIBRATED)

    def collect(made: Graph):
        return collected(made, dataset, 64, reporter=NULL_REPORTER, cancel=CancelToken())

    return StepContext(plan, data=dataset, collect=collect, original=graph, unrounded=graph, key=key)


def file_outputs(graph: Graph, context: StepContext) -> np.ndarray:
    """What the emitted file answers to all samples."""
    statistics = context.statistics(graph) if context.plan.is_static else None
    feed = next(context.dataset.batches(len(context.dataset))).feed
    return np.asarray(outputs_of(emit(graph, statistics, context.plan), feed)[0])


class Curve(Told):
    """Keeps the points of a training, and may stop it at one of them."""

    def __init__(self, token: CancelToken | None = None, at: int = -1, *, by: str = "set") -> None:
        super().__init__()
        self.points: list[TrainingPoint] = []
        self.said: list[str] = []
        self._token, self._at, self._by = token, at, by

    def found(self, part: object) -> None:
        super().found(part)
        if isinstance(part, TrainingPoint):
            self.points.append(part)

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        super().progress(done, total, unit, label)
        if self._token is not None and done == self._at:
            getattr(self._token, self._by)()

    def message(self, text: str, severity=None) -> None:
        self.said.append(text)


def written(value: object) -> str:
    """Any value as text, to compare runs."""
    return json.dumps(value, default=str, sort_keys=True)
