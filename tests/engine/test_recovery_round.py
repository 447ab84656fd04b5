"""Block-wise soft rounding: weights on one of two levels, chosen by what their block gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantstudio.core.errors import DataError, JobCancelled
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.quantization.written_weights import ScaleLayout
from quantstudio.engine.recovery.blocks import find_blocks
from quantstudio.engine.recovery.round_blocks import round_blocks
from quantstudio.engine.recovery.soft_rounding import SoftWeight, exponent_at, other_levels
from quantstudio.engine.recovery.training_settings import RoundSettings
from quantstudio.engine.torch_graph.module import TorchGraph
from tests.engine.quantization_cases import NetBuilder, attention_net, opened, residual_net
from tests.engine.recovery_cases import Told, classifier, context_of, divergence

ITERATIONS = 100


def ran(graph, context, reporter=NULL_REPORTER, cancel=None):
    settings = RoundSettings(iterations=ITERATIONS)
    return round_blocks(graph, context, settings, reporter=reporter, cancel=cancel or CancelToken())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("net")


@pytest.fixture(scope="module")
def graph(folder):
    return opened(classifier(), folder)


@pytest.fixture(scope="module")
def done(graph, folder):
    made = {}

    def get(scheme):
        if scheme not in made:
            context, told = context_of(graph, folder, scheme, 256), Told()
            made[scheme] = (ran(graph, context, told), context, told)
        return made[scheme]

    return get


@pytest.mark.parametrize("scheme", ["static-int3", "static-int4-a4", "static-codebook2"])
def test_that_the_emitted_file_comes_nearer_to_the_float_network(graph, done, scheme):
    outcome, context, told = done(scheme)
    assert divergence(outcome.graph, context, graph) < divergence(graph, context, graph)
    assert outcome.details["after"] < outcome.details["before"]
    assert outcome.summary.startswith("Rounded 1 block anew: ")
    assert [row.layer for row in told.layers] == ["a", "b", "c"]


def weights(graph):
    return {tensor.name: as_array(tensor) for tensor in graph.proto.graph.initializer}


def test_that_every_weight_lies_on_one_of_its_two_nearest_levels(graph, done):
    outcome, _, _ = done("static-int3")
    before, after = weights(graph)["b.w"], weights(outcome.graph)["b.w"]
    for old, new in zip(before.T, after.T, strict=True):
        step = min(np.diff(np.unique(new)))
        np.testing.assert_allclose(new / step, np.rint(new / step), atol=1e-3)
        assert (np.abs(new - np.clip(old, new.min(), new.max())) < 1.001 * step).all()


def test_that_a_codebook_keeps_its_entries(graph, done):
    outcome, _, _ = done("static-codebook2")
    for row in weights(outcome.graph)["b.w"].T:
        codes = 63 * row / np.abs(row).max()
        assert len(np.unique(row)) <= 4
        np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)


def test_that_the_same_seed_gives_the_same_bytes(graph, done):
    outcome, context, _ = done("static-int3")
    assert ran(graph, context).graph.digest == outcome.graph.digest


def test_that_a_float_plan_leaves_nothing_to_round(graph, folder):
    assert ran(graph, context_of(graph, folder, "fp16")).summary.startswith("No layer has integer weights")


def test_that_one_sample_is_refused_in_one_line(graph, tmp_path):
    with pytest.raises(DataError, match="one sample is not enough"):
        ran(graph, context_of(graph, tmp_path, "static-int3", 1))


def test_that_a_run_is_cancelled(graph, done):
    _, context, _ = done("static-int3")
    cancel = CancelToken()
    cancel.set()
    with pytest.raises(JobCancelled):
        ran(graph, context, cancel=cancel)


def blocks_of(model, folder, **kinds):
    graph = opened(model, folder)
    network = TorchGraph(graph.proto)
    layers = {layer.name for layer in graph.layers if layer.quantizable}
    return find_blocks(network, layers, {name for node in network.nodes for name in node.outputs})


def test_that_blocks_end_where_one_tensor_carries_everything(tmp_path):
    found = [(block.start, block.output, block.layers) for block in blocks_of(residual_net(), tmp_path)]
    assert found == [
        (("x",), "pool_out", ("stem", "block1", "block2")),
        (("pool_out",), "head_out", ("depthwise", "point", "head")),
    ]


def test_that_attention_is_a_block_and_its_perceptron_another(tmp_path):
    assert [block.layers for block in blocks_of(attention_net(), tmp_path)] == [
        ("query", "key", "value", "scores", "context"),
        ("up", "down"),
    ]


def test_that_layers_without_a_cut_between_them_are_blocks_of_their_own(tmp_path):
    net = NetBuilder()
    x = "x"
    for place in range(10):
        x = net.op("Add", net.matmul(x, f"m{place}", 4, 4), "x", name=f"add{place}")
    found = blocks_of(net.model({"x": ["n", 4]}, [x]), tmp_path)
    assert [block.layers for block in found] == [*[(f"m{place}",) for place in range(10)], ()]
    assert found[1].inputs == ("add0_out",)
    assert [block.is_last for block in found] == [False] * 10 + [True]


def test_that_the_other_level_lies_towards_the_float_weight_and_on_the_grid():
    scheme = NAMED_SCHEMES["static-int2"]
    layout = ScaleLayout(0, 0, np.array([0.5], np.float32))
    written = torch.tensor([[-1.0, 0.0, 0.5, 0.5]])
    wanted = torch.tensor([[-1.2, 0.1, 0.3, 0.6]])
    # The grid is -1, -0.5, 0, 0.5: at its ends the only neighbour is inside.
    assert other_levels(written, wanted, layout, scheme, 7).tolist() == [[-0.5, 0.5, 0.0, 0.0]]
    book = other_levels(written, wanted, layout, NAMED_SCHEMES["static-codebook2"], 7)
    assert book.tolist() == [[0.0, 0.5, 0.0, 0.0]]


def test_that_a_weight_starts_at_its_float_value_and_ends_on_a_level():
    written, wanted = torch.tensor([0.0, 1.0]), torch.tensor([0.3, 0.6])
    soft = SoftWeight(written, wanted, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(soft.value(), wanted)
    assert soft.chosen().tolist() == [0.0, 1.0]
    with torch.no_grad():
        soft.parameter.copy_(torch.tensor([9.0, -9.0]))
    assert soft.chosen().tolist() == [1.0, 1.0]
    assert soft.penalty(2.0).item() == 0.0
    assert (exponent_at(0.1), exponent_at(0.2), exponent_at(1.0)) == (None, 8.0, 2.0)
