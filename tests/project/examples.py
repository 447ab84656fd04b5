"""Values that projects hold, made up."""

from __future__ import annotations

from pathlib import Path

from quantstudio.core.files import file_digest
from quantstudio.core.findings import KNOWN_DATA
from quantstudio.core.layers import LayerInfo, ModelSummary, TensorInfo
from quantstudio.core.precision import FP32, STATIC_INT8
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import BuildResult, BuiltLayer, Interval, VariantResult
from quantstudio.core.variants import Variant
from quantstudio.project.store import Project

RECIPE = Recipe((LayerRule(STATIC_INT8), LayerRule(FP32, ("conv1", "conv2"))))
BUILD = BuildResult(
    "out.onnx",
    "digest",
    "hash",
    RECIPE.digest,
    1234,
    0.5,
    (BuiltLayer("conv1", "int8", "int8", "QLinearConv"),),
)
MEASURED = VariantResult(
    path="out.onnx",
    name="INT8",
    size_bytes=1234,
    metrics={"top1": 0.91},
    drop=Interval(0.2, 0.0, 0.4),
    drop_method="mcnemar",
    p_value=0.2,
    per_class=(),
    segments=(),
    agreement=None,
    latency_ms=None,
    speedup=Interval(2.0, 1.9, 2.1),
    peak_memory_bytes=10,
    footprint=None,
    provider="cpu",
    samples=100,
)
VARIANT = Variant("hash", "INT8", "Plan 1", RECIPE, "out.onnx", BUILD, "statistics", 5.0)


def summary_of(path: Path) -> ModelSummary:
    """A summary that points to an existing file."""
    return ModelSummary(
        source_path=str(path),
        graph_path="/cache/graph.onnx",
        digest="graph digest",
        source_digest=file_digest(path),
        opset=21,
        inputs=(TensorInfo("x", "float32", ("N", 1, 8, 8)),),
        outputs=(TensorInfo("y", "float32", ("N", 10)),),
        layers=(LayerInfo("conv1", "Conv", "w", (8, 1, 3, 3), 72, 288),),
        edges=(),
        parameters=72,
        weight_bytes=288,
        file_bytes=400,
    )


def put_note(project: Project, key: str, text: str) -> None:
    """Any small thing that a project keeps."""
    project.findings.put(KNOWN_DATA, key, {"": text})


def note(project: Project, key: str) -> str | None:
    return project.findings.rows(KNOWN_DATA, key).get("")
