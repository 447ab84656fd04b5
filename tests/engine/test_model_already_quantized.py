"""Files that were quantized before open, say so layer by layer, and are refused or finished with a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import FP32, STATIC_INT8
from quantstudio.core.recipe import LayerRule, Recipe, uniform_recipe
from quantstudio.engine.model.open import open_model
from quantstudio.engine.quantization.build import check_float_weights
from tests.engine.builders import conv_net, model, node, outputs_of, random, save, value
from tests.engine.quantization_cases import statistics_of
from tests.engine.recipe_builds import build_variant

INT8 = np.array([[1, -2, 3], [4, 5, -6], [7, 8, 9], [-10, 11, 12]], np.int8)


def qdq() -> ModelProto:
    weights: dict[str, NDArray[Any]] = {
        "q": INT8,
        "s": np.array(0.1, np.float32),
        "xs": np.array(0.05, np.float32),
        "xz": np.array(128, np.uint8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], "quantize"),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], "dequantize"),
        node("DequantizeLinear", ["q", "s"], ["w"], "weight"),
        node("MatMul", ["xd", "w"], ["y"], "product"),
    ]
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], weights)


def dynamic() -> ModelProto:
    weights: dict[str, NDArray[Any]] = {
        "q": INT8,
        "z": np.array(0, np.int8),
        "s": np.array(0.1, np.float32),
    }
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], "quantize"),
        node("MatMulInteger", ["xq", "q", "xz", "z"], ["i"], "product"),
        node("Cast", ["i"], ["f"], "cast", to=TensorProto.FLOAT),
        node("Mul", ["xs", "s"], ["scale"], "scale"),
        node("Mul", ["f", "scale"], ["y"], "rescale"),
    ]
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], weights)


def qlinear() -> ModelProto:
    weights: dict[str, NDArray[Any]] = {
        "q": np.arange(-8, 8, dtype=np.int8).reshape(4, 1, 2, 2),
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.int8),
        "xs": np.array(0.05, np.float32),
        "xz": np.array(128, np.uint8),
    }
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], "quantize"),
        node("QLinearConv", ["xq", "xs", "xz", "q", "s", "z", "xs", "xz"], ["yq"], "conv"),
        node("DequantizeLinear", ["yq", "xs", "xz"], ["y"], "dequantize"),
    ]
    return model(nodes, [value("x", ["N", 1, 4, 4])], [value("y", ["N", 4, 3, 3])], weights)


def four_bits() -> ModelProto:
    weights: dict[str, NDArray[Any]] = {
        "q": np.arange(3 * 16, dtype=np.uint8).reshape(3, 1, 16),
        "s": np.full((3, 1), 0.1, np.float32),
        "head": random(3, 5),
    }
    product = node(
        "MatMulNBits",
        ["x", "q", "s"],
        ["p"],
        "packed",
        K=32,
        N=3,
        bits=4,
        block_size=32,
        domain="com.microsoft",
    )
    nodes = [product, node("MatMul", ["p", "head"], ["y"], "head_product")]
    inputs, outputs = [value("x", ["N", 32])], [value("y", ["N", 5])]
    return model(nodes, inputs, outputs, weights, domains={"com.microsoft": 1})


@pytest.mark.parametrize("make", [qdq, dynamic, qlinear])
def test_that_a_quantized_file_opens_and_is_refused_with_what_to_do(make, tmp_path):
    path = save(make(), tmp_path)
    opened = open_model(path)
    (layer,) = opened.layers
    assert (layer.stored_as, layer.quantizable, layer.schemes) == ("INT8", False, ("fp32",))
    assert "already quantized (INT8)" in layer.reason
    assert "1 of 1 layers are already quantized (INT8); open the float model" in " ".join(
        opened.summary.notes
    )
    for name in ("weight-int8", "static-int8", "dynamic-int8", "fp16"):
        with pytest.raises(RecipeError, match="already quantized") as refusal:
            build_variant(opened, None, uniform_recipe(name), tmp_path / "q.onnx")
        assert str(path) in refusal.value.one_line
        assert "Give the float model" in refusal.value.one_line
    assert not (tmp_path / "q.onnx").exists()


def test_that_a_recipe_that_changes_nothing_copies_a_quantized_file(tmp_path):
    opened = open_model(save(qdq(), tmp_path))
    check_float_weights(opened, resolve(Recipe(()), opened.layers))
    build_variant(opened, None, Recipe((LayerRule(FP32),)), tmp_path / "q.onnx")
    x = random(3, 4)
    assert np.array_equal(outputs_of(tmp_path / "q.onnx", {"x": x})[0], outputs_of(qdq(), {"x": x})[0])


def test_that_the_float_layers_left_in_a_quantized_file_can_be_quantized(tmp_path):
    opened = open_model(save(four_bits(), tmp_path))
    assert [layer.stored_as for layer in opened.layers] == ["INT4", ""]
    built = build_variant(opened, None, uniform_recipe("weight-int8"), tmp_path / "q.onnx")
    assert [layer.weights for layer in built.layers] == ["int4", "int8"]
    assert any("1 of 2 layers were quantized before" in warning for warning in built.warnings)
    x = random(3, 32)
    expected, found = outputs_of(four_bits(), {"x": x})[0], outputs_of(tmp_path / "q.onnx", {"x": x})[0]
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("preset", ["weight-int8", "weight-int4"])
def test_that_our_own_variants_list_every_layer_again(preset, tmp_path):
    opened = open_model(save(conv_net(), tmp_path))
    build_variant(opened, None, uniform_recipe(preset), tmp_path / "q.onnx")
    again = open_model(tmp_path / "q.onnx")
    assert again.layers[0].op_type == "Conv"
    assert len(again.layers) == 2
    assert any(layer.stored_as for layer in again.layers)


def test_that_a_static_variant_of_ours_is_known_as_quantized(tmp_path):

    opened = open_model(save(conv_net(), tmp_path))
    statistics = statistics_of(opened, {"x": random(8, 3, 8, 8)})
    build_variant(opened, statistics, uniform_recipe(STATIC_INT8), Path(tmp_path / "q.onnx"))
    again = open_model(tmp_path / "q.onnx")
    assert [layer.stored_as for layer in again.layers] == ["INT8", "INT8"]
