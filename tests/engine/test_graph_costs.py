"""Tensors of a hand-made graph: how large, between which layers, and how long held."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.costs import LayerEdge
from quantstudio.engine.analysis.graph_costs import held_bytes, layer_edges, live_tensors
from quantstudio.engine.model.open import open_model


@pytest.fixture
def graph(tmp_path):
    """conv0 -> Relu -> conv1 -> Add (with the Relu) -> output; 1 x 4 x 4 in, 2 x 4 x 4 everywhere after."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w0", (2, 1, 3, 3)), ("w1", (2, 2, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], name="conv0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c1", "r0"], ["y"], name="add"),
    ]
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 1, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 2, 4, 4))],
        weights,
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return open_model(path)


def test_that_edges_lead_from_layer_to_layer_with_their_elements(graph):
    first, second = (layer.name for layer in graph.layers)
    assert layer_edges(graph) == (LayerEdge(first, second, 32),)


def test_that_a_tensor_lives_from_its_maker_to_its_last_reader(graph):
    first, second = (layer.name for layer in graph.layers)
    found = {(tensor.layer, tensor.first): tensor for tensor in live_tensors(graph)}
    assert (found["", -1].elements, found["", -1].last) == (16, 0)
    # The Relu writes over what conv0 made; the Add reads it last.
    assert (found[first, 0].elements, found[first, 0].last) == (32, 3)
    # The Add writes over what conv1 made, which the caller gets.
    assert (found[second, 2].elements, found[second, 2].last) == (32, 4)
    assert len(found) == 3


def test_that_the_peak_counts_integer_layers_with_one_byte(graph):
    first, second = (layer.name for layer in graph.layers)
    tensors = live_tensors(graph)
    assert held_bytes(tensors, ()) == 4 * (32 + 32)
    assert held_bytes(tensors, {first}) == 4 * 32 + 32
    assert held_bytes(tensors, {first, second}) == 4 * 16 + 32
    assert held_bytes((), ()) == 0.0
