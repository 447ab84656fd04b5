"""A small network whose channels differ by orders of magnitude, with samples: steps matter for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.precision import Granularity, LayerScheme, Precision
from quantstudio.core.recipe import CalibrationSettings, LayerRule, Recipe
from quantstudio.core.steps import Step
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.graph.graph import Graph
from tests.engine.quantization_cases import NetBuilder, normal, opened

SAMPLES = 48
EQUALIZE = Step("equalize")
BIAS = Step("bias", {"samples": 16})
# One scale per weight: what equalization is for.
INT4_PER_TENSOR = LayerScheme(Precision.INT4, granularity=Granularity.PER_TENSOR)


@dataclass(frozen=True)
class Uneven:
    """The network, opened, and its data."""

    graph: Graph
    data: DataSpec

    @property
    def dataset(self) -> Dataset:
        return open_dataset(self.data, self.graph.summary.inputs)

    @property
    def task(self) -> dict[str, Any]:
        """What every task is given of it."""
        return {"graph_path": self.graph.summary.graph_path, "data": to_json(self.data)}


def uneven(folder: Path) -> Uneven:
    """x [n, 6] -> Gemm 12 -> Relu -> Gemm 8 -> Relu -> Gemm 4."""
    net = NetBuilder()
    x = "x"
    for name, rows, columns in (("a", 6, 12), ("b", 12, 8), ("c", 8, 4)):
        scales = 100.0 ** np.linspace(-1, 1, columns) if name != "c" else np.ones(columns)
        before = 100.0 ** np.linspace(1, -1, rows) if name != "a" else np.ones(rows)
        weight = normal(rows, columns, seed=ord(name)) * scales * before[:, None] / rows
        net.constant(f"{name}.w", weight.astype(np.float32))
        net.constant(f"{name}.b", (normal(columns, seed=ord(name) + 9) * scales / 4).astype(np.float32))
        x = net.op("Gemm", x, f"{name}.w", f"{name}.b", name=name)
        if name != "c":
            x = net.op("Relu", x, name=f"relu_{name}")
    graph = opened(net.model({"x": ["n", 6]}, [x]), folder)
    samples = normal(SAMPLES, 6, seed=3)
    np.savez(folder / "data.npz", x=samples, y=np.arange(SAMPLES) % 4)
    return Uneven(graph, DataSpec(str(folder / "data.npz")))


def recipe(*steps: Step, scheme: LayerScheme = INT4_PER_TENSOR) -> Recipe:
    """Every layer in one scheme, behind steps."""
    rules = (LayerRule(scheme),)
    return Recipe(rules, calibration=CalibrationSettings(samples=SAMPLES), steps=steps)
