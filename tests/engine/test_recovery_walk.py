"""The walk on two paths: what it computes, and what it holds meanwhile."""

from __future__ import annotations

import pytest
import torch

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.walk import TwoPathWalk
from tests.engine.quantization_cases import NetBuilder, normal, opened, statistics_of

CHUNKS = [normal(4, 3, 5, 5, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Three convolutions in a row, the last behind a residual of the first."""
    net = NetBuilder()
    first = net.op("Relu", net.conv("x", "a", 3, 8), name="relu_a")
    second = net.op("Relu", net.conv(first, "b", 8, 8), name="relu_b")
    y = net.op("Add", second, first, name="sum")
    return opened(net.model({"x": ["n", 3, 5, 5]}, [net.conv(y, "c", 8, 4)]), tmp_path_factory.mktemp("walk"))


def walk_of(graph, recipe, cancel=None):
    statistics = statistics_of(graph, *({"x": x} for x in CHUNKS))
    fake = FakeQuantized(graph, statistics, resolve(recipe, graph.layers))
    return TwoPathWalk(fake, [{"x": torch.from_numpy(x)} for x in CHUNKS], cancel or CancelToken()), fake


@torch.no_grad()
def test_that_a_path_that_changes_nothing_is_held_once(graph):
    walk, fake = walk_of(graph, Recipe())
    for node in walk.nodes[:-1]:
        for _ in walk.step(node):
            pass
    for chunk, x in zip(walk.chunks, CHUNKS, strict=True):
        (name,) = chunk.real
        real, quantized = chunk.both(name)
        assert real is quantized
        torch.testing.assert_close(real, fake.network.run({"x": x}, [name])[name])


@torch.no_grad()
def test_that_the_quantized_path_is_the_network_rounded_as_planned(graph):
    walk, fake = walk_of(graph, uniform_recipe(STATIC_INT8))
    hooked = FakeQuantized(
        graph,
        statistics_of(graph, *({"x": x} for x in CHUNKS)),
        resolve(uniform_recipe(STATIC_INT8), graph.layers),
    )
    held = []
    for node in walk.nodes[:-1]:
        for _ in walk.step(node):
            pass
        held.append(max(len(chunk.real) for chunk in walk.chunks))
    assert max(held) == 2, "the residual and what is computed"
    for chunk, x in zip(walk.chunks, CHUNKS, strict=True):
        name = walk.nodes[-1].inputs[0]
        real, quantized = chunk.both(name)
        # Biases are on their 32-bit grids there: a value in a hundred may fall on the next step.
        expected = hooked.run({"x": x}, [name])[name]
        assert ((quantized - expected).abs() > 1e-4).float().mean() < 0.01
        torch.testing.assert_close(real, fake.network.run({"x": x}, [name])[name])
        assert not torch.equal(real, quantized)


@torch.no_grad()
def test_that_a_cancelled_walk_stops_at_the_next_chunk(graph):
    cancel = CancelToken()
    walk, _ = walk_of(graph, Recipe(), cancel)
    steps = walk.step(walk.nodes[0])
    next(steps)
    cancel.set()
    with pytest.raises(JobCancelled):
        next(steps)
