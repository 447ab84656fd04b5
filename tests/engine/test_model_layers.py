"""The layer table against counts made by hand, and on the reference models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quantstudio.core.layers import LayerInfo
from quantstudio.engine.model.layers import list_layers
from quantstudio.engine.model.open import open_model
from tests.engine.builders import INT64, conv_net, if_model, mlp, model, node, random, save, value
from tests.shared_data import MODELS, THIRD_PARTY, needs_shared


def layers_of(tmp_path, made) -> dict[str, LayerInfo]:
    return {layer.name: layer for layer in open_model(save(made, tmp_path)).layers}


def test_that_conv_and_gemm_are_counted_by_hand(tmp_path):
    summary = open_model(save(conv_net(), tmp_path)).summary
    conv, gemm = summary.layers
    assert (conv.op_type, conv.weight_shape, conv.channel_axis) == ("Conv", (4, 3, 3, 3), 0)
    assert conv.parameters == 4 * 27 + 4
    assert conv.weight_bytes == 4 * conv.parameters
    assert conv.macs == 8 * 8 * 4 * 27
    assert (gemm.op_type, gemm.channel_axis, gemm.macs) == ("Gemm", 0, 20)
    assert gemm.parameters == 25
    assert summary.parameters == 137
    assert conv.share + gemm.share == pytest.approx(1)
    assert conv.inputs == ("x",)
    assert gemm.outputs == ("y",)
    assert summary.edges == ((0, 1),)


def test_that_macs_are_per_sample_with_a_fixed_batch_too(tmp_path):
    dynamic = layers_of(tmp_path, conv_net())["conv"].macs
    assert layers_of(tmp_path, conv_net(batch=16))["conv"].macs == dynamic


def test_that_a_matmul_owns_the_bias_added_after_it(tmp_path):
    layers = layers_of(tmp_path, mlp())
    assert layers["first"].parameters == 8 * 16 + 16
    assert layers["second"].parameters == 16 * 3
    assert layers["first"].macs == 128


def test_that_a_weight_on_the_left_has_its_rows_as_channels(tmp_path):
    made = model(
        [node("MatMul", ["w", "x"], ["y"], "left")],
        [value("x", [8, 5])],
        [value("y", [4, 5])],
        {"w": random(4, 8)},
    )
    layer = layers_of(tmp_path, made)["left"]
    assert (layer.weight_name, layer.channel_axis, layer.inputs) == ("w", 0, ("x",))


def test_that_products_of_activations_are_listed_without_weight(tmp_path):
    made = model(
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["y"], "scores")],
        [value("x", ["N", 4, 6])],
        [value("y", ["N", 4, 4])],
    )
    layer = layers_of(tmp_path, made)["scores"]
    assert layer.weight_name == ""
    assert layer.weight_shape == ()
    assert layer.channel_axis is None
    assert layer.inputs == ("x", "t")
    assert layer.macs == 4 * 4 * 6


def test_that_an_embedding_is_a_layer_and_a_lookup_of_shapes_is_none(tmp_path):
    weights: dict[str, NDArray[Any]] = {"table": random(10, 3), "codes": np.arange(20).reshape(10, 2)}
    nodes = [
        node("Gather", ["table", "ids"], ["e"], "embedding"),
        node("Gather", ["codes", "ids"], ["c"], "lookup"),
    ]
    made = model(
        nodes, [value("ids", ["N"], INT64)], [value("e", ["N", 3]), value("c", ["N", 2], INT64)], weights
    )
    layers = layers_of(tmp_path, made)
    assert set(layers) == {"embedding"}
    assert (layers["embedding"].parameters, layers["embedding"].macs) == (30, 0)


def test_that_a_tied_weight_is_counted_once(tmp_path):
    weights = {"table": random(10, 4)}
    nodes = [
        node("Gather", ["table", "ids"], ["e"], "embedding"),
        node("Gemm", ["e", "table"], ["y"], "head", transB=1),
    ]
    made = model(nodes, [value("ids", ["N"], INT64)], [value("y", ["N", 10])], weights)
    summary = open_model(save(made, tmp_path)).summary
    assert [layer.parameters for layer in summary.layers] == [40, 0]
    assert [layer.weight_name for layer in summary.layers] == ["table", "table"]
    assert summary.parameters == 40
    assert summary.weight_bytes == 160


@pytest.mark.parametrize(
    ("op_type", "weights"),
    [
        ("LayerNormalization", {"a": random(6), "b": random(6)}),
        ("InstanceNormalization", {"a": random(4), "b": random(4)}),
        ("PRelu", {"a": random(4, 1)}),
    ],
)
def test_that_scales_are_listed_with_the_reason_they_stay_float(tmp_path, op_type, weights):
    made = model(
        [node(op_type, ["x", *weights], ["y"], "scale")],
        [value("x", ["N", 4, 6])],
        [value("y", ["N", 4, 6])],
        weights,
    )
    layer = layers_of(tmp_path, made)["scale"]
    assert not layer.quantizable
    assert layer.reason
    assert layer.macs == 24


def test_that_edges_pass_through_nodes_that_are_no_layers(tmp_path):
    weights = {"w1": random(4, 4), "w2": random(4, 4), "w3": random(4, 4)}
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], "one"),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "w2"], ["b"], "two"),
        node("Add", ["r", "b"], ["s"]),
        node("MatMul", ["s", "w3"], ["y"], "three"),
    ]
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], weights)
    assert open_model(save(made, tmp_path)).summary.edges == ((0, 1), (0, 2), (1, 2))


def test_that_edges_lead_into_and_out_of_bodies(tmp_path):
    made = if_model()
    made.graph.node.insert(0, node("MatMul", ["input", "w0"], ["x"], "before"))
    made.graph.node.append(node("MatMul", ["y", "w9"], ["z"], "after"))
    made.graph.input[0].name = "input"
    made.graph.output[0].CopyFrom(value("z", ["N", 4]))
    for name in ("w0", "w9"):
        tensor = made.graph.initializer.add()
        tensor.CopyFrom(helper.make_tensor(name, TensorProto.FLOAT, [4, 4], random(4, 4).tobytes(), raw=True))
    summary = open_model(save(made, tmp_path)).summary
    place = {layer.name: number for number, layer in enumerate(summary.layers)}
    inner = [number for number, layer in enumerate(summary.layers) if layer.scope]
    assert {(place["before"], number) for number in inner} <= set(summary.edges)
    assert {(number, place["after"]) for number in inner} <= set(summary.edges)


def test_that_unknown_shapes_give_no_macs(tmp_path):
    made = conv_net()
    made.graph.input[0].CopyFrom(value("x", ["N", 3, "H", "W"]))
    layers = layers_of(tmp_path, made)
    assert layers["conv"].macs is None
    assert layers["fc"].macs == 20


def test_that_a_learned_table_outside_layers_counts_towards_the_whole(tmp_path):
    made = model(
        [node("Add", ["x", "positions"], ["s"], "add"), node("MatMul", ["s", "w"], ["y"], "product")],
        [value("x", ["N", 5, 4])],
        [value("y", ["N", 5, 2])],
        {"positions": random(1, 5, 4), "w": random(4, 2)},
    )
    summary = open_model(save(made, tmp_path)).summary
    assert summary.parameters == 20 + 8
    assert summary.layers[0].share == pytest.approx(8 / 28)


REFERENCE = {
    "fmnist_resnet": (10, 307402, 10_319_616),
    "fmnist_mobilenet": (23, 95130, 2_914_080),
}


@needs_shared
@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("form", ["", ".bn13", ".raw"])
def test_that_every_form_of_a_reference_model_gives_the_same_table(name, form):
    count, parameters, macs = REFERENCE[name]
    summary = open_model(MODELS / f"{name}{form}.onnx").summary
    assert len(summary.layers) == count
    assert summary.parameters == parameters
    assert sum(layer.macs or 0 for layer in summary.layers) == macs
    assert summary.verified_error < 1e-5
    assert all(layer.quantizable for layer in summary.layers)


@needs_shared
def test_that_the_vit_lists_its_activation_products():
    summary = open_model(MODELS / "fmnist_vit.onnx").summary
    products = [layer for layer in summary.layers if layer.op_type == "MatMul"]
    assert sum(1 for layer in products if layer.weight_name) == 24
    assert sum(1 for layer in products if not layer.weight_name) == 8
    assert summary.parameters == 171914


@needs_shared
def test_that_the_old_cntk_model_has_direct_weights():
    graph = open_model(THIRD_PARTY / "mnist_cntk.onnx")
    assert [layer.op_type for layer in graph.layers] == ["Conv", "Conv", "MatMul"]
    assert graph.layers[2].weight_shape == (256, 10)
    assert graph.summary.inputs[0].shape == (1, 1, 28, 28)


@needs_shared
def test_that_the_nhwc_model_folds_its_normalizations():
    graph = open_model(THIRD_PARTY / "tinymlperf_vww_mobilenet.onnx")
    assert sum(layer.op_type == "Conv" for layer in graph.layers) == 27
    assert not any(node.op_type == "BatchNormalization" for node in graph.proto.graph.node)
    assert graph.summary.inputs[0].shape == ("N", 96, 96, 3)


def test_that_listing_needs_no_cache():
    table = list_layers(mlp())
    assert table.parameters == 8 * 16 + 16 + 48
