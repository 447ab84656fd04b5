"""What targets and narrow activations change in a file, run in ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import (
    STATIC_INT8,
    ActivationPrecision,
    LayerScheme,
    Precision,
)
from quantstudio.core.recipe import CalibrationSettings, LayerRule, RangeMethod, Recipe, uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.search_results import ActivationFamily
from quantstudio.core.target import target_named, targets
from quantstudio.engine.quantization.weights import quantize_weight
from quantstudio.engine.search.space import base_recipe, pins_of
from tests.engine.quantization_cases import (
    NetBuilder,
    attention_net,
    normal,
    opened,
    optimized_ops,
    outputs_of,
    relative_error,
    residual_net,
    statistics_of,
)
from tests.engine.recipe_builds import build_variant, emit, emit_with_plan

MINMAX = CalibrationSettings(method=RangeMethod.MINMAX)
W4A4 = NAMED_SCHEMES["static-int4-a4"]
W8A4 = NAMED_SCHEMES["static-int8-a4"]


def recipe_for(target, scheme=STATIC_INT8):
    return replace(uniform_recipe(scheme, calibration=MINMAX), target=target)


def linear(tmp_path):
    net = NetBuilder()
    graph = opened(net.model({"x": ["n", 64]}, [net.gemm("x", "fc", 64, 24)]), tmp_path)
    feed = {"x": normal(32, 64)}
    return graph, statistics_of(graph, feed), feed


def initializers(model, dtype):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == dtype}


def fake_quantized(x, grid):
    scale, zero = affine_qparams(float(x.min()), float(x.max()), grid)
    return (np.clip(np.rint(x / scale) + zero, grid.low, grid.high) - zero) * scale


def integers_seen(model, feed):
    """What every Clip of integers lets through."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    integers = {node.output[0] for node in shown.graph.node if node.op_type == "QuantizeLinear"}
    clips = [node for node in shown.graph.node if node.op_type == "Clip" and node.input[0] in integers]
    for node in clips:
        shown.graph.output.add(name=node.output[0]).type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return outputs_of(shown, feed)[len(model.graph.output) :]


@pytest.mark.parametrize("net", ["residual", "attention"])
@pytest.mark.parametrize("target", [one.name for one in targets()])
def test_that_a_file_of_every_target_means_what_the_float_network_does(tmp_path, net, target):
    graph = opened(residual_net() if net == "residual" else attention_net(), tmp_path)
    feed = {"x": normal(16, 3, 12, 12) if net == "residual" else normal(4, 6, 32)}
    model = emit(graph, statistics_of(graph, feed), recipe_for(target))
    onnx.checker.check_model(model, full_check=True)
    # Node by node: what the file says, without the saturation of the kernels of an old processor.
    found = outputs_of(model, feed, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)[0]
    assert relative_error(outputs_of(graph.proto, feed)[0], found) < 0.04


def test_that_integer_kernels_of_any_x86_processor_answer_as_the_float_network_does(tmp_path):
    graph = opened(attention_net(), tmp_path)
    feed = {"x": normal(4, 6, 32)}
    model = emit(graph, statistics_of(graph, feed), recipe_for("cpu-x86"))
    assert "QLinearMatMul" in optimized_ops(model, tmp_path)
    assert relative_error(outputs_of(graph.proto, feed)[0], outputs_of(model, feed)[0]) < 0.04


@pytest.mark.parametrize("name", ["static-int8", "static-int4", "static-int8-a4"])
def test_that_other_runtimes_get_signed_activations_and_standard_operators(tmp_path, name):
    graph = opened(residual_net(), tmp_path)
    feed = {"x": normal(16, 3, 12, 12)}
    model = emit(graph, statistics_of(graph, feed), recipe_for("onnx-qdq-s8", name))
    assert {opset.domain for opset in model.opset_import} == {""}
    zeros = [n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    constants = {t.name: t for t in model.graph.initializer}
    assert zeros
    for zero in zeros:
        assert constants[zero].data_type == onnx.TensorProto.INT8
        assert not numpy_helper.to_array(constants[zero]).any()


def test_that_other_runtimes_keep_an_lstm_float_where_only_one_runtime_has_a_kernel(tmp_path):
    model, _ = one_layer("LSTM")
    (layer,) = opened(model, tmp_path).layers
    assert "dynamic-int8" in target_named("cpu-x86-vnni").schemes(layer)
    support = target_named("onnx-qdq-s8").support(layer, NAMED_SCHEMES["dynamic-int8"])
    assert not support.is_legal
    assert "standard ONNX" in support.reason


def test_that_a_search_offers_what_its_target_can_run(tmp_path):
    graph = opened(one_layer("LSTM")[0], tmp_path)
    (name,) = (layer.name for layer in graph.layers)
    pin = [LayerRule(NAMED_SCHEMES["dynamic-int8"], (name,))]
    for target, scheme in (("cpu-x86-vnni", "dynamic-int8"), ("onnx-qdq-s8", "weight-int8")):
        recipe = base_recipe(graph, ActivationFamily.DYNAMIC, Recipe(target=target))
        assert resolve(recipe, graph.layers).schemes[name] == NAMED_SCHEMES[scheme]
    assert pins_of(graph, pin, target_named("cpu-x86-vnni"))
    with pytest.raises(RecipeError, match="cannot be pinned"):
        pins_of(graph, pin, target_named("onnx-qdq-s8"))


def test_that_weights_keep_to_seven_bits_where_pairs_of_products_add_up_in_sixteen(tmp_path):
    graph = opened(residual_net(), tmp_path)
    statistics = statistics_of(graph, {"x": normal(16, 3, 12, 12)})
    wide = initializers(emit(graph, statistics, recipe_for("cpu-x86-vnni")), onnx.TensorProto.INT8)
    kept = initializers(emit(graph, statistics, recipe_for("cpu-x86")), onnx.TensorProto.INT8)
    assert max(np.abs(one.astype(int)).max() for one in wide.values()) == 127
    largest = max(np.abs(one.astype(int)).max() for one in kept.values())
    assert largest == 63
    # The instruction adds two products of an unsigned and a signed byte in 16 bits.
    assert 2 * 255 * largest < 2**15


def test_that_coarser_weights_and_weights_alone_are_the_same_on_both_x86_targets(tmp_path):
    graph = opened(attention_net(), tmp_path)
    statistics = statistics_of(graph, {"x": normal(4, 6, 32)})
    for name in ("static-int4", "weight-int8", "weight-int4", "fp16"):
        one, other = (
            emit(graph, statistics, recipe_for(target, name)) for target in ("cpu-x86", "cpu-x86-vnni")
        )
        del one.metadata_props[:], other.metadata_props[:]
        assert one == other


def test_that_a_dynamic_layer_keeps_to_the_bits_of_its_target(tmp_path):
    graph, _, feed = linear(tmp_path)
    model = emit(graph, None, recipe_for("cpu-x86", "dynamic-int8"))
    weight = next(v for k, v in initializers(model, onnx.TensorProto.INT8).items() if k.endswith("quantized"))
    assert np.abs(weight.astype(int)).max() == 63
    assert relative_error(outputs_of(graph.proto, feed)[0], outputs_of(model, feed)[0]) < 0.03


def test_that_four_bit_activations_are_those_of_the_four_bit_grid(tmp_path):
    graph, statistics, feed = linear(tmp_path)
    model = emit(graph, statistics, recipe_for("cpu-x86", W8A4))
    layer = graph.layers[0]
    weight, bias = (numpy_helper.to_array(t).astype(np.float64) for t in graph.proto.graph.initializer)
    rounded = quantize_weight(weight.astype(np.float32), STATIC_INT8, layer.channel_axis, max_bits=7)
    product = rounded.dequantized.T if layer.channel_axis == 0 else rounded.dequantized
    expected = fake_quantized(feed["x"], IntegerGrid(4, signed=False)) @ product + bias
    np.testing.assert_allclose(outputs_of(model, feed)[0], expected, atol=2e-3)
    (seen,) = integers_seen(model, feed)
    assert (seen.min(), seen.max()) == (0, 15)


def test_that_every_four_bit_tensor_stays_within_sixteen_integers(tmp_path):
    graph = opened(residual_net(), tmp_path)
    feed = {"x": normal(16, 3, 12, 12)}
    emission = emit_with_plan(graph, statistics_of(graph, feed), recipe_for("cpu-x86", W4A4))
    wild = {"x": 100 * feed["x"]}
    seen = integers_seen(emission.model, wild)
    assert seen
    assert all(one.max() <= 15 for one in seen)


def test_that_layers_of_eight_bits_read_eight_beside_one_that_reads_four(tmp_path):
    net = NetBuilder()
    outputs = [net.matmul("x", name, 64, 8) for name in ("wide", "narrow")]
    graph = opened(net.model({"x": ["n", 64]}, outputs), tmp_path)
    feed = {"x": normal(64, 64)}
    recipe = recipe_for("cpu-x86").assign(["narrow"], W8A4)
    emission = emit_with_plan(graph, statistics_of(graph, feed), recipe)
    assert emission.plan.quantized["x"].grid.bits == 8
    assert set(emission.plan.narrowed) == {("x", 4)}
    expected, found = outputs_of(graph.proto, feed), outputs_of(emission.model, feed)
    wide, narrow = (relative_error(a, b) for a, b in zip(expected, found, strict=True))
    assert wide < 0.03 < narrow < 0.3


def test_that_a_build_says_what_is_simulated(tmp_path):
    graph, statistics, _ = linear(tmp_path)
    built = build_variant(graph, statistics, recipe_for("cpu-x86", W4A4), tmp_path / "v.onnx").layers[0]
    assert built.is_simulated
    assert built.kernel.endswith(", simulated")
    assert (built.weights, built.activations) == ("int4", "int4")
    plain = build_variant(graph, statistics, recipe_for("cpu-x86"), tmp_path / "w.onnx").layers[0]
    assert not plain.is_simulated
    assert "simulated" not in plain.kernel


def test_that_the_table_of_a_target_is_what_its_kernels_do(tmp_path):
    net = NetBuilder()
    hidden = net.op("Relu", net.matmul("x", "mm", 64, 64), name="relu")
    graph = opened(net.model({"x": ["n", 64]}, [net.gemm(hidden, "fc", 64, 32)]), tmp_path)
    statistics = statistics_of(graph, {"x": normal(32, 64)})
    target = target_named("cpu-x86")
    for name, scheme in NAMED_SCHEMES.items():
        if name == "fp32":
            continue
        built = build_variant(graph, statistics, recipe_for("cpu-x86", name), tmp_path / f"{name}.onnx")
        for layer, row in zip(graph.layers, built.layers, strict=True):
            support = target.support(layer, scheme)
            assert support.is_legal, (name, layer.op_type)
            assert row.is_integer_kernel == (support.is_fast or scheme.is_simulated), (name, row)


def one_layer(op_type):
    """A net with one layer of a kind, and what to feed it."""
    net = NetBuilder()
    shape: tuple[int, ...]
    match op_type:
        case "Conv":
            y, shape = net.conv("x", "layer", 16, 24), (16, 16, 6, 6)
        case "ConvTranspose":
            y, shape = (
                net.op("ConvTranspose", "x", net.weight("w", 16, 8, 2, 2), name="layer"),
                (16, 16, 5, 5),
            )
        case "Einsum":
            net.weight("w", 64, 32, scale=0.2)
            y, shape = net.op("Einsum", "x", "w", name="layer", equation="nk,km->nm"), (32, 64)
        case "Gather":
            net.weight("w", 20, 64, scale=0.2)
            rows = net.op("Gather", "w", "x", name="layer", axis=0)
            model = net.model({"x": ["n", 3]}, [rows])
            model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
            return model, {"x": np.arange(30).reshape(10, 3) % 20}
        case _:
            gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type]
            net.weight("w", 1, gates * 8, 16, scale=0.2)
            net.weight("r", 1, gates * 8, 8, scale=0.2)
            y, shape = net.op(op_type, "x", "w", "r", name="layer", hidden_size=8), (12, 4, 16)
    return net.model({"x": list(shape)}, [y]), {"x": normal(*shape)}


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose", "Einsum", "Gather", "LSTM", "GRU", "RNN"])
def test_that_every_legal_scheme_of_every_operator_builds_runs_and_keeps_its_word(tmp_path, op_type):
    model, feed = one_layer(op_type)
    graph = opened(model, tmp_path)
    (layer,) = graph.layers
    floats = {"x": feed["x"]} if feed["x"].dtype == np.float32 else {}
    statistics = statistics_of(graph, floats) if floats else None
    expected = outputs_of(graph.proto, feed)[0]
    target = target_named("cpu-x86")
    others = ("int5", "codebook4", "codebook3", "codebook1", "group4", "group3", "group1", "table1")  # as
    # their neighbours are
    names = [name for name in target.schemes(layer) if name != "fp32" and not any(o in name for o in others)]
    assert {name.partition("-")[0] for name in names} >= {"fp16", "weight"}
    errors = {}
    for name in names:
        path = tmp_path / f"{name}.onnx"
        (row,) = build_variant(graph, statistics, recipe_for("cpu-x86", name), path).layers
        scheme = NAMED_SCHEMES[name]
        assert row.is_integer_kernel == (target.support(layer, scheme).is_fast or scheme.is_simulated), row
        errors[name] = relative_error(expected, outputs_of(onnx.load(path), feed)[0])
    for name, error in errors.items():
        bits = min(NAMED_SCHEMES[name].weights.bits, NAMED_SCHEMES[name].activations.bits)
        assert error < {1: 1.0, 2: 0.7, 3: 0.4, 4: 0.25, 5: 0.12, 6: 0.06, 8: 0.03, 16: 0.002}[bits], errors


def test_that_labels_say_simulated() -> None:
    assert LayerScheme(Precision.INT4, ActivationPrecision.INT4).label == "W4A4, simulated"
    assert all(scheme.is_simulated == ("simulated" in scheme.text) for scheme in NAMED_SCHEMES.values())


def test_that_what_a_target_does_not_promise_gets_no_note(tmp_path):
    graph = opened(residual_net(), tmp_path)
    statistics = statistics_of(graph, {"x": normal(16, 3, 12, 12)})
    built = build_variant(graph, statistics, recipe_for("onnx-qdq-s8"), tmp_path / "v.onnx")
    assert not all(row.is_integer_kernel for row in built.layers)
    assert not any(row.note for row in built.layers)
