from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from quantstudio.core.aim import Aim
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import BuildError, DataError, RecipeError
from quantstudio.core.events import NullReporter, Severity
from quantstudio.core.judgement import AGREEMENT, SIGNAL, TOP1
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, STATIC_INT8
from quantstudio.core.recipe import ActivationScope, Recipe, uniform_recipe
from quantstudio.core.results import Agreement, BuiltLayer, Headline, Interval, VariantResult
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.evaluation.latency import LatencyBudget
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.search import presets, speed
from quantstudio.engine.search.candidates import Candidate, auto_candidates
from quantstudio.engine.search.judged import Judged, choose
from quantstudio.engine.search.presets import build_preset
from quantstudio.engine.search.sample_range import SampleRange
from quantstudio.engine.search.speed import reasons_of_slowness
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
    quick = LatencyBudget(seconds=0.05, min_rounds=3, max_rounds=4)
    monkeypatch.setattr(presets, "TIMING", quick)
    monkeypatch.setattr(speed, "CONFIRMING", quick)
    monkeypatch.setattr(speed, "CHECKING", quick)


@pytest.fixture
def residual(tmp_path):
    graph = opened(residual_net(), tmp_path)
    x = normal(96, 3, 12, 12)
    labels = outputs_of(graph.proto, {"x": x})[0].argmax(1)
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    return graph, open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)


def judged(
    name,
    *,
    kl=1e-4,
    speedup=1.5,
    high=None,
    drop=0.0,
    drop_low=-1.0,
    top1=0.99,
    sqnr=40.0,
    size=300,
    headline=None,
):
    result = VariantResult(
        path="",
        name=name,
        size_bytes=size,
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
        headline=headline or headline_of(drop, drop_low, top1, sqnr),
    )
    return Judged(Candidate(name, uniform_recipe("static-int8")), result)


def headline_of(drop, drop_low, top1, sqnr):
    """As a comparison gives it: of labels, else of answers, else of the signal."""
    if drop is not None:
        loss, figure = Interval(drop, drop_low, drop + 1), TOP1
    elif not math.isnan(top1):
        lost = 100 * (1 - top1)
        loss, figure = Interval(lost, lost / 2, 2 * lost), AGREEMENT
    else:
        lost = 100 * 10 ** (-sqnr / 20)
        loss, figure = Interval(lost, lost, lost), SIGNAL
    value = 1 - loss.value / 100
    return Headline(figure.metric, figure.label, 1.0, value, loss, figure.unit, figure.floor)


def name_of(chosen):
    return chosen.candidate.name if chosen is not None else ""


def test_that_the_fastest_that_holds_the_floor_wins_over_one_that_quantizes_least():
    whole = judged("static", drop=0.27, kl=4e-2, speedup=2.0, size=27)
    least = judged("static, narrow convolutions float", drop=0.0, kl=1e-4, speedup=1.05, size=79)
    assert name_of(choose([least, whole], Aim.FAST)) == "static"
    assert name_of(choose([least, whole], Aim.SMALL)) == "static"
    assert name_of(choose([least, whole], Aim.ACCURATE)) == "static, narrow convolutions float"


def test_that_of_equally_fast_ones_the_smaller_file_wins_and_of_equally_small_ones_the_faster():
    large, small = judged("a", speedup=2.0, size=400), judged("b", speedup=1.98, size=300)
    assert name_of(choose([large, small], Aim.FAST)) == "b"
    slow, fast = judged("c", speedup=1.2, size=300), judged("d", speedup=1.9, size=301)
    assert name_of(choose([slow, fast], Aim.SMALL)) == "d"


def test_that_the_accurate_aim_takes_the_fastest_within_the_noise_of_the_best():
    close = [judged("a", kl=1.0e-4), judged("b", kl=1.9e-4, speedup=2.0), judged("c", kl=0.5, speedup=3.0)]
    assert name_of(choose(close, Aim.ACCURATE)) == "b"


def test_that_what_is_slower_than_fp32_is_rejected():
    fast = judged("dynamic", kl=1e-3, speedup=1.1)
    for aim in Aim:
        assert name_of(choose([judged("static", kl=1e-6, speedup=0.8, size=10), fast], aim)) == "dynamic"
    assert choose([judged("static", speedup=0.8, high=0.9)], Aim.FAST) is None
    assert choose([judged("static", speedup=0.9, high=1.05)], Aim.FAST) is None
    assert choose([judged("static", speedup=0.98, high=1.05)], Aim.FAST) is not None


def test_that_a_collapsed_candidate_is_no_result_however_fast():
    assert choose([judged("static", drop=40.0, drop_low=30.0, speedup=5)], Aim.FAST) is None
    assert choose([judged("static", drop=40.0, drop_low=-1.0, speedup=5)], Aim.FAST) is None
    assert choose([judged("static", drop=None, top1=0.5, speedup=5)], Aim.FAST) is None


def test_that_a_loss_above_the_floor_counts_only_where_the_samples_can_tell():
    assert choose([judged("static", drop=1.56, drop_low=0.2)], Aim.FAST) is None
    assert choose([judged("static", drop=1.56, drop_low=-0.4)], Aim.FAST) is not None


def test_that_signals_are_judged_by_their_noise():
    bare = {"kl": math.nan, "top1": math.nan, "drop": None}
    good, bad = judged("static", sqnr=38.0, speedup=2, **bare), judged("mixed", sqnr=5.3, speedup=3, **bare)
    assert name_of(choose([good, bad], Aim.FAST)) == "static"
    assert choose([bad], Aim.FAST) is None
    assert "38.0\u202fdB" in good.text


def test_that_what_nothing_could_be_judged_of_is_not_taken():
    one = judged("static", speedup=5.0)
    assert choose([replace(one, result=replace(one.result, headline=None))], Aim.FAST) is None


def test_that_the_figure_of_the_task_comes_before_every_other():
    boxes = Headline("f1", "F1 of matched boxes", 1.0, 0.946, Interval(5.4, 4.0, 6.8), "points", 7.0)
    one = judged("static", drop=None, top1=0.555, headline=boxes)
    assert name_of(choose([one], Aim.FAST)) == "static"
    assert "F1 of matched boxes: 5.40 points lost" in one.text
    assert choose([judged("static", headline=replace(boxes, floor=3.0))], Aim.FAST) is None


def test_that_a_gain_is_not_called_a_loss():
    assert "Top-1 accuracy: 1.56 points gained" in judged("static", drop=-1.56).text
    assert "Top-1 accuracy: 0.27 points lost" in judged("static", drop=0.27).text
    assert "Top-1 accuracy: nothing lost" in judged("static", drop=0.001).text


def test_that_candidates_fit_the_kind_of_network(tmp_path):
    names = [c.name for c in auto_candidates(opened(attention_net(), tmp_path), Recipe(), Aim.FAST)]
    assert names == ["static", "static on weighted layers", "dynamic"]
    candidates = {c.name: c for c in auto_candidates(opened(residual_net(), tmp_path), Recipe(), Aim.FAST)}
    assert "static convolutions, dynamic products" in candidates
    graph = opened(residual_net(), tmp_path)
    narrow = resolve(candidates["static, narrow convolutions float"].recipe, graph.layers).schemes
    assert [name for name, scheme in narrow.items() if scheme == FP32] == ["stem"]
    weighted = candidates["static on weighted layers"].recipe
    assert weighted.activation_scope is ActivationScope.WEIGHTED
    small = [c.name for c in auto_candidates(graph, Recipe(), Aim.SMALL)]
    assert small[-2:] == ["weights as INT8", "weights as INT4"]


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


def fixed(speedups, **figures):
    """A measurement in which candidates are as fast as they are said to be; others as fast as FP32."""

    def found(builder, candidates, reporter, cancel):
        return [
            replace(
                judged("", speedup=speedups.get(one.name, speedups[""]), size=300, **figures), candidate=one
            )
            for one in candidates.values()
        ]

    return found


def test_that_auto_falls_back_to_small_weights_it_has_measured(residual, tmp_path, monkeypatch):
    graph, dataset = residual
    monkeypatch.setattr(presets, "_judged", fixed({"": 0.5, "weights as INT8": 1.28}))
    monkeypatch.setattr(presets, "speed_against", lambda *_: Interval(1.28, 1.2, 1.3))
    _, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert built.preset.startswith(
        "Chose weights as INT8, the fastest that holds the floor: 1.28 times as fast"
    )
    assert "not a faster one" not in built.preset
    assert "static (slower than FP32 (0.50 times its speed))" in built.preset
    assert {layer.weights for layer in built.layers} == {"int8"}
    assert {layer.activations for layer in built.layers} == {"fp32"}


def test_that_auto_keeps_fp32_where_everything_else_is_slower(residual, tmp_path, monkeypatch):
    graph, dataset = residual
    monkeypatch.setattr(presets, "_judged", fixed({"": 0.7}))
    recipe, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert built.preset.startswith("FP32 is kept")
    assert "weights as INT8 (0.70x FP32" in built.preset
    assert recipe.rules == ()
    assert {(layer.weights, layer.activations) for layer in built.layers} == {("fp32", "fp32")}
    x = next(dataset.batches(4)).feed
    expected, found = outputs_of(graph.proto, x)[0], outputs_of(onnx.load(tmp_path / "v.onnx"), x)[0]
    assert np.array_equal(expected, found)


def test_that_auto_ships_no_file_that_its_last_timing_finds_slower(residual, tmp_path, monkeypatch):
    graph, dataset = residual
    monkeypatch.setattr(presets, "_judged", fixed({"": 1.3, "static": 2.0}))
    speeds = iter([Interval(0.77, 0.7, 0.8), Interval(1.2, 1.1, 1.3)])
    monkeypatch.setattr(presets, "speed_against", lambda *_: next(speeds))
    _, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
    assert built.preset.startswith("Chose static on weighted layers")
    assert "Refused: static (slower than FP32 (0.77 times its speed))" in built.preset


def test_that_auto_names_what_is_below_the_floor_and_keeps_fp32_where_all_is(residual, tmp_path, monkeypatch):
    graph, dataset = residual
    noisy = {"kl": math.nan, "top1": math.nan, "drop": None, "sqnr": 5.3}
    monkeypatch.setattr(presets, "_judged", fixed({"": 3.0}, **noisy))
    recipe, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx", aim=Aim.SMALL)
    assert recipe.rules == ()
    assert "static (Output kept (1 - relative error): 54.33 % lost, the floor is 10 %)" in built.preset
    assert "weights as INT8 (Output kept" in built.preset


def test_that_auto_of_a_net_without_integer_kernels_stores_small_weights(tmp_path):
    net = NetBuilder()
    y = net.op("ConvTranspose", "x", net.weight("w", 4, 6, 3, 3), name="up")
    graph = opened(net.model({"x": ["n", 4, 5, 5]}, [y]), tmp_path)
    np.savez(tmp_path / "data.npz", x=normal(4, 4, 5, 5))
    dataset = open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)
    _, built = build_preset(graph, dataset, None, "auto", tmp_path / "v.onnx")
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


@pytest.mark.parametrize(("value", "high"), [(0.48, 0.6), (0.9, 1.2), (1.3, 1.4)])
def test_that_a_preset_by_hand_warns_of_a_file_slower_than_fp32_and_says_why(
    residual, tmp_path, monkeypatch, value, high
):
    graph, dataset = residual
    monkeypatch.setattr(speed, "speed_against", lambda *_: Interval(value, value - 0.1, high))
    _, built = build_preset(graph, dataset, None, "static-int8", tmp_path / "v.onnx")
    said = [text for text in built.warnings if "slower than FP32" in text]
    assert len(said) == (value == 0.48)
    if said:
        assert "0.48 times its speed on this machine: " in said[0]
        assert "so small" in said[0]


def test_that_float_layers_conversions_and_narrow_layers_are_reasons_of_slowness():
    def made(name, kernel, *, integer):
        return BuiltLayer(name, "int8", "int8", kernel, is_integer_kernel=integer)

    built = [made("a", "Gemm (float)", integer=False), made("b", "QGemm", integer=True)]
    operators = Counter({"QuantizeLinear": 3, "DequantizeLinear": 2})
    floats, conversions = reasons_of_slowness((), built, operators)
    assert floats == "1 of 2 layers compute in float (a)"
    assert conversions == "5 conversions between integers and floats for 1 integer layer"
    thin = [
        LayerInfo("b", "Conv", "w", weight_shape=(8, 3, 3, 3)),
        LayerInfo("c", "Conv", "w", (64, 3, 3, 3)),
    ]
    (narrow,) = reasons_of_slowness(thin, built[1:], Counter())
    assert narrow.startswith("1 convolution with fewer than 16 channels")
    (nothing,) = reasons_of_slowness((), built[1:], Counter())
    assert "so small" in nothing


def test_that_first_samples_are_a_data_set_of_their_own(residual):
    _, dataset = residual
    first = SampleRange(dataset, 10)
    assert len(first) == 10
    assert first.labels is not None
    assert len(first.labels) == 10
    assert [batch.count for batch in first.batches(4)] == [4, 4, 2]
    assert len(SampleRange(dataset, 1000)) == 96


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
    names = [candidate.name for candidate in auto_candidates(graph, Recipe(), Aim.FAST)]
    assert "dynamic" not in names
    assert "static convolutions, dynamic products" in names
