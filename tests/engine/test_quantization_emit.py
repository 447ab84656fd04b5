from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from quantstudio.core.errors import CalibrationError, RecipeError
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP16,
    FP32,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    ActivationPrecision,
    Granularity,
    LayerScheme,
    Precision,
)
from quantstudio.core.recipe import (
    ActivationScope,
    CalibrationSettings,
    LayerRule,
    RangeMethod,
    RangeOverride,
    Recipe,
    uniform_recipe,
)
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.quantization.emit import RECIPE_KEY, VARIANT_KEY
from tests.engine.quantization_cases import (
    NetBuilder,
    attention_net,
    branch_model,
    normal,
    opened,
    optimized_ops,
    outputs_of,
    relative_error,
    residual_net,
    statistics_of,
)
from tests.engine.recipe_builds import emit, emit_with_plan

# Largest relative error of a small net of random weights, which have no redundancy, by weight format.
ERRORS = {
    Precision.FP16: 0.01,
    Precision.INT8: 0.03,
    Precision.INT6: 0.08,
    Precision.INT5: 0.15,
    Precision.INT4: 0.25,
    Precision.CODEBOOK4: 0.25,
    Precision.GROUP4: 0.25,
    Precision.TABLE4: 0.25,
    Precision.INT3: 0.5,
    Precision.CODEBOOK3: 0.5,
    Precision.GROUP3: 0.5,
    Precision.TABLE3: 0.5,
    Precision.INT2: 0.7,
    Precision.TERNARY: 0.8,
    Precision.CODEBOOK2: 0.7,
    Precision.GROUP2: 0.7,
    Precision.TABLE2: 0.7,
    Precision.BINARY: 1.0,
    Precision.CODEBOOK1: 1.0,
    Precision.GROUP1: 1.0,
    Precision.TABLE1: 1.0,
}
MINMAX = CalibrationSettings(method=RangeMethod.MINMAX)
STATIC = uniform_recipe(STATIC_INT8, calibration=MINMAX)


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    graph = opened(residual_net(), tmp_path_factory.mktemp("residual"))
    feed = {"x": normal(16, 3, 12, 12)}
    return graph, statistics_of(graph, feed), feed


@pytest.fixture(scope="module")
def attention(tmp_path_factory):
    graph = opened(attention_net(), tmp_path_factory.mktemp("attention"))
    feed = {"x": normal(4, 6, 32)}
    return graph, statistics_of(graph, feed), feed


def largest_error(name):
    scheme = NAMED_SCHEMES[name]
    return ERRORS[scheme.weights] + (0.2 if scheme.is_simulated else 0.0)


def error_of(graph, model, feed):
    onnx.checker.check_model(model, full_check=True)
    return relative_error(outputs_of(graph.proto, feed)[0], outputs_of(model, feed)[0])


def test_that_a_residual_net_runs_on_integers_throughout(residual, tmp_path):
    graph, statistics, feed = residual
    model = emit(graph, statistics, STATIC)
    ops = Counter(optimized_ops(model, tmp_path))
    assert ops["QLinearConv"] == 5
    assert ops["QLinearAdd"] == 1
    assert ops["QGemm"] == 1
    assert not {"Conv", "FusedConv", "Gemm", "Relu", "Clip", "Add", "DequantizeLinear"} & set(ops)
    assert ops["QuantizeLinear"] == 1
    assert error_of(graph, model, feed) < 0.03


def test_that_no_pair_feeds_only_a_relu(residual):
    graph, statistics, _ = residual
    model = emit(graph, statistics, STATIC)
    real = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    readers = [n for n in model.graph.node if n.op_type in ("Relu", "Clip")]
    assert readers
    assert all(n.input[0] not in real for n in readers)


def test_that_relu_and_clip_outputs_get_a_range_that_makes_them_redundant(residual):
    graph, statistics, _ = residual
    plan = emit_with_plan(graph, statistics, STATIC).plan
    for name in ("stem_relu_out", "add_relu_out", "clip_out"):
        assert plan.quantized[name].zero_point == 0
    assert np.float32(255) * plan.quantized["clip_out"].scale <= np.float32(6)


def test_that_pooling_keeps_the_scale_of_its_input(residual):
    graph, statistics, _ = residual
    plan = emit_with_plan(graph, statistics, STATIC).plan
    assert plan.quantized["pool_out"] == plan.quantized["add_relu_out"]


def test_that_the_same_recipe_gives_the_same_bytes(residual):
    graph, statistics, _ = residual
    first = emit(graph, statistics, STATIC).SerializeToString(deterministic=True)
    assert emit(graph, statistics, STATIC).SerializeToString(deterministic=True) == first


def test_that_the_file_names_its_recipe_and_variant(residual):
    graph, statistics, _ = residual
    emission = emit_with_plan(graph, statistics, STATIC)
    kept = {p.key: p.value for p in emission.model.metadata_props}
    assert kept == {RECIPE_KEY: STATIC.digest, VARIANT_KEY: emission.variant}
    other = emit_with_plan(graph, statistics, STATIC.assign(["head"], FP32))
    assert other.variant != emission.variant


def test_that_the_source_graph_is_left_alone_and_names_stay_unique(residual):
    graph, statistics, _ = residual
    before = graph.proto.SerializeToString(deterministic=True)
    model = emit(graph, statistics, STATIC)
    assert graph.proto.SerializeToString(deterministic=True) == before
    names = [t.name for t in model.graph.initializer]
    assert len(names) == len(set(names))
    nodes = [n.name for n in model.graph.node]
    assert len(nodes) == len(set(nodes))
    used = {name for n in model.graph.node for name in n.input}
    assert set(names) <= used


@pytest.mark.parametrize(
    "kept",
    [("stem", "block1", "point"), ("block2",), ("depthwise", "head"), ("stem", "block2", "depthwise")],
    ids="-".join,
)
@pytest.mark.parametrize("scheme", [FP32, WEIGHT_INT8, FP16], ids=lambda s: s.label)
def test_that_exactly_the_layers_kept_float_run_in_float(residual, tmp_path, kept, scheme):
    graph, statistics, feed = residual
    model = emit(graph, statistics, STATIC.assign(kept, scheme))
    ops = Counter(optimized_ops(model, tmp_path))
    convolutions = [name for name in kept if name != "head"]
    assert ops["QLinearConv"] == 5 - len(convolutions)
    assert ops["Conv"] + ops["FusedConv"] == len(convolutions)
    assert ops["QGemm"] == ("head" not in kept)
    assert error_of(graph, model, feed) < 0.03


def test_that_a_weighted_scope_quantizes_nothing_but_layers(tmp_path):
    graph = opened(attention_net(), tmp_path)
    feed = {"x": normal(4, 6, 32)}
    statistics = statistics_of(graph, feed)
    everywhere = emit_with_plan(graph, statistics, STATIC)
    weighted = emit_with_plan(
        graph,
        statistics,
        uniform_recipe(STATIC_INT8, calibration=MINMAX, activation_scope=ActivationScope.WEIGHTED),
    )
    assert {"scores", "context"} <= everywhere.plan.integer
    assert weighted.plan.integer == {"query", "key", "value", "up", "down"}
    assert weighted.plan.schemes["scores"] == FP32
    assert "only layers with weights" in weighted.plan.notes["scores"]
    ops = Counter(optimized_ops(weighted.model, tmp_path))
    assert ops["MatMulIntegerToFloat"] == 5
    assert error_of(graph, weighted.model, feed) < 0.03


def test_that_a_rule_by_name_quantizes_a_product_of_activations_in_the_weighted_scope(tmp_path):
    graph = opened(attention_net(), tmp_path)
    recipe = Recipe(
        rules=(LayerRule(STATIC_INT8, ("scores",)),),
        calibration=MINMAX,
        activation_scope=ActivationScope.WEIGHTED,
    )
    plan = emit_with_plan(graph, statistics_of(graph, {"x": normal(4, 6, 32)}), recipe).plan
    assert plan.integer == {"scores"}


def test_that_a_float_product_between_integer_ones_stays_float(tmp_path):
    net = NetBuilder()
    a = net.op("Relu", net.gemm("x", "first", 32, 48), name="r1")
    b = net.op("Relu", net.gemm(a, "second", 48, 48), name="r2")
    graph = opened(net.model({"x": ["n", 32]}, [net.gemm(b, "third", 48, 8)]), tmp_path)
    feed = {"x": normal(16, 32)}
    statistics = statistics_of(graph, feed)
    for scheme, kernel in (
        (FP32, "Gemm"),
        (WEIGHT_INT8, "MatMulNBits"),
        (DYNAMIC_INT8, "DynamicQuantizeMatMul"),
    ):
        model = emit(graph, statistics, STATIC.assign(["second"], scheme))
        ops = Counter(optimized_ops(model, tmp_path))
        assert ops["QGemm"] == 2, scheme.label
        assert ops[kernel] == 1, scheme.label
        assert error_of(graph, model, feed) < 0.03


def test_that_low_bits_of_a_static_layer_live_in_an_int8_container(residual, tmp_path):
    graph, statistics, _ = residual
    for bits, limit in (
        (Precision.INT6, 32),
        (Precision.INT3, 4),
        (Precision.INT2, 2),
        (Precision.TERNARY, 1),
        (Precision.BINARY, 1),
    ):
        recipe = STATIC.assign(["block1"], LayerScheme(bits, ActivationPrecision.INT8))
        model = emit(graph, statistics, replace(recipe, unpacked=True))
        values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        (weight,) = (value for name, value in values.items() if name.startswith("block1.w"))
        assert np.abs(weight).max() == limit
        assert weight.dtype == np.int8
        assert Counter(optimized_ops(model, tmp_path))["QLinearConv"] == 5


def test_that_a_hand_set_activation_range_wins(residual):
    graph, statistics, _ = residual
    recipe = Recipe(STATIC.rules, MINMAX, activation_ranges=(RangeOverride("x", -2.0, 2.0),))
    plan = emit_with_plan(graph, statistics, recipe).plan
    assert plan.quantized["x"].scale == pytest.approx(4 / 255)
    assert plan.quantized["x"].zero_point in (127, 128)


def test_that_a_hand_set_weight_range_clips_the_weights(residual):
    graph, statistics, _ = residual
    recipe = Recipe(STATIC.rules, MINMAX, weight_ranges=(RangeOverride("point", -0.1, 0.1),))
    recipe = replace(recipe, target="cpu-x86-vnni")
    model = emit(graph, statistics, recipe)
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert values["point.w_scale"] == pytest.approx(0.1 / 127)


def test_that_static_layers_without_statistics_are_refused(residual):
    graph, statistics, _ = residual
    with pytest.raises(CalibrationError, match="there are none"):
        emit(graph, None, STATIC)
    some = type(statistics)({}, 1, graph.digest, "")
    with pytest.raises(CalibrationError, match="tensor 'x'"):
        emit(graph, some, STATIC)


def test_that_a_range_that_is_not_finite_is_refused(residual):
    graph, statistics, _ = residual
    recipe = Recipe(STATIC.rules, MINMAX, activation_ranges=(RangeOverride("x", 2.0, -2.0),))
    with pytest.raises(CalibrationError, match="reversed"):
        emit(graph, statistics, recipe)


def test_that_unknown_layers_and_illegal_precisions_are_refused(residual):
    graph, statistics, _ = residual
    with pytest.raises(RecipeError, match="nothing_like_this"):
        emit(graph, statistics, STATIC.assign(["nothing_like_this"], FP32))
    with pytest.raises(RecipeError, match="cannot be INT8 dyn"):
        emit(graph, statistics, STATIC.assign(["stem"], DYNAMIC_INT8))


@pytest.mark.parametrize("name", [n for n in NAMED_SCHEMES if n != "fp32"])
def test_that_every_named_scheme_runs_close_to_float(residual, name):
    graph, statistics, feed = residual
    model = emit(graph, statistics, uniform_recipe(name, calibration=MINMAX))
    assert error_of(graph, model, feed) < largest_error(name)


@pytest.mark.parametrize("name", [n for n in NAMED_SCHEMES if n != "fp32"])
def test_that_every_named_scheme_runs_a_transformer_block(attention, name):
    graph, statistics, feed = attention
    # Weights of 7 bits: the machine that runs the test may add products up in 16 bits.
    recipe = replace(uniform_recipe(name, calibration=MINMAX), target="cpu-x86")
    model = emit(graph, statistics, recipe)
    assert error_of(graph, model, feed) < largest_error(name)


def test_that_layers_reading_one_tensor_share_its_dynamic_quantization(tmp_path):
    graph = opened(attention_net(), tmp_path)
    model = emit(graph, None, uniform_recipe(DYNAMIC_INT8))
    ops = Counter(n.op_type for n in model.graph.node)
    assert ops["MatMulInteger"] == 5
    assert ops["DynamicQuantizeLinear"] == 3
    fused = Counter(optimized_ops(model, tmp_path))
    assert fused["MatMulIntegerToFloat"] + fused["DynamicQuantizeMatMul"] == 5


def test_that_a_bias_behind_a_two_dimensional_product_becomes_integer(tmp_path):
    net = NetBuilder()
    y = net.op("Add", net.matmul("x", "mm", 32, 10), net.weight("b", 1, 10), name="add")
    graph = opened(net.model({"x": ["n", 32]}, [y]), tmp_path)
    feed = {"x": normal(8, 32)}
    model = emit(graph, statistics_of(graph, feed), STATIC)
    assert "QGemm" in optimized_ops(model, tmp_path)
    assert error_of(graph, model, feed) < 0.02


@pytest.mark.parametrize("scheme", ["static-int8", "dynamic-int8", "weight-int8", "weight-int4"])
@pytest.mark.parametrize(
    "attributes", [{"transB": 1}, {"alpha": 0.5, "beta": -2.0}, {"transB": 1, "alpha": -1.5}], ids=str
)
def test_that_transposed_and_scaled_gemms_keep_their_meaning(tmp_path, scheme, attributes):
    net = NetBuilder()
    graph = opened(net.model({"x": ["n", 64]}, [net.gemm("x", "fc", 64, 24, **attributes)]), tmp_path)
    feed = {"x": normal(8, 64)}
    model = emit(graph, statistics_of(graph, feed), uniform_recipe(scheme, calibration=MINMAX))
    assert error_of(graph, model, feed) < (0.15 if scheme == "weight-int4" else 0.03)


@pytest.mark.parametrize("scheme", ["static-int8", "dynamic-int8", "weight-int4"])
def test_that_a_gemm_with_a_matrix_or_computed_bias_is_taken_apart(tmp_path, scheme):
    net = NetBuilder()
    y = net.op("Gemm", "x", net.weight("w", 32, 10), "c", name="fc", beta=0.5)
    graph = opened(net.model({"x": [4, 32], "c": [4, 10]}, [y]), tmp_path)
    feed = {"x": normal(4, 32), "c": normal(4, 10, seed=3)}
    model = emit(graph, statistics_of(graph, feed), uniform_recipe(scheme, calibration=MINMAX))
    assert error_of(graph, model, feed) < 0.15


def test_that_a_transposed_input_stays_float_with_the_reason(tmp_path):
    net = NetBuilder()
    y = net.op("Gemm", "x", net.weight("w", 32, 10), net.weight("b", 10), name="fc", transA=1)
    graph = opened(net.model({"x": [32, 4]}, [y]), tmp_path)
    feed = {"x": normal(32, 4)}
    emission = emit_with_plan(graph, statistics_of(graph, feed), STATIC)
    assert "transA" in emission.plan.notes["fc"] or emission.plan.integer
    weights = emit(graph, None, uniform_recipe(WEIGHT_INT4))
    assert error_of(graph, weights, feed) < 0.15


@pytest.mark.parametrize("scheme", ["static-int8", "dynamic-int8", "weight-int8", "weight-int4", "fp16"])
def test_that_a_constant_first_operand_runs_or_stays_float_with_the_reason(tmp_path, scheme):
    net = NetBuilder()
    y = net.op("MatMul", net.weight("a", 6, 32), "x", name="mm")
    graph = opened(net.model({"x": [32, 8]}, [y]), tmp_path)
    feed = {"x": normal(32, 8)}
    emission = emit_with_plan(graph, statistics_of(graph, feed), uniform_recipe(scheme, calibration=MINMAX))
    if scheme in ("static-int8", "dynamic-int8"):
        assert "second operand" in emission.plan.notes["mm"]
    else:
        assert any(t.name.startswith("a_") for t in emission.model.graph.initializer)
    assert error_of(graph, emission.model, feed) < 0.15


@pytest.mark.parametrize("scheme", ["static-int8", "dynamic-int8", "weight-int8", "weight-int4"])
def test_that_a_stack_of_matrices_is_quantized(tmp_path, scheme):
    net = NetBuilder()
    y = net.op("MatMul", "x", net.weight("w", 4, 40, 8), name="mm")
    graph = opened(net.model({"x": [4, 6, 40]}, [y]), tmp_path)
    feed = {"x": normal(4, 6, 40)}
    model = emit(graph, statistics_of(graph, feed), uniform_recipe(scheme, calibration=MINMAX))
    assert error_of(graph, model, feed) < (0.15 if scheme == "weight-int4" else 0.03)


@pytest.mark.parametrize("scheme", ["weight-int4", "weight-int8"])
def test_that_a_ragged_last_group_is_exact(tmp_path, scheme):
    net = NetBuilder()
    y = net.op("Relu", net.matmul("x", "mm", 75, 33), name="relu")
    graph = opened(net.model({"x": ["n", 75]}, [y]), tmp_path)
    chosen = NAMED_SCHEMES[scheme]
    recipe = uniform_recipe(LayerScheme(chosen.weights, granularity=Granularity.PER_GROUP, group_size=16))
    emission = emit_with_plan(graph, None, recipe)
    layer = next(layer for layer in graph.layers if layer.name == "mm")
    assert layer.channel_axis == 1
    feed = {"x": normal(8, 75)}
    assert error_of(graph, emission.model, feed) < 0.15
    packed = sum(len(t.raw_data) for t in emission.model.graph.initializer)
    assert packed < 75 * 33 * (0.5 if scheme == "weight-int4" else 1) + 5 * 33 * 4 + 5 * 33 + 64


@pytest.mark.parametrize("scheme", ["static-int8", "weight-int8", "weight-int4", "fp16"])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_that_one_and_three_dimensional_convolutions_run(tmp_path, scheme, dimensions):
    net = NetBuilder()
    weight = net.weight("w", 8, 2, *[3] * dimensions)
    y = net.op("Conv", "x", weight, net.weight("b", 8, scale=0.1), name="conv", group=2)
    graph = opened(net.model({"x": ["n", 4, *[6] * dimensions]}, [y]), tmp_path)
    feed = {"x": normal(2, 4, *[6] * dimensions)}
    model = emit(graph, statistics_of(graph, feed), uniform_recipe(scheme, calibration=MINMAX))
    assert error_of(graph, model, feed) < (0.15 if scheme == "weight-int4" else 0.03)


@pytest.mark.parametrize("scheme", ["weight-int8", "fp16"])
@pytest.mark.parametrize("group", [1, 2])
def test_that_transposed_convolutions_store_small_weights(tmp_path, scheme, group):
    net = NetBuilder()
    weight = net.weight("w", 4, 6 // group, 3, 3, scale=0.3)
    y = net.op(
        "ConvTranspose", "x", weight, net.weight("b", 6, scale=0.1), name="up", strides=[2, 2], group=group
    )
    graph = opened(net.model({"x": ["n", 4, 5, 5]}, [y]), tmp_path)
    feed = {"x": normal(2, 4, 5, 5)}
    model = emit(graph, None, uniform_recipe(scheme))
    assert error_of(graph, model, feed) < 0.03
    assert not any(t.name == "w" for t in model.graph.initializer)


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("scheme", ["weight-int8", "fp16"])
def test_that_recurrent_layers_store_both_weights_small(tmp_path, op_type, scheme):
    net = NetBuilder()
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type]
    inputs = [net.weight("w", 2, gates * 8, 6, scale=0.4), net.weight("r", 2, gates * 8, 8, scale=0.4)]
    y = net.op(op_type, "x", *inputs, name="rnn", hidden_size=8, direction="bidirectional")
    graph = opened(net.model({"x": [5, 2, 6]}, [y]), tmp_path)
    feed = {"x": normal(5, 2, 6)}
    model = emit(graph, None, uniform_recipe(scheme))
    assert error_of(graph, model, feed) < 0.03
    assert not {"w", "r"} & {t.name for t in model.graph.initializer}


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_that_a_dynamic_lstm_multiplies_integers(tmp_path, direction):
    net = NetBuilder()
    count = 2 if direction == "bidirectional" else 1
    inputs = [net.weight("w", count, 32, 6, scale=0.4), net.weight("r", count, 32, 8, scale=0.4)]
    inputs.append(net.weight("b", count, 64, scale=0.1))
    y = net.op("LSTM", "x", *inputs, name="rnn", hidden_size=8, direction=direction, layout=0)
    graph = opened(net.model({"x": [5, 2, 6]}, [y]), tmp_path)
    feed = {"x": normal(5, 2, 6)}
    model = emit(graph, None, uniform_recipe(DYNAMIC_INT8))
    assert optimized_ops(model, tmp_path) == ["DynamicQuantizeLSTM"]
    assert error_of(graph, model, feed) < 0.05


def test_that_a_batch_first_lstm_stays_float_with_the_reason(tmp_path):
    net = NetBuilder()
    inputs = [net.weight("w", 1, 32, 6, scale=0.4), net.weight("r", 1, 32, 8, scale=0.4)]
    y = net.op("LSTM", "x", *inputs, name="rnn", hidden_size=8)
    graph = opened(net.model({"x": [5, 2, 6]}, [y]), tmp_path)
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("layout", 1))
    plan = emit_with_plan(Graph(proto, graph.summary), None, uniform_recipe(DYNAMIC_INT8)).plan
    assert "batch-first" in plan.notes["rnn"]
    assert plan.schemes["rnn"] == FP32


@pytest.mark.parametrize("columns", [64, 40])
@pytest.mark.parametrize("scheme", ["weight-int8", "weight-int4", "fp16"])
def test_that_an_embedding_gathers_small_rows(tmp_path, scheme, columns):
    net = NetBuilder()
    rows = net.op("Gather", net.weight("table", 50, columns, scale=1.0), "ids", name="embed")
    y = net.matmul(rows, "mm", columns, 4)
    graph = opened(net.model({"ids": (["n", 7], onnx.TensorProto.INT64)}, [y]), tmp_path)
    feed = {"ids": np.random.default_rng(0).integers(0, 50, (3, 7))}
    model = emit(graph, None, Recipe((LayerRule(NAMED_SCHEMES[scheme], ("embed",)),)))
    assert error_of(graph, model, feed) < (0.15 if scheme == "weight-int4" else 0.02)
    largest = max(len(t.raw_data) for t in model.graph.initializer)
    assert (
        largest
        == {"weight-int8": 50 * columns, "weight-int4": 50 * columns // 2, "fp16": 100 * columns}[scheme]
    )


@pytest.mark.parametrize("scheme", ["weight-int8", "weight-int4"])
def test_that_products_before_a_relu_never_unpack_the_whole_weight(tmp_path, scheme):
    net = NetBuilder()
    hidden = net.op("Relu", net.gemm("x", "fc", 64, 48), name="relu")
    hidden = net.op("Relu", net.matmul(hidden, "mm", 48, 32), name="bare")
    added = net.op("Add", net.matmul(hidden, "biased", 32, 32), net.weight("b", 32), name="add")
    y = net.matmul(net.op("Relu", added, name="last"), "out", 32, 8)
    graph = opened(net.model({"x": ["n", 64]}, [y]), tmp_path)
    feed = {"x": normal(8, 64)}
    model = emit(graph, None, uniform_recipe(scheme))
    ops = Counter(optimized_ops(model, tmp_path))
    assert ops["MatMulNBits"] == 4
    assert not ops["DequantizeLinear"]
    assert error_of(graph, model, feed) < (0.2 if scheme == "weight-int4" else 0.03)


def test_that_a_tied_table_is_stored_once_a_form(tmp_path):
    net = NetBuilder()
    table = net.weight("table", 48, 32, scale=1.0)
    h = net.op("Gather", table, "ids", name="embed")
    a = net.op("MatMul", h, net.weight("w", 32, 32), name="a")
    b = net.op("MatMul", h, "w", name="b")
    y = net.op("Add", a, b, name="sum")
    graph = opened(net.model({"ids": (["n", 3], onnx.TensorProto.INT64)}, [y]), tmp_path)
    feed = {"ids": np.array([[1, 5, 40]])}

    def matrices(model):
        return [
            t for t in model.graph.initializer if t.dims == [32, 32] and t.data_type == onnx.TensorProto.INT8
        ]

    same = emit(graph, None, uniform_recipe(WEIGHT_INT8))
    assert len([t for t in matrices(same) if any(t.raw_data)]) == 1
    assert error_of(graph, same, feed) < 0.02
    mixed = emit(graph, None, uniform_recipe(WEIGHT_INT8).assign(["b"], FP32))
    assert len(matrices(mixed)) == 1
    assert "w" in {t.name for t in mixed.graph.initializer}
    assert error_of(graph, mixed, feed) < 0.02


def test_that_dead_channels_with_a_bias_keep_the_bias(tmp_path):
    net = NetBuilder()
    weight = net.rng.normal(size=(8, 4, 3, 3)).astype(np.float32) * 0.2
    weight[3] = 0
    weight[5] *= 1e-12
    net.constant("w", weight)
    net.constant("b", np.linspace(-3, 3, 8).astype(np.float32))
    y = net.op("Conv", "x", "w", "b", name="conv", pads=[1] * 4)
    graph = opened(net.model({"x": ["n", 4, 6, 6]}, [y]), tmp_path)
    feed = {"x": normal(4, 4, 6, 6)}
    model = emit(graph, statistics_of(graph, feed), STATIC)
    expected, found = outputs_of(graph.proto, feed)[0], outputs_of(model, feed)[0]
    assert np.abs(found[:, [3, 5]] - expected[:, [3, 5]]).max() < 0.05
    assert error_of(graph, model, feed) < 0.02


def test_that_a_tensor_that_is_always_zero_has_a_usable_scale(tmp_path):
    net = NetBuilder()
    y = net.conv(net.conv("x", "first", 3, 4), "second", 4, 4)
    graph = opened(net.model({"x": ["n", 3, 6, 6]}, [y]), tmp_path)
    statistics = statistics_of(graph, {"x": np.zeros((2, 3, 6, 6), np.float32)})
    model = emit(graph, statistics, STATIC)
    assert np.isfinite(outputs_of(model, {"x": normal(2, 3, 6, 6)})[0]).all()


def test_that_a_mask_of_huge_values_stays_out_of_the_grid(tmp_path):
    net = NetBuilder()
    net.constant("mask", np.array([0, 0, -3.4e38, 0], np.float32))
    scores = net.op("MatMul", "x", "k", name="scores")
    masked = net.op("Add", scores, "mask", name="masked")
    y = net.op("MatMul", net.op("Softmax", masked, name="soft"), "v", name="context")
    graph = opened(net.model({"x": [2, 4, 8], "k": [2, 8, 4], "v": [2, 4, 8]}, [y]), tmp_path)
    feed = {"x": normal(2, 4, 8), "k": normal(2, 8, 4, seed=1), "v": normal(2, 4, 8, seed=2)}
    emission = emit_with_plan(graph, statistics_of(graph, feed), STATIC)
    assert emission.plan.integer == {"scores", "context"}
    assert error_of(graph, emission.model, feed) < 0.05


def test_that_pre_activations_with_two_readers_and_limits_off_zero_still_run(tmp_path):
    net = NetBuilder()
    for name, value in (("low", -1.0), ("high", 1.0), ("above", 0.1)):
        net.constant(name, np.float32(value))
    pre = net.conv("x", "a", 3, 8)
    left = net.conv(net.op("Relu", pre, name="relu"), "b", 8, 8)
    right = net.conv(net.op("Clip", pre, "low", "high", name="hard"), "c", 8, 8)
    both = net.op("Concat", left, right, name="cat", axis=1)
    clipped = net.op("Clip", net.conv(both, "d", 16, 8), "above", "high", name="off_zero")
    graph = opened(net.model({"x": ["n", 3, 8, 8]}, [net.conv(clipped, "e", 8, 4)]), tmp_path)
    feed = {"x": normal(8, 3, 8, 8)}
    model = emit(graph, statistics_of(graph, feed), STATIC)
    ops = Counter(optimized_ops(model, tmp_path))
    assert ops["QLinearConv"] == 5
    assert ops["QLinearConcat"] == 1
    assert error_of(graph, model, feed) < 0.05


def test_that_hard_tanh_folds_when_nothing_else_reads_before_it(tmp_path):
    net = NetBuilder()
    net.constant("low", np.float32(-1))
    net.constant("high", np.float32(1))
    y = net.conv(net.op("Clip", net.conv("x", "a", 3, 8), "low", "high", name="hard"), "b", 8, 8)
    graph = opened(net.model({"x": ["n", 3, 8, 8]}, [y]), tmp_path)
    feed = {"x": normal(8, 3, 8, 8)}
    emission = emit_with_plan(graph, statistics_of(graph, feed), STATIC)
    params = emission.plan.quantized["hard_out"]
    assert params.scale * np.float32(255 - params.zero_point) <= 1
    assert params.scale * np.float32(params.zero_point) <= 1
    assert Counter(optimized_ops(emission.model, tmp_path))["QLinearConv"] == 2
    assert error_of(graph, emission.model, feed) < 0.03


def test_that_operators_with_constants_and_activations_of_other_kinds_fuse(tmp_path):
    net = NetBuilder()
    gate = net.op("Sigmoid", net.conv("x", "a", 3, 8), name="gate")
    scaled = net.op("Mul", gate, net.weight("factor", 1, 8, 1, 1, scale=1.0), name="scaled")
    leaky = net.op("LeakyRelu", net.conv(scaled, "b", 8, 8), name="leaky", alpha=0.1)
    pooled = net.op("AveragePool", leaky, name="average", kernel_shape=[2, 2], strides=[2, 2])
    graph = opened(net.model({"x": ["n", 3, 8, 8]}, [net.conv(pooled, "c", 8, 4)]), tmp_path)
    feed = {"x": normal(8, 3, 8, 8)}
    model = emit(graph, statistics_of(graph, feed), STATIC)
    ops = set(optimized_ops(model, tmp_path))
    assert {"QLinearSigmoid", "QLinearMul", "QLinearLeakyRelu", "QLinearAveragePool"} <= ops
    assert error_of(graph, model, feed) < 0.05


def test_that_split_resize_and_slice_stay_on_integers(tmp_path):
    net = NetBuilder()
    for name, value in (("none", np.zeros(0, np.float32)), ("twice", np.array([1, 1, 2, 2], np.float32))):
        net.constant(name, value)
    for name, index in (("start", 0), ("end", 6), ("axis", 2)):
        net.constant(name, np.array([index], np.int64))
    first = net.conv("x", "a", 3, 8)
    net.nodes.append(
        onnx.helper.make_node("Split", [first], ["left", "right"], name="split", axis=1, num_outputs=2)
    )
    both = net.op("Add", net.conv("left", "b", 4, 4), "right", name="sum")
    large = net.op("Resize", both, "none", "twice", name="resize", mode="nearest")
    cut = net.op("Slice", large, "start", "end", "axis", name="cut")
    graph = opened(net.model({"x": ["n", 3, 8, 8]}, [net.conv(cut, "c", 4, 4)]), tmp_path)
    feed = {"x": normal(8, 3, 8, 8)}
    model = emit(graph, statistics_of(graph, feed), STATIC)
    ops = Counter(optimized_ops(model, tmp_path))
    assert ops["QLinearConv"] == 3
    assert ops["QLinearAdd"] == 1
    assert ops["DequantizeLinear"] == 1
    assert error_of(graph, model, feed) < 0.05


def test_that_a_range_of_an_unknown_tensor_is_refused(residual):
    graph, statistics, _ = residual
    recipe = Recipe(STATIC.rules, MINMAX, activation_ranges=(RangeOverride("ghost", -1, 1),))
    with pytest.raises(RecipeError, match="ghost"):
        emit(graph, statistics, recipe)


def test_that_an_output_in_the_middle_keeps_its_name_and_values(tmp_path):
    net = NetBuilder()
    inner = net.op("Relu", net.conv("x", "a", 3, 8), name="relu")
    graph = opened(net.model({"x": ["n", 3, 8, 8]}, [inner, net.conv(inner, "b", 8, 4)]), tmp_path)
    feed = {"x": normal(4, 3, 8, 8)}
    model = emit(graph, statistics_of(graph, feed), STATIC)
    assert [v.name for v in model.graph.output] == [v.name for v in graph.proto.graph.output]
    for expected, found in zip(outputs_of(graph.proto, feed), outputs_of(model, feed), strict=True):
        assert relative_error(expected, found) < 0.03
    assert Counter(optimized_ops(model, tmp_path))["QLinearConv"] == 2


@pytest.mark.parametrize("scheme", ["weight-int8", "weight-int4", "fp16", "dynamic-int8"])
def test_that_layers_inside_control_flow_are_really_quantized(tmp_path, scheme):
    model = branch_model()
    graph = opened(model, tmp_path)
    inside = [layer for layer in graph.layers if layer.scope]
    assert {layer.name for layer in inside} == {"yes", "no"} or len(inside) == 2
    recipe = uniform_recipe(scheme)
    assert all(recipe.scheme_for(layer) != FP32 for layer in inside)
    emitted = emit(graph, None, recipe)
    for flag in (True, False):
        feed = {"x": normal(4, 16), "flag": np.array(flag)}
        assert error_of(graph, emitted, feed) < (0.2 if scheme == "weight-int4" else 0.03)
    assert not _float_matrices(emitted.graph)


def _float_matrices(graph):
    found = [
        t.name
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2 and min(t.dims) > 1
    ]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _float_matrices(attribute.g)
    return [name for name in found if not name.endswith("_scale")]


def test_that_a_static_tensor_read_by_a_body_keeps_its_name(tmp_path):
    graph = opened(branch_model(), tmp_path)
    recipe = Recipe((LayerRule(STATIC_INT8, ("first",)),), MINMAX)
    feed = {"x": normal(4, 16), "flag": np.array(True)}
    statistics = statistics_of(graph, feed)
    assert error_of(graph, emit(graph, statistics, recipe), feed) < 0.03


def test_that_the_emitter_agrees_with_the_runtime_quantizer(residual, tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    graph, statistics, feed = residual

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self):
            self.feeds = iter([feed])

        def get_next(self):
            return next(self.feeds, None)

    source, target = tmp_path / "source.onnx", tmp_path / "oracle.onnx"
    onnx.save(graph.proto, source)
    quantize_static(
        source,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    # The runtime's own quantizer takes 8 bits of every weight.
    oracle, ours = onnx.load(target), emit(graph, statistics, replace(STATIC, target="cpu-x86-vnni"))
    fused = Counter(op for op in optimized_ops(oracle, tmp_path) if op.startswith(("QLinear", "QGemm")))
    assert Counter(op for op in optimized_ops(ours, tmp_path) if op.startswith(("QLinear", "QGemm"))) == fused
    expected = outputs_of(graph.proto, feed)[0]
    our_error = relative_error(expected, outputs_of(ours, feed)[0])
    their_error = relative_error(expected, outputs_of(oracle, feed)[0])
    # The oracle rounds the output as well, so it may be a little worse, hardly better.
    assert our_error <= 1.2 * their_error
    agreement = (outputs_of(ours, feed)[0].argmax(1) == outputs_of(oracle, feed)[0].argmax(1)).mean()
    assert agreement >= 0.9


def test_that_optimized_and_unoptimized_runs_agree(residual):
    graph, statistics, feed = residual
    model = emit(graph, statistics, STATIC)
    plain = outputs_of(model, feed, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)[0]
    assert relative_error(plain, outputs_of(model, feed)[0]) < 0.02
