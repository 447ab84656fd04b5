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
from quantstudio.engine.recovery import walk as walk_module
from quantstudio.engine.recovery.held import Packed, packed
from quantstudio.engine.recovery.walk import TwoPathWalk, samples_at_once
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


def held_along(graph):
    """Bytes waiting behind every node of a quantized walk, and what the last node reads, chunk by chunk."""
    walk, _ = walk_of(graph, uniform_recipe(STATIC_INT8))
    held = []
    for node in walk.nodes[:-1]:
        for _ in walk.step(node):
            pass
        held.append(sum(chunk.held_bytes for chunk in walk.chunks))
    return held, [walk.inputs(walk.nodes[-1], chunk) for chunk in walk.chunks]


@torch.no_grad()
def test_that_large_tensors_wait_in_fewer_bytes_and_are_read_as_they_were(graph, monkeypatch):
    plain, expected = held_along(graph)
    monkeypatch.setattr(walk_module, "LARGE_BYTES", 0)
    small, found = held_along(graph)
    assert max(small) < 0.5 * max(plain), "three bytes where there were eight"
    for (real, quantized), (real_before, quantized_before) in zip(found, expected, strict=True):
        torch.testing.assert_close(real[0], real_before[0], rtol=0, atol=0.005)
        # What was rounded to integers comes back to the bit; the halves before it may fall on a step beside.
        assert (quantized[0] != quantized_before[0]).float().mean() < 0.02


@torch.no_grad()
def test_that_a_tensor_that_is_the_same_on_both_paths_is_packed_and_read_once(graph, monkeypatch):
    monkeypatch.setattr(walk_module, "LARGE_BYTES", 0)
    walk, _ = walk_of(graph, Recipe())
    for node in walk.nodes[:-1]:
        for _ in walk.step(node):
            pass
    for chunk in walk.chunks:
        (name,) = chunk.real
        assert isinstance(chunk.real[name], Packed)
        real, quantized = chunk.both(name)
        assert real is quantized


@torch.no_grad()
def test_that_a_shift_given_with_the_last_chunk_is_in_what_is_read_behind(graph):
    walk, _ = walk_of(graph, Recipe())
    first = walk.nodes[0]
    for chunk in walk.step(first, waits=True):
        if chunk is walk.chunks[-1]:
            walk.shifts[first.outputs[0]] = torch.ones(1, 8, 1, 1)
    for chunk in walk.chunks:
        real, quantized = chunk.both(first.outputs[0])
        torch.testing.assert_close(quantized, real + 1)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e9])
def test_that_halves_keep_eleven_bits_whatever_the_size_of_a_tensor(scale):
    value = torch.from_numpy(normal(40, 7, seed=1)) * scale
    found = packed(value, None)
    assert isinstance(found, Packed)
    assert found.stored.dtype == torch.float16
    torch.testing.assert_close(found.value(), value, rtol=2**-11, atol=1e-6 * scale)


@pytest.mark.parametrize(
    "value", [torch.tensor([1.0, torch.inf]), torch.tensor([torch.nan]), torch.ones(3).long()]
)
def test_that_what_halves_cannot_hold_stays_as_it_is(value):
    assert packed(value, None) is value


def test_that_fewer_samples_go_at_once_where_their_tensors_are_large(graph, monkeypatch):
    assert samples_at_once(graph) == 32
    monkeypatch.setattr(walk_module, "_CHUNK_BYTES", 5 * 4 * 8 * 25)
    assert samples_at_once(graph) == 5
    monkeypatch.setattr(walk_module, "_CHUNK_BYTES", 1)
    assert samples_at_once(graph) == 1


@torch.no_grad()
def test_that_what_was_freed_goes_back_to_the_system_where_tensors_are_large(graph, monkeypatch):
    given = []
    monkeypatch.setattr(walk_module, "give_back", lambda: given.append(1))
    held_along(graph)
    assert not given
    monkeypatch.setattr(walk_module, "LARGE_BYTES", 0)
    held_along(graph)
    assert given
