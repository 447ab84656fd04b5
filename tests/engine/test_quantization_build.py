from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.errors import BuildError, JobCancelled, OutputError
from quantstudio.core.events import CancelToken
from quantstudio.core.files import file_digest
from quantstudio.core.precision import DYNAMIC_INT8, FP32, STATIC_INT8, WEIGHT_INT4, WEIGHT_INT8
from quantstudio.core.recipe import CalibrationSettings, RangeMethod, uniform_recipe
from quantstudio.engine.graph.runtime import open_session
from quantstudio.engine.model.open import open_model
from quantstudio.engine.quantization import build as build_module
from quantstudio.engine.quantization.probe import probe_feeds
from tests.engine.quantization_cases import (
    NetBuilder,
    attention_net,
    branch_model,
    normal,
    opened,
    residual_net,
    statistics_of,
)
from tests.engine.recipe_builds import build_variant, emit_with_plan

STATIC = uniform_recipe(STATIC_INT8, calibration=CalibrationSettings(method=RangeMethod.MINMAX))


@pytest.fixture
def residual(tmp_path):
    graph = opened(residual_net(), tmp_path)
    return graph, statistics_of(graph, {"x": normal(16, 3, 12, 12)})


class Events:
    def __init__(self):
        self.messages, self.stages = [], []

    def progress(self, done, total, unit, label):
        self.stages.append((done, total))

    def message(self, text, severity=None):
        self.messages.append(text)


def test_that_a_static_build_names_the_kernel_of_every_layer(residual, tmp_path):
    graph, statistics = residual
    events = Events()
    result = build_variant(graph, statistics, STATIC, tmp_path / "v.onnx", reporter=events)
    kernels = {layer.name: layer.kernel for layer in result.layers}
    assert kernels == {
        **dict.fromkeys(("stem", "block1", "block2", "depthwise", "point"), "QLinearConv"),
        "head": "QGemm",
    }
    assert all(layer.is_integer_kernel and not layer.note for layer in result.layers)
    assert {layer.weights for layer in result.layers} == {"int8"}
    assert result.warnings == ()
    assert result.unoptimized_difference < 0.05
    assert events.stages[-1] == (4, 4)


def test_that_digest_size_and_weight_bytes_are_those_of_the_file(residual, tmp_path):
    graph, statistics = residual
    path = tmp_path / "v.onnx"
    result = build_variant(graph, statistics, STATIC, path)
    assert result.digest == file_digest(path)
    assert result.size_bytes == path.stat().st_size
    point = next(layer for layer in result.layers if layer.name == "point")
    # 512 INT8 weights, 32 scales and zero points; 32 biases with scales and zero points of 4 bytes each.
    assert point.weight_bytes == 512 + 32 * 4 + 32 + 32 * 12
    again = build_variant(graph, statistics, STATIC, tmp_path / "again.onnx")
    assert again.digest == result.digest
    assert again.variant == result.variant


def test_that_layers_kept_float_are_reported_float_and_counted_in_a_warning(residual, tmp_path):
    graph, statistics = residual
    recipe = STATIC.assign(["block1", "point", "head"], FP32)
    result = build_variant(graph, statistics, recipe, tmp_path / "v.onnx")
    floats = {layer.name: layer.kernel for layer in result.layers if not layer.is_integer_kernel}
    assert floats == {"block1": "Conv (float)", "point": "Conv (float)", "head": "Gemm (float)"}
    assert any("2 of 5 convolutions" in text for text in result.warnings)


def test_that_fused_sums_of_float_convolutions_are_told_apart(residual, tmp_path):
    graph, _ = residual
    result = build_variant(graph, None, uniform_recipe("fp32"), tmp_path / "v.onnx")
    assert {layer.kernel for layer in result.layers} == {"Conv (float)", "Gemm (float)"}
    assert result.unoptimized_difference < 1e-4


def test_that_a_transformer_block_names_its_kernels(tmp_path):
    graph = opened(attention_net(), tmp_path)
    dynamic = build_variant(graph, None, uniform_recipe(DYNAMIC_INT8), tmp_path / "d.onnx")
    kernels = {layer.name: layer for layer in dynamic.layers}
    for name in ("query", "key", "value", "up", "down"):
        assert kernels[name].kernel in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
        assert kernels[name].is_integer_kernel
    assert kernels["scores"].kernel == "MatMul (float)"
    assert "no INT8 dyn form" in kernels["scores"].note
    small = build_variant(graph, None, uniform_recipe(WEIGHT_INT4), tmp_path / "w.onnx")
    kernels = {layer.name: layer for layer in small.layers}
    assert kernels["up"].kernel == "MatMulNBits"
    assert kernels["up"].weights == "int4"
    # 32 x 64 nibbles, one scale per group of 32 rows and column, 64 biases are an Add of their own.
    assert kernels["up"].weight_bytes == 1024 + 64 * 4


@pytest.mark.parametrize("count", [2, "n"], ids=["known batch", "any batch"])
def test_that_a_product_with_a_bias_runs_on_integers_whatever_shapes_are_known(tmp_path, count):
    net = NetBuilder(1)
    net.weight("bias", 24, scale=0.1)
    y = net.op("Erf", net.op("Add", net.matmul("x", "up", 16, 24), "bias", name="add"), name="erf")
    graph = opened(net.model({"x": [count, 5, 16]}, [net.matmul(y, "down", 24, 8)]), tmp_path)
    statistics = statistics_of(graph, {"x": normal(2, 5, 16)})
    built = build_variant(graph, statistics, uniform_recipe(STATIC_INT8), tmp_path / "v.onnx")
    assert [layer.kernel for layer in built.layers] == ["MatMulIntegerToFloat"] * 2
    assert built.warnings == ()
    biases = [t for t in onnx.load(tmp_path / "v.onnx").graph.initializer if t.name.startswith("bias")]
    assert [list(t.dims) for t in biases] == ([[1, 1, 24]] if count == 2 else [[24]])


def test_that_layers_inside_control_flow_name_their_kernels(tmp_path):
    graph = opened(branch_model(), tmp_path)
    result = build_variant(graph, None, uniform_recipe(WEIGHT_INT8), tmp_path / "v.onnx")
    assert {layer.name: layer.kernel for layer in result.layers} == dict.fromkeys(
        ("first", "yes", "no"), "MatMulNBits"
    )
    assert result.warnings == ()


def test_that_recurrent_and_transposed_layers_are_float_kernels_with_small_weights(tmp_path):
    net = NetBuilder()
    inputs = [net.weight("w", 1, 32, 6, scale=0.4), net.weight("r", 1, 32, 8, scale=0.4)]
    y = net.op("LSTM", "x", *inputs, name="lstm", hidden_size=8)
    graph = opened(net.model({"x": [5, 2, 6]}, [y]), tmp_path)
    layer = build_variant(graph, None, uniform_recipe(WEIGHT_INT8), tmp_path / "v.onnx").layers[0]
    assert (layer.kernel, layer.weights, layer.note) == ("LSTM (float)", "int8", "")
    # 14 values for each of 32 gate rows; W and R have a scale for each of their own.
    assert layer.weight_bytes == 32 * 14 + 2 * 32 * 4


def test_that_a_layer_that_is_not_what_was_asked_says_why(tmp_path):
    net = NetBuilder()
    y = net.op("Gemm", "x", net.weight("w", 32, 10), net.weight("b", 10), name="fc", transA=1)
    graph = opened(net.model({"x": [32, 4]}, [y]), tmp_path)
    layer = build_variant(graph, None, uniform_recipe(DYNAMIC_INT8), tmp_path / "v.onnx").layers[0]
    assert not layer.is_integer_kernel
    assert "transA" in layer.note


def test_that_a_float_layer_on_integers_is_an_error_and_leaves_the_old_file(residual, tmp_path, monkeypatch):
    graph, statistics = residual

    def forgetful(graph, statistics, recipe, cancel=None, known=None):
        """A plan that forgets the barrier, as other tools do."""
        emission = emit_with_plan(graph, statistics, STATIC)
        emission.plan.schemes["block1"] = FP32
        return emission

    monkeypatch.setattr(build_module, "emit_with_plan", forgetful)
    target = tmp_path / "v.onnx"
    target.write_bytes(b"old")
    with pytest.raises(BuildError, match=r"block1.*stay FP32.*QLinearConv"):
        build_variant(graph, statistics, STATIC, target)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_that_a_cancelled_build_leaves_the_old_file(residual, tmp_path):
    graph, statistics = residual
    token = CancelToken()
    token.set()
    target = tmp_path / "v.onnx"
    target.write_bytes(b"old")
    with pytest.raises(JobCancelled):
        build_variant(graph, statistics, STATIC, target, cancel=token)
    assert target.read_bytes() == b"old"


def test_that_a_missing_folder_is_an_output_error(residual, tmp_path):
    graph, statistics = residual
    with pytest.raises(OutputError, match="cannot write"):
        build_variant(graph, statistics, STATIC, tmp_path / "none" / "v.onnx")


def test_that_a_difference_beyond_rounding_is_a_warning(residual, tmp_path, monkeypatch):
    graph, statistics = residual
    monkeypatch.setattr(build_module, "LARGEST_DIFFERENCE", -1.0)
    result = build_variant(graph, statistics, STATIC, tmp_path / "v.onnx")
    assert any("differs from the unoptimized" in text for text in result.warnings)


def test_that_a_model_no_probe_fits_is_built_with_a_warning(tmp_path, monkeypatch):
    graph = opened(attention_net(), tmp_path)
    monkeypatch.setattr(build_module, "probe_feeds", lambda *_: iter(()))
    result = build_variant(graph, None, uniform_recipe(WEIGHT_INT8), tmp_path / "v.onnx")
    assert any("was not compared" in text for text in result.warnings)


def test_that_a_model_with_a_dynamic_length_is_compared(tmp_path):
    net = NetBuilder()
    rows = net.op("Gather", net.weight("table", 50, 32, scale=1.0), "ids", name="embed")
    y = net.matmul(rows, "mm", 32, 4)
    graph = opened(net.model({"ids": (["batch", "length"], onnx.TensorProto.INT64)}, [y]), tmp_path)
    result = build_variant(graph, None, uniform_recipe(WEIGHT_INT8), tmp_path / "v.onnx")
    assert result.warnings == ()
    assert {layer.name: layer.kernel for layer in result.layers} == {
        "embed": "Gather",
        "mm": "MatMulNBits",
    }


def test_that_probes_follow_the_calibrated_distribution(residual):
    graph, statistics = residual
    feeds = list(probe_feeds(graph.proto, statistics))
    histogram = statistics.tensors["x"]
    assert feeds
    for feed in feeds:
        assert feed["x"].min() >= histogram.minimum
        assert feed["x"].max() <= histogram.maximum
    again = next(probe_feeds(graph.proto, statistics))
    assert (again["x"] == feeds[0]["x"]).all()


def test_that_probes_have_the_lengths_a_graph_insists_on(tmp_path):
    """An export with one length baked in: none of the usual lengths fits."""
    net = NetBuilder()
    view = net.op("Reshape", "x", net.constant("shape", np.array([-1, 7, 4], np.int64)), name="view")
    graph = opened(net.model({"x": (["batch", "length", 4], onnx.TensorProto.FLOAT)}, [view]), tmp_path)
    assert (2, 7, 4) in [feed["x"].shape for feed in probe_feeds(graph.proto, None)]


def test_that_an_empty_histogram_gives_values_within_its_ends(residual):
    graph, statistics = residual
    statistics.tensors["x"].counts[:] = 0
    feed = next(probe_feeds(graph.proto, statistics))
    assert feed["x"].max() <= statistics.tensors["x"].maximum


def test_that_a_build_is_cancelled_between_nodes(residual, tmp_path):
    graph, statistics = residual

    class Impatient(CancelToken):
        looked = 0

        def raise_if_set(self) -> None:
            self.looked += 1
            if self.looked == 4:
                self.set()
            super().raise_if_set()

    token = Impatient()
    with pytest.raises(JobCancelled):
        build_variant(graph, statistics, STATIC, tmp_path / "v.onnx", cancel=token)
    assert token.looked == 4
    assert not list(tmp_path.glob("*v.onnx*"))


def test_that_an_output_that_is_a_sequence_is_left_out_of_the_comparison(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        helper.make_node("SplitToSequence", ["y"], ["parts"], name="split", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8]),
            helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.ones((64, 8), np.float32), "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    built = build_variant(open_model(path), None, uniform_recipe(WEIGHT_INT8), tmp_path / "v.onnx")
    assert built.unoptimized_difference < 0.1


@pytest.mark.parametrize("scheme", [WEIGHT_INT8, WEIGHT_INT4])
def test_that_weights_without_a_kernel_of_their_own_are_unpacked_at_load(scheme, residual, tmp_path):
    graph, _ = residual
    build_variant(graph, None, uniform_recipe(scheme), tmp_path / "v.onnx")
    optimized = tmp_path / "optimized.onnx"
    open_session(tmp_path / "v.onnx", threads=1, optimized_path=optimized)
    found = {node.op_type for node in onnx.load(optimized).graph.node}
    # Computed on every run, they would take as long as the convolutions themselves.
    assert not {"Cast", "Mul", "DequantizeLinear"} & found
