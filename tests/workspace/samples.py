"""A model and what an engine might find of it, made up; needs no Qt and no engine."""

from __future__ import annotations

import time

import numpy as np

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.channel_clip import channel_clip_effect
from quantstudio.core.costs import PACKED, CostTable, LayerCost
from quantstudio.core.layers import LayerInfo, ModelSummary, TensorInfo
from quantstudio.core.packing import WeightCount
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import (
    AccuracyCurve,
    Agreement,
    BuildResult,
    BuiltLayer,
    ClassAccuracy,
    Footprint,
    Interval,
    LatencyResult,
    LayerSensitivity,
    VariantResult,
)
from quantstudio.core.statistics import Histogram, Statistics, WeightStatistics
from quantstudio.core.variants import Variant
from quantstudio.jobs.spec import JobSpec

EVERY_SCHEME = ("fp16", "static-int8", "dynamic-int8", "weight-int8", "weight-int4", "static-int4")


class IdleRunner:
    """Takes jobs and never runs them."""

    def __init__(self, on_event=None):
        self.submitted: list[JobSpec] = []

    def prepare(self, lane):
        pass

    def submit(self, spec):
        self.submitted.append(spec)

    def cancel(self, job_id):
        pass

    def pause(self, job_id):
        pass

    def resume(self, job_id):
        pass

    def finish(self, job_id):
        pass

    def allow_timing(self, job_id):
        pass

    def close(self):
        pass


def histogram_of(values, bins=2048, low=None, high=None) -> Histogram:
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    counts, _ = np.histogram(values, bins, (low, high))
    return Histogram(counts.astype(np.int64), low, high, float(values.min()), float(values.max()))


def layer(index: int, total: int) -> LayerInfo:
    stage, block = 1 + index * 4 // total, (index // 6) % 24
    kind = ("Conv", "Conv", "Conv", "Gather", "MatMul", "LayerNormalization")[index % 6]
    if index == total - 1:
        kind = "Gemm"
    suffix = {"Conv": f"conv{index % 3 + 1}", "MatMul": "attn.qkv", "Gemm": "fc", "Gather": "embed"}
    name = f"stage{stage}.block{block}.{suffix.get(kind, 'norm')}#{index}"
    can = kind != "LayerNormalization"
    schemes = EVERY_SCHEME if kind in ("Conv", "MatMul", "Gemm") else ("fp16", "weight-int8") if can else ()
    shape = (64, 64, 3, 3) if kind == "Conv" else (64, 192)
    return LayerInfo(
        name=name,
        op_type=kind,
        weight_name=f"{name}.weight",
        weight_shape=shape,
        parameters=int(np.prod(shape)),
        weight_bytes=int(np.prod(shape)) * 4,
        macs=1_250_000,
        share=1 / total,
        quantizable=can,
        reason="" if can else "the scale of a norm is too small to quantize",
        schemes=schemes,
        channel_axis=0,
        inputs=(f"{name}.in",),
        outputs=(f"{name}.out",),
    )


def model_summary(count: int = 24) -> ModelSummary:
    layers = tuple(layer(i, count) for i in range(count))
    return ModelSummary(
        source_path="model.onnx",
        graph_path="graph.onnx",
        digest=f"digest of {count}",
        source_digest="source",
        opset=21,
        inputs=(TensorInfo("x", "float32", (1, 3, 32, 32)),),
        outputs=(TensorInfo("y", "float32", (1, 10)),),
        layers=layers,
        edges=tuple((i, i + 1) for i in range(count - 1)),
        parameters=sum(one.parameters for one in layers),
        weight_bytes=sum(one.weight_bytes for one in layers),
        file_bytes=sum(one.weight_bytes for one in layers) + 20_000,
    )


def weight_statistics(info: LayerInfo, seed: int = 0) -> WeightStatistics:
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.01, 0.05) * rng.lognormal(0, 0.3, (64, 1))
    values = (rng.standard_t(6, (64, 400)) * spread).astype(np.float32)
    histogram = histogram_of(values)
    low, high = values.min(axis=1), values.max(axis=1)
    reach = float(np.abs(values).max())
    sqnr = {
        name: channel_clip_effect(
            histogram.counts, histogram.edges, (low, high), reach, IntegerGrid(bits, signed=True)
        ).sqnr_db
        for name, bits in (
            ("static-int8", 8),
            ("static-int8@7", 7),
            ("dynamic-int8", 8),
            ("dynamic-int8@7", 7),
            ("weight-int8", 8),
            ("static-int4", 4),
        )
    }
    sqnr["weight-int4"] = sqnr["static-int4"] + 3
    return WeightStatistics(
        layer=info.name,
        histogram=histogram,
        mean=float(values.mean()),
        std=float(values.std()),
        kurtosis=3.1,
        outlier_share=0.002,
        channel_low=low,
        channel_high=high,
        channel_p1=np.percentile(values, 1, axis=1).astype(np.float32),
        channel_p99=np.percentile(values, 99, axis=1).astype(np.float32),
        channel_median=np.median(values, axis=1).astype(np.float32),
        sqnr_db=sqnr,
    )


def sensitivity(info: LayerInfo, seed: int) -> LayerSensitivity:
    rng = np.random.default_rng(seed + 500)
    kl = float(rng.lognormal(-7.5, 1.1))
    return LayerSensitivity(
        name=info.name,
        kl=kl,
        kl_low=kl * 0.8,
        kl_high=kl * 1.25,
        sqnr_db=24.0,
        by_precision={"int8": kl / 200, "int4": kl, "int8-activations": kl / 30},
    )


def activations(model: ModelSummary) -> Statistics:
    rng = np.random.default_rng(9)
    tensors = {}
    for index, info in enumerate(model.layers):
        values = np.maximum(rng.standard_normal(20_000) + 0.2 * (index % 5), 0).astype(np.float32)
        reach = 2.0 ** np.ceil(np.log2(values.max()))
        tensors[info.inputs[0]] = histogram_of(values, 4096, -reach, reach)
    return Statistics(tensors, 512, model.digest, "data")


CURVE = AccuracyCurve(
    kl=(0.0, 0.005, 0.02, 0.1, 0.5),
    accuracy=(0.924, 0.9235, 0.921, 0.906, 0.83),
    low=(0.924, 0.9215, 0.918, 0.901, 0.82),
    high=(0.924, 0.9255, 0.924, 0.911, 0.84),
    labelled=True,
)


def latency(p50: float, seed: int) -> LatencyResult:
    samples = p50 + np.random.default_rng(seed).gamma(2, p50 * 0.02, 200) - p50 * 0.03
    return LatencyResult(
        p50=p50,
        p90=float(np.percentile(samples, 90)),
        p99=float(np.percentile(samples, 99)),
        mean=float(samples.mean()),
        throughput=1000 / p50,
        batch=1,
        threads=2,
        runs=200,
        provider="CPUExecutionProvider",
        samples_ms=tuple(samples.tolist()),
    )


def variant_result(
    name: str, path: str, top1: float, size: int, p50: float, *, is_base=False
) -> VariantResult:
    rng = np.random.default_rng(len(name))
    base_classes = np.clip(rng.normal(0.92, 0.04, 10), 0, 1)
    classes = np.clip(base_classes - rng.uniform(0, 0.02, 10), 0, 1)
    drop = (0.924 - top1) * 100
    return VariantResult(
        path=path,
        name=name,
        size_bytes=size,
        metrics={"top1": top1, "top5": min(1.0, top1 + 0.07)},
        drop=Interval(0, 0, 0) if is_base else Interval(drop, drop - 0.15, drop + 0.18),
        drop_method="mcnemar",
        p_value=None if is_base else 0.012,
        per_class=tuple(
            ClassAccuracy(label, 1000, float(b), float(v), float(v) - 0.012, float(v) + 0.01, i)
            for i, label, b, v in zip(
                range(10),
                (
                    "T-shirt",
                    "Trouser",
                    "Pullover",
                    "Dress",
                    "Coat",
                    "Sandal",
                    "Shirt",
                    "Sneaker",
                    "Bag",
                    "Boot",
                ),
                base_classes,
                base_classes if is_base else classes,
                strict=True,
            )
        ),
        segments=(),
        agreement=Agreement(1.0 if is_base else 0.985, 0.0 if is_base else 0.0021, 40.0 if is_base else 31.4),
        latency_ms=latency(p50, len(name)),
        speedup=Interval(18.4 / p50, 18.4 / p50 * 0.96, 18.4 / p50 * 1.05),
        peak_memory_bytes=180_000_000,
        footprint=Footprint(size, size - 20_000, 180_000_000, 21.5),
        provider="CPUExecutionProvider",
        samples=10_000,
        flipped=() if is_base else (12, 404, 4711, 9003),
        flipped_to=() if is_base else (3, 0, 6, 2),
    )


def built(model: ModelSummary, name: str, recipe: Recipe, size: int, result=None) -> Variant:
    build = BuildResult(
        output=f"{name}.onnx",
        digest=f"digest-{name}",
        variant=f"hash-{name}",
        recipe_digest=recipe.digest,
        size_bytes=size,
        seconds=1.2,
        layers=tuple(
            BuiltLayer(
                info.name,
                recipe.scheme_for(info).weights.name,
                recipe.scheme_for(info).activations.name,
                "QLinearConv" if recipe.scheme_for(info).is_static else f"{info.op_type} (float)",
                recipe.scheme_for(info).is_static,
                100,
            )
            for info in model.layers
        ),
    )
    return Variant("", name, "INT8", recipe, build.output, build, created=time.time(), result=result)


def cost_table(model: ModelSummary) -> CostTable:
    ratio = {
        "static-int8": 0.36,
        "dynamic-int8": 0.5,
        "weight-int8": 1.0,
        "weight-int4": 1.1,
        "static-int4": 0.36,
    }
    return CostTable(
        layers={
            info.name: LayerCost(
                weight_bytes={
                    "fp32": info.weight_bytes,
                    "fp16": info.weight_bytes // 2,
                    "weight-int4": info.weight_bytes // 8,
                    **{s: info.weight_bytes // 4 for s in EVERY_SCHEME if s.endswith("int8")},
                    **{f"{s}{PACKED}": 0 for s in EVERY_SCHEME if s.endswith("int8")},
                },
                count=WeightCount.of(info),
                time_share=1 / len(model.layers),
                time_ratio=ratio,
            )
            for info in model.layers
        },
        structure_bytes=20_000,
        fp32_ms=18.4,
        provider="CPUExecutionProvider",
    )
