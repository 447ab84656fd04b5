"""Graphs cut in parts: what crosses a cut, and weights that are handed over by reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantstudio.engine.graph import cut as cut_module
from quantstudio.engine.graph.cut import CutGraph
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import CPU, open_session, run
from quantstudio.engine.model.open import open_model

RNG = np.random.default_rng(8)


def floats(outputs: list[NDArray[np.generic]]) -> NDArray[np.float32]:
    """The first output of a run."""
    return np.asarray(outputs[0], dtype=np.float32)


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """Two large products with a residual sum, and a second output."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w2"], ["s"], name="second"),
        helper.make_node("Add", ["s", "h"], ["y"], name="join"),
        helper.make_node("ReduceSum", ["r", "axis"], ["z"], name="sum"),
    ]
    weights: dict[str, np.ndarray] = {
        "w1": RNG.standard_normal((50, 50)).astype(np.float32),
        "w2": RNG.standard_normal((50, 50)).astype(np.float32),
        "axis": np.array([1], np.int64),
    }
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 50])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size])
            for n, size in (("y", 50), ("z", 1))
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return open_model(path)


def test_that_the_parts_together_compute_what_the_whole_does(graph: Graph) -> None:
    x = RNG.standard_normal((7, 50)).astype(np.float32)
    wanted = run(open_session(Path(graph.summary.graph_path), threads=1), {"x": x})
    cut = CutGraph(graph, ["y", "z"], threads=1, provider=CPU)
    for position in range(1, cut.end):
        names = cut.live_at(position)
        front = cut.session(0, position, cut.input_types, names)
        types = cut.output_types(front)
        assert types is not None
        crossing = dict(zip(names, run(front, {"x": x}), strict=True))
        missing = [name for name in ("y", "z") if name not in crossing]
        back = cut.session(position, cut.end, types, missing)
        found = {**crossing, **dict(zip(missing, run(back, crossing), strict=True))}
        for name, value in zip(("y", "z"), wanted, strict=True):
            np.testing.assert_allclose(floats([found[name]]), floats([value]), rtol=1e-4, atol=1e-4)


def test_that_large_weights_are_not_written_into_the_parts(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    handed: list[set[str]] = []

    def watched(model: bytes, **options: Any) -> ort.InferenceSession:
        sizes.append(len(model))
        handed.append(set(options["initializers"]))
        return open_session(model, **options)

    monkeypatch.setattr(cut_module, "open_session", watched)
    cut = CutGraph(graph, ["y"], threads=1, provider=CPU)
    cut.session(0, cut.end, cut.input_types, ["y"])
    second = cut.position("second")
    assert second is not None
    types = cut.output_types(cut.session(0, second, cut.input_types, cut.live_at(second)))
    assert types is not None
    cut.session(second, cut.end, types, ["y"])
    assert handed == [{"w1", "w2"}, {"w1"}, {"w2"}]
    assert max(sizes) < 50 * 50 * 4 / 5


def test_that_an_edit_changes_its_part_only(graph: Graph) -> None:
    def halve(part: onnx.GraphProto) -> None:
        half = np.asarray(numpy_helper.to_array(graph.proto.graph.initializer[0]) * np.float32(0.5))
        part.initializer.append(numpy_helper.from_array(half, "half"))
        next(node for node in part.node if node.name == "first").input[1] = "half"

    x = RNG.standard_normal((3, 50)).astype(np.float32)
    cut = CutGraph(graph, ["z"], threads=1, provider=CPU)
    plain = floats(run(cut.session(0, cut.end, cut.input_types, ["z"]), {"x": x}))
    halved = floats(run(cut.session(0, cut.end, cut.input_types, ["z"], halve), {"x": x}))
    np.testing.assert_allclose(halved, plain / 2, rtol=1e-4)
    again = floats(run(cut.session(0, cut.end, cut.input_types, ["z"]), {"x": x}))
    np.testing.assert_array_equal(again, plain)
