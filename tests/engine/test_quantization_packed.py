"""Packed files: smaller than INT8, unpacked when they are loaded, equal to the unpacked form bit for bit."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import BuildError
from quantstudio.core.precision import Precision, integer_formats, weight_format
from quantstudio.core.recipe import LayerRule, Recipe, uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.graph.builder import Constants, NodeList
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.quantization.packed_check import check_folded
from quantstudio.engine.quantization.packed_weights import code_levels, packed_values
from quantstudio.engine.quantization.quantized_weights import WeightSource, with_room_for_bias
from tests.engine.quantization_cases import (
    NetBuilder,
    attention_net,
    branch_model,
    normal,
    opened,
    optimized_ops,
    outputs_of,
    session,
    statistics_of,
)
from tests.engine.recipe_builds import build_variant, emit

FORMATS = [row.name for row in integer_formats() if row != Precision.INT8]


def convolutions():
    """Convolutions of even and odd sizes, grouped and pointwise, and two forms of Gemm."""
    net = NetBuilder()
    x = net.op("Relu", net.conv("x", "a", 3, 32), name="r")
    x = net.conv(x, "b", 32, 33)
    x = net.op("Relu", x, name="r2")
    x = net.conv(net.conv(x, "grouped", 33, 33, group=3), "point", 33, 64, kernel=1)
    y = net.op("Flatten", net.op("GlobalAveragePool", x, name="g"), name="f")
    y = net.gemm(net.gemm(y, "h", 64, 50, transB=1), "h2", 50, 47)
    return net.model({"x": ["n", 3, 8, 8]}, [y])


def product_twice():
    """Two products of one weight."""
    net = NetBuilder()
    weight = net.weight("w", 64, 64)
    hidden = net.op("MatMul", "x", weight, name="first")
    return net.model({"x": ["n", 64]}, [net.op("MatMul", hidden, weight, name="second")])


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    made = {}
    for name, model, feed in (
        ("conv", convolutions(), {"x": normal(2, 3, 8, 8)}),
        ("attention", attention_net(64), {"x": normal(2, 6, 64)}),
        ("shared", product_twice(), {"x": normal(4, 64)}),
    ):
        graph = opened(model, tmp_path_factory.mktemp(name))
        made[name] = graph, statistics_of(graph, feed), feed
    return made


def both_forms(case, scheme):
    graph, statistics, _ = case
    recipe = Recipe((LayerRule(NAMED_SCHEMES[scheme]),))
    statistics = statistics if scheme.startswith("static") else None
    return [emit(graph, statistics, replace(recipe, unpacked=unpacked)) for unpacked in (False, True)]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("net", "kind"), [("conv", "static"), ("attention", "dynamic"), ("shared", "static")]
)
def test_that_a_packed_file_is_smaller_runs_alike_and_answers_bit_for_bit(nets, tmp_path, net, kind, name):
    packed, unpacked = both_forms(nets[net], f"{kind}-{name}")
    onnx.checker.check_model(packed)
    assert packed.ByteSize() < unpacked.ByteSize()
    assert Counter(optimized_ops(packed, tmp_path)) == Counter(optimized_ops(unpacked, tmp_path))
    check_folded(onnx.load(tmp_path / "optimized.onnx").graph)
    feed = nets[net][2]
    np.testing.assert_array_equal(outputs_of(packed, feed)[0], outputs_of(unpacked, feed)[0])


@pytest.mark.parametrize("name", ["int6", "codebook3", "codebook1"])
def test_that_weights_alone_are_packed_in_front_of_their_kernel(nets, tmp_path, name):
    packed, unpacked = both_forms(nets["attention"], f"weight-{name}")
    assert packed.ByteSize() < unpacked.ByteSize()
    assert Counter(optimized_ops(packed, tmp_path))["MatMulNBits"] == 5
    feed = nets["attention"][2]
    np.testing.assert_array_equal(outputs_of(packed, feed)[0], outputs_of(unpacked, feed)[0])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("shape", "channels"),
    [((40, 5, 3, 3), (0,)), ((97, 41), (1,)), ((41, 97), (0,)), ((2, 60, 24), (0, 2)), ((61, 31), ())],
    ids=str,
)
def test_that_every_integer_comes_back(name, shape, channels):
    weights, rng = weight_format(name), np.random.default_rng(0)
    if weights.shares_table:
        parts = weights.tables_of(math.prod(shape[axis] for axis in channels))
        pools = [
            rng.permutation(np.arange(-127, 128, dtype=np.int8))[: 1 << weights.bits] for _ in range(parts)
        ]
        order = (*channels, *(axis for axis in range(len(shape)) if axis not in channels))
        rows = [rng.choice(pool, math.prod(shape) // parts) for pool in pools]
        values = np.stack(rows).reshape([shape[axis] for axis in order])
        values = values.transpose([order.index(axis) for axis in range(len(shape))])
    elif weights.has_codebook:
        tables = np.sort(rng.integers(-127, 128, (*(shape[axis] for axis in channels), 1 << weights.bits)))
        order = (*channels, *(axis for axis in range(len(shape)) if axis not in channels))
        index = rng.integers(0, tables.shape[-1], [shape[axis] for axis in order])
        flat = index.reshape(*tables.shape[:-1], -1)
        values = np.take_along_axis(tables, flat, axis=-1).reshape(index.shape)
        values = values.transpose([order.index(axis) for axis in range(len(shape))]).astype(np.int8)
    else:
        values = rng.choice(code_levels(weights), shape)
    empty = helper.make_model(helper.make_graph([], "g", [], []))
    names = NameSource(empty, is_short=True)
    nodes = NodeList(names, Constants(names), is_packed=True)
    result = packed_values(nodes, np.ascontiguousarray(values), weights, "w", channels)
    output = helper.make_tensor_value_info(result, TensorProto.INT8, None)
    graph = helper.make_graph(nodes.nodes, "g", [], [output], nodes.constants.protos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    np.testing.assert_array_equal(session(model).run(None, {})[0], values)
    assert sum(len(t.raw_data) for t in nodes.constants.protos) < values.size


def test_that_what_packing_would_enlarge_stays_as_it_is():
    names = NameSource(helper.make_model(helper.make_graph([], "g", [], [])), is_short=True)
    nodes = NodeList(names, Constants(names), is_packed=True)
    packed_values(nodes, np.ones((8, 8), np.int8), Precision.INT2, "w", (0,))
    assert not nodes.nodes
    assert numpy_helper.to_array(nodes.constants.protos[0]).dtype == np.int8


def test_that_a_build_proves_its_packed_form_and_says_what_it_saves(nets, tmp_path):
    graph, statistics, _ = nets["conv"]
    result = build_variant(graph, statistics, uniform_recipe("static-codebook2"), tmp_path / "v.onnx")
    assert result.packed is not None
    assert result.packed.size_bytes == result.size_bytes < result.packed.unpacked_bytes
    assert {row.name: row.weights for row in result.layers}["b"] == "codebook2"
    assert {row.name: row.weights for row in result.layers}["grouped"] == "int8"
    # A table would make that layer larger: it is as it should be, and nothing to warn of.
    assert next(row.note for row in result.layers if row.name == "grouped")
    assert not [text for text in result.warnings if "not what was asked" in text]
    assert all(row.is_integer_kernel for row in result.layers)
    rows = {row.name: row for row in result.layers}
    # Indices of 2 bits, tables of 4 codes, scales, zero points and biases of 33 channels.
    assert 0 <= rows["b"].weight_bytes - (32 * 33 * 9 // 4 + 33 * (4 + 4 + 1 + 4)) < 150
    plain = replace(uniform_recipe("static-codebook2"), unpacked=True)
    assert build_variant(graph, statistics, plain, tmp_path / "u.onnx").packed is None
    assert (tmp_path / "u.onnx").stat().st_size == result.packed.unpacked_bytes


def test_that_layers_in_bodies_are_packed_and_proven(tmp_path):
    graph = opened(branch_model(), tmp_path)
    result = build_variant(graph, None, uniform_recipe("dynamic-int4"), tmp_path / "v.onnx")
    assert any(row.weights == "int4" for row in result.layers)


def test_that_a_file_that_is_not_folded_is_refused():
    node = helper.make_node("Cast", ["w"], ["y"], to=TensorProto.INT8)
    weight = numpy_helper.from_array(np.zeros(3, np.int32), "w")
    graph = helper.make_graph([node], "g", [], [], [weight])
    with pytest.raises(BuildError, match="does not unpack the weights at load: 1 operators"):
        check_folded(graph)
    check_folded(graph, {"another"})  # the network's own


def test_that_the_unpacked_form_is_a_variant_of_its_own_only_where_something_is_packed(nets):
    graph = nets["conv"][0]

    def plans(scheme):
        recipe = Recipe((LayerRule(NAMED_SCHEMES[scheme]),))
        return [resolve(replace(recipe, unpacked=one), graph.layers) for one in (False, True)]

    packed, unpacked = plans("static-int4")
    assert packed != unpacked
    packed, unpacked = plans("static-int8")
    assert packed == unpacked
    assert Recipe(unpacked=False).digest == Recipe().digest != Recipe(unpacked=True).digest


def test_that_a_sign_stays_one_where_a_bias_needs_room():
    weight = normal(4, 8)
    weight[1] = 0
    source = WeightSource("w", weight, "", NAMED_SCHEMES["static-binary"], 0, None)
    made, is_changed = with_room_for_bias(
        source, source.quantized(), np.ones(4, np.float32), np.float32(0.01)
    )
    assert is_changed
    assert set(np.unique(made.values)) == {-1, 1}
