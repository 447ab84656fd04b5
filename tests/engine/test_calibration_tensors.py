from __future__ import annotations

import numpy as np
import onnx
import pytest

from quantstudio.core.layers import LayerInfo
from quantstudio.engine.calibration.tensors import calibration_tensors, plan_calibration
from tests.engine.builders import INT64, graph, model, node, random, value
from tests.engine.calibration_graphs import graph_of

X = value("x", ["n", 3, 8, 8])
W = {"w1": random(4, 3, 3, 3), "w2": random(4, 4, 3, 3), "w3": random(4, 4, 1, 1)}


def conv(x: str, w: str, y: str, pad: int = 1) -> onnx.NodeProto:
    return node("Conv", [x, w], [y], pads=[pad] * 4)


def test_that_a_convolution_and_its_relu_are_observed_once() -> None:
    made = graph_of(
        model(
            [conv("x", "w1", "a"), node("Relu", ["a"], ["b"]), conv("b", "w2", "c")],
            [X],
            [value("c", ["n", 4, 8, 8])],
            W,
        )
    )
    plan = plan_calibration(made)
    assert plan.observed == ("x", "b", "c")
    assert plan.aliases == {"a": "b"}
    assert calibration_tensors(made) == ("x", "b", "c", "a")


def test_that_a_residual_block_observes_what_add_reads_and_the_relu_writes() -> None:
    nodes = [
        conv("x", "w1", "a"),
        conv("a", "w2", "b"),
        conv("a", "w3", "c", 0),
        node("Add", ["b", "c"], ["d"]),
        node("Relu", ["d"], ["e"]),
        conv("e", "w2", "f"),
    ]
    plan = plan_calibration(graph_of(model(nodes, [X], [value("f", None)], W)))
    assert set(plan.observed) == {"x", "a", "b", "c", "e", "f"}
    assert plan.aliases == {"d": "e"}


@pytest.mark.parametrize("other", ["graph output", "second reader"])
def test_that_a_value_others_read_is_observed_before_the_relu(other: str) -> None:
    nodes = [conv("x", "w1", "a"), node("Relu", ["a"], ["b"]), conv("b", "w2", "c")]
    outputs = [value("c", None)]
    if other == "graph output":
        outputs.append(value("a", None))
    else:
        nodes.append(conv("a", "w2", "d"))
        outputs.append(value("d", None))
    plan = plan_calibration(graph_of(model(nodes, [X], outputs, W)))
    assert {"a", "b"} <= set(plan.observed)
    assert plan.aliases == {}


def test_that_moved_values_share_the_histogram_of_their_source() -> None:
    nodes = [
        conv("x", "w1", "a"),
        node("Relu", ["a"], ["b"]),
        node("Transpose", ["b"], ["t"], perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "shape"], ["r"]),
        node("MatMul", ["r", "m"], ["y"]),
    ]
    weights = {**W, "shape": np.array([0, 64, 4]), "m": random(4, 5)}
    plan = plan_calibration(graph_of(model(nodes, [X], [value("y", None)], weights)))
    assert plan.observed == ("x", "b")
    assert plan.aliases == {"a": "b", "t": "b", "r": "b"}


def test_that_products_that_end_in_float_need_no_range_for_their_output() -> None:
    nodes = [
        node("MatMul", ["x", "m"], ["a"]),
        node("Add", ["a", "bias"], ["b"]),
        node("Erf", ["b"], ["c"]),
        node("Mul", ["b", "c"], ["d"]),
        node("MatMul", ["d", "m"], ["y"]),
    ]
    made = model(nodes, [value("x", ["n", 4])], [value("y", None)], {"m": random(4, 4), "bias": random(4)})
    assert plan_calibration(graph_of(made)).observed == ("x", "d")


def test_that_an_add_between_products_is_observed_on_all_sides() -> None:
    nodes = [
        node("MatMul", ["x", "m"], ["a"]),
        node("Add", ["a", "bias"], ["b"]),
        node("MatMul", ["b", "m"], ["y"]),
    ]
    made = model(nodes, [value("x", ["n", 4])], [value("y", None)], {"m": random(4, 4), "bias": random(4)})
    assert plan_calibration(graph_of(made)).observed == ("x", "a", "b")


def test_that_what_other_layers_read_is_observed_but_not_integers_or_bodies() -> None:
    nodes = [
        node("Gather", ["table", "ids"], ["e"], name="embed"),
        node("Softsign", ["e"], ["s"]),
        node("LSTM", ["s", "w", "r"], ["y"], name="lstm", hidden_size=2),
    ]
    weights = {"table": random(9, 3), "w": random(1, 8, 3), "r": random(1, 8, 2)}
    layers = [
        LayerInfo("embed", "Gather", inputs=("ids",)),
        LayerInfo("lstm", "LSTM", inputs=("s",)),
        LayerInfo("inner", "MatMul", inputs=("hidden",), scope="loop.body"),
    ]
    made = model(nodes, [value("ids", [4, 1], INT64)], [value("y", None)], weights)
    assert plan_calibration(graph_of(made, layers)).observed == ("s",)


def test_that_a_value_a_body_reads_is_not_absorbed() -> None:
    body = graph([node("Identity", ["a"], ["out"])], [], [value("out", None)])
    nodes = [
        conv("x", "w1", "a"),
        node("Relu", ["a"], ["b"]),
        node("If", ["flag"], ["c"], then_branch=body, else_branch=body),
        conv("b", "w2", "d"),
    ]
    outputs = [value("c", None), value("d", None)]
    made = model(nodes, [X, value("flag", [], 9)], outputs, W)
    plan = plan_calibration(graph_of(made))
    assert {"a", "b"} <= set(plan.observed)
    assert "flag" not in plan.observed


def test_that_constants_in_other_clothes_are_left_out() -> None:
    nodes = [node("Reshape", ["c", "shape"], ["r"]), node("MatMul", ["x", "r"], ["y"])]
    weights = {"c": random(16), "shape": np.array([4, 4])}
    made = model(nodes, [value("x", ["n", 4])], [value("y", None)], weights)
    assert plan_calibration(graph_of(made)).observed == ("x",)
