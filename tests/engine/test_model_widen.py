"""Networks stored in other float types open as float32 and can be quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from quantstudio.core.errors import VerificationError
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.model.open import open_model
from quantstudio.engine.model.verify import verify
from tests.engine.builders import conv_net, graph, model, node, op_types, outputs_of, random, save, value
from tests.engine.recipe_builds import build_variant


def stored_as(made: ModelProto, kind: int) -> ModelProto:
    """The same network with every float tensor, input and output of another type."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for one in (*made.graph.input, *made.graph.output):
        one.type.tensor_type.elem_type = kind
    return made


@pytest.mark.parametrize(
    ("kind", "name", "interface", "tolerance"),
    [
        (TensorProto.FLOAT16, "float16", "float16", 2e-2),
        (TensorProto.DOUBLE, "float64", "float64", 1e-5),
        (TensorProto.BFLOAT16, "bfloat16", "float32", 5e-2),
    ],
)
def test_that_a_network_of_another_float_type_can_be_quantized(kind, name, interface, tolerance, tmp_path):
    plain = conv_net(batchnorm=True)
    x = random(2, 3, 8, 8)
    (expected,) = outputs_of(plain, {"x": x})
    opened = open_model(save(stored_as(conv_net(batchnorm=True), kind), tmp_path))
    assert [tensor.dtype for tensor in opened.summary.inputs] == [interface]
    assert [tensor.dtype for tensor in opened.summary.outputs] == [interface]
    assert any(f"8 {name} tensors to float32" in note for note in opened.summary.notes)
    assert any(("at most" in note) or ("after the conversion" in note) for note in opened.summary.notes)
    assert all("weight-int8" in layer.schemes for layer in opened.layers)
    assert opened.summary.weight_bytes == 4 * opened.summary.parameters
    built = build_variant(opened, None, uniform_recipe("weight-int8"), tmp_path / "q.onnx")
    assert {layer.weights for layer in built.layers} == {"int8"}
    (found,) = outputs_of(opened.proto, {"x": x.astype(interface)})
    assert found.dtype == np.dtype(interface)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    (quantized,) = outputs_of(tmp_path / "q.onnx", {"x": x.astype(interface)})
    assert np.abs(quantized - expected).max() <= (tolerance + 0.05) * np.abs(expected).max()


def _islands(weight: Any) -> ModelProto:
    """A float32 product with a float64 detour, or the other way round."""
    kind = int(helper.np_dtype_to_tensor_dtype(weight.dtype))
    nodes = [
        node("Cast", ["x"], ["c"], "in", to=kind),
        node("MatMul", ["c", "w"], ["p"], "product"),
        node("Cast", ["p"], ["d"], "to_double", to=TensorProto.DOUBLE),
        node("Add", ["d", "mask"], ["m"], "masking"),
        node("Softmax", ["m"], ["s"], "softmax", axis=-1),
        node("Cast", ["s"], ["y"], "out", to=TensorProto.FLOAT),
    ]
    weights = {"w": weight, "mask": np.array([0, -1.7e308], np.float64)}
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 2])], weights)


def test_that_a_detour_through_double_stays_where_weights_are_float(tmp_path):
    opened = open_model(save(_islands(random(4, 2)), tmp_path))
    assert not any("Converted" in note and "tensor" in note for note in opened.summary.notes)
    kinds = {tensor.name: tensor.data_type for tensor in opened.proto.graph.initializer}
    assert kinds["mask"] == TensorProto.DOUBLE


def test_that_casts_between_what_is_float32_now_are_gone(tmp_path):
    made = _islands(random(4, 2).astype(np.float64))
    opened = open_model(save(made, tmp_path))
    assert op_types(opened.proto) == ["MatMul", "Add", "Softmax"]
    mask = next(t for t in opened.proto.graph.initializer if t.name == "mask")
    assert numpy_helper.to_array(mask).tolist() == [0.0, float(np.finfo(np.float32).min)]
    assert all(layer.quantizable for layer in opened.layers)


def test_that_layers_in_bodies_become_float32_too(tmp_path):
    kind = TensorProto.FLOAT16
    half = np.float16

    def branch(seed: int) -> onnx.GraphProto:
        weights = {"w": random(4, 4, seed=seed).astype(half)}
        return graph([node("MatMul", ["x", "w"], ["out"])], [], [value("out", None, kind)], weights, "branch")

    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], "choice", then_branch=branch(1), else_branch=branch(2)),
    ]
    made = model(
        nodes,
        [value("x", ["N", 4], kind)],
        [value("y", ["N", 4], kind)],
        {"zero": np.zeros((), half)},
        opset=13,
    )
    opened = open_model(save(made, tmp_path))
    assert {layer.scope for layer in opened.layers} == {"choice.then_branch", "choice.else_branch"}
    assert all(layer.quantizable for layer in opened.layers)
    x = random(3, 4).astype(half)
    (found,), (expected,) = outputs_of(opened.proto, {"x": x}), outputs_of(made, {"x": x})
    assert np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()


def test_that_a_wrong_conversion_is_found(tmp_path):
    made = stored_as(conv_net(), TensorProto.FLOAT16)
    opened = open_model(save(made, tmp_path))
    wrong = ModelProto()
    wrong.CopyFrom(opened.proto)
    tensor = next(t for t in wrong.graph.initializer if t.name == "fc.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))
    with pytest.raises(VerificationError, match="at most 1e-02"):
        verify(
            Path(tmp_path / "model.onnx"),
            wrong.SerializeToString(),
            wrong,
            widened=frozenset({int(TensorProto.FLOAT16)}),
        )
