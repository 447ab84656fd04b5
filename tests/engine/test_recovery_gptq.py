"""The step `gptq` on small networks: what it writes, that quantizers keep it, and what it leaves alone."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import CalibrationError, JobCancelled, OutputError
from quantstudio.core.events import NULL_REPORTER, CancelToken, NullReporter
from quantstudio.core.precision import ActivationPrecision, Granularity, LayerScheme, Precision, at_weights
from quantstudio.core.recipe import LayerRule, Recipe, uniform_recipe
from quantstudio.core.recovered import LayerRecovered
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.graph.protos import as_array, as_tensor
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.quantization.emit import emit
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery import gptq_run, gptq_store
from quantstudio.engine.recovery.gptq import GptqSettings, choose_weights
from quantstudio.engine.recovery.gptq_run import FELT, MEASURE, GptqRun
from quantstudio.engine.recovery.gptq_store import LayerStore, prune_layers
from quantstudio.engine.recovery.sums import sums_behind
from quantstudio.engine.torch_graph.module import TorchGraph
from tests.engine.quantization_cases import NetBuilder, opened, outputs_of

A8 = ActivationPrecision.INT8
W2A8 = LayerScheme(Precision.INT2, A8)
CODEBOOK2 = at_weights(W2A8, Precision.CODEBOOK2)
TABLE2 = at_weights(W2A8, Precision.TABLE2)
GROUP2 = at_weights(W2A8, Precision.GROUP2)
SAMPLES = 48


def images(count=SAMPLES, channels=3, size=6, seed=3):
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(count, channels, 1, 1)) + 0.5 * rng.normal(size=(count, channels, size, size))
    return smooth.astype(np.float32)


def convolutions(seed=0):
    """Conv, Relu, depthwise Conv, Relu, Conv and a residual, pooled into a Gemm."""
    net = NetBuilder(seed)
    x = net.op("Relu", net.conv("x", "a", 3, 16), name="relu_a")
    y = net.op("Relu", net.conv(x, "b", 16, 16, group=16), name="relu_b")
    y = net.op("Add", net.conv(y, "c", 16, 16, bias=False), x, name="sum")
    y = net.op("Flatten", net.op("GlobalAveragePool", y, name="pool"), name="flat")
    return net.model({"x": ["n", 3, 6, 6]}, [net.gemm(y, "d", 16, 10, transB=1)])


def products(bias=True):
    """Two products of three axes, the first with its bias in an Add."""
    net = NetBuilder(1)
    y = net.matmul("x", "a", 12, 24)
    y = net.op("Add", y, net.weight("a.b", 24), name="a_bias") if bias else y
    return net.model({"x": ["n", 5, 12]}, [net.matmul(net.op("Relu", y, name="relu"), "b", 24, 4)])


def context_of(graph, tmp_path, recipe, x, samples=0):
    np.savez(tmp_path / "data.npz", x=x)
    dataset = open_dataset(DataSpec(str(tmp_path / "data.npz"), samples=samples), graph.summary.inputs)
    recipe = recipe if isinstance(recipe, Recipe) else uniform_recipe(recipe)
    return StepContext(
        resolve(recipe, graph.layers), data=dataset, collect=lambda graph: calibrate(graph, dataset)
    )


def chosen(graph, context, cancel=None, reporter=NULL_REPORTER, **options):
    return choose_weights(
        graph, context, GptqSettings(**options), reporter=reporter, cancel=cancel or CancelToken()
    )


def weight(graph, name):
    return next(as_array(t) for t in graph.proto.graph.initializer if t.name == name)


def written(graph, context):
    """The variant, its data already known."""
    statistics = context.statistics(graph) if context.plan.is_static else None
    return emit(graph, statistics, context.plan)


def error(graph, context, base, x):
    """Noise power of a variant's first output, over the power of the float network's."""
    expected, found = outputs_of(base.proto, {"x": x})[0], outputs_of(written(graph, context), {"x": x})[0]
    return float(((found - expected) ** 2).sum() / (expected**2).sum())


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return opened(convolutions(), tmp_path_factory.mktemp("net"))


@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param(W2A8, id="int2"),
        pytest.param(replace(W2A8, granularity=Granularity.PER_TENSOR), id="int2, one scale"),
        pytest.param(CODEBOOK2, id="codebook2"),
        pytest.param(TABLE2, id="table2"),
        pytest.param(GROUP2, id="group2"),
        pytest.param(at_weights(W2A8, Precision.BINARY), id="binary"),
        pytest.param(LayerScheme(Precision.INT3), id="weights alone"),
        pytest.param(LayerScheme(Precision.INT4, ActivationPrecision.INT4), id="int4, 4-bit activations"),
    ],
)
def test_that_the_file_is_nearer_to_the_float_network_than_with_plain_rounding(net, tmp_path, scheme):
    context = context_of(net, tmp_path, scheme, images())
    outcome = chosen(net, context)
    unseen = images(seed=11)
    assert error(outcome.graph, context, net, unseen) < 0.6 * error(net, context, net, unseen)


@pytest.mark.parametrize("scheme", [W2A8, CODEBOOK2, GROUP2, TABLE2], ids=lambda one: one.weights.name)
def test_that_quantizers_keep_the_very_weights_that_were_chosen(net, tmp_path, scheme):
    context = context_of(net, tmp_path, scheme, images())
    outcome = chosen(net, context)
    fake = FakeQuantized(outcome.graph, context.statistics(outcome.graph), context.plan)
    for name in ("a", "b", "c", "d"):
        kept = fake.weights[name, 1].numpy()
        # Codes are the same; scales are float32, to the last digit or two.
        np.testing.assert_allclose(kept, weight(outcome.graph, f"{name}.w"), rtol=1e-6)


def test_that_products_with_their_bias_behind_them_are_solved(tmp_path):
    graph, x = opened(products(), tmp_path), np.random.default_rng(0).normal(size=(64, 5, 12)) + 0.5
    context = context_of(graph, tmp_path, LayerScheme(Precision.INT2, A8), x.astype(np.float32))
    outcome = chosen(graph, context)
    assert outcome.details["layers"] == 2
    assert not np.array_equal(weight(outcome.graph, "a.b"), weight(graph, "a.b"))
    x = x.astype(np.float32)
    assert error(outcome.graph, context, graph, x) < 0.7 * error(graph, context, graph, x)


def residual():
    """Two blocks on one stream, each added to what comes into it; in between a mean, spread by its Add."""
    net = NetBuilder(6)
    x = net.matmul("x", "in", 12, 24)
    for block in "ab":
        y = net.op("Relu", net.matmul(x, f"{block}1", 24, 24), name=f"relu_{block}")
        y = net.op(
            "Add", net.matmul(y, f"{block}2", 24, 24), net.weight(f"{block}.b", 24), name=f"bias_{block}"
        )
        x = net.op("Add", x, y, name=f"sum_{block}")
    mean = net.op("ReduceMean", x, net.constant("axes", np.array([1])), name="mean")
    x = net.op("Add", net.matmul(x, "c", 24, 24), mean, name="wide")
    return net.model({"x": ["n", 5, 12]}, [net.matmul(x, "out", 24, 4)])


def test_that_a_layer_makes_up_for_errors_of_what_it_is_added_to(tmp_path, monkeypatch):
    graph, rng = opened(residual(), tmp_path), np.random.default_rng(0)
    mix = rng.normal(size=(12, 12))
    x, unseen = ((rng.normal(size=(n, 5, 12)) @ mix + 0.5).astype(np.float32) for n in (96, 96))
    context = context_of(graph, tmp_path, LayerScheme(Precision.INT2, A8), x)
    told = Telling()
    with_sums = error(chosen(graph, context, reporter=told).graph, context, graph, unseen)
    assert all(part.after < part.before for part in told.layers)
    monkeypatch.setattr(gptq_run, "sums_behind", lambda *_: {})
    assert with_sums < 0.97 * error(chosen(graph, context).graph, context, graph, unseen)


def test_that_a_sum_is_known_where_its_other_part_is_there_before():
    nodes = TorchGraph(residual()).nodes
    outputs = {node.name: node.outputs[0] for node in nodes}
    given = {"a2": outputs["bias_a"], "b2": outputs["bias_b"], "c": outputs["c"]}
    # The first is read twice; what the mean is added to comes after it; a bias is constant.
    others = {"in": outputs["in"], "mean": outputs["mean"], "a1": outputs["a2"]}
    found = sums_behind(nodes, given | others, ["x"])
    assert {layer: one.node.name for layer, one in found.items()} == {
        "a2": "sum_a",
        "b2": "sum_b",
        "c": "wide",
    }
    assert found["a2"].node.inputs[found["a2"].slot] == outputs["in"]


def test_that_dynamic_products_are_solved(tmp_path):
    graph, x = opened(products(bias=False), tmp_path), np.random.default_rng(0).normal(size=(64, 5, 12))
    scheme, x = LayerScheme(Precision.INT2, ActivationPrecision.INT8_DYNAMIC), x.astype(np.float32)
    context = context_of(graph, tmp_path, scheme, x)
    outcome = chosen(graph, context)
    assert error(outcome.graph, context, graph, x) < 0.7 * error(graph, context, graph, x)


def stacks_and_groups():
    """A stack of matrices, and a transposed convolution in two groups behind it."""
    net = NetBuilder(5)
    y = net.op("MatMul", "x", net.weight("a.w", 4, 6, 6), name="a")
    y = net.op("ConvTranspose", y, net.weight("b.w", 4, 3, 2, 2), name="b", group=2, strides=[2, 2])
    return net.model({"x": ["n", 4, 6, 6]}, [y])


def test_that_weights_whose_scales_cover_several_groups_are_left_to_rounding(tmp_path):
    graph = opened(stacks_and_groups(), tmp_path)
    scheme = LayerScheme(Precision.INT4)
    assert chosen(graph, context_of(graph, tmp_path, scheme, images(channels=4))).graph is graph
    scheme = replace(scheme, granularity=Granularity.PER_TENSOR)
    context = context_of(graph, tmp_path, scheme, images(channels=4))
    outcome = chosen(graph, context)
    fake = FakeQuantized(outcome.graph, None, context.plan)
    for name in ("a", "b"):
        np.testing.assert_allclose(fake.weights[name, 1], weight(outcome.graph, f"{name}.w"), rtol=1e-6)
    x = images(channels=4, seed=11)
    assert error(outcome.graph, context, graph, x) < error(graph, context, graph, x)


def test_that_biases_stay_when_they_are_not_to_be_corrected(net, tmp_path):
    context = context_of(net, tmp_path, W2A8, images())
    corrected, kept = chosen(net, context).graph, chosen(net, context, bias=False).graph
    np.testing.assert_array_equal(weight(kept, "a.b"), weight(net, "a.b"))
    assert not np.array_equal(weight(corrected, "a.b"), weight(net, "a.b"))
    x = images()
    means = [outputs_of(written(graph, context), {"x": x})[0].mean(0) for graph in (corrected, kept)]
    expected = outputs_of(net.proto, {"x": x})[0].mean(0)
    assert np.abs(means[0] - expected).max() < np.abs(means[1] - expected).max()


def test_that_the_same_inputs_give_the_same_bytes(net, tmp_path):
    context = context_of(net, tmp_path, CODEBOOK2, images())
    assert chosen(net, context).graph.digest == chosen(net, context).graph.digest


def test_that_layers_that_stay_float_and_ranges_set_by_hand_are_left_alone(net, tmp_path):
    only_a = Recipe((LayerRule(W2A8, names=("a",)),))
    outcome = chosen(net, context_of(net, tmp_path, only_a, images()))
    assert outcome.details["layers"] == 1
    for name in ("b.w", "c.w", "d.w"):
        np.testing.assert_array_equal(weight(outcome.graph, name), weight(net, name))
    nothing = chosen(net, context_of(net, tmp_path, Recipe(), images()))
    assert nothing.graph is net
    assert nothing.summary == "No layer with integer weights to choose: nothing was done."


def test_that_every_layer_is_told_with_its_error_before_and_after(net, tmp_path):
    told = Telling()
    chosen(net, context_of(net, tmp_path, W2A8, images()), reporter=told)
    assert [part.layer for part in told.layers] == ["a", "b", "c", "d"]
    assert all(0 <= part.after < part.before for part in told.layers)


def test_that_channels_are_chosen_together_where_asked_and_their_error_is_that_of_the_answers(net, tmp_path):
    context = context_of(net, tmp_path, CODEBOOK2, images())
    told = Telling()
    outcome = chosen(net, context, reporter=told, joint=True)
    # A table pays in one layer alone; in the others each channel counts by itself.
    assert {part.layer: part.measure for part in told.layers} == {**dict.fromkeys("abd", MEASURE), "c": FELT}
    assert all(0 <= part.after < part.before for part in told.layers)
    assert outcome.graph.digest != chosen(net, context).graph.digest
    unseen = images(seed=11)
    assert error(outcome.graph, context, net, unseen) < 0.6 * error(net, context, net, unseen)


def test_that_a_weight_two_layers_read_is_solved_once_for_both(tmp_path):
    net = NetBuilder(2)
    first = net.op("Relu", net.matmul("x", "a", 8, 8), name="relu")
    graph = opened(net.model({"x": ["n", 8]}, [net.op("MatMul", first, "a.w", name="again")]), tmp_path)
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    context = context_of(graph, tmp_path, LayerScheme(Precision.INT3, A8), x)
    outcome = chosen(graph, context)
    assert outcome.details["layers"] == 2
    assert len(np.unique(weight(outcome.graph, "a.w")[:, 0])) <= 8
    assert error(outcome.graph, context, graph, x) < error(graph, context, graph, x)


def test_that_a_layer_that_never_fires_keeps_its_neighbours_right(tmp_path):
    net = NetBuilder(4)
    dead = net.constant("dead.b", np.full(8, -100, np.float32))
    y = net.op("Relu", net.op("Gemm", "x", net.weight("dead.w", 6, 8), dead, name="dead"), name="relu")
    graph = opened(net.model({"x": ["n", 6]}, [net.gemm(y, "next", 8, 4)]), tmp_path)
    context = context_of(
        graph, tmp_path, W2A8, np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    )
    outcome = chosen(graph, context)
    assert np.isfinite(weight(outcome.graph, "next.w")).all()
    np.testing.assert_allclose(weight(outcome.graph, "next.b"), weight(graph, "next.b"), atol=1e-5)


def network_with_dead_layers(bias=True):
    """x [n, 6] -> Gemm -> ReLU that is always 0 -> Gemm, and x -> Gemm -> Clip that is always 6 -> Gemm."""
    net = NetBuilder(4)
    ends = []
    for name, low, kind in (("off", -100, "Relu"), ("full", 100, "Clip")):
        start = net.op("Gemm", "x", net.weight(f"{name}.w", 6, 8), net.constant(
            f"{name}.b", np.full(8, low, np.float32)), name=name)  # fmt: skip
        limits = [net.constant(f"{name}.{end}", np.float32(end)) for end in (0, 6)] if kind == "Clip" else []
        fired = net.op(kind, start, *limits, name=f"{name}_{kind}")
        ends.append(net.gemm(fired, f"behind_{name}", 8, 4))
    ends.append(net.gemm("x", "alive", 6, 4))
    y = net.op("Sum", *ends, name="sum")
    return net.model({"x": ["n", 6]}, [net.gemm(y, "last", 4, 3)])


@pytest.mark.parametrize(
    "scheme", [W2A8, CODEBOOK2, LayerScheme(Precision.INT4)], ids=["int2", "cb2", "alone"]
)
def test_that_layers_behind_dead_ones_are_rounded_plainly_and_named(tmp_path, scheme):
    graph = opened(network_with_dead_layers(), tmp_path)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    context, told = context_of(graph, tmp_path, scheme, x), Telling()
    outcome = chosen(graph, context, reporter=told)
    assert outcome.details["plain"] == ["behind_off", "behind_full"]
    assert outcome.summary.startswith("Chose the weights of 4 layers: ")
    assert outcome.summary.endswith(
        " Rounded plainly, as nothing can be learned from what they read: behind_off, behind_full."
    )
    assert [part.layer for part in told.layers] == ["off", "full", "alive", "last"]
    np.testing.assert_array_equal(weight(outcome.graph, "behind_full.w"), weight(graph, "behind_full.w"))
    assert error(outcome.graph, context, graph, x) < error(graph, context, graph, x)


def test_that_a_group_that_reads_one_value_leaves_the_others_right(tmp_path):
    net = NetBuilder(2)
    first = net.weight("a.w", 8, 3, 1, 1)
    held = as_array(net.initializers[-1]).copy()
    held[::3] = 0.0
    net.initializers[-1].CopyFrom(as_tensor("a.w", held))
    x = net.op("Conv", "x", first, net.constant("a.b", np.full(8, 5.0, np.float32)), name="a")
    graph = opened(net.model({"x": ["n", 3, 6, 6]}, [net.conv(x, "b", 8, 8, group=8)]), tmp_path)
    context = context_of(graph, tmp_path, W2A8, images())
    outcome = chosen(graph, context)
    assert outcome.details["plain"] == []
    assert error(outcome.graph, context, graph, images()) < 0.6 * error(graph, context, graph, images())


def test_that_samples_that_are_all_alike_are_one_clear_line(tmp_path):
    graph = opened(network_with_dead_layers(), tmp_path)
    with pytest.raises(CalibrationError, match="what every layer reads is the same in all samples"):
        chosen(graph, context_of(graph, tmp_path, W2A8, np.ones((8, 6), np.float32)))


def test_that_one_sample_is_refused_in_one_line(net, tmp_path):
    with pytest.raises(CalibrationError, match="one sample says nothing"):
        chosen(net, context_of(net, tmp_path, W2A8, images(), samples=1))


class Telling(NullReporter):
    """Keeps what it is told, and cancels after some layers."""

    def __init__(self, cancel=None, after=10**9):
        self.layers, self.cancel, self.after = [], cancel, after

    def found(self, part):
        self.layers.append(part)
        if len(self.layers) >= self.after:
            self.cancel.set()


def test_that_a_cancelled_run_leaves_the_graph_and_goes_on_behind_its_last_layer(net, tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "cache"))
    cancel, before = CancelToken(), net.proto.SerializeToString(deterministic=True)
    context = context_of(net, tmp_path, W2A8, images())
    with pytest.raises(JobCancelled):
        chosen(net, context, cancel=cancel, reporter=Telling(cancel, after=2))
    assert net.proto.SerializeToString(deterministic=True) == before
    solved, solve = [], GptqRun._solve

    def counted(run, layer, node):
        solved.append(layer.name)
        return solve(run, layer, node)

    monkeypatch.setattr(GptqRun, "_solve", counted)
    told = Telling()
    resumed = chosen(net, context, reporter=told)
    assert solved == ["c", "d"]
    assert [part.layer for part in told.layers] == ["a", "b", "c", "d"]
    again = chosen(net, context)
    assert solved == ["c", "d"]
    assert again.graph.digest == resumed.graph.digest
    # Another plan takes over what lies before its first difference, and is still what it would be alone.
    late = context_of(net, tmp_path, uniform_recipe(W2A8).assign(["c"], CODEBOOK2), images())
    shared = chosen(net, late)
    assert solved[2:] == ["c", "d"]
    prune_layers(0)
    assert chosen(net, late).graph.digest == shared.graph.digest
    assert solved[4:] == ["a", "b", "c", "d"]


def test_that_layers_used_longest_ago_go_first(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "cache"))
    one, gain = np.ones((2, 2), np.float32), LayerRecovered("a", 1.0, 0.5, MEASURE)
    stores = [LayerStore({"run": number}) for number in range(4)]
    folder = tmp_path / "cache" / "gptq"
    for number, store in enumerate(stores):
        known = set(folder.glob("*"))
        store.put(one, gain)
        (new,) = set(folder.glob("*")) - known
        os.utime(new, (number, number))
        size = new.stat().st_size
    assert stores[0].find("a", MEASURE) is not None, "used now"
    (folder / "run-of-an-earlier-version").mkdir()
    prune_layers(2 * size)
    assert [store.find("a", MEASURE) is not None for store in stores] == [True, False, False, True]
    assert len(list(folder.glob("*"))) == 2


def test_that_a_cache_that_cannot_be_written_costs_only_the_resuming(net, tmp_path, monkeypatch, caplog):
    context = context_of(net, tmp_path, W2A8, images())

    def refuse(path, content):
        raise OutputError("the disk is full", where=str(path))

    monkeypatch.setattr(gptq_store, "write_bytes", refuse)
    outcome = chosen(net, context)
    assert outcome.details["layers"] == 4
    assert [record.getMessage() for record in caplog.records if "not kept" in record.getMessage()] == [
        caplog.records[-1].getMessage()
    ]


def test_that_torch_keeps_its_threads(net, tmp_path):
    before = torch.get_num_threads()
    chosen(net, context_of(net, tmp_path, W2A8, images()), samples=8)
    assert torch.get_num_threads() == before
