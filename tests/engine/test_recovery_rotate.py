"""Rotation: matrices by their laws, transformers that compute the same, no channel that stands out."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.errors import JobCancelled, UnsupportedOpError
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.pipeline.registry import NoSettings
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.recovery.rotate import rotate, rotation
from tests.engine.quantization_cases import NetBuilder, normal, opened, outputs_of, relative_error
from tests.engine.test_recovery_bias import context_of

WIDTH = 16
FEED = {"x": normal(24, 5, 6)}


def rotated(graph, seed=0, cancel=None):
    return rotate(
        graph,
        StepContext(EffectivePlan({}), seed=seed),
        NoSettings(),
        reporter=NULL_REPORTER,
        cancel=cancel or CancelToken(),
    )


def layer_norm(net, x, name):
    gain = net.constant(f"{name}.gain", (1 + normal(WIDTH, seed=5) * 0.3).astype(np.float32))
    shift = net.constant(f"{name}.shift", (normal(WIDTH, seed=6) * 0.1).astype(np.float32))
    return net.op("LayerNormalization", x, gain, shift, name=name)


def rms_norm(net, x, name):
    """Root mean square normalisation, written out as exporters do."""
    two, axes = net.constant(f"{name}.two", np.float32(2)), net.constant(f"{name}.axes", np.array([-1]))
    mean = net.op("ReduceMean", net.op("Pow", x, two, name=f"{name}.pow"), axes, name=f"{name}.mean")
    small = net.constant(f"{name}.epsilon", np.float32(1e-5))
    root = net.op("Sqrt", net.op("Add", mean, small, name=f"{name}.add"), name=f"{name}.sqrt")
    gain = net.constant(f"{name}.gain", (1 + normal(WIDTH, seed=5) * 0.3).astype(np.float32))
    scaled = net.op("Mul", x, net.op("Reciprocal", root, name=f"{name}.one"), name=f"{name}.unit")
    return net.op("Mul", scaled, gain, name=name)


def transformer(norm, outlier=0.0, blocks=2):
    """Rows of 6 numbers -> stream of 16 with positions -> blocks of products -> norm -> mean -> head."""
    net = NetBuilder(3)
    x = net.op("Add", net.matmul("x", "embed", 6, WIDTH), net.weight("embed.b", WIDTH), name="embed_bias")
    places = normal(1, 5, WIDTH, seed=9)
    places[..., 3] += outlier
    x = net.op("Add", x, net.constant("places", places.astype(np.float32)), name="places_add")
    for index in range(blocks):
        h = net.matmul(norm(net, x, f"norm{index}"), f"up{index}", WIDTH, 24)
        h = net.op("Add", h, net.weight(f"up{index}.b", 24), name=f"up{index}_bias")
        h = net.matmul(net.op("Relu", h, name=f"relu{index}"), f"down{index}", 24, WIDTH)
        x = net.op("Add", x, h, name=f"sum{index}")
    axes = net.constant("axes", np.array([1]))
    x = net.op("ReduceMean", norm(net, x, "last"), axes, name="mean", keepdims=0)
    return net.model({"x": ["n", 5, 6]}, [net.gemm(x, "head", WIDTH, 4, transB=1)])


@pytest.mark.parametrize("width", [1, 2, 16, 24])
def test_that_a_rotation_is_orthogonal_and_keeps_the_vector_of_ones(width):
    matrix = rotation(width, seed=4)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(width), atol=1e-12)
    np.testing.assert_allclose(matrix @ np.ones(width), np.ones(width), atol=1e-12)
    if width == 16:
        # One channel is spread over all: in no other does more than 0.7 of it arrive.
        assert np.abs(matrix).max() < 0.7
    assert np.array_equal(matrix, rotation(width, seed=4))


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_that_a_transformer_computes_the_same_on_a_turned_stream(tmp_path, norm):
    graph = opened(transformer(norm), tmp_path)
    outcome = rotated(graph)
    assert set(outcome.details["writers"]) == {"embed", "down0", "down1"}
    assert set(outcome.details["readers"]) == {"up0", "up1", "head"}
    assert outcome.details["norms"] == 3
    assert [node.op_type for node in outcome.graph.proto.graph.node] == [
        node.op_type for node in graph.proto.graph.node
    ]
    before, after = (outputs_of(one.proto, FEED)[0] for one in (graph, outcome.graph))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    assert rotated(graph).graph.digest == outcome.graph.digest
    assert rotated(graph, seed=1).graph.digest != outcome.graph.digest


def test_that_a_channel_that_stands_out_costs_less_than_half(tmp_path):
    graph = opened(transformer(rms_norm, outlier=25.0), tmp_path)
    outcome = rotated(graph)
    context = context_of(graph, tmp_path, uniform_recipe(STATIC_INT8), **FEED)
    expected = outputs_of(graph.proto, FEED)[0]
    before, after = (
        relative_error(expected, outputs_of(emit(one, context.statistics(one), context.plan), FEED)[0])
        for one in (graph, outcome.graph)
    )
    assert after**2 < before**2 / 2


def patches():
    """A convolution whose channels move to the last axis, a class token, the token taken out at the end."""
    net = NetBuilder(3)
    net.constant("flat", np.array([0, WIDTH, -1]))
    x = net.op("Reshape", net.conv("x", "patch", 1, WIDTH, kernel=1), "flat", name="rows")
    x = net.op("Transpose", x, name="last", perm=[0, 2, 1])
    axes = net.constant("axes", np.array([1]))
    token = net.op("ReduceMean", x, axes, name="token", keepdims=1)
    x = net.op("Concat", token, x, name="join", axis=1)
    x = net.op("Add", x, net.matmul(layer_norm(net, x, "norm"), "mix", WIDTH, WIDTH), name="sum")
    first = net.op(
        "Gather", layer_norm(net, x, "end"), net.constant("zero", np.array(0)), name="first", axis=1
    )
    return net.model({"x": [2, 1, 3, 3]}, [net.gemm(first, "head", WIDTH, 4)])


def test_that_patches_and_tokens_are_followed(tmp_path):
    graph = opened(patches(), tmp_path)
    outcome = rotated(graph)
    assert set(outcome.details["writers"]) == {"patch", "mix"}
    feed = {"x": normal(2, 1, 3, 3)}
    before, after = (outputs_of(one.proto, feed)[0] for one in (graph, outcome.graph))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def without_norm(net):
    return net.matmul("x", "only", 6, 4)


def seen_stream(net):
    x = net.matmul("x", "embed", 6, WIDTH)
    net.matmul(layer_norm(net, x, "norm"), "head", WIDTH, 4)
    return net.op("Tanh", x, name="tanh")


def from_input(net):
    return net.matmul(layer_norm(net, net.op("Relu", "x", name="relu"), "norm"), "head", WIDTH, 4)


@pytest.mark.parametrize(
    ("build", "shape", "text"),
    [
        (without_norm, ["n", 6], "the network has no normalisation"),
        (seen_stream, ["n", 6], "tanh (Tanh) reads the residual stream and cannot turn"),
        (from_input, ["n", WIDTH], "relu_out writes the residual stream and cannot turn"),
    ],
)
def test_that_what_cannot_turn_is_refused_in_one_line(tmp_path, build, shape, text):
    net = NetBuilder()
    last = build(net)
    outputs = [last] if build is not seen_stream else [last, "head_out"]
    graph = opened(net.model({"x": shape}, outputs), tmp_path)
    with pytest.raises(UnsupportedOpError, match="found no residual stream to rotate") as caught:
        rotated(graph)
    assert text in caught.value.one_line


def test_that_a_weight_read_elsewhere_is_refused(tmp_path):
    net = NetBuilder()
    net.weight("table", 9, WIDTH)
    x = net.op("Gather", "table", "x", name="embed")
    back = net.op("Transpose", "table", name="turned", perm=[1, 0])
    y = net.op("MatMul", layer_norm(net, x, "norm"), back, name="tied")
    z = net.matmul(layer_norm(net, x, "norm2"), "head", WIDTH, 4)
    graph = opened(net.model({"x": (["n", 3], 7)}, [y, z]), tmp_path)
    with pytest.raises(UnsupportedOpError, match="found no residual stream to rotate"):
        rotated(graph)


def test_that_a_set_token_ends_it(tmp_path):
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        rotated(opened(transformer(layer_norm), tmp_path), cancel=token)
