"""Packed files open as what they are: nothing is unpacked, and every layer says how the file holds it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantstudio.core.errors import RecipeError
from quantstudio.core.recipe import LayerRule, Recipe, uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model
from tests.engine.quantization_cases import (
    NetBuilder,
    attention_net,
    normal,
    opened,
    outputs_of,
    statistics_of,
)
from tests.engine.recipe_builds import build_variant, emit

CONV = {"x": normal(2, 32, 8, 8)}
ATTENTION = {"x": normal(2, 6, 64)}


def convolutions():
    net = NetBuilder()
    x = net.op("Relu", net.conv("x", "a", 32, 33), name="r")
    y = net.op("Flatten", net.op("GlobalAveragePool", x, name="g"), name="f")
    return net.model({"x": ["n", 32, 8, 8]}, [net.gemm(y, "h", 33, 80, transB=1)])


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    conv = opened(convolutions(), tmp_path_factory.mktemp("conv"))
    attention = opened(attention_net(64), tmp_path_factory.mktemp("attention"))
    return {"static": (conv, statistics_of(conv, CONV), CONV), "dynamic": (attention, None, ATTENTION)}


def reopened(case, scheme, folder) -> tuple[onnx.ModelProto, Graph]:
    graph, statistics, _ = case
    written = emit(graph, statistics, Recipe((LayerRule(NAMED_SCHEMES[scheme]),)))
    onnx.save(written, folder / "packed.onnx")
    return written, open_model(folder / "packed.onnx")


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int4", "INT4 packed"),
        ("int3", "INT3 packed"),
        ("ternary", "ternary packed"),
        ("binary", "binary packed"),
        ("codebook3", "codebook, 3 bits"),
        ("group3", "group codebook, 3 bits"),
        ("table4", "table, 4 bits"),
        ("table2", "table, 2 bits"),
        ("codebook1", "codebook, 1 bit"),
        ("table1", "table, 1 bit"),
    ],
)
def test_that_a_packed_file_opens_as_what_it_holds(floats, tmp_path, kind, name, text):
    case = floats[kind]
    written, graph = reopened(case, f"{kind}-{name}", tmp_path)
    layers = {layer.name: layer for layer in graph.layers if layer.stored_as}
    before = {layer.name: layer for layer in case[0].layers}
    assert {layer.stored_as for layer in layers.values()} >= {text}
    assert {layer.name for layer in graph.layers} == set(before), "what unpacks weights is no layer"
    for name, layer in layers.items():
        if layer.stored_as == text:
            assert layer.weight_shape in (before[name].weight_shape, before[name].weight_shape[::-1])
            assert text in layer.reason
            assert not layer.quantizable
            assert layer.weight_bytes < 0.75 * before[name].parameters
    np.testing.assert_array_equal(outputs_of(written, case[2])[0], outputs_of(graph.proto, case[2])[0])
    assert graph.proto.ByteSize() < 1.3 * written.ByteSize() + 4000


def test_that_four_bit_codebooks_are_told_from_four_bits(floats, tmp_path):
    graph, statistics, _ = floats["static"]
    recipe = Recipe((LayerRule(NAMED_SCHEMES["static-codebook4"]),))
    onnx.save(emit(graph, statistics, recipe), tmp_path / "packed.onnx")
    stored = {layer.name: layer.stored_label for layer in open_model(tmp_path / "packed.onnx").layers}
    assert stored == {"a": "codebook, 4 bits", "h": "INT8 stored"}


def test_that_a_packed_file_is_not_quantized_again(floats, tmp_path):
    _, graph = reopened(floats["static"], "static-int2", tmp_path)
    with pytest.raises(RecipeError, match="INT2 packed"):
        build_variant(graph, None, uniform_recipe("dynamic-int8"), tmp_path / "again.onnx")


def test_that_turning_what_one_index_picks_is_no_packed_weight(tmp_path):
    net = NetBuilder()
    net.constant("parts", np.array([0, 0, 3, 4, 4], np.int64))
    net.constant("second", np.array(1, np.int64))
    x = net.op("Reshape", net.matmul("x", "qkv", 16, 48), "parts", name="split")
    x = net.op("Gather", net.op("Transpose", x, name="turn", perm=[2, 0, 3, 1, 4]), "second", name="take")
    x = net.op("Transpose", x, name="back", perm=[0, 2, 1, 3])
    graph = opened(net.model({"x": ["n", 6, 16]}, [x]), tmp_path)
    assert [layer.stored_as for layer in graph.layers] == [""]
