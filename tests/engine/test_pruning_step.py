"""Pruning by budget: what matters, what is taken for it, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.errors import JobCancelled, QuantStudioError, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken, never_cancelled
from quantstudio.engine.compression.allocation import Allocator, Rounding
from quantstudio.engine.compression.costs import byte_costs, work_costs
from quantstudio.engine.compression.dependencies import dependencies
from quantstudio.engine.compression.importance import by_answers, by_weights
from quantstudio.engine.compression.prune import prune
from quantstudio.engine.compression.pruning_settings import Budget, Criterion, PruneSettings
from quantstudio.engine.compression.surgery import without_units
from tests.engine.pruning_networks import resnet
from tests.engine.quantization_cases import NetBuilder, normal, opened, outputs_of
from tests.engine.recovery_cases import context_of


def two_layers(folder, hidden=16):
    """x [n, 8] -> Gemm hidden -> Relu -> Gemm 3."""
    net = NetBuilder(3)
    x = net.op("Relu", net.gemm("x", "a", 8, hidden), name="relu")
    return opened(net.model({"x": ["n", 8]}, [net.gemm(x, "b", hidden, 3)]), folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    graph = two_layers(folder)
    labels = np.random.default_rng(0).integers(0, 3, 64)
    return graph, context_of(graph, folder, "fp32", x=normal(64, 8), labels=labels)


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("residual")
    graph = opened(resnet()[0], folder)
    return graph, context_of(graph, folder, "fp32", x=normal(32, 3, 8, 8))


def run(case, **settings):
    graph, context = case
    return prune(graph, context, PruneSettings(**settings), reporter=NULL_REPORTER, cancel=never_cancelled())


def measured(case, criterion):
    graph, context = case
    return by_answers(
        graph,
        dependencies(graph.proto),
        context.dataset,
        criterion=criterion,
        samples=64,
        seed=0,
        device="cpu",
        reporter=NULL_REPORTER,
        cancel=never_cancelled(),
    )


def weights_of(graph):
    return {
        t.name: np.frombuffer(t.raw_data, np.float32).reshape(t.dims) for t in graph.proto.graph.initializer
    }


def test_that_taylor_is_the_squared_gradient_by_a_unit_s_factor(small):
    graph, context = small
    w = weights_of(graph)
    x, labels = normal(64, 8), context.dataset.labels
    hidden = np.maximum(x @ w["a.w"] + w["a.b"], 0)
    scores = hidden @ w["b.w"] + w["b.b"]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    p[np.arange(64), labels] -= 1
    expected = ((hidden * (p @ w["b.w"].T)) ** 2).mean(0)
    found = measured(small, Criterion.TAYLOR)
    assert found.is_labelled
    np.testing.assert_allclose(found.importance["a"], expected, rtol=1e-4, atol=1e-9)


def test_that_fisher_is_the_curvature_of_what_a_unit_adds(small):
    graph, _context = small
    w = weights_of(graph)
    hidden = np.maximum(normal(64, 8) @ w["a.w"] + w["a.b"], 0)
    scores = hidden @ w["b.w"] + w["b.b"]
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    # Half the variance, over the classes, of what a unit adds to the scores: exact in expectation.
    effect = hidden[:, :, None] * w["b.w"][None]
    mean = (p[:, None] * effect).sum(2)
    expected = 0.5 * ((p[:, None] * effect**2).sum(2) - mean**2).mean(0)
    found = measured(small, Criterion.FISHER).importance["a"]
    # One draw of signs a sample: 64 of them tell a figure to about a fifth.
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    assert found.sum() == pytest.approx(expected.sum(), rel=0.3)


def test_that_magnitude_is_the_mean_energy_of_a_unit_s_weights(small):
    graph, _context = small
    w = weights_of(graph)
    rows, columns = (w["a.w"] ** 2).sum(0), (w["b.w"] ** 2).sum(1)
    expected = (rows / rows.mean() + columns / columns.mean()) / 2
    np.testing.assert_allclose(by_weights(graph, dependencies(graph.proto))["a"], expected, rtol=1e-5)


def test_that_costs_are_those_of_the_graph_without_the_units(residual):
    graph, _context = residual
    found = dependencies(graph.proto)
    rng = np.random.default_rng(0)
    gone = {}
    for group in found.prunable:
        gone[group.name] = np.zeros(group.units, dtype=bool)
        gone[group.name][rng.permutation(group.units)[: group.units // 2]] = True
    counts = np.array([gone[group.name].sum() for group in found.prunable], dtype=float)
    pruned = without_units(graph, found, gone, "Cut")
    assert work_costs(found).after(counts) == sum(layer.macs or 0 for layer in pruned.layers)
    # Shapes that a Reshape is given a constant of its own for are not counted.
    assert byte_costs(graph, found).after(counts) == pruned.summary.weight_bytes


def test_that_the_units_go_that_matter_least_for_what_they_save(small):
    graph, _context = small
    found = dependencies(graph.proto)
    importance = {"a": np.arange(16.0)[::-1]}
    allocator = Allocator(found, importance, work_costs(found), Rounding(4, 0.25))
    allocation = allocator.within(0.6 * (8 * 16 + 16 * 3))
    assert np.flatnonzero(allocation.gone["a"]).tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    assert allocation.cost == 8 * 11
    assert allocator.least() == 4 * 11


def test_that_channels_are_left_in_multiples():
    group = dependencies(NetBuilder(0).model({"x": ["n", 1]}, []), {}).prunable
    assert group == ()
    rounding = Rounding(8, 0.2)
    small_net = replace(_group(), units=20)
    assert rounding.allowed(small_net) == [20, 16, 12, 8, 4]
    assert rounding.allowed(replace(_group(), units=40)) == [40, 32, 24, 16, 8]
    assert rounding.allowed(replace(_group(), units=4, width=16)) == [4, 3, 2, 1]


def _group():
    from quantstudio.core.channel_groups import ChannelGroup

    return ChannelGroup("a", 16, 1, ("a",), ("b",))


@pytest.mark.parametrize("budget", [Budget.MACS, Budget.BYTES])
@pytest.mark.parametrize("rounds", [1, 3])
def test_that_a_budget_is_kept_and_the_same_seed_gives_the_same_bytes(budget, rounds, residual):
    outcome = run(residual, budget=budget, amount=0.5, rounds=rounds, round_to=4)
    assert 0.3 < outcome.details[f"{budget}_share"] <= 0.5
    again = run(residual, budget=budget, amount=0.5, rounds=rounds, round_to=4)
    assert again.graph.digest == outcome.graph.digest
    assert outputs_of(outcome.graph.proto, {"x": normal(2, 3, 8, 8)})[0].shape == (2, 5)
    channels = {layer.name: layer.weight_shape[0] for layer in outcome.graph.layers}
    assert channels["head"] == 5
    assert all(channels[name] % 4 == 0 for name in ("stem", "a3", "b2", "b_short"))


def test_that_work_is_counted_at_the_sizes_of_the_data(tmp_path):
    net = NetBuilder(5)
    x = net.op("Relu", net.conv(net.op("Relu", net.conv("x", "a", 2, 16), name="r"), "b", 16, 16), name="s")
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="gap"), name="flat")
    graph = opened(net.model({"x": ["n", 2, "h", "w"]}, [net.gemm(x, "c", 16, 3)]), tmp_path)
    case = graph, context_of(graph, tmp_path, "fp32", x=normal(8, 2, 6, 5))
    outcome = run(case, amount=0.5, rounds=1, round_to=1)
    assert outcome.details["macs"][0] == 30 * 9 * (2 * 16 + 16 * 16) + 16 * 3
    assert 0.3 < outcome.details["macs_share"] <= 0.5


def test_that_the_nearest_budget_that_can_be_reached_is_named_and_can_be_given(residual):
    with pytest.raises(RecipeError, match="nearest is") as told:
        run(residual, amount=0.02, rounds=1)
    nearest = float(str(told.value).split("nearest is ")[1].split()[0].rstrip("."))
    assert run(residual, amount=nearest, rounds=1).details["macs_share"] <= nearest
    with pytest.raises(RecipeError, match="nearest is"):
        run(residual, amount=nearest - 0.01, rounds=5)


def test_that_layers_named_to_keep_are_whole(residual):
    outcome = run(residual, amount=0.6, keep="a1, b*", round_to=2, rounds=1)
    before = {layer.name: layer.weight_shape[0] for layer in residual[0].layers}
    after = {layer.name: layer.weight_shape[0] for layer in outcome.graph.layers}
    assert all(after[name] == before[name] for name in ("a1", "a2", "b1", "b2", "b_short"))
    assert after["stem"] < before["stem"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keep": "nothing*"}, "matches no layer"),
        ({"keep": "*"}, "the nearest is 1"),
        ({"least": 1.0}, "the nearest is 1"),
    ],
)
def test_that_bad_settings_get_one_clear_line(settings, says, small):
    with pytest.raises(RecipeError, match=says):
        run(small, rounds=1, **settings)


def test_that_a_network_without_channels_to_take_says_why(tmp_path):
    net = NetBuilder()
    graph = opened(net.model({"x": ["n", 8]}, [net.gemm("x", "only", 8, 3)]), tmp_path)
    case = graph, context_of(graph, tmp_path, "fp32", x=normal(4, 8))
    with pytest.raises(RecipeError, match="only: an output of the network"):
        run(case)


def test_that_gradients_that_overflow_are_refused(tmp_path):
    net = NetBuilder()
    x = net.op("Gemm", "x", net.constant("w", np.full((8, 16), 3e38, np.float32)), name="a")
    graph = opened(net.model({"x": ["n", 8]}, [net.gemm(x, "b", 16, 3)]), tmp_path)
    case = graph, context_of(graph, tmp_path, "fp32", x=normal(4, 8))
    with pytest.raises(QuantStudioError):
        run(case)


def test_that_all_of_a_budget_leaves_the_graph_as_it_was(small):
    assert run(small, amount=1.0).graph is small[0]


def test_that_a_cancelled_step_stops(small):
    graph, context = small
    token = CancelToken()
    token.set()

    with pytest.raises(JobCancelled):
        prune(graph, context, PruneSettings(), reporter=NULL_REPORTER, cancel=token)


def test_that_a_latency_budget_comes_to_a_share_of_the_work(residual, monkeypatch):
    from quantstudio.core.results import Interval
    from quantstudio.engine.compression import pruning
    from quantstudio.engine.model.open import load_graph

    def timed(paths, _feed, **_options):
        whole, part = (sum(layer.macs or 0 for layer in load_graph(str(path)).layers) for path in paths)
        ratio = 0.2 + 0.8 * part / whole
        return type("Timed", (), {"speedups": (Interval(1, 1, 1), Interval(1 / ratio, 1, 2))})

    monkeypatch.setattr(pruning, "interleaved_latency", timed)
    outcome = run(residual, budget=Budget.LATENCY, amount=0.6, rounds=1, round_to=2)
    assert 0.5 < outcome.details["latency_share"] <= 0.6
    again = run(residual, budget=Budget.MACS, amount=outcome.details["macs_asked"], rounds=1, round_to=2)
    assert again.graph.digest == outcome.graph.digest
    with pytest.raises(RecipeError, match=r"latency 0\.1 is under"):
        run(residual, budget=Budget.LATENCY, amount=0.1, rounds=1)
