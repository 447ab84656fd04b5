"""Weights at zero: which they are, in which pattern, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.errors import CalibrationError, RecipeError
from quantstudio.core.events import NULL_REPORTER, never_cancelled
from quantstudio.core.steps import Step, StepGroup
from quantstudio.engine.compression.pruning_settings import Pattern, Score, SparsifySettings
from quantstudio.engine.compression.sparsify import sparsify
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.pipeline.discovery import find_steps
from tests.engine.quantization_cases import NetBuilder, normal, opened
from tests.engine.recovery_cases import context_of

SCALES = np.linspace(0.1, 3, 8).astype(np.float32)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """x [n, 8] of unequal columns -> Gemm 12 -> Relu -> Gemm 3."""
    folder = tmp_path_factory.mktemp("sparse")
    net = NetBuilder(3)
    x = net.op("Relu", net.gemm("x", "a", 8, 12), name="relu")
    graph = opened(net.model({"x": ["n", 8]}, [net.gemm(x, "b", 12, 3)]), folder)
    return graph, context_of(graph, folder, "fp32", x=normal(64, 8) * SCALES)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    net = NetBuilder(4)
    graph = opened(net.model({"x": ["n", 10, 6, 6]}, [net.conv("x", "c", 10, 4)]), folder)
    return graph, context_of(graph, folder, "fp32", x=normal(8, 10, 6, 6))


def run(case, **settings):
    graph, context = case
    return sparsify(
        graph, context, SparsifySettings(**settings), reporter=NULL_REPORTER, cancel=never_cancelled()
    )


def weights_of(graph):
    return {tensor.name: np.asarray(as_array(tensor)) for tensor in graph.proto.graph.initializer}


def test_that_the_smallest_weights_of_each_channel_become_zero(case):
    before, after = weights_of(case[0]), weights_of(run(case, share=0.25, score=Score.MAGNITUDE).graph)
    expected = before["a.w"].copy()
    for column in range(12):
        expected[np.argsort(np.abs(expected[:, column]))[:2], column] = 0
    np.testing.assert_array_equal(after["a.w"], expected)
    np.testing.assert_array_equal(after["a.b"], before["a.b"])


def test_that_a_weight_matters_by_what_it_multiplies(case):
    before, after = weights_of(case[0]), weights_of(run(case, share=0.5).graph)
    x = normal(64, 8) * SCALES
    score = np.abs(before["a.w"]) * np.sqrt((x.astype(np.float64) ** 2).sum(0))[:, None]
    expected = before["a.w"].copy()
    for column in range(12):
        expected[np.argsort(score[:, column])[:4], column] = 0
    np.testing.assert_array_equal(after["a.w"], expected)


@pytest.mark.parametrize("pattern", [Pattern.TWO_OF_FOUR, Pattern.FOUR_OF_EIGHT, Pattern.ONE_OF_FOUR])
def test_that_a_pattern_is_kept_along_the_inputs(pattern, images):
    outcome = run(images, pattern=pattern)
    weight = weights_of(outcome.graph)["c.w"]
    left, of = pattern.block
    whole = 10 // of * of
    blocks = weight[:, :whole].reshape(4, whole // of, of, 3, 3)
    assert ((blocks != 0).sum(axis=2) == left).all()
    assert (weight[:, whole:] != 0).all()
    assert "dense" in outcome.summary


def test_that_the_same_run_gives_the_same_graph(case):
    assert run(case).graph.digest == run(case).graph.digest


def test_that_layers_named_to_keep_are_whole(case):
    outcome = run(case, keep="b")
    assert list(outcome.details["layers"]) == ["a"]
    with pytest.raises(RecipeError, match="matches no layer"):
        run(case, keep="z*")


def test_that_inputs_that_are_not_finite_are_refused(tmp_path):
    net = NetBuilder()
    x = net.op("Exp", "x", name="exp")
    graph = opened(net.model({"x": ["n", 8]}, [net.gemm(x, "a", 8, 3)]), tmp_path)
    with pytest.raises(CalibrationError, match="not finite"):
        run((graph, context_of(graph, tmp_path, "fp32", x=np.full((4, 8), 1e4, np.float32))))


@pytest.mark.parametrize("name", ["prune", "sparsify"])
def test_that_steps_that_compress_say_so_and_refuse_bad_settings(name):
    definition = find_steps()[name]
    assert definition.info.group is StepGroup.COMPRESS
    assert not definition.info.keeps_outputs
    assert definition.info.source
    with pytest.raises(RecipeError, match="has no setting"):
        definition.settings_of(Step(name, {"ratio": 0.5}))
