"""The proof finds a wrong rewrite, names its node, and knows what it cannot prove."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from quantstudio.core.errors import JobCancelled, ModelLoadError, VerificationError
from quantstudio.core.events import CancelToken
from quantstudio.core.folders import cache_folder
from quantstudio.engine.model import normalise as normaliser
from quantstudio.engine.model import trial
from quantstudio.engine.model.batchnorm import fold_batchnorm
from quantstudio.engine.model.difference import relative_difference
from quantstudio.engine.model.open import open_model
from quantstudio.engine.model.opset import convert_opset
from quantstudio.engine.model.trial import random_feed
from quantstudio.engine.model.verify import Proof, verify
from tests.engine.builders import (
    INT64,
    batchnorm_weights,
    conv_net,
    loop_model,
    mlp,
    model,
    node,
    random,
    save,
    value,
)


def changed(made: ModelProto, name: str, factor: float) -> ModelProto:
    """The model with one weight scaled."""
    other = ModelProto()
    other.CopyFrom(made)
    for tensor in other.graph.initializer:
        if tensor.name == name:
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    return other


def proven(made: ModelProto, normalised: ModelProto) -> Proof:
    """The proof that a stored model is the other one normalised."""
    return verify(made, normalised, normalised)


def test_that_equal_models_have_no_error():
    made = conv_net()
    assert proven(made, made).error == 0.0


def test_that_a_wrong_weight_names_the_first_node_that_differs():
    made = conv_net()
    with pytest.raises(VerificationError, match="'conv'") as caught:
        proven(made, changed(made, "conv.weight", 1.001))
    assert "'c'" in caught.value.what
    with pytest.raises(VerificationError, match="'fc'"):
        proven(made, changed(made, "fc.bias", 1.1))


def test_that_rounding_is_accepted_and_reported():
    made = conv_net()
    proof = proven(made, changed(made, "conv.weight", 1 + 1e-6))
    assert 0 < proof.error < 1e-5


def test_that_a_model_hard_wired_to_one_sample_is_proven_with_one():
    weights = {"shape": np.array([1, 32])}
    made = model(
        [node("Reshape", ["x", "shape"], ["y"], "view")],
        [value("x", ["N", 4, 8])],
        [value("y", None)],
        weights,
    )
    proof = proven(made, made)
    assert proof.error == 0.0
    assert "single samples" in proof.notes[0]


def test_that_dynamic_axes_are_tried_until_one_fits():
    weights = {"w": random(2, 3, 9, 9)}
    made = model(
        [node("Conv", ["x", "w"], ["y"], "conv")],
        [value("x", ["N", 3, "H", "W"])],
        [value("y", None)],
        weights,
    )
    proof = proven(made, made)
    assert proof.error == 0.0
    assert not proof.notes


def test_that_no_fitting_size_is_said_and_not_hidden():
    weights = {"w": random(10, 2)}
    made = model(
        [node("MatMul", ["x", "w"], ["y"], "product")],
        [value("x", ["N", "L"])],
        [value("y", None)],
        weights,
    )
    proof = proven(made, made)
    assert np.isnan(proof.error)
    assert "Not verified" in proof.notes[0]


def test_that_a_model_failing_on_its_own_shape_is_refused():
    made = model(
        [node("Reshape", ["x", "shape"], ["y"], "view")],
        [value("x", [2, 4])],
        [value("y", None)],
        {"shape": np.array([3, 5])},
    )
    with pytest.raises(ModelLoadError):
        proven(made, made)


def test_that_random_operators_are_not_compared(tmp_path):
    made = model(
        [node("RandomNormalLike", ["x"], ["r"], "noise"), node("Add", ["x", "r"], ["y"], "add")],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
    )
    result = open_model(save(made, tmp_path))
    assert any("draws random numbers" in note for note in result.summary.notes)


def test_that_an_endless_loop_is_given_up_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "RUN_LIMIT_S", 0.3)
    result = open_model(save(loop_model(steps=1 << 50), tmp_path))
    assert any("one run takes longer" in note for note in result.summary.notes)


def test_that_cancel_ends_a_run_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "RUN_LIMIT_S", float("inf"))
    token = CancelToken()
    threading.Timer(0.3, token.set).start()
    with pytest.raises(JobCancelled):
        open_model(save(loop_model(steps=1 << 50), tmp_path), cancel=token)


def test_that_a_gigantic_input_is_not_tried():
    made = model([node("Relu", ["x"], ["y"], "r")], [value("x", [1 << 20, 1 << 20])], [value("y", None)])
    proof = proven(made, made)
    assert "too large" in proof.notes[0]


def test_that_a_flipped_argmax_without_a_differing_tensor_is_a_tie():
    made = model(
        [
            node("MatMul", ["x", "w"], ["p"], "product"),
            node("ArgMax", ["p"], ["y"], "best", axis=1, keepdims=0),
        ],
        [value("x", ["N", 4])],
        [value("y", ["N"], INT64)],
        {"w": np.ones((4, 4), np.float32)},
    )
    tilted = np.ones((4, 4), np.float32)
    tilted[:, 2] += np.float32(1e-6)
    other = ModelProto()
    other.CopyFrom(made)
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(tilted, "w"))
    assert proven(made, other).error == 0.0


def test_that_a_flipped_argmax_behind_a_differing_tensor_is_an_error():
    made = model(
        [
            node("MatMul", ["x", "w"], ["p"], "product"),
            node("ArgMax", ["p"], ["y"], "best", axis=1, keepdims=0),
        ],
        [value("x", [8, 4])],
        [value("y", [8], INT64)],
        {"w": random(4, 4)},
    )
    with pytest.raises(VerificationError, match="product"):
        proven(made, changed(made, "w", -1.0))


def scale_weight(graph: GraphProto, name: str) -> None:
    """What a bug in a pass might do to a weight."""
    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))


def test_that_a_wrong_conversion_refuses_the_file(tmp_path, monkeypatch):
    """The whole way: a bug in a pass must end in a refusal that names the node."""

    def buggy(made, types):
        version = convert_opset(made, types)
        scale_weight(made.graph, "conv.weight")
        return version

    monkeypatch.setattr(normaliser, "convert_opset", buggy)
    with pytest.raises(VerificationError, match="conv") as caught:
        open_model(save(conv_net(batchnorm=True), tmp_path))
    assert "model.onnx" in caught.value.where
    assert not list(cache_folder().rglob("*.onnx"))


def test_that_a_wrong_fold_leaves_the_operators_of_the_file(tmp_path, monkeypatch):
    """What the runtime runs opens: a rewrite that does not hold is left out, and said."""

    def buggy(made, types):
        count = fold_batchnorm(made, types)
        scale_weight(made, "conv.weight")
        return count

    monkeypatch.setattr(normaliser, "fold_batchnorm", buggy)
    result = open_model(save(conv_net(batchnorm=True), tmp_path))
    assert "BatchNormalization" in [n.op_type for n in result.proto.graph.node]
    assert [note for note in result.summary.notes if "Kept the operators" in note and "'conv'" in note]
    assert result.summary.verified_error < 1e-6


def saturated_net(shift: float) -> ModelProto:
    """x [N, 3, 8, 8] -> Conv -> BatchNormalization -> Sigmoid, all of it near sigmoid(shift)."""
    weights = {"w": random(4, 3, 3, 3) * np.float32(0.1)} | batchnorm_weights(4)
    weights["bn.bias"] = weights["bn.bias"] * np.float32(0.3) + np.float32(shift)
    bn = [f"bn.{part}" for part in ("scale", "bias", "mean", "var")]
    nodes = [
        node("Conv", ["x", "w"], ["c"], "conv"),
        node("BatchNormalization", ["c", *bn], ["b"], "bn"),
        node("Sigmoid", ["b"], ["s"], "sigmoid"),
        node("Flatten", ["s"], ["y"], "flatten"),
    ]
    return model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", None])], weights)


def test_that_a_sigmoid_near_0_is_exact_to_the_rounding_of_1(tmp_path):
    """Its values lie near 3e-8, where the runtime's own kernels differ by as much."""
    result = open_model(save(saturated_net(-17.0), tmp_path))
    assert result.summary.verified_error < 1e-6
    assert not [note for note in result.summary.notes if "Kept the operators" in note]


@pytest.mark.parametrize("shift", [-17.0, 40.0])
def test_that_a_saturated_output_hides_no_wrong_weight(shift):
    """All its values are one, so what goes into the function is compared."""
    made = saturated_net(shift)
    with pytest.raises(VerificationError, match=r"'(conv|bn)'"):
        proven(made, changed(made, "w", 1.01))


def unstable_net() -> ModelProto:
    """The fraction of 1e4 times a product: one rounding of the input moves it by about a hundredth."""
    nodes = [
        node("MatMul", ["x", "w"], ["p"], "product"),
        node("Mul", ["p", "large"], ["q"], "enlarge"),
        node("Floor", ["q"], ["f"], "floor"),
        node("Sub", ["q", "f"], ["y"], "fraction"),
    ]
    weights = {"w": random(4, 4), "large": np.array(1e4, np.float32)}
    return model(nodes, [value("x", [1, 4])], [value("y", [1, 4])], weights)


def test_that_a_network_that_follows_rounding_errors_opens_and_is_said_to():
    made = unstable_net()
    proof = proven(made, changed(made, "w", 1 + 2e-7))
    assert any("Output 'y' follows rounding errors" in note for note in proof.notes)


def test_that_a_wrong_weight_of_an_unstable_network_is_still_found():
    made = unstable_net()
    with pytest.raises(VerificationError, match="product"):
        proven(made, changed(made, "w", 1.001))


def test_that_an_integer_input_that_must_be_a_certain_number_is_not_the_file_s_fault():
    made = model(
        [node("Reshape", ["x", "shape"], ["y"], "view")],
        [value("x", [2, 3]), value("shape", [2], INT64)],
        [value("y", None)],
    )
    proof = proven(made, made)
    assert np.isnan(proof.error)
    assert "Not verified" in proof.notes[0]


def test_that_a_normalised_graph_that_fails_to_run_is_an_error():
    made = model([node("Relu", ["x"], ["y"], "r")], [value("x", [2, 4])], [value("y", None)])
    broken = model(
        [node("Reshape", ["x", "s"], ["y"], "r")],
        [value("x", [2, 4])],
        [value("y", None)],
        {"s": np.array([3])},
    )
    with pytest.raises(VerificationError, match="fails where the original runs"):
        proven(made, broken)


def test_that_differences_are_relative_to_the_largest_magnitude():
    a = np.array([100.0, 1.0], np.float32)
    assert relative_difference(a, np.array([100.0, 1.5], np.float32)) == pytest.approx(0.005)
    assert relative_difference(a, a) == 0.0


def test_that_infinities_and_nans_agree_only_with_themselves():
    a = np.array([np.inf, np.nan, 1.0], np.float32)
    assert relative_difference(a, a.copy()) == 0.0
    assert relative_difference(a, np.array([1.0, np.nan, 1.0], np.float32)) == np.inf
    lowest = np.array([np.finfo(np.float32).min, 1.0], np.float32)
    assert relative_difference(lowest, lowest.copy()) == 0.0


def test_that_shapes_and_types_must_agree():
    assert relative_difference(np.zeros(3), np.zeros(4)) == np.inf
    assert relative_difference(np.zeros(3), np.zeros(3, np.float32)) == np.inf
    assert relative_difference(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0


def test_that_random_input_respects_types_and_shared_axes():
    inputs = [
        value("f", ["N", "L"], TensorProto.FLOAT16),
        value("i", ["N", "L"], INT64),
        value("b", [3], TensorProto.BOOL),
        value("u", ["N", 5], TensorProto.UINT8),
        value("s", [], TensorProto.DOUBLE),
    ]
    made = helper.make_model(helper.make_graph([], "g", inputs, []))
    feed = random_feed(made, (2, 7), 0)
    assert {name: (array.dtype.name, array.shape) for name, array in feed.items()} == {
        "f": ("float16", (2, 7)),
        "i": ("int64", (2, 7)),
        "b": ("bool", (3,)),
        "u": ("uint8", (2, 5)),
        "s": ("float64", ()),
    }
    assert set(np.unique(feed["i"])) <= {0, 1}


def test_that_the_proof_runs_on_the_mlp(tmp_path):
    assert open_model(save(mlp(), tmp_path)).summary.verified_error < 1e-6
