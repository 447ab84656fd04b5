"""Dependency groups and surgery: what is taken away together, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from quantstudio.engine.compression.dependencies import dependencies
from quantstudio.engine.compression.flow import RULES
from quantstudio.engine.compression.surgery import without_units
from quantstudio.engine.model.open import open_model
from tests.engine.pruning_cases import check_exact, every_other
from tests.engine.pruning_networks import IMAGE, NETWORKS
from tests.engine.quantization_cases import NetBuilder, normal, opened
from tests.shared_data import MODELS, needs_shared


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Each network opened once, with its feed."""
    made = {}

    def get(name):
        if name not in made:
            model, feed = NETWORKS[name]()
            made[name] = opened(model, tmp_path_factory.mktemp(name)), feed
        return made[name]

    return get


def groups_of(graph):
    return {group.name: group for group in dependencies(graph.proto).groups}


@pytest.mark.parametrize("name", NETWORKS)
def test_that_a_pruned_network_answers_as_the_zeroed_one(name, networks):
    graph, feed = networks(name)
    _found, pruned = check_exact(graph, feed)
    assert sum(layer.macs or 0 for layer in pruned.layers) < 0.75 * sum(
        layer.macs or 0 for layer in graph.layers
    ) or not any(layer.macs for layer in graph.layers)


@needs_shared
@pytest.mark.parametrize("name", ["fmnist_resnet", "fmnist_mobilenet", "fmnist_mobilenet.bn13", "fmnist_vit"])
def test_that_a_pruned_reference_network_answers_as_the_zeroed_one(name):
    graph = open_model(MODELS / f"{name}.onnx")
    check_exact(graph, {graph.summary.inputs[0].name: normal(2, 1, 28, 28)}, seed=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_that_work_is_counted_as_the_layer_table_counts_it(name, networks):
    graph, _feed = networks(name)
    counted: dict[str, float] = {}
    for work in dependencies(graph.proto, {"batch": 1, "length": 1}).flow.work:
        size = work.factor * np.prod([len(axis) for axis in work.axes])
        counted[work.node] = counted.get(work.node, 0) + size
    listed = {layer.name: layer.macs for layer in graph.layers if layer.macs and layer.op_type != "PRelu"}
    assert {layer: counted[layer] for layer in listed} == listed


def test_that_layers_around_a_residual_sum_are_one_group(networks):
    groups = groups_of(networks("resnet")[0])
    assert groups["stem"].makers == ("stem", "a3")
    assert set(groups["stem"].readers) == {"a1", "b1", "b_short"}
    assert groups["b_short"].makers == ("b_short", "b2")


def test_that_whole_groups_of_a_convolution_go_and_the_same_places_of_few(networks):
    groups = groups_of(networks("resnet")[0])
    assert (groups["a1"].units, groups["a1"].width) == (8, 4)
    assert set(groups["a1"].makers) == {"a1", "a2"}
    # Two groups of eight inputs: which of the stem's channels are tied is told by the stem's group.
    assert (groups["b1"].units, groups["b1"].width) == (8, 2)
    assert (groups["stem"].units, groups["stem"].width) == (8, 2)


def test_that_a_depthwise_layer_and_its_gate_go_with_the_channels_they_scale(networks):
    groups = groups_of(networks("mobilenet")[0])
    assert set(groups["expand"].makers) == {"expand", "depth", "se_up"}
    assert set(groups["expand"].readers) == {"se_down", "project"}


def test_that_each_layer_of_a_concat_keeps_a_group_of_its_own(networks):
    groups = groups_of(networks("densenet")[0])
    assert {"stem", "grow0", "grow1"} <= groups.keys()
    assert all(groups[name].units == 8 for name in ("stem", "grow0", "grow1"))
    # A channel is a block of four columns of the matrix behind the flattened places.
    assert groups["grow1"].width == 1


@pytest.mark.parametrize(("name", "maker"), [("vit", "q"), ("bert", "qkv")])
def test_that_a_head_is_the_unit_of_attention(name, maker, networks):
    group = groups_of(networks(name)[0])[maker]
    assert (group.units, group.width) == (4, 4)
    assert "o" in group.readers


def test_that_hidden_units_go_with_every_gate(networks):
    group = groups_of(networks("lstm")[0])["cell0"]
    assert (group.units, group.width) == (8, 1)
    graph, _feed = networks("lstm")
    found = dependencies(graph.proto)
    pruned = without_units(graph, found, every_other(found), "Cut")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in pruned.proto.graph.initializer}
    assert shapes["r0"] == (2, 16, 4)
    assert shapes["w1"] == (2, 16, 8)
    assert [len(node.input) for node in pruned.proto.graph.node if node.op_type == "LSTM"] == [7, 7]
    assert not any(node.op_type == "ConstantOfShape" for node in pruned.proto.graph.node)


def test_that_what_a_normalization_takes_its_mean_over_stays_and_says_so(networks):
    group = groups_of(networks("vit")[0])["patch"]
    assert not group.is_prunable
    assert "normalization" in group.reason
    assert "output" in groups_of(networks("vit")[0])["head"].reason


def test_that_nothing_is_taken_from_what_an_unknown_operator_reads(tmp_path):
    net = NetBuilder()
    x = net.conv("x", "first", 3, 8)
    x = net.op("GridSample", x, "grid", name="sample")
    model = net.model({**IMAGE, "grid": ["batch", 8, 8, 2]}, [net.conv(x, "second", 8, 2)])
    groups = groups_of(opened(model, tmp_path))
    assert groups["first"].reason == "what GridSample does to channels is not known"
    assert not any(group.is_prunable for group in groups.values())


@pytest.mark.parametrize("fault", ["raises", "other shape"])
def test_that_a_rule_that_does_not_fit_takes_nothing_away(fault, networks, monkeypatch):
    def rule(flow, node):
        found = convolution(flow, node)
        if fault == "raises":
            raise IndexError
        outputs = found[0][1]
        return [(None, outputs[:-1], None, None)] if node.name == "a1" and outputs is not None else found

    convolution = RULES["Conv"]
    monkeypatch.setitem(RULES, "Conv", rule)
    groups = groups_of(networks("resnet")[0])
    whole = [group for group in groups.values() if "a1" in group.makers]
    assert whole
    assert not any(group.is_prunable for group in whole)
    assert any(group.is_prunable for group in groups.values()) == (fault == "other shape")


def test_that_weights_used_inside_a_branch_stay(tmp_path):
    net = NetBuilder()
    net.weight("w", 8, 8)
    x = net.op("Relu", net.op("MatMul", "x", "w", name="first"), name="relu")
    body = [
        helper.make_graph(
            [helper.make_node(op, [x, "w"], [f"{op}.y"], name=op)],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}.y", TensorProto.FLOAT, None)],
        )
        for op in ("MatMul", "Add")
    ]
    node = helper.make_node("If", ["flag"], ["y"], name="if", then_branch=body[0], else_branch=body[1])
    net.nodes.append(node)
    model = net.model({"x": [8, 8], "flag": ([], TensorProto.BOOL)}, ["y"])
    assert not any(group.is_prunable for group in groups_of(opened(model, tmp_path)).values())


def test_that_a_weight_two_layers_share_ties_their_channels(tmp_path):
    net = NetBuilder()
    net.weight("shared", 8, 8, scale=0.5)
    x = net.op("Relu", net.gemm("x", "first", 6, 8), name="relu1")
    x = net.op("Relu", net.op("MatMul", x, "shared", name="again1"), name="relu2")
    x = net.op("Relu", net.op("MatMul", x, "shared", name="again2"), name="relu3")
    graph = opened(net.model({"x": ["n", 6]}, [net.gemm(x, "last", 8, 3)]), tmp_path)
    assert groups_of(graph)["first"].makers == ("first", "again1", "again2")
    check_exact(graph, {"x": normal(4, 6)})
