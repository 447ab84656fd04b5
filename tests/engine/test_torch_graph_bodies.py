"""If, Loop and Scan in torch against ONNX Runtime, and what sensitivity makes of networks that have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import UnsupportedOpError
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.model.open import open_model
from quantstudio.engine.torch_graph.module import TorchGraph
from tests.engine.builders import (
    INT64,
    Shape,
    graph,
    if_model,
    loop_model,
    model,
    node,
    outputs_of,
    random,
    save,
    value,
)
from tests.engine.network_kinds import KINDS
from tests.engine.sensitivity_cases import Events, by_name


def agree(made: ModelProto, **feed: np.ndarray) -> dict[str, torch.Tensor]:
    """The module's outputs, found to be those of ONNX Runtime."""
    module = TorchGraph(made)
    found = module.run(feed)
    for output, wanted in zip(made.graph.output, outputs_of(made, feed), strict=True):
        got = found[output.name].detach().numpy()
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)
    return found


@pytest.mark.parametrize("sign", [1, -1])
def test_that_if_takes_the_branch_of_its_condition(sign: int) -> None:
    agree(if_model(), x=sign * np.abs(random(3, 4)))


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_that_loop_carries_its_state(steps: int) -> None:
    agree(loop_model(steps), x=random(3, 4))


def counting_loop() -> ModelProto:
    """Turns until the state's sum passes a limit; each adds a row, made with a weight from outside."""
    body = graph(
        [
            node("MatMul", ["state", "w"], ["next"], "product"),
            node("ReduceSum", ["next"], ["sum"], "sum", keepdims=0),
            node("Less", ["sum", "limit"], ["still"], "less"),
            node("Cast", ["i"], ["f"], "cast", to=TensorProto.FLOAT),
            node("Mul", ["next", "f"], ["row"], "row"),
        ],
        [value("i", [], INT64), value("going", [], TensorProto.BOOL), value("state", None)],
        [value("still", [], TensorProto.BOOL), value("next", None), value("row", None)],
        {"limit": np.array(500, np.float32)},
        "body",
    )
    nodes = [node("Loop", ["", "true", "x"], ["y", "rows"], "loop", body=body)]
    weights = {"true": np.array(True), "w": np.abs(random(4, 4))}
    return model(nodes, [value("x", ["N", 4])], [value("y", None), value("rows", None)], weights, opset=13)


def test_that_loop_ends_by_its_condition_and_stacks_what_turns_add() -> None:
    assert len(agree(counting_loop(), x=np.abs(random(2, 4)))["rows"]) > 1


def test_that_stacked_outputs_of_no_turn_are_refused_by_name() -> None:
    made = counting_loop()
    made.graph.initializer[0].raw_data = b"\0"
    with pytest.raises(UnsupportedOpError, match="loop"):
        TorchGraph(made).run({"x": random(2, 4)})


def scan_model(**attributes: list[int]) -> ModelProto:
    """h <- tanh(h u + x_t), with each h given out."""
    body = graph(
        [
            node("MatMul", ["h", "u"], ["hu"], "turn"),
            node("Add", ["hu", "xt"], ["a"], "add"),
            node("Tanh", ["a"], ["next"], "tanh"),
            node("Identity", ["next"], ["out"], "copy"),
        ],
        [value("h", ["N", 3]), value("xt", ["N", 3])],
        [value("next", ["N", 3]), value("out", ["N", 3])],
        {"u": random(3, 3)},
        "body",
    )
    nodes = [node("Scan", ["h0", "x"], ["hn", "ys"], "scan", body=body, num_scan_inputs=1, **attributes)]
    shape: Shape = [None, None, 3]
    outputs = [value("hn", ["N", 3]), value("ys", shape)]
    return model(nodes, [value("h0", ["N", 3]), value("x", shape)], outputs, opset=13)


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        pytest.param({}, (5, 2, 3), id="plain"),
        pytest.param({"scan_input_axes": [1], "scan_output_axes": [1]}, (2, 5, 3), id="axes"),
        pytest.param(
            {"scan_input_directions": [1], "scan_output_directions": [1]}, (5, 2, 3), id="backwards"
        ),
    ],
)
def test_that_scan_goes_over_its_sequences(attributes: dict[str, list[int]], shape: tuple[int, ...]) -> None:
    agree(scan_model(**attributes), h0=random(2, 3), x=random(*shape))


def test_that_bodies_inside_bodies_read_what_lies_around_them() -> None:
    then = graph([node("MatMul", ["state", "w"], ["a"], "inner")], [], [value("a", None)], name="then")
    other = graph([node("Add", ["state", "x"], ["b"], "outer")], [], [value("b", None)], name="other")
    body = graph(
        [
            node("Equal", ["i", "one"], ["is_one"], "equal"),
            node("If", ["is_one"], ["next"], "choice", then_branch=then, else_branch=other),
            node("Identity", ["going"], ["still"], "keep"),
        ],
        [value("i", [], INT64), value("going", [], TensorProto.BOOL), value("state", None)],
        [value("still", [], TensorProto.BOOL), value("next", None)],
        {"one": np.array(1, np.int64)},
        "body",
    )
    nodes = [node("Loop", ["n", "true", "x"], ["y"], "loop", body=body)]
    weights = {"n": np.array(3, np.int64), "true": np.array(True), "w": random(4, 4)}
    agree(model(nodes, [value("x", ["N", 4])], [value("y", None)], weights, opset=13), x=random(2, 4))


def test_that_an_unknown_operator_in_a_body_is_refused_by_name() -> None:
    made = if_model()
    body = made.graph.node[2].attribute[0].g
    body.node[0].op_type, body.node[0].name = "Unique", "strange"
    with pytest.raises(UnsupportedOpError, match="strange"):
        TorchGraph(made)


def test_that_layers_around_a_body_are_estimated_and_those_inside_measured(tmp_path: Path) -> None:
    """One If in a network made the whole analysis fall back to running it once a layer."""
    made = if_model()
    made.graph.node.append(node("MatMul", ["y", "head.w"], ["z"], "head"))
    made.graph.initializer.append(graph([], [], [], {"head.w": random(4, 3)}).initializer[0])
    made.graph.output[0].CopyFrom(value("z", ["N", 3]))
    opened = open_model(save(made, tmp_path))
    np.savez(tmp_path / "data.npz", x=random(40, 4))
    data = open_dataset(DataSpec(str(tmp_path / "data.npz")), opened.summary.inputs)
    events = Events()
    result = fisher_sensitivity(opened, data, precisions=("int4",), reporter=events)
    methods = {name: row.method for name, row in by_name(result.layers).items()}
    assert result.method == "fisher"
    assert methods.pop("head") == "fisher"
    assert set(methods.values()) == {"exact"}
    assert not [text for text in events.texts if "layer by layer instead" in text]


def test_that_operators_behind_the_outputs_that_count_need_no_torch_form(tmp_path: Path) -> None:
    """Boxes and scores are judged; the suppression behind them gives integers and has no gradient."""
    nodes = [
        node("MatMul", ["x", "w"], ["boxes"], "product"),
        node("MatMul", ["x", "v"], ["t"], "scoring"),
        node("Transpose", ["t"], ["scores"], "turn", perm=[0, 2, 1]),
        node("NonMaxSuppression", ["boxes", "scores", "most"], ["chosen"], "suppress"),
    ]
    outputs = [value("boxes", ["N", 6, 4]), value("scores", ["N", 2, 6]), value("chosen", None, INT64)]
    weights = {"w": random(5, 4), "v": random(5, 2), "most": np.array(3)}
    opened = open_model(save(model(nodes, [value("x", ["N", 6, 5])], outputs, weights), tmp_path))
    np.savez(tmp_path / "data.npz", x=random(8, 6, 5))
    data = open_dataset(DataSpec(str(tmp_path / "data.npz")), opened.summary.inputs)
    result = fisher_sensitivity(opened, data, precisions=("int4",))
    assert result.method == "fisher"
    assert {row.method for row in result.layers} == {"fisher"}


@pytest.mark.parametrize("kind", ["graph network", "variable length"])
def test_that_feeds_of_different_lengths_are_estimated_in_one_pass(tmp_path: Path, kind: str) -> None:
    """One feed a file: the lengths of the first were taken for those of all."""
    path, folder = KINDS[kind]().saved(tmp_path)
    opened = open_model(path)
    data = open_dataset(DataSpec(str(folder)), opened.summary.inputs)
    result = fisher_sensitivity(opened, data, precisions=("int4",))
    assert result.method == "fisher"
    assert all(row.kl > 0 for row in result.layers)
    measured = by_name(exact_sensitivity(opened, data, precisions=("int4",)).layers)
    for row in result.layers:
        assert row.kl == pytest.approx(measured[row.name].kl, rel=1.0)
