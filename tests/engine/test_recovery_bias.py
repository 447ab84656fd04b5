"""Bias correction: shifts worked out by hand, and quantized means that are those of the float network."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import NULL_REPORTER, CancelToken, NullReporter
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP32,
    ActivationPrecision,
    Granularity,
    LayerScheme,
    Precision,
)
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.graph.runtime import Optimization, open_session, run
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.recovery.bias import BiasSettings, Inputs, correct_biases
from quantstudio.engine.recovery.bias_targets import find_targets
from tests.engine.quantization_cases import NetBuilder, normal, opened

INT2 = LayerScheme(Precision.INT2, granularity=Granularity.PER_TENSOR)
INT4 = LayerScheme(Precision.INT4, ActivationPrecision.INT8, Granularity.PER_TENSOR)


def context_of(graph, tmp_path, recipe, **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    dataset = open_dataset(DataSpec(str(tmp_path / "data.npz")), graph.summary.inputs)
    return StepContext(
        resolve(recipe, graph.layers), data=dataset, collect=lambda graph: calibrate(graph, dataset)
    )


def corrected(graph, context, cancel=None, **options):
    return correct_biases(
        graph, context, BiasSettings(**options), reporter=NULL_REPORTER, cancel=cancel or CancelToken()
    )


def constant(graph, name):
    return next(as_array(t) for t in graph.proto.graph.initializer if t.name == name)


def two_products(bias=True):
    """x [., 1] -> Gemm [1, 2] -> Gemm [2, 1]; at 2 bits w1 becomes (1, 0) and w2 (2, 0)."""
    net = NetBuilder()
    net.constant("w1", np.array([[1.0, 0.25]], np.float32))
    net.constant("b1", np.array([10.0, 20.0], np.float32))
    net.constant("w2", np.array([[2.0], [0.5]], np.float32))
    hidden = net.op("Gemm", "x", "w1", *(["b1"] if bias else []), name="first")
    net.op("Gemm", hidden, "w2", name="second")
    return net.model({"x": ["n", 1]}, ["second_out"])


X = np.array([[0.0], [4.0], [8.0]], np.float32)  # mean 4


@pytest.mark.parametrize("inputs", list(Inputs))
def test_that_the_shift_of_a_layer_is_its_weight_error_times_its_mean_input(tmp_path, inputs):
    graph = opened(two_products(), tmp_path)
    outcome = corrected(graph, context_of(graph, tmp_path, uniform_recipe(INT2), x=X), inputs=inputs)
    # First: channel 1 loses 0.25 * 4 = 1. Second: 0.5 times a mean of 20 + 0.25 * 4 = 21 is lost: 10.5.
    np.testing.assert_allclose(constant(outcome.graph, "b1"), [10.0, 21.0], rtol=1e-6)
    np.testing.assert_allclose(constant(outcome.graph, "second_bias"), [10.5], rtol=1e-6)
    assert outcome.details["layers"] == 2
    assert outcome.summary.startswith("Corrected the biases of 2 layers: outputs were off by ")


def test_that_every_layer_says_how_far_off_it_was_and_what_is_left(tmp_path):
    class Told(NullReporter):
        def __init__(self):
            self.parts = []

        def found(self, part):
            self.parts.append(part)

    told = Told()
    graph = opened(two_products(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT2), x=X)
    outcome = correct_biases(graph, context, BiasSettings(), reporter=told, cancel=CancelToken())
    first, second, *checked = told.parts
    assert [(first.layer, first.after), (second.layer, second.after)] == [("first", None), ("second", None)]
    assert [part.layer for part in checked] == ["first", "second"]
    assert [part.before for part in checked] == list(outcome.details["shift"].values())
    assert all(part.after < 1e-6 < part.before for part in checked)


def test_that_a_layer_without_a_bias_gets_one(tmp_path):
    graph = opened(two_products(bias=False), tmp_path)
    outcome = corrected(graph, context_of(graph, tmp_path, uniform_recipe(INT2), x=X))
    np.testing.assert_allclose(constant(outcome.graph, "first_bias"), [0.0, 1.0], rtol=1e-6)


def test_that_float_layers_keep_their_biases(tmp_path):
    graph = opened(two_products(), tmp_path)
    recipe = uniform_recipe(INT2).assign(["second"], FP32)
    outcome = corrected(graph, context_of(graph, tmp_path, recipe, x=X))
    assert list(outcome.details["shift"]) == ["first"]
    nothing = corrected(graph, context_of(graph, tmp_path, uniform_recipe(FP32), x=X))
    assert nothing.graph is graph
    assert nothing.summary == "No layer with a bias is quantized: nothing to correct."


def test_that_only_the_samples_asked_for_are_looked_at(tmp_path):
    graph = opened(two_products(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT2), x=X)
    outcome = corrected(graph, context, samples=2)  # mean 2
    np.testing.assert_allclose(constant(outcome.graph, "b1"), [10.0, 20.5], rtol=1e-6)
    assert outcome.details["samples"] == 2


def branches():
    """Convolutions with and without bias, depthwise, a shortcut, a product."""
    net = NetBuilder()
    x = net.op("Relu", net.conv("x", "stem", 3, 8), name="relu1")
    y = net.op("Relu", net.conv(x, "depth", 8, 8, group=8, bias=False), name="relu2")
    y = net.op("Add", net.conv(y, "point", 8, 8, kernel=1), x, name="sum")
    y = net.op("Flatten", net.op("GlobalAveragePool", y, name="pool"), name="flatten")
    y = net.op("Add", net.matmul(y, "head", 8, 5), net.weight("head.bias", 5), name="add")
    return net.model({"x": ["n", 3, 6, 6]}, [y])


def means(model, outputs, feed):
    for name in outputs:
        model.graph.output.add(name=name)
    session = open_session(model.SerializeToString(), optimization=Optimization.BASIC)
    found = run(session, feed, outputs)
    return [one.astype(np.float64).mean(axis=(0, *range(2, one.ndim))) for one in found]


@pytest.mark.parametrize("scheme", [INT4, INT2, DYNAMIC_INT8], ids=lambda scheme: scheme.label)
def test_that_quantized_means_become_those_of_the_float_network(tmp_path, scheme):
    graph = opened(branches(), tmp_path)
    feed = {"x": normal(40, 3, 6, 6) + 1}
    recipe = uniform_recipe(scheme)
    context = context_of(graph, tmp_path, recipe, **feed)
    outcome = corrected(graph, context)
    statistics = context.statistics(graph) if context.plan.is_static else None
    names = [target.output for target in find_targets(graph) if target.layer in outcome.details["shift"]]
    expected = means(graph.proto, names, feed)
    before = means(emit(graph, statistics, context.plan), names, feed)
    after = means(emit(outcome.graph, statistics, context.plan), names, feed)
    for position in range(len(names)):
        left = np.abs(after[position] - expected[position]).max()
        assert left <= 0.02 * np.abs(before[position] - expected[position]).max() + 2e-3


def test_that_a_bias_that_two_layers_share_is_parted(tmp_path):
    net = NetBuilder()
    hidden = net.op("Relu", net.conv("x", "a", 4, 4), name="relu")
    x = net.op("Conv", hidden, net.weight("b.w", 4, 4, 3, 3), "a.b", name="b", pads=[1] * 4)
    graph = opened(net.model({"x": ["n", 4, 5, 5]}, [x]), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT4), x=normal(8, 4, 5, 5))
    outcome = corrected(graph, context)
    names = [node.input[2] for node in outcome.graph.proto.graph.node if node.op_type == "Conv"]
    assert len(set(names)) == 2


def test_that_a_fixed_batch_counts_no_sample_twice(tmp_path):
    net = NetBuilder()
    net.constant("w", np.array([[1.0, 0.25]], np.float32))
    net.op("Gemm", "x", "w", name="only")
    graph = opened(net.model({"x": [2, 1]}, ["only_out"]), tmp_path)
    outcome = corrected(graph, context_of(graph, tmp_path, uniform_recipe(INT2), x=X))
    np.testing.assert_allclose(constant(outcome.graph, "only_bias"), [0.0, 1.0], rtol=1e-6)


def test_that_the_same_inputs_give_the_same_graph(tmp_path):
    graph = opened(branches(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT4), x=normal(20, 3, 6, 6))
    assert corrected(graph, context).graph.digest == corrected(graph, context).graph.digest


def test_that_a_set_token_ends_it(tmp_path):
    graph = opened(branches(), tmp_path)
    context = context_of(graph, tmp_path, uniform_recipe(INT4), x=normal(20, 3, 6, 6))
    context.statistics(graph)
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        corrected(graph, context, token)
