"""Each quirk of real files ends in the one normal form, and still computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.names import unique_tensor_names
from quantstudio.engine.model.open import open_model
from tests.engine.builders import (
    INT64,
    batchnorm_weights,
    conv_net,
    graph,
    if_model,
    loop_model,
    lstm_model,
    mlp,
    model,
    node,
    op_types,
    outputs_of,
    random,
    save,
    value,
)

# Folding rounds each weight once in float32.
CLOSE = 1e-5


def opened(made: ModelProto, folder: Path, feed: dict[str, NDArray[Any]]) -> Graph:
    """Open, and check against a run of the original that the code under test has no part in."""
    expected = outputs_of(made, feed)
    result = open_model(save(made, folder))
    found = outputs_of(result.proto, feed)
    for wanted, got in zip(expected, found, strict=True):
        np.testing.assert_allclose(
            got, wanted, rtol=CLOSE, atol=CLOSE * max(1.0, float(np.abs(wanted).max()))
        )
    onnx.checker.check_model(result.proto)
    return result


def picture(batch: int = 3) -> dict[str, NDArray[Any]]:
    return {"x": random(batch, 3, 8, 8, seed=9)}


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 13, 15, 18, 20, 21])
def test_that_every_opset_from_7_arrives_at_21(tmp_path, opset):
    result = opened(conv_net(opset=opset, batchnorm=True), tmp_path, picture())
    assert result.summary.opset == 21
    assert result.proto.ir_version >= 10
    assert op_types(result.proto) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def test_that_weights_nothing_reads_are_left_out_and_said(tmp_path):
    lean = mlp()
    assert not any("nothing reads" in note for note in open_model(save(lean, tmp_path)).summary.notes)
    lean.graph.initializer.append(numpy_helper.from_array(random(64, 64), "forgotten"))
    path = tmp_path / "fat.onnx"
    onnx.save(lean, path)
    notes = open_model(path).summary.notes
    assert any(note.startswith("Left out 1 weight that nothing reads") for note in notes)


def test_that_a_newer_opset_is_kept(tmp_path):
    assert opened(mlp(opset=22), tmp_path, {"x": random(2, 8)}).summary.opset == 22


@pytest.mark.parametrize("bias", [True, False])
def test_that_batchnorm_folds_into_conv_with_and_without_bias(tmp_path, bias):
    result = opened(conv_net(batchnorm=True, bias=bias), tmp_path, picture())
    assert "BatchNormalization" not in op_types(result.proto)
    conv = result.summary.layer("conv")
    assert conv is not None
    assert conv.parameters == 4 * 3 * 9 + 4


@pytest.mark.parametrize("groups", [1, 2])
def test_that_batchnorm_folds_into_transposed_conv(tmp_path, groups):
    weights = {"w": random(4, 3, 2, 2)} | batchnorm_weights(3 * groups)
    nodes = [
        node("ConvTranspose", ["x", "w"], ["c"], "up", group=groups, strides=[2, 2]),
        node("BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["y"], "bn"),
    ]
    made = model(nodes, [value("x", ["N", 4, 5, 5])], [value("y", None)], weights)
    result = opened(made, tmp_path, {"x": random(2, 4, 5, 5)})
    assert op_types(result.proto) == ["ConvTranspose"]
    assert result.layers[0].channel_axis == 1
    # Each of 4 * 5 * 5 inputs meets 3 * 2 * 2 weights.
    assert result.layers[0].macs == 100 * 12


@pytest.mark.parametrize("transposed", [0, 1])
def test_that_batchnorm_folds_into_gemm_with_beta(tmp_path, transposed):
    weights = {"w": random(*((5, 4) if transposed else (4, 5))), "b": random(5)} | batchnorm_weights(5)
    nodes = [
        node("Gemm", ["x", "w", "b"], ["g"], "fc", transB=transposed, alpha=0.5, beta=2.0),
        node("BatchNormalization", ["g", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["y"], "bn"),
    ]
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 5])], weights)
    assert op_types(opened(made, tmp_path, {"x": random(6, 4)}).proto) == ["Gemm"]


def test_that_batchnorm_stays_when_the_conv_is_read_elsewhere(tmp_path):
    made = conv_net(batchnorm=True)
    made.graph.output.append(value("c", ["N", 4, 8, 8]))
    result = opened(made, tmp_path, picture())
    assert "BatchNormalization" in op_types(result.proto)
    batchnorm = result.summary.layer("bn")
    assert batchnorm is not None
    assert not batchnorm.quantizable
    assert batchnorm.reason


def test_that_a_tied_weight_is_copied_before_batchnorm_changes_it(tmp_path):
    weights = {"w": random(3, 3, 1, 1)} | batchnorm_weights(3)
    nodes = [
        node("Conv", ["x", "w"], ["a"], "first"),
        node("BatchNormalization", ["a", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"], "bn"),
        node("Conv", ["b", "w"], ["y"], "second"),
    ]
    made = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", None)], weights)
    result = opened(made, tmp_path, picture())
    assert op_types(result.proto) == ["Conv", "Conv"]


def test_that_a_per_channel_add_after_conv_becomes_its_bias(tmp_path):
    weights = {"w": random(4, 3, 3, 3), "shift": random(4, 1, 1), "factor": random(1, 4, 1, 1) + 3}
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv"),
        node("Mul", ["factor", "c"], ["m"], "scale"),
        node("Add", ["m", "shift"], ["y"], "add"),
    ]
    made = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", None)], weights)
    assert op_types(opened(made, tmp_path, picture()).proto) == ["Conv"]


def test_that_an_add_that_varies_over_the_picture_stays(tmp_path):
    weights = {"w": random(4, 3, 3, 3), "map": random(1, 4, 6, 6)}
    nodes = [node("Conv", ["x", "w"], ["c"], "conv"), node("Add", ["c", "map"], ["y"], "add")]
    made = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", None)], weights)
    assert op_types(opened(made, tmp_path, picture()).proto) == ["Conv", "Add"]


def test_that_initializers_leave_the_inputs(tmp_path):
    made = conv_net(opset=8)
    made.ir_version = 3
    for tensor in made.graph.initializer:
        made.graph.input.append(value(tensor.name, list(tensor.dims)))
    result = opened(made, tmp_path, picture())
    assert [i.name for i in result.summary.inputs] == ["x"]
    assert any("off the list of inputs" in note for note in result.summary.notes)


def test_that_unnamed_and_repeated_nodes_get_unique_stable_names(tmp_path):
    feed = {"x": random(2, 8)}
    expected = outputs_of(mlp(), feed)
    made = mlp()
    for n, name in zip(made.graph.node, ("", "same", "same", ""), strict=True):
        n.name = name
    # The runtime refuses two nodes of one name: the comparison is with the repaired file.
    result = open_model(save(made, tmp_path))
    assert [n.name for n in result.proto.graph.node] == ["MatMul_h", "same", "same_2", "MatMul_y"]
    np.testing.assert_allclose(outputs_of(result.proto, feed)[0], expected[0], rtol=1e-6)


def test_that_constant_nodes_of_every_form_become_initializers(tmp_path):
    forms: list[dict[str, Any]] = [
        {"value": numpy_helper.from_array(random(4))},
        {"value_float": 2.0},
        {"value_floats": [1.0, 2.0, 3.0, 4.0]},
    ]
    nodes, last = [], "x"
    for number, form in enumerate(forms):
        nodes.append(node("Constant", [], [f"c{number}"], **form))
        nodes.append(node("Add", [last, f"c{number}"], [f"s{number}"], f"add{number}"))
        last = f"s{number}"
    nodes += [
        node("Constant", [], ["two"], value_ints=[2, 2]),
        node("Constant", [], ["axis"], value_int=0),
        node("Unsqueeze", ["axis", "axes"], ["axis1"], "unsqueeze"),
        node("Gather", ["two", "axis1"], ["first"], "gather"),
        node("Cast", ["first"], ["float"], "cast", to=TensorProto.FLOAT),
        node("Mul", [last, "float"], ["y"], "mul"),
    ]
    weights = {"axes": np.array([0])}
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], weights)
    result = opened(made, tmp_path, {"x": random(2, 4)})
    assert op_types(result.proto) == ["Add", "Add", "Add", "Mul"]


def test_that_a_weight_behind_reshape_transpose_and_identity_is_reached_directly(tmp_path):
    weights = {"w": random(2, 3, 4), "shape": np.array([6, 4])}
    nodes = [
        node("Reshape", ["w", "shape"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[1, 0]),
        node("Identity", ["t"], ["i"]),
        node("MatMul", ["x", "i"], ["y"], "product"),
    ]
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 6])], weights)
    result = opened(made, tmp_path, {"x": random(2, 4)})
    assert op_types(result.proto) == ["MatMul"]
    assert result.layers[0].weight_shape == (4, 6)


def test_that_a_bias_computed_by_shape_and_expand_is_folded(tmp_path):
    weights = {
        "w": random(4, 3, 3, 3),
        "zero": np.zeros(1, np.float32),
        "axes": np.array([0]),
        "end": np.array([1]),
    }
    nodes = [
        node("Shape", ["w"], ["shape"]),
        node("Slice", ["shape", "axes", "end"], ["channels"]),
        node("CastLike", ["zero", "x"], ["typed"]),
        node("Expand", ["typed", "channels"], ["b"]),
        node("Conv", ["x", "w", "b"], ["y"], "conv"),
    ]
    made = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", None)], weights)
    result = opened(made, tmp_path, picture())
    assert op_types(result.proto) == ["Conv"]


def test_that_an_expand_that_would_bloat_the_file_is_left_alone(tmp_path):
    weights = {"one": np.ones(1, np.float32), "shape": np.array([1 << 10, 1 << 10, 4])}
    nodes = [
        node("Expand", ["one", "shape"], ["big"], "expand"),
        node("ReduceSum", ["big"], ["s"], "sum", keepdims=0),
        node("Add", ["x", "s"], ["y"], "add"),
    ]
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], weights)
    result = opened(made, tmp_path, {"x": random(2, 4)})
    assert op_types(result.proto) == ["Expand", "ReduceSum", "Add"]
    assert result.summary.file_bytes < 10_000


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("opset", "axes"), [(13, [2, 3]), (18, [-1, -2])])
def test_that_a_spatial_mean_becomes_global_average_pooling(tmp_path, keepdims, opset, axes):
    if opset < 18:
        mean, weights = node("ReduceMean", ["x"], ["y"], "mean", axes=axes, keepdims=keepdims), {}
    else:
        mean, weights = (
            node("ReduceMean", ["x", "axes"], ["y"], "mean", keepdims=keepdims),
            {"axes": np.array(axes)},
        )
    made = model([mean], [value("x", ["N", 3, 8, 8])], [value("y", None)], weights, opset=opset)
    result = opened(made, tmp_path, picture())
    assert op_types(result.proto) == ["GlobalAveragePool"] + ["Flatten"] * (not keepdims)


@pytest.mark.parametrize("axes", [[1, 2], [2], [1, 2, 3]])
def test_that_other_means_stay(tmp_path, axes):
    mean = node("ReduceMean", ["x", "axes"], ["y"], "mean")
    made = model([mean], [value("x", ["N", 3, 8, 8])], [value("y", None)], {"axes": np.array(axes)}, opset=18)
    assert op_types(opened(made, tmp_path, picture()).proto) == ["ReduceMean"]


@pytest.mark.parametrize("opset", [7, 12, 17])
def test_that_identity_and_dropout_vanish_also_at_the_outputs(tmp_path, opset):
    dropout: dict[str, Any] = {"ratio": 0.5} if opset < 12 else {}
    nodes = [
        node("Identity", ["x"], ["i"]),
        node("Relu", ["i"], ["r"], "relu"),
        node("Dropout", ["r"], ["d", "mask"], **dropout),
        node("Identity", ["d"], ["y"]),
    ]
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], opset=opset)
    result = opened(made, tmp_path, {"x": random(2, 4)})
    assert op_types(result.proto) == ["Relu"]
    assert [o.name for o in result.proto.graph.output] == ["y"]


def test_that_an_input_passed_straight_to_an_output_keeps_its_identity(tmp_path):
    made = model([node("Identity", ["x"], ["y"])], [value("x", ["N", 4])], [value("y", ["N", 4])])
    assert op_types(opened(made, tmp_path, {"x": random(2, 4)}).proto) == ["Identity"]


def test_that_dead_nodes_and_weights_go(tmp_path):
    made = mlp()
    made.graph.node.append(node("MatMul", ["x", "unused"], ["nowhere"], "dead"))
    made.graph.initializer.append(numpy_helper.from_array(random(8, 8), "unused"))
    result = opened(made, tmp_path, {"x": random(2, 8)})
    assert "unused" not in {tensor.name for tensor in result.proto.graph.initializer}
    assert result.summary.layer("dead") is None


def test_that_lying_value_info_is_dropped_and_inferred_again(tmp_path):
    made = mlp()
    made.graph.value_info.append(value("h", ["N", 99]))
    made.graph.value_info.append(value("r", [None, None, None]))
    result = opened(made, tmp_path, {"x": random(2, 8)})
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim][1:]
        for info in result.proto.graph.value_info
    }
    assert shapes["h"] == [16]
    assert shapes["r"] == [16]


def test_that_unused_domains_are_dropped(tmp_path):
    made = model(
        [node("Relu", ["x"], ["y"])],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
        domains={"some.vendor": 1, "com.microsoft": 1},
    )
    result = opened(made, tmp_path, {"x": random(2, 4)})
    assert [entry.domain for entry in result.proto.opset_import] == [""]


def test_that_unsorted_nodes_are_put_in_order(tmp_path):
    expected = outputs_of(mlp(), {"x": random(2, 8)})
    made = mlp()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    result = open_model(save(made, tmp_path))
    assert op_types(result.proto) == ["MatMul", "Add", "Relu", "MatMul"]
    np.testing.assert_allclose(outputs_of(result.proto, {"x": random(2, 8)})[0], expected[0], rtol=1e-6)


def test_that_model_functions_are_inlined(tmp_path):
    function = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    made = model(
        [helper.make_node("Twice", ["x"], ["y"], "twice", domain="local")],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
        domains={"local": 1},
    )
    made.functions.append(function)
    assert op_types(opened(made, tmp_path, {"x": random(2, 4)}).proto) == ["Add"]


def test_that_if_branches_with_equal_names_become_two_layers(tmp_path):
    feed = {"x": random(2, 4)}
    result = opened(if_model(), tmp_path, feed)
    np.testing.assert_allclose(
        outputs_of(result.proto, {"x": -feed["x"]})[0],
        outputs_of(if_model(), {"x": -feed["x"]})[0],
        rtol=1e-6,
    )
    layers = [layer for layer in result.layers if layer.op_type == "MatMul"]
    assert len({layer.weight_name for layer in layers}) == 2
    assert {layer.scope.rpartition(".")[2] for layer in layers} == {"then_branch", "else_branch"}
    assert all(layer.quantizable or layer.reason for layer in layers)
    assert len({layer.name for layer in result.layers}) == len(result.layers)


def test_that_a_loop_body_is_converted_and_listed(tmp_path):
    result = opened(loop_model(), tmp_path, {"x": random(2, 4)})
    (layer,) = result.layers
    assert layer.scope == "loop.body"
    assert layer.weight_shape == (4, 4)
    assert layer.inputs == ("state",)


def test_that_an_if_with_a_constant_condition_is_replaced_by_its_branch(tmp_path):
    made = if_model()
    del made.graph.node[:2]
    made.graph.initializer.append(numpy_helper.from_array(np.array(False), "c"))
    result = opened(made, tmp_path, {"x": random(2, 4)})
    assert op_types(result.proto) == ["MatMul"]
    assert result.layers[0].scope == ""


def test_that_several_inputs_outputs_types_and_scalars_are_kept(tmp_path):
    nodes = [
        node("Gather", ["table", "ids"], ["e"], "embed"),
        node("Cast", ["mask"], ["m"], "cast", to=TensorProto.FLOAT),
        node("Mul", ["e", "m"], ["p"], "masked"),
        node("Mul", ["p", "factor"], ["y"], "scaled"),
        node("ReduceSum", ["y"], ["total"], "sum", keepdims=0),
    ]
    inputs = [
        value("ids", ["N", 5], INT64),
        value("mask", ["N", 5, 1], TensorProto.INT32),
        value("factor", []),
    ]
    outputs = [value("y", ["N", 5, 3]), value("total", [])]
    made = model(nodes, inputs, outputs, {"table": random(10, 3)})
    feed: dict[str, NDArray[Any]] = {
        "ids": np.array([[1, 2, 3, 4, 9]]),
        "mask": np.ones((1, 5, 1), np.int32),
        "factor": np.array(0.5, np.float32),
    }
    result = opened(made, tmp_path, feed)
    assert [(i.name, i.dtype, i.shape) for i in result.summary.inputs] == [
        ("ids", "int64", ("N", 5)),
        ("mask", "int32", ("N", 5, 1)),
        ("factor", "float32", ()),
    ]
    assert [o.shape for o in result.summary.outputs] == [("N", 5, 3), ()]


def test_that_a_uint8_input_is_kept(tmp_path):
    nodes = [node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), node("MatMul", ["f", "w"], ["y"], "product")]
    made = model(
        nodes, [value("x", ["N", 4], TensorProto.UINT8)], [value("y", ["N", 2])], {"w": random(4, 2)}
    )
    result = opened(made, tmp_path, {"x": np.array([[0, 255, 7, 9]], np.uint8)})
    assert result.summary.inputs[0].dtype == "uint8"


def test_that_a_fixed_batch_of_one_stays(tmp_path):
    result = opened(conv_net(batch=1), tmp_path, picture(1))
    assert result.summary.inputs[0].shape == (1, 3, 8, 8)


def test_that_the_exporters_way_to_flatten_gets_a_constant_target(tmp_path):
    weights = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]), "w": random(192, 2)}
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["f"], "view"),
        node("MatMul", ["f", "w"], ["y"], "product"),
    ]
    made = model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 2])], weights)
    result = opened(made, tmp_path, picture())
    # One dynamic element beside a -1: 0 keeps the batch.
    assert op_types(result.proto) == ["Reshape", "MatMul"]
    assert result.layers[0].macs == 192 * 2


def test_that_an_lstm_keeps_its_layer(tmp_path):
    result = opened(lstm_model(), tmp_path, {"x": random(7, 2, 5)})
    (layer,) = result.layers
    assert layer.op_type == "LSTM"
    assert layer.parameters == 24 * 5 + 24 * 6 + 48
    assert layer.quantizable or layer.reason


def test_that_the_same_file_gives_the_same_bytes(tmp_path, monkeypatch):
    path = save(if_model(), tmp_path)
    digests = set()
    for number in range(3):
        monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / f"cache{number}"))
        digests.add(open_model(path).digest)
    assert len(digests) == 1


def test_that_a_quantized_file_is_listed_as_such(tmp_path):
    weights: dict[str, NDArray[Any]] = {
        "q": np.array([[1, -2], [3, 4]], np.int8),
        "s": np.array(0.1, np.float32),
    }
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"]), node("MatMul", ["x", "w"], ["y"], "product")]
    made = model(nodes, [value("x", ["N", 2])], [value("y", ["N", 2])], weights)
    result = opened(made, tmp_path, {"x": random(3, 2)})
    assert op_types(result.proto) == ["DequantizeLinear", "MatMul"]
    (layer,) = result.layers
    assert layer.weight_name == "q"
    assert not layer.quantizable
    assert "INT8" in layer.reason


def test_that_sparse_initializers_are_written_out(tmp_path):
    made = mlp()
    dense = np.zeros((16, 3), np.float32)
    dense[2, 1] = 5
    values = numpy_helper.from_array(np.array([5], np.float32), "w2")
    indices = numpy_helper.from_array(np.array([2 * 3 + 1]), "w2_indices")
    kept = [t for t in made.graph.initializer if t.name != "w2"]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [16, 3]))
    result = open_model(save(made, tmp_path))
    tensor = next(t for t in result.proto.graph.initializer if t.name == "w2")
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), dense)


def test_that_a_body_may_shadow_an_outer_name(tmp_path):
    body = graph(
        [node("Add", ["x", "one"], ["h"]), node("Mul", ["h", "h"], ["r"])],
        [],
        [value("r", None)],
        {"one": np.ones(4, np.float32)},
    )
    other = graph([node("Add", ["x", "h"], ["r"])], [], [value("r", None)])
    nodes = [
        node("Relu", ["x"], ["h"]),
        node("ReduceSum", ["h"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=body, else_branch=other),
    ]
    made = model(
        nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], {"zero": np.zeros((), np.float32)}, opset=13
    )
    # ONNX forbids shadowing and the runtime refuses it; the names pass alone makes them two tensors.
    assert unique_tensor_names(made.graph) == 2
    inner = made.graph.node[-1].attribute
    assert {n for a in inner for x in a.g.node for n in x.output} == {"h_2", "r", "r_2"}
