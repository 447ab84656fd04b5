"""Fake quantization in torch: the same values as the emitted file, by ONNX Runtime's unoptimized run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch

from quantstudio.core.effective_plan import resolve
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.torch_graph.rounding import fake_quantized, rounded
from tests.engine.quantization_cases import (
    NetBuilder,
    attention_net,
    branch_model,
    normal,
    opened,
    outputs_of,
    relative_error,
    residual_net,
    statistics_of,
)

PLAIN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def gemm_net():
    """Products in every spelling: transposed, scaled, with a shared weight, and with Adds of constants."""
    net = NetBuilder(3)
    x = net.op("Relu", net.gemm("x", "first", 8, 16, transB=1, alpha=0.5, beta=2.0), name="relu")
    x = net.op("Add", x, net.weight("shift", 16), name="shifted")
    same = net.op("MatMul", x, net.weight("square", 16, 16, scale=0.3), name="once")
    twice = net.op("MatMul", net.op("Relu", same, name="relu2"), "square", name="twice")
    wide = net.op("Concat", twice, same, name="joined", axis=1)
    net.op("Gemm", wide, net.weight("last.w", 32, 4), name="last")
    net.op("Sigmoid", twice, name="side")
    return net.model({"x": ["n", 8]}, ["last_out", "side_out"])


def lstm_net():
    net = NetBuilder(5)
    w, r = net.weight("w", 1, 16, 6), net.weight("r", 1, 16, 4)
    net.op("LSTM", "x", w, r, name="lstm", hidden_size=4)
    net.op("Relu", "lstm_out", name="relu")
    return net.model({"x": [5, "n", 6]}, ["relu_out"])


NETS = {
    "residual": (residual_net, {"x": normal(6, 3, 12, 12)}),
    "products": (gemm_net, {"x": normal(16, 8)}),
    "attention": (attention_net, {"x": normal(4, 6, 32)}),
    "branches": (branch_model, {"x": normal(9, 16), "flag": np.array(True)}),
    "lstm": (lstm_net, {"x": normal(5, 3, 6)}),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            build, feed = NETS[name]
            graph = opened(build(), tmp_path_factory.mktemp(name))
            made[name] = (graph, statistics_of(graph, feed), feed)
        return made[name]

    return get


def plan_of(graph, scheme, **options):
    return resolve(uniform_recipe(NAMED_SCHEMES[scheme], **options), graph.layers)


SCHEMES = {
    "residual": "static-int8 static-int4 static-int4-a4 static-codebook2 weight-int4 fp16",
    "products": "static-int8 static-int4-a4 dynamic-int8 dynamic-codebook3 weight-int4 static-binary",
    "attention": "static-int8 static-int4-a4 dynamic-int8 weight-int8",
    "branches": "dynamic-int8 weight-int8",
    "lstm": "weight-int8",
}
CASES = [(net, scheme) for net, schemes in SCHEMES.items() for scheme in schemes.split()]


@pytest.mark.parametrize(("net", "scheme"), CASES, ids=[f"{net}-{scheme}" for net, scheme in CASES])
def test_that_the_module_computes_what_the_file_does(cases, net, scheme):
    graph, statistics, feed = cases(net)
    plan = plan_of(graph, scheme)
    expected = outputs_of(emit(graph, statistics, plan), feed, PLAIN)
    module = FakeQuantized(graph, statistics, plan)
    with torch.no_grad():
        found = module.run(feed)
    for name, value in zip(module.network.output_names, expected, strict=True):
        # A sum that falls on the other side of half a step moves one value of a tensor by one step.
        assert relative_error(value, found[name].numpy()) < 0.01, name


def test_that_old_recipes_keep_their_narrow_grids(cases):
    graph, statistics, feed = cases("products")
    plan = resolve(replace(uniform_recipe(NAMED_SCHEMES["static-int2"]), emission=1), graph.layers)
    expected = outputs_of(emit(graph, statistics, plan), feed, PLAIN)
    with torch.no_grad():
        found = FakeQuantized(graph, statistics, plan).run(feed)
    assert relative_error(expected[0], found["last_out"].numpy()) < 0.01


def test_that_four_bit_activations_are_far_from_the_float_network(cases):
    graph, statistics, feed = cases("residual")
    module = FakeQuantized(graph, statistics, plan_of(graph, "static-int4-a4"))
    with torch.no_grad():
        quantized = module.run(feed)["head_out"].numpy()
    assert relative_error(outputs_of(graph.proto, feed)[0], quantized) > 0.05


def test_that_without_activations_only_weights_are_rounded(cases):
    graph, statistics, feed = cases("residual")
    module = FakeQuantized(graph, statistics, plan_of(graph, "static-int8"))
    module.activations = False
    weight = module.network.initializer("stem.w")
    off = (module.weights["stem", 1] - weight).abs().amax()
    assert 0 < off <= weight.abs().amax() / 63
    with torch.no_grad():
        found = module.run(feed)["head_out"].numpy()
        module.activations = True
        rounded_too = module.run(feed)["head_out"].numpy()
    expected = outputs_of(graph.proto, feed)[0]
    assert 0 < relative_error(expected, found) < relative_error(expected, rounded_too)


def test_that_gradients_reach_the_weights_behind_rounded_activations(cases):
    graph, statistics, feed = cases("residual")
    module = FakeQuantized(graph, statistics, plan_of(graph, "static-int4-a4"))
    weight = module.weights["stem", 1].clone().requires_grad_(True)
    module.weights["stem", 1] = weight
    module.run(feed)["head_out"].square().mean().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().max()) > 0


def test_that_dropped_rounding_lies_between_float_and_rounded(cases):
    graph, statistics, feed = cases("residual")
    module = FakeQuantized(graph, statistics, plan_of(graph, "static-int8-a4"))
    expected = outputs_of(graph.proto, feed)[0]
    errors = []
    with torch.no_grad():
        for share in (0.0, 0.5, 1.0):
            module.dropped, module.generator = share, torch.Generator().manual_seed(0)
            errors.append(relative_error(expected, module.run(feed)["head_out"].numpy()))
    assert errors[0] > errors[1] > errors[2]


def test_that_a_part_of_the_network_goes_on_from_inner_tensors(cases):
    graph, statistics, feed = cases("residual")
    module = FakeQuantized(graph, statistics, plan_of(graph, "static-int8"))
    with torch.no_grad():
        inner = module.run(feed, ["stem_relu_out", "head_out"])
        rest = module.network.run_part({"stem_relu_out": inner["stem_relu_out"]}, ["head_out"])
    np.testing.assert_allclose(rest["head_out"].numpy(), inner["head_out"].numpy(), atol=1e-5)


def test_that_rounding_passes_gradients_inside_its_range_only():
    x = torch.tensor([-3.0, 0.26, 0.74, 9.0], requires_grad=True)
    y = fake_quantized(x, 0.5, 1, 0, 15)
    assert y.tolist() == [-0.5, 0.5, 0.5, 7.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    z = torch.tensor([0.5, 1.5], requires_grad=True)
    (rounded(z) * torch.tensor([2.0, 3.0])).sum().backward()
    assert z.grad is not None
    assert (rounded(z).tolist(), z.grad.tolist()) == ([0.0, 2.0], [2.0, 3.0])
