"""Targets of Reshape that nodes compute from shapes become constants, however they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from quantstudio.engine.model.open import open_model
from tests.engine.builders import model, node, op_types, outputs_of, random, save, value

CONSTANTS: dict[str, NDArray[Any]] = {
    "at0": np.array(0),
    "at0v": np.array([0]),
    "at1v": np.array([1]),
    "at2v": np.array([2]),
    "five": np.array([5]),
    "end": np.array([1 << 60]),
    "step": np.array([1]),
    "rest": np.array([-1]),
    "two": np.array([2]),
    "six": np.array(6),
}

CASES: dict[str, tuple[list[NodeProto], list[int]]] = {
    "product of fixed axes": (
        [
            node("Shape", ["x"], ["s"]),
            node("Slice", ["s", "at0v", "at1v"], ["n"]),
            node("Slice", ["s", "at1v", "at2v", "at0v", "step"], ["c"]),
            node("Slice", ["s", "at2v", "end"], ["tail"]),
            node("Gather", ["tail", "at0"], ["h"]),
            node("Unsqueeze", ["h", "at0v"], ["hv"]),
            node("Mul", ["c", "hv"], ["ch"]),
            node("Concat", ["n", "ch", "rest"], ["target"], axis=0),
        ],
        [0, 12, -1],
    ),
    "sum and difference": (
        [
            node("Shape", ["x"], ["n"], start=0, end=1),
            node("Shape", ["x"], ["h"], start=2, end=3),
            node("Add", ["h", "two"], ["h2"]),
            node("Sub", ["h2", "six"], ["zero"]),
            node("Add", ["zero", "six"], ["six1"]),
            node("Mul", ["six1", "two"], ["twelve"]),
            node("Concat", ["n", "twelve", "five"], ["target"], axis=0),
        ],
        [-1, 12, 5],
    ),
    "through cast, squeeze and reshape": (
        [
            node("Shape", ["x"], ["s"]),
            node("Cast", ["s"], ["s32"], to=TensorProto.INT32),
            node("Cast", ["s32"], ["s64"], to=TensorProto.INT64),
            node("Gather", ["s64", "at0v"], ["n"]),
            node("Squeeze", ["n", "at0v"], ["n0"]),
            node("Reshape", ["n0", "rest"], ["n1"]),
            node("Identity", ["n1"], ["n2"]),
            node("Concat", ["n2", "rest"], ["target"], axis=0),
        ],
        [0, -1],
    ),
}


def build(nodes: Sequence[NodeProto]) -> Any:
    used = {name for n in nodes for name in n.input}
    weights = {name: array for name, array in CONSTANTS.items() if name in used}
    reshape = node("Reshape", ["x", "target"], ["y"], "view")
    return model([*nodes, reshape], [value("x", ["N", 3, 4, 5])], [value("y", None)], weights, opset=18)


@pytest.mark.parametrize("name", CASES)
def test_that_a_computed_target_becomes_a_constant(tmp_path, name):
    nodes, target = CASES[name]
    made = build(nodes)
    x = random(2, 3, 4, 5)
    result = open_model(save(made, tmp_path))
    assert op_types(result.proto) == ["Reshape"]
    constant = next(t for t in result.proto.graph.initializer)
    assert numpy_helper.to_array(constant).tolist() == target
    np.testing.assert_array_equal(outputs_of(result.proto, {"x": x})[0], outputs_of(made, {"x": x})[0])


def test_that_two_computed_dynamic_numbers_stay_computed(tmp_path):
    nodes = [
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Mul", ["n", "two"], ["nn"]),
        node("Concat", ["nn", "two", "rest"], ["target"], axis=0),
    ]
    result = open_model(save(build(nodes), tmp_path))
    assert op_types(result.proto) == ["Shape", "Mul", "Concat", "Reshape"]


def test_that_the_size_of_a_fixed_tensor_is_a_constant(tmp_path):
    nodes = [
        node("Size", ["x"], ["count"]),
        node("Cast", ["count"], ["f"], to=TensorProto.FLOAT),
        node("Div", ["x", "f"], ["y"], "mean"),
    ]
    made = model(nodes, [value("x", [2, 3])], [value("y", [2, 3])])
    result = open_model(save(made, tmp_path))
    assert op_types(result.proto) == ["Div"]
    np.testing.assert_allclose(outputs_of(result.proto, {"x": np.ones((2, 3), np.float32)})[0], 1 / 6)
