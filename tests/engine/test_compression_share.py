"""Weights that share values: tables, their form in the file, what opens of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import BuildError, CalibrationError, JobCancelled, RecipeError
from quantstudio.core.events import NULL_REPORTER, CancelToken
from quantstudio.core.recipe import FIRST_EMISSION, PACKED_FILES, SHARED_VALUES, LayerRule, Recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.shared_values import index_bytes, table_pays
from quantstudio.core.steps import Step
from quantstudio.engine.compression.share import share_weights
from quantstudio.engine.compression.share_settings import ShareSettings, TableFor
from quantstudio.engine.graph.protos import as_array
from quantstudio.engine.model.open import open_model
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.quantization.build import build_variant
from quantstudio.engine.quantization.emit import emit
from tests.engine.quantization_cases import NetBuilder, normal, opened, optimized_ops, outputs_of
from tests.engine.recovery_cases import Told, context_of

SHARE = Step("share")


def network():
    """x [n, 4, 6, 6] -> Conv 24 -> Relu -> grouped Conv -> Flatten -> Gemm -> MatMul."""
    net = NetBuilder(7)
    x = net.op("Relu", net.conv("x", "a", 4, 24), name="relu")
    x = net.conv(x, "depth", 24, 24, group=24)
    x = net.op("Flatten", net.op("GlobalAveragePool", x, name="pool"), name="flat")
    x = net.op("Relu", net.gemm(x, "b", 24, 64, transB=1), name="relu_b")
    return net.model({"x": ["n", 4, 6, 6]}, [net.matmul(x, "c", 64, 32)])


FEED = {"x": normal(5, 4, 6, 6, seed=8)}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        graph = opened(network(), folder)
        yield graph, context_of(graph, folder, "weight-int8", 32)


def shared(graph, context=None, told=NULL_REPORTER, cancel=None, **settings):
    context = context or StepContext(resolve(Recipe(), graph.layers))
    token = cancel or CancelToken()
    return share_weights(graph, context, ShareSettings(**settings), reporter=told, cancel=token)


def weight(graph, name):
    return next(as_array(tensor) for tensor in graph.proto.graph.initializer if tensor.name == name)


def values(graph, name):
    return len(np.unique(weight(graph, name)))


def plan(graph, emission=SHARED_VALUES, unpacked=False, rules=()):
    made = Recipe(tuple(rules), steps=(SHARE,), emission=emission, unpacked=unpacked)
    return resolve(made, graph.layers)


def test_that_a_tensor_with_four_values_is_its_own_table(tmp_path):
    net = NetBuilder()
    four = np.random.default_rng(0).choice(np.array([-1.5, 0.25, 0.3, 7.0], np.float32), size=(40, 50))
    net.constant("w", four)
    graph = opened(net.model({"x": ["n", 40]}, [net.op("MatMul", "x", "w", name="m")]), tmp_path)
    assert shared(graph, entries=4).graph is graph
    packed, plain = emit(graph, None, plan(graph)), emit(graph, None, plan(graph, unpacked=True))
    # 2000 indices of two bits, four floats, and the operators that bring them apart, for 8000 bytes.
    assert index_bytes(2000, 4, 1) == 500 + 16
    assert 516 < packed.ByteSize() < plain.ByteSize() - 8000 + 516 + 700
    feed = {"x": normal(6, 40)}
    np.testing.assert_array_equal(outputs_of(packed, feed)[0], outputs_of(plain, feed)[0])
    assert optimized_ops(packed, tmp_path) == ["MatMul"]


def test_that_two_clusters_give_their_means(tmp_path):
    net = NetBuilder()
    row = np.array([0.0, 0.2, 0.4, 9.0, 10.0, 11.0], np.float32)
    net.constant("w", np.tile(row, (20, 10)))
    graph = opened(net.model({"x": ["n", 20]}, [net.op("MatMul", "x", "w", name="m")]), tmp_path)
    told = Told()
    outcome = shared(graph, told=told, entries=2)
    np.testing.assert_allclose(np.unique(weight(outcome.graph, "w")), [0.2, 10.0], rtol=1e-6)
    # Off by .2, 0, .2 and 1, 0, 1: 2.08 of 302.2.
    (row_of,) = told.layers
    assert row_of.before == pytest.approx(2.08 / 302.2, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"entries": 16}, {"a.w": 16, "b.w": 16, "c.w": 16}),
        ({"entries": 4, "per": TableFor.CHANNEL, "layers": "b"}, {"b.w": 4 * 64, "c.w": 64 * 32}),
        ({"entries": 4, "per": TableFor.GROUP, "group": 16, "layers": "b, c"}, {"b.w": 4 * 4, "c.w": 4 * 2}),
    ],
    ids=["tensor", "channel", "group"],
)
@pytest.mark.parametrize("has_data", [False, True], ids=["plain", "data"])
def test_that_weights_take_no_more_values_than_their_tables_hold(net, settings, most, has_data):
    graph, context = net
    outcome = shared(graph, context if has_data else None, **settings)
    assert {name: values(outcome.graph, name) <= count for name, count in most.items()} == dict.fromkeys(
        most, True
    )
    assert values(outcome.graph, "depth.w") == 24 * 9
    if settings.get("per") is TableFor.GROUP:
        assert [len(np.unique(part)) <= 4 for part in np.split(weight(outcome.graph, "b.w"), 4)] == [True] * 4
    assert shared(graph, context if has_data else None, **settings).graph.digest == outcome.graph.digest


def test_that_all_tensors_may_share_one_table(net):
    graph, context = net
    for given in (None, context):
        made = shared(graph, given, entries=32, per=TableFor.NETWORK).graph
        every = np.concatenate([weight(made, name).reshape(-1) for name in ("a.w", "b.w", "c.w")])
        assert len(np.unique(every)) <= 32


def test_that_values_chosen_by_data_err_less_at_the_output(net):
    graph, context = net
    told, errors = Told(), []
    expected = outputs_of(graph.proto, FEED)[0]
    for given in (None, context):
        made = shared(graph, given, told, entries=4).graph
        errors.append(float(np.square(outputs_of(made.proto, FEED)[0] - expected).sum()))
    assert errors[1] < 0.8 * errors[0]
    solved = [row for row in told.layers if row.after is not None]
    assert {row.layer for row in solved} == {"a", "b", "c"}


@pytest.mark.parametrize("entries", [2, 3, 5, 16, 100, 256])
@pytest.mark.parametrize("per", [TableFor.TENSOR, TableFor.GROUP])
def test_that_the_file_holds_indices_and_opens_as_what_it_holds(net, tmp_path, entries, per):
    graph = shared(net[0], entries=entries, per=per, layers="b, c", group=32).graph
    packed, plain = emit(graph, None, plan(graph)), emit(graph, None, plan(graph, unpacked=True))
    assert packed.ByteSize() < plain.ByteSize()
    np.testing.assert_array_equal(outputs_of(packed, FEED)[0], outputs_of(plain, FEED)[0])
    path = tmp_path / "packed.onnx"
    path.write_bytes(packed.SerializeToString())
    held = {layer.name: layer for layer in open_model(path).layers}
    assert [held[name].weight_shape for name in "bc"] == [(64, 24), (64, 32)]
    # Some entries may be nobody's.
    count, _, what = held["c"].stored_as.partition(" ")
    assert 0.9 * entries < int(count) <= entries
    assert what == "shared values"
    assert not held["c"].quantizable
    assert "already quantized" in held["c"].reason
    assert held["c"].weight_bytes < 4 * 64 * 32
    again = open_model(path)
    np.testing.assert_array_equal(outputs_of(again.proto, FEED)[0], outputs_of(packed, FEED)[0])
    assert again.proto.ByteSize() < plain.ByteSize()


def test_that_a_build_proves_the_file_and_says_what_it_saves(net, tmp_path):
    graph = shared(net[0]).graph
    result = build_variant(graph, None, plan(graph), tmp_path / "out.onnx")
    assert result.packed is not None
    assert result.packed.layers == 3
    assert result.packed.size_bytes == Path(result.output).stat().st_size == result.size_bytes
    assert result.packed.unpacked_bytes > result.size_bytes
    bytes_of = {layer.name: layer.weight_bytes for layer in result.layers}
    assert bytes_of["c"] == 64 * 32 // 2 + 16 * 4
    assert bytes_of["depth"] == 24 * 9 * 4 + 24 * 4


def test_that_a_file_that_answers_otherwise_is_refused(net, tmp_path, monkeypatch):
    graph = shared(net[0]).graph

    def refused(*args):
        raise BuildError("the packed file does not answer as the unpacked one does")

    monkeypatch.setattr("quantstudio.engine.quantization.build.check_same_outputs", refused)
    with pytest.raises(BuildError):
        build_variant(graph, None, plan(graph), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_that_recipes_of_before_keep_their_form(net):
    graph = shared(net[0]).graph
    float_plans = [plan(graph, emission) for emission in (FIRST_EMISSION, PACKED_FILES)]
    assert [made.emission for made in float_plans] == [FIRST_EMISSION, FIRST_EMISSION]
    assert emit(graph, None, float_plans[1]).ByteSize() > 4 * (64 * 32 + 64 * 24)
    every = [LayerRule(NAMED_SCHEMES["weight-int4"])]
    assert plan(graph, PACKED_FILES, rules=every).emission == PACKED_FILES
    assert resolve(Recipe(tuple(every)), graph.layers).emission == PACKED_FILES
    assert resolve(Recipe(), graph.layers).emission == FIRST_EMISSION


def test_that_a_table_has_to_pay():
    # 100 weights of 400 bytes: 50 bytes of indices, 64 of the table and 260 of operators take 374.
    assert table_pays(100, 16, 1)
    assert not table_pays(90, 16, 1)
    assert not table_pays(1000, 256, 4)


def poisoned():
    model = network()
    for tensor in model.graph.initializer:
        if tensor.name == "b.w":
            content = np.frombuffer(tensor.raw_data, np.float32).copy()
            content[7] = np.nan
            tensor.raw_data = content.tobytes()
    return model


def test_that_what_cannot_be_is_refused_in_one_line(net, tmp_path):
    with pytest.raises(RecipeError, match="no layer 'depth' has weights that a table would make smaller"):
        shared(net[0], layers="depth")
    with pytest.raises(CalibrationError, match="b: its weights hold NaN or infinity"):
        shared(opened(poisoned(), tmp_path))
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        shared(net[0], cancel=token)


def test_that_nothing_is_done_where_no_table_pays(tmp_path):
    net = NetBuilder()
    graph = opened(net.model({"x": ["n", 4]}, [net.matmul("x", "m", 4, 8)]), tmp_path)
    outcome = shared(graph)
    assert outcome.graph is graph
    assert "No weight gains" in outcome.summary
