"""Each operator whose form changed between opsets 7 and 21, against a run of the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, defs, helper

from quantstudio.core.errors import UnsupportedOpError
from quantstudio.engine.model import opset as converter
from quantstudio.engine.model.open import open_model
from tests.engine.builders import graph, model, node, outputs_of, random, save, value

X: tuple[int | str | None, ...] = ("N", 4, 6)


def one(
    made: NodeProto,
    opset: int,
    shape: Sequence[int | str | None] = X,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> ModelProto:
    """A model of one node reading x (and weights)."""
    outputs = [value(n, None, TensorProto.INT64 if n == "i" else TensorProto.FLOAT) for n in made.output]
    return model([made], [value("x", shape)], outputs, weights, opset=opset)


CASES = {
    "clip with both limits": one(node("Clip", ["x"], ["y"], min=-0.5, max=0.5), 9),
    "clip with one limit": one(node("Clip", ["x"], ["y"], max=0.5), 7),
    "dropout": one(node("Dropout", ["x"], ["y"], ratio=0.7), 10),
    "pad": one(node("Pad", ["x"], ["y"], pads=[0, 1, 0, 0, 0, 2]), 7),
    "pad with value": one(node("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 0], value=3.0), 10),
    "pad reflect": one(node("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 1], mode="reflect"), 10),
    "slice": one(node("Slice", ["x"], ["y"], starts=[1, 0], ends=[3, -1], axes=[1, 2]), 9),
    "slice without axes": one(node("Slice", ["x"], ["y"], starts=[0, 1], ends=[9, 3]), 7),
    "topk": one(node("TopK", ["x"], ["y", "i"], k=2, axis=1), 9),
    "squeeze": one(node("Squeeze", ["x"], ["y"], axes=[1]), 11, ["N", 1, 6]),
    "unsqueeze": one(node("Unsqueeze", ["x"], ["y"], axes=[0, 3]), 12),
    "split by sizes": one(node("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]), 11),
    "split evenly": one(node("Split", ["x"], ["a", "b"], axis=2), 11),
    "split evenly at 13": one(node("Split", ["x"], ["a", "b"], axis=2), 13),
    "reduce sum": one(node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0), 11),
    "reduce sum of all": one(node("ReduceSum", ["x"], ["y"], keepdims=0), 11),
    "softmax on the last axis": one(node("Softmax", ["x"], ["y"], axis=2), 11),
    "softmax over a flattened matrix": one(node("Softmax", ["x"], ["y"]), 9),
    "log softmax on a middle axis": one(node("LogSoftmax", ["x"], ["y"], axis=1), 12),
    "softmax of negative axis": one(node("Softmax", ["x"], ["y"], axis=-2), 12),
    "hardmax": one(node("Hardmax", ["x"], ["y"], axis=1), 11),
    "upsample 7": one(node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 3.0]), 7, ["N", 2, 3, 3]),
    "upsample 9 linear": one(
        node("Upsample", ["x", "s"], ["y"], mode="linear"),
        9,
        ["N", 2, 3, 3],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize 10": one(
        node("Resize", ["x", "s"], ["y"], mode="nearest"),
        10,
        ["N", 2, 4, 4],
        {"s": np.array([1, 1, 1.5, 0.5], np.float32)},
    ),
    "resize 11": one(
        node("Resize", ["x", "r", "s"], ["y"], mode="linear", coordinate_transformation_mode="align_corners"),
        11,
        ["N", 2, 4, 4],
        {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "scatter": one(
        node("Scatter", ["x", "i", "u"], ["y"], axis=2),
        9,
        [2, 4, 6],
        {"i": np.array([[[1, 0]]]), "u": np.ones((1, 1, 2), np.float32)},
    ),
    "grid sample": one(
        node("GridSample", ["x", "g"], ["y"], mode="bilinear"),
        16,
        [2, 1, 4, 4],
        {"g": (random(2, 3, 3, 2) / 3)},
    ),
    "roi align": one(
        node("RoiAlign", ["x", "rois", "batch"], ["y"], output_height=2, output_width=2, sampling_ratio=2),
        10,
        [1, 2, 8, 8],
        {"rois": np.array([[0.3, 0.2, 5.1, 6.4]], np.float32), "batch": np.array([0])},
    ),
    "batch normalization 7": one(
        node("BatchNormalization", ["x", "a", "b", "m", "v"], ["y"]),
        7,
        ["N", 4, 6],
        {"a": random(4), "b": random(4), "m": random(4), "v": np.abs(random(4)) + 1},
    ),
    "dft": one(node("DFT", ["x"], ["y"], axis=1), 17, ["N", 8, 1]),
} | {
    f"{name} at {opset}": one(node(name, ["x"], ["y"], axes=[1, -1], keepdims=0), opset)
    for name, opset in (
        ("ReduceL1", 11),
        ("ReduceL2", 13),
        ("ReduceLogSumExp", 13),
        ("ReduceMax", 12),
        ("ReduceMin", 13),
        ("ReduceProd", 11),
        ("ReduceSumSquare", 7),
        ("ReduceMean", 17),
    )
}


@pytest.mark.parametrize("name", CASES)
def test_that_the_converted_operator_computes_the_same(tmp_path, name):
    made = CASES[name]
    dims = made.graph.input[0].type.tensor_type.shape.dim
    x = random(*[dim.dim_value or 2 for dim in dims])
    expected = outputs_of(made, {"x": x})
    result = open_model(save(made, tmp_path))
    onnx.checker.check_model(result.proto)
    for wanted, got in zip(expected, outputs_of(result.proto, {"x": x}), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_that_a_softmax_of_unknown_rank_still_flattens(tmp_path):
    made = model([node("Softmax", ["x"], ["y"], axis=1)], [value("x", None)], [value("y", None)], opset=11)
    model_types: dict[str, Any] = {"x": (TensorProto.FLOAT, None)}
    made.graph.node[0].name = "s"
    converter.convert_opset(made, model_types)
    x = random(2, 3, 4)
    flat = np.exp(x.reshape(2, -1))
    expected = (flat / flat.sum(1, keepdims=True)).reshape(x.shape)
    np.testing.assert_allclose(outputs_of(made, {"x": x})[0], expected, rtol=1e-5)


def test_that_group_normalization_of_18_gets_one_scale_a_channel(tmp_path):
    weights = {"scale": np.array([2.0, 3.0], np.float32), "bias": np.array([0.5, -1.0], np.float32)}
    made = one(
        node("GroupNormalization", ["x", "scale", "bias"], ["y"], "norm", num_groups=2),
        18,
        [3, 4, 5],
        weights,
    )
    converter.convert_opset(made, {"x": (TensorProto.FLOAT, (3, 4, 5))})
    x = random(3, 4, 5)
    groups = x.reshape(3, 2, 10)
    normed = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    expected = normed * weights["scale"][:, None] + weights["bias"][:, None]
    np.testing.assert_allclose(outputs_of(made, {"x": x})[0], expected.reshape(x.shape), rtol=1e-4, atol=1e-5)


def test_that_group_normalization_of_unknown_channels_is_refused():
    made = one(node("GroupNormalization", ["x", "a", "b"], ["y"], "norm", num_groups=2), 18, ["N", "C", 5])
    with pytest.raises(UnsupportedOpError, match="norm"):
        converter.convert_opset(made, {"x": (TensorProto.FLOAT, ("N", "C", 5))})


def test_that_a_scan_of_opset_8_is_refused():
    body = graph([node("Identity", ["a"], ["b"])], [value("a", [2])], [value("b", [2])])
    made = one(node("Scan", ["", "x"], ["y"], "scan", body=body, num_scan_inputs=1), 8)
    with pytest.raises(UnsupportedOpError, match="scan"):
        converter.convert_opset(made, {})


def test_that_nodes_inside_bodies_are_converted(tmp_path):
    body = graph(
        [node("Clip", ["s"], ["c"], max=0.5), node("Identity", ["going"], ["still"])],
        [value("i", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("s", ["N", 4])],
        [value("still", [], TensorProto.BOOL), value("c", ["N", 4])],
    )
    weights: dict[str, NDArray[Any]] = {"n": np.array(2), "t": np.array(True)}
    made = model(
        [node("Loop", ["n", "t", "x"], ["y"], "loop", body=body)],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
        weights,
        opset=10,
    )
    x = random(3, 4)
    result = open_model(save(made, tmp_path))
    np.testing.assert_allclose(outputs_of(result.proto, {"x": x})[0], np.minimum(x, 0.5))


def test_that_no_operator_changed_its_form_without_an_adapter():
    """The adapters were chosen by comparing schemas; a new onnx release must not add a change unseen."""
    accepted = {"Gemm", "Loop", "OptionalHasElement", "Resize"}
    history: dict[str, list[defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= converter.TARGET_OPSET:
            history.setdefault(schema.name, []).append(schema)
    changed = set()
    for name, schemas in history.items():
        schemas.sort(key=lambda schema: schema.since_version)
        newest = schemas[-1]
        for old, after in pairwise(schemas):
            if after.since_version <= converter.OLDEST_OPSET:
                continue
            gone = set(old.attributes) - set(newest.attributes)
            both = set(old.attributes) & set(newest.attributes)
            redefined = {a for a in both if _default(old, a) != _default(newest, a)}
            if gone or redefined or old.min_input < newest.min_input or newest.deprecated:
                changed.add(name)
    assert changed - accepted <= set(converter._ADAPTERS)


def _default(schema: defs.OpSchema, name: str) -> bytes:
    default = schema.attributes[name].default_value
    return default.SerializeToString() if default.type else b""


def test_that_ir_version_is_raised_and_ai_onnx_is_the_default_domain(tmp_path):
    made = one(helper.make_node("Relu", ["x"], ["y"], "relu", domain="ai.onnx"), 13)
    made.opset_import[0].domain = "ai.onnx"
    made.ir_version = 4
    result = open_model(save(made, tmp_path))
    assert result.proto.ir_version == 10
    assert [(e.domain, e.version) for e in result.proto.opset_import] == [("", 21)]
