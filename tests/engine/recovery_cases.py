"""Small networks, their samples and contexts for the tests of steps that train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.events import NullReporter
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.recovered import LayerRecovered
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.quantization.emit import emit
from tests.engine.quantization_cases import NetBuilder, normal, outputs_of

SAMPLES = 64


def classifier(last="", transB=0):  # noqa: N803  as ONNX spells it
    """x [n, 8] -> Gemm 24 -> Relu -> Gemm 24 -> Relu -> Gemm 5, with confident answers."""
    net = NetBuilder(11)
    x = net.op("Relu", net.gemm("x", "a", 8, 24, transB=transB), name="relu_a")
    x = net.op("Relu", net.gemm(x, "b", 24, 24), name="relu_b")
    net.weight("c.w", 24, 5, scale=0.8)
    x = net.op("Gemm", x, "c.w", name="c")
    if last:
        x = net.op(last, x, name="last")
    return net.model({"x": ["n", 8]}, [x])


def context_of(graph: Graph, folder: Path, scheme: str, samples: int = SAMPLES, **arrays) -> StepContext:
    """One scheme for every layer, with normal samples unless others are given."""
    data = arrays or {"x": normal(samples, *(n for n in graph.summary.inputs[0].shape[1:]), seed=2)}
    np.savez(folder / "data.npz", **data)
    dataset = open_dataset(DataSpec(str(folder / "data.npz")), graph.summary.inputs)
    plan = resolve(uniform_recipe(NAMED_SCHEMES[scheme]), graph.layers)
    return StepContext(plan, data=dataset, collect=lambda graph: calibrate(graph, dataset))


def behind(context: StepContext, original: Graph) -> StepContext:
    """The context of a step that comes behind others."""
    return replace(context, original=original, unrounded=original)


def divergence(graph: Graph, context: StepContext, reference: Graph) -> float:
    """Mean KL divergence of the emitted file's class probabilities from those of another network."""
    feed = {
        name: array
        for batch in context.dataset.batches(len(context.dataset))
        for name, array in batch.feed.items()
    }
    statistics = context.statistics(graph) if context.plan.is_static else None
    found = outputs_of(emit(graph, statistics, context.plan), feed)[0]
    wanted = outputs_of(reference.proto, feed)[0]
    p, q = (one - np.log(np.exp(one).sum(1, keepdims=True)) for one in (wanted, found))
    return float((np.exp(p) * (p - q)).sum(1).mean())


class Told(NullReporter):
    """Keeps what a step tells of layers and how far it came."""

    def __init__(self) -> None:
        self.layers: list[LayerRecovered] = []
        self.places: list[tuple[int, int, str]] = []

    def found(self, part: object) -> None:
        if isinstance(part, LayerRecovered):
            self.layers.append(part)

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        self.places.append((done, total, unit))
