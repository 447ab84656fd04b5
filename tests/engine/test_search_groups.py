"""Layers that move together, on graphs built by hand."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from quantstudio.core.search_results import GroupKind
from quantstudio.engine.search.groups import find_groups, shared_scheme_sets
from tests.engine.quantization_cases import NetBuilder, attention_net, opened, residual_net


def named(graph, kind):
    return [set(group.layers) for group in find_groups(graph) if group.kind is kind]


def test_that_query_key_and_value_of_one_attention_are_a_group(tmp_path):
    graph = opened(attention_net(), tmp_path)
    assert named(graph, GroupKind.ATTENTION) == [{"query", "key", "value"}]
    sets = shared_scheme_sets(find_groups(graph), [layer.name for layer in graph.layers if layer.weight_name])
    assert ("query", "key", "value") in sets
    assert ("up",) in sets
    assert ("down",) in sets


def test_that_cross_attention_joins_only_what_reads_one_tensor(tmp_path):
    net = NetBuilder()
    q = net.matmul("x", "query", 8, 8)
    k = net.matmul("memory", "key", 8, 8)
    v = net.matmul("memory", "value", 8, 8)
    scores = net.op("MatMul", q, net.op("Transpose", k, name="swap", perm=[0, 2, 1]), name="scores")
    y = net.op("MatMul", net.op("Softmax", scores, name="softmax"), v, name="context")
    graph = opened(net.model({"x": ["n", 4, 8], "memory": ["n", 5, 8]}, [y]), tmp_path)
    assert named(graph, GroupKind.ATTENTION) == [{"key", "value"}]


def test_that_two_attentions_in_a_row_stay_two_groups(tmp_path):
    net = NetBuilder()
    h = "x"
    for block in ("a", "b"):
        q, k, v = (net.matmul(h, f"{block}.{name}", 8, 8) for name in "qkv")
        swapped = net.op("Transpose", k, name=f"{block}.swap", perm=[0, 2, 1])
        scores = net.op("Softmax", net.op("MatMul", q, swapped, name=f"{block}.s"), name=f"{block}.soft")
        mixed = net.op("MatMul", scores, v, name=f"{block}.context")
        h = net.op("Add", net.matmul(mixed, f"{block}.out", 8, 8), h, name=f"{block}.residual")
    graph = opened(net.model({"x": ["n", 4, 8]}, [h]), tmp_path)
    assert named(graph, GroupKind.ATTENTION) == [{"a.q", "a.k", "a.v"}, {"b.q", "b.k", "b.v"}]


def test_that_biases_reshapes_and_scales_do_not_hide_a_projection(tmp_path):
    net = NetBuilder()
    net.constant("split", np.array([0, 4, 2, 4], np.int64))
    net.constant("root", np.float32(2))
    heads = []
    for name in ("q", "k", "v"):
        y = net.op("Add", net.matmul("x", name, 8, 8), net.weight(f"{name}.b", 8), name=f"{name}_bias")
        y = net.op("Reshape", y, "split", name=f"{name}_split")
        heads.append(net.op("Transpose", y, name=f"{name}_heads", perm=[0, 2, 1, 3]))
    swapped = net.op("Transpose", heads[1], name="swap", perm=[0, 1, 3, 2])
    scores = net.op("Div", net.op("MatMul", heads[0], swapped, name="scores"), "root", name="scale")
    y = net.op("MatMul", net.op("Softmax", scores, name="softmax"), heads[2], name="context")
    graph = opened(net.model({"x": ["n", 4, 8]}, [y]), tmp_path)
    assert named(graph, GroupKind.ATTENTION) == [{"q", "k", "v"}]


def test_that_layers_meeting_in_an_add_are_joined(tmp_path):
    graph = opened(residual_net(), tmp_path)
    assert named(graph, GroupKind.JOIN) == [{"stem", "block2"}]


def test_that_joined_layers_may_have_unlike_weights(tmp_path):
    graph = opened(residual_net(), tmp_path)
    names = [layer.name for layer in graph.layers if layer.weight_name]
    assert all(len(one) == 1 for one in shared_scheme_sets(find_groups(graph), names))


def test_that_branches_of_a_concat_are_joined(tmp_path):
    net = NetBuilder()
    left, right = net.conv("x", "left", 3, 4), net.op("Relu", net.conv("x", "right", 3, 4), name="relu")
    y = net.op("GlobalAveragePool", net.op("Concat", left, right, name="join", axis=1), name="pool")
    graph = opened(net.model({"x": ["n", 3, 6, 6]}, [y]), tmp_path)
    assert named(graph, GroupKind.JOIN) == [{"left", "right"}]


def test_that_layers_with_one_weight_are_tied(tmp_path):
    net = NetBuilder()
    shared = net.weight("w", 8, 8)
    h = net.op("Relu", net.op("MatMul", "x", shared, name="first"), name="relu")
    y = net.op("MatMul", h, shared, name="second")
    graph = opened(net.model({"x": ["n", 8]}, [y]), tmp_path)
    assert named(graph, GroupKind.TIED) == [{"first", "second"}]
    assert shared_scheme_sets(find_groups(graph), ["first", "second"]) == [("first", "second")]


@pytest.mark.parametrize("constant", [True, False], ids=["bias", "input"])
def test_that_an_add_of_one_layer_and_no_other_joins_nothing(tmp_path, constant):
    net = NetBuilder()
    other = net.weight("b", 4) if constant else "z"
    y = net.op("Add", net.matmul("x", "only", 4, 4), other, name="add")
    inputs = {"x": ["n", 4]} | ({} if constant else {"z": (["n", 4], TensorProto.FLOAT)})
    model = helper.make_model(
        helper.make_graph(
            net.nodes,
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in inputs],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
            net.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    assert find_groups(opened(model, tmp_path)) == ()
