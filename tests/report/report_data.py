"""A report with every part filled, from numbers a person can check."""

import math

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.layers import LayerInfo, ModelSummary, TensorInfo
from quantstudio.core.precision import FP32, STATIC_INT8
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import (
    Agreement,
    BuildResult,
    BuiltLayer,
    ClassAccuracy,
    CompareResult,
    Footprint,
    Interval,
    LatencyResult,
    LayerSensitivity,
    Provenance,
    SensitivityResult,
    VariantResult,
)
from quantstudio.report.data import ReportData

EVIL = '=1+1<script>alert("x")</script>&'


def latency(middle_ms: float) -> LatencyResult:
    times = tuple(middle_ms * (1 + 0.01 * i) for i in range(-10, 11))
    return LatencyResult(
        middle_ms, middle_ms * 1.08, middle_ms * 1.1, middle_ms, 1e3 / middle_ms, 1, 2, 21, "CPU", times
    )


def variant(name: str, path: str, size: int, top1: float, drop: Interval, ms: float) -> VariantResult:
    is_base = drop.value == 0 == drop.high
    return VariantResult(
        path=path,
        name=name,
        size_bytes=size,
        metrics={"top1": top1, "top5": 0.999},
        drop=drop,
        drop_method="" if is_base else "mcnemar",
        p_value=None if is_base else 0.04,
        per_class=(
            ClassAccuracy("cat", 100, 0.9, 0.8, 0.71, 0.87),
            ClassAccuracy(EVIL, 100, 0.9, 0.95, 0.89, 0.98),
        ),
        segments=(ClassAccuracy("ink=bold", 50, 0.9, 0.88, 0.76, 0.94),),
        agreement=Agreement(0.991, 0.002, math.inf if is_base else 31.25),
        latency_ms=latency(ms),
        speedup=Interval(1, 1, 1) if is_base else Interval(2.0, 1.9, 2.1),
        peak_memory_bytes=61_000_000,
        footprint=Footprint(size, size - 500, 61_000_000, 11.5, 50_000_000),
        provider="CPUExecutionProvider",
        samples=200,
        flipped=() if is_base else (3, 5),
        flipped_to=() if is_base else (1, 1),
    )


def full_report() -> ReportData:
    layers = (
        LayerInfo("conv<1>", "Conv", "w1", (8, 1, 3, 3), 80, 320, 5000, 0.4, channel_axis=0),
        LayerInfo("fc", "Gemm", "w2", (10, 8), 90, 360, 80, 0.6, channel_axis=0),
    )
    model = ModelSummary(
        source_path="/models/net.onnx",
        graph_path="/cache/net.onnx",
        digest="abc123",
        source_digest="def456",
        opset=21,
        inputs=(TensorInfo("x", "float32", ("batch", 1, 8, 8)),),
        outputs=(TensorInfo("y", "float32", ("batch", 10)),),
        layers=layers,
        edges=((0, 1),),
        parameters=1234567,
        weight_bytes=680,
        file_bytes=1000,
        notes=("BatchNormalization folded",),
    )
    recipe = Recipe(rules=(LayerRule(STATIC_INT8), LayerRule(FP32, ("fc",))))
    build = BuildResult(
        output="/out/int8.onnx",
        digest="d1",
        variant="v1",
        recipe_digest=recipe.digest,
        size_bytes=300,
        seconds=0.5,
        layers=(
            BuiltLayer("conv<1>", "int8", "int8", "QLinearConv", True, 90),
            BuiltLayer("fc", "fp32", "fp32", "Gemm (float)", False, 360, "kept by the recipe"),
        ),
        unoptimized_difference=1.5e-3,
        warnings=("one warning",),
    )
    comparison = CompareResult(
        variants=(
            variant("FP32", "/models/net.onnx", 1000, 0.91, Interval(0, 0, 0), 4.0),
            variant(f"int8 {EVIL}", "/out/int8.onnx", 250, 0.90, Interval(1.0, 0.2, 1.8), 2.0),
        ),
        samples=200,
        seconds=3.0,
        labelled=True,
    )
    sensitivity = SensitivityResult(
        method="fisher",
        samples=64,
        seconds=1.0,
        reference="int4",
        layers=(
            LayerSensitivity("conv<1>", 0.02, 0.01, 0.03, 22.5, None, {"int4": 0.02}),
            LayerSensitivity("fc", 0.001, 0.0005, 0.002, 30.0, None, {"int4": 0.001}),
        ),
        provenance=Provenance.PREDICTED,
    )
    return ReportData(
        title=f"Report {EVIL}",
        created="1 December 2026",
        model=model,
        version="0.1.0",
        data=DataSpec("/data/test.npz", parse_transform("scale=1/16 layout=NCHW"), samples=200),
        calibration=DataSpec("/data/train.npz"),
        recipe=recipe,
        builds=(build,),
        comparison=comparison,
        sensitivity=sensitivity,
        machine=(("Processor", "Test CPU"),),
        notes=("a note",),
        weight_sqnr_db={"conv<1>": 41.3},
        contents={"/out/int8.onnx": "INT8 · 1 FP32"},
    )
