from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import BuildError, DataError, RecipeError
from quantstudio.core.events import NullReporter, Severity
from quantstudio.core.precision import FP32, STATIC_INT8
from quantstudio.core.recipe import ActivationScope, CalibrationSettings, uniform_recipe
from quantstudio.core.results import Agreement, Interval, VariantResult
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.evaluation.latency import LatencyBudget
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search import presets
from quantstudio.engine.search.presets import (
    Candidate,
    FirstSamples,
    Judged,
    auto_candidates,
    build_preset,
    choose,
)
from tests.engine.quantization_cases import (
    NetBuilder,
    attention_net,
    normal,
    opened,
    outputs_of,
    residual_net,
)


@pytest.fixture(autouse=True)
def _quick_timing(monkeypatch):
    monkeypatch.setattr(presets, "TIMING", LatencyBudget(seconds=0.05, min_rounds=3, max_rounds=4))


@pytest.fixture
def residual(tmp_path):
    graph = opened(residual_net(), tmp_path)
    x = normal(96, 3, 12, 12)
    labels = outputs_of(graph.proto, {"x": x})[0].argmax(1)
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    return graph, open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)


def judged(name, *, kl=1e-4, speedup=1.5, high=None, drop=0.0, drop_low=-1.0, top1=0.99, sqnr=40.0):
    result = VariantResult(
        path="",
        name=name,
        size_bytes=0,
        metrics={},
        drop=None if drop is None else Interval(drop, drop_low, drop + 1),
        drop_method="" if drop is None else "mcnemar",
        p_value=None,
        per_class=(),
        segments=(),
        agreement=Agreement(top1, kl, sqnr),
        latency_ms=None,
        speedup=Interval(speedup, speedup - 0.1, speedup + 0.1 if high is None else high),
        peak_memory_bytes=0,
        footprint=None,
        provider="CPUExecutionProvider",
        samples=512,
    )
    return Judged(Candidate(name, uniform_recipe("static-int8")), result)


def test_that_the_most_accurate_wins_over_a_faster_one_that_is_clearly_worse():
    chosen = choose([judged("static", kl=0.5, speedup=3), judged("dynamic", kl=0.01, speedup=1.4)])
    assert chosen is not None
    assert chosen.candidate.name == "dynamic"


def test_that_within_the_noise_the_fastest_wins_and_the_first_of_equals():
    close = [judged("a", kl=1.0e-4), judged("b", kl=1.9e-4, speedup=2.0), judged("c", kl=1e-5, speedup=2.01)]
    chosen = choose(close)
    assert chosen is not None
    assert chosen.candidate.name == "b"


def test_that_what_is_slower_than_fp32_is_rejected():
    chosen = choose([judged("static", kl=1e-6, speedup=0.8), judged("dynamic", kl=1e-3, speedup=1.1)])
    assert chosen is not None
    assert chosen.candidate.name == "dynamic"
    assert choose([judged("static", speedup=0.8, high=0.9)]) is None
    unsure = choose([judged("static", speedup=0.98, high=1.05)])
    assert unsure is not None


def test_that_a_collapsed_candidate_is_no_result_however_fast():
    assert choose([judged("static", drop=40.0, drop_low=30.0, speedup=5)]) is None
    assert choose([judged("static", drop=None, top1=0.5, speedup=5)]) is None
    assert choose([judged("static", kl=math.inf)]) is None


def test_that_regression_is_judged_by_noise():
    good = judged("static", kl=math.nan, top1=math.nan, drop=None, sqnr=38.0, speedup=2)
    better = judged("dynamic", kl=math.nan, top1=math.nan, drop=None, sqnr=45.0, speedup=1.2)
    bad = judged("mixed", kl=math.nan, top1=math.nan, drop=None, sqnr=10.0, speedup=3)
    chosen = choose([good, better, bad])
    assert chosen is not None
    assert chosen.candidate.name == "static"
    assert good.loss == pytest.approx(10**-3.8)
    assert "38.0 dB" in good.text


def test_that_candidates_fit_the_kind_of_network(tmp_path):
    settings = CalibrationSettings()
    names = [c.name for c in auto_candidates(opened(attention_net(), tmp_path), settings)]
    assert names == ["static", "static on weighted layers", "dynamic"]
    candidates = {c.name: c for c in auto_candidates(opened(residual_net(), tmp_path), settings)}
    assert "static convolutions, dynamic products" in candidates
    graph = opened(residual_net(), tmp_path)
    narrow = resolve(candidates["static, narrow convolutions float"].recipe, graph.layers).schemes
    assert [name for name, scheme in narrow.items() if scheme == FP32] == ["stem"]
    weighted = candidates["static on weighted layers"].recipe
    assert weighted.activation_scope is ActivationScope.WEIGHTED


@pytest.mark.parametrize("preset", ["static-int8", "dynamic-int8", "weight-int8", "weight-int4", "float16"])
def test_that_every_preset_builds_and_says_its_recipe(residual, tmp_path, preset):
    graph, dataset = residual
    recipe, built = build_preset(graph, dataset, None, preset, tmp_path / "v.onnx")
    assert built.recipe_digest == recipe.digest
    assert (tmp_path / "v.onnx").stat().st_size == built.size_bytes
    if preset == "static-int8":
        assert recipe == uniform_recipe(STATIC_INT8)
        assert all(layer.is_integer_kernel for layer in built.layers)


def test_that_auto_measures_and_explains(residual, tmp_path):
    graph, dataset = residual
    recipe, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert built.recipe_digest == recipe.digest
    assert "Measured on 96 calibration samples" in built.preset
    assert "x FP32" in built.preset
    assert "KL" in built.preset


def test_that_auto_falls_back_to_small_weights_it_has_measured(residual, tmp_path, monkeypatch):
    graph, dataset = residual
    monkeypatch.setattr(
        presets, "choose", lambda judged: judged[0] if judged[0].candidate.name == "weights as INT8" else None
    )
    _, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert built.preset.startswith("None is faster than FP32 without losing accuracy, so only the weights")
    assert re.search(r"; weights as INT8 \(\d+\.\d\dx FP32, ", built.preset)
    assert {layer.weights for layer in built.layers} == {"int8"}
    assert {layer.activations for layer in built.layers} == {"fp32"}


def test_that_auto_keeps_fp32_where_everything_else_is_slower(residual, tmp_path, monkeypatch):
    graph, dataset = residual

    def slow(builder, candidates, reporter, cancel):
        return [replace(judged("", speedup=0.7, high=0.9), candidate=one) for one in candidates.values()]

    monkeypatch.setattr(presets, "_judged", slow)
    recipe, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert "weights stored as INT8 run slower or lose accuracy, too: FP32 is kept" in built.preset
    assert "weights as INT8 (0.70x FP32" in built.preset
    assert recipe.rules == ()
    assert {(layer.weights, layer.activations) for layer in built.layers} == {("fp32", "fp32")}
    x = next(dataset.batches(4)).feed
    expected, found = outputs_of(graph.proto, x)[0], outputs_of(onnx.load(tmp_path / "v.onnx"), x)[0]
    assert np.array_equal(expected, found)


def test_that_auto_of_a_net_without_integer_kernels_stores_small_weights(tmp_path):
    net = NetBuilder()
    y = net.op("ConvTranspose", "x", net.weight("w", 4, 6, 3, 3), name="up")
    graph = opened(net.model({"x": ["n", 4, 5, 5]}, [y]), tmp_path)
    np.savez(tmp_path / "data.npz", x=normal(4, 4, 5, 5))
    dataset = open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)
    _, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert "No layer has an integer form" in built.preset
    assert "weights as INT8 (" in built.preset
    assert built.layers[0].weights == ("fp32" if "FP32 is kept" in built.preset else "int8")


def test_that_missing_data_and_unknown_presets_are_refused(residual, tmp_path):
    graph, _ = residual
    with pytest.raises(DataError, match="needs data"):
        build_preset(graph, None, None, "auto", tmp_path / "v.onnx")
    with pytest.raises(DataError, match="calibration data"):
        build_preset(graph, None, None, "static-int8", tmp_path / "v.onnx")
    with pytest.raises(RecipeError, match="unknown preset"):
        build_preset(graph, None, None, "fast", tmp_path / "v.onnx")


def test_that_first_samples_are_a_data_set_of_their_own(residual):
    _, dataset = residual
    first = FirstSamples(dataset, 10)
    assert len(first) == 10
    assert first.labels is not None
    assert len(first.labels) == 10
    assert [batch.count for batch in first.batches(4)] == [4, 4, 2]
    assert len(FirstSamples(dataset, 1000)) == 96


def test_that_auto_avoids_static_where_a_hand_written_norm_collapses(tmp_path):
    """A norm written out in Pow, ReduceMean and Sqrt, with one channel a thousand times the others."""
    net = NetBuilder(3)
    wide = np.ones(32, np.float32)
    wide[5] = 1000
    for name, value in (("wide", wide), ("two", np.float32(2)), ("eps", np.float32(1e-6))):
        net.constant(name, value)
    net.constant("axis", np.array([-1], np.int64))
    x = net.op("Mul", "x", "wide", name="widen")
    first = net.matmul(x, "first", 32, 32)
    root = net.op(
        "Sqrt",
        net.op(
            "Add",
            net.op("ReduceMean", net.op("Pow", first, "two", name="square"), "axis", name="mean"),
            "eps",
            name="plus",
        ),
        name="sqrt",
    )
    y = net.matmul(net.op("Div", first, root, name="norm"), "second", 32, 10)
    y = net.op("ReduceMean", y, net.constant("tokens", np.array([1], np.int64)), name="pool", keepdims=0)
    graph = opened(net.model({"x": ["n", 4, 32]}, [y]), tmp_path)
    data = normal(64, 4, 32)
    data[:, :, 5] *= 0.01
    np.savez(tmp_path / "data.npz", x=data)
    dataset = open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)
    _, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    base = outputs_of(graph.proto, {"x": data})[0].argmax(1)
    variant = outputs_of(onnx.load(tmp_path / "v.onnx"), {"x": data})[0].argmax(1)
    assert (base == variant).mean() >= 0.9, built.preset


def test_that_auto_goes_on_without_a_candidate_that_cannot_be_built(residual, tmp_path, monkeypatch):
    graph, dataset = residual
    build = build_variant

    def refusing(graph, statistics, plan, output, **options):
        if plan.activation_scope is ActivationScope.WEIGHTED:
            raise BuildError("the runtime runs it as QLinearConv", where="block1")
        return build(graph, statistics, plan, output, **options)

    class Messages(NullReporter):
        texts: list[str] = []  # noqa: RUF012  one reporter in this test

        def message(self, text, severity=Severity.INFO):
            self.texts.append(text)

    monkeypatch.setattr(presets, "build_variant", refusing)
    _, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx", reporter=Messages())
    assert "static on weighted layers" not in built.preset
    assert any("static on weighted layers: block1" in text for text in Messages.texts)


def test_that_auto_goes_on_without_static_precisions_where_activations_are_infinite(tmp_path):
    net = NetBuilder()
    mask = np.zeros(64, np.float32)
    mask[:8] = -np.inf
    y = net.op("Add", net.matmul("x", "up", 32, 64), net.constant("mask", mask), name="switch_off")
    y = net.op("Relu", net.op("Add", y, net.weight("shift", 64, scale=0.1), name="add"), name="relu")
    graph = opened(net.model({"x": ["n", 6, 32]}, [net.matmul(y, "down", 64, 5)]), tmp_path)
    np.savez(tmp_path / "data.npz", x=normal(40, 6, 32))
    dataset = open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)
    recipe, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert not resolve(recipe, graph.layers).is_static
    assert built.size_bytes > 0


def test_that_dynamic_is_not_tried_where_it_would_change_next_to_nothing(tmp_path):
    net = NetBuilder()
    wide = net.conv(net.conv("x", "first", 3, 32), "second", 32, 32)
    pooled = net.op("Flatten", net.op("GlobalAveragePool", wide, name="pool"), name="flat")
    y = net.op("MatMul", pooled, net.weight("head.w", 32, 10), name="head")
    graph = opened(net.model({"x": ["N", 3, 12, 12]}, [y]), tmp_path)
    names = [candidate.name for candidate in auto_candidates(graph, CalibrationSettings())]
    assert "dynamic" not in names
    assert "static convolutions, dynamic products" in names
