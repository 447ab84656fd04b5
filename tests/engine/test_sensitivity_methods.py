"""Fisher and exact sensitivity on small networks with known answers, and on the reference networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from scipy.stats import spearmanr

from quantstudio.core.affine import IntegerGrid, affine_qparams
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import DataError, JobCancelled, RecipeError
from quantstudio.core.events import CancelToken
from quantstudio.core.judgement import Task
from quantstudio.core.precision import LayerScheme, Precision, WeightRange
from quantstudio.core.results import Provenance
from quantstudio.core.statistics import Histogram, Statistics
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model
from quantstudio.engine.quantization.weights import quantize_weight
from tests.affine_reference import fake_quantize
from tests.engine.sensitivity_cases import (
    INT4,
    RNG,
    W1,
    W2,
    Events,
    X,
    Y,
    by_name,
    data_of,
    log_softmax,
    logits_of,
    mean_kl,
    normal,
    opened,
    perceptron,
)
from tests.shared_data import MODELS, TRAIN, TRANSFORM, needs_shared


def test_that_exact_kl_and_accuracy_drop_are_those_of_the_quantized_weights(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    result = exact_sensitivity(graph, data, precisions=("int4", "int2"))
    assert result.method == "exact"
    assert result.provenance is Provenance.MEASURED
    layers = by_name(result.layers)
    w1 = quantize_weight(W1, INT4, 1).dequantized
    w2 = quantize_weight(W2, INT4, 1).dequantized
    expected = {"first": logits_of(X, w1=w1), "second": logits_of(X, w2=w2)}
    for name, changed in expected.items():
        assert layers[name].kl == pytest.approx(mean_kl(logits_of(X), changed), rel=1e-3)
        drop = 100 * (1 - (changed.argmax(1) == Y).mean())
        assert layers[name].accuracy_drop == pytest.approx(drop, abs=100 / len(X) + 1e-9)
        assert layers[name].by_precision["int2"] > layers[name].by_precision["int4"]
        assert layers[name].kl_low < layers[name].kl < layers[name].kl_high
        assert layers[name].method == "exact"
    noise = X @ (w1 - W1)
    signal = X @ W1
    wanted = 10 * np.log10(np.square(signal).sum() / np.square(noise).sum())
    # The SQNR comes from the first batch only.
    assert layers["first"].sqnr_db == pytest.approx(wanted, abs=1.5)


def test_that_exact_activation_kl_is_that_of_rounded_inputs(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, Task.CLASSIFY, x=X)
    result = exact_sensitivity(graph, data, precisions=("int4-activations",), reference="int4-activations")
    grid = IntegerGrid(4, signed=False)
    scale, zero_point = affine_qparams(float(X.min()), float(X.max()), grid)
    changed = logits_of(fake_quantize(X, scale, zero_point, grid))
    layer = by_name(result.layers)["first"]
    assert layer.kl == pytest.approx(mean_kl(logits_of(X), changed), rel=1e-3)
    assert layer.accuracy_drop is None


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "softmax"])
def test_that_the_estimate_follows_the_exact_divergence(tmp_path: Path, softmax: bool) -> None:
    graph = perceptron(tmp_path, softmax=softmax)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    precisions = ("int8", "int4", "int8-activations", "int4-activations")
    fisher = fisher_sensitivity(graph, data, precisions=precisions)
    exact = exact_sensitivity(graph, data, precisions=precisions)
    assert (fisher.method, fisher.provenance) == ("fisher", Provenance.PREDICTED)
    assert fisher.curve == exact.curve or fisher.curve is not None
    for name, truth in by_name(exact.layers).items():
        estimate = by_name(fisher.layers)[name]
        assert set(estimate.by_precision) == set(truth.by_precision) == set(precisions)
        for precision in precisions:
            ratio = estimate.by_precision[precision] / truth.by_precision[precision]
            # 300 samples leave a standard error near 10 %; the second-order form adds its own at 4 bits.
            assert 0.6 < ratio < 1.6
        assert estimate.sqnr_db == pytest.approx(truth.sqnr_db, abs=0.3)


def test_that_a_softmax_at_the_end_changes_no_estimate(tmp_path: Path) -> None:
    results = []
    for softmax in (False, True):
        folder = tmp_path / str(softmax)
        folder.mkdir()
        graph = perceptron(folder, softmax=softmax)
        results.append(fisher_sensitivity(graph, data_of(folder, graph, x=X, labels=Y)))
    for a, b in zip(results[0].layers, results[1].layers, strict=True):
        assert a.kl == pytest.approx(b.kl, rel=1e-5)


def test_that_the_expectation_over_signs_is_the_fisher_form(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    sample = X[:1]
    data = data_of(tmp_path, graph, x=np.repeat(sample, 6000, axis=0), labels=np.repeat(Y[:1], 6000))
    found = by_name(fisher_sensitivity(graph, data, samples=6000).layers)["second"]
    hidden = np.maximum(sample.astype(np.float64) @ W1, 0)
    e = (hidden @ (quantize_weight(W2, INT4, 1).dequantized - W2))[0]
    p = np.exp(log_softmax(logits_of(sample)))[0]
    wanted = 0.5 * (np.square(e) @ p - (p @ e) ** 2)
    assert found.kl_low < wanted < found.kl_high
    assert found.kl == pytest.approx(wanted, rel=0.1)


def test_that_the_estimate_is_the_same_every_time_and_streams(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    events = Events()
    first = fisher_sensitivity(graph, data, reporter=events)
    again = fisher_sensitivity(graph, data)
    assert first.layers == again.layers
    assert first.curve == again.curve
    assert [row.name for row in events.layers[:2]] == ["first", "second"]
    assert events.steps[0][0] == 1
    assert events.steps[-1][0] == events.steps[-1][1] == 10
    assert events.layers[-1] == first.layers[-1]


def test_that_calibrated_ranges_are_used_for_activations(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    counts = np.zeros(4096, np.int64)
    counts[2048 - 64 : 2048 + 64] = 10
    # Calibration saw only [-0.25, 0.25]: everything beyond is clipped, which costs far more than rounding.
    narrow = Histogram(counts, -8.0, 8.0, -0.25, 0.25)
    statistics = Statistics({"x": narrow}, 10, graph.digest, data.digest)
    for method in (fisher_sensitivity, exact_sensitivity):
        free = by_name(method(graph, data, precisions=("int8-activations",)).layers)["first"]
        clipped = by_name(
            method(graph, data, precisions=("int8-activations",), statistics=statistics).layers
        )["first"]
        assert clipped.by_precision["int8-activations"] > 100 * free.by_precision["int8-activations"]


def test_that_value_outputs_are_scored_by_normalised_squared_error(tmp_path: Path) -> None:
    w, v = normal(6, 3), normal(6, 1, scale=50)
    graph = opened(
        tmp_path,
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], name="small"),
            helper.make_node("MatMul", ["x", "v"], ["z"], name="large"),
        ],
        {"w": w, "v": v},
        {"x": (TensorProto.FLOAT, ["n", 6])},
        {"y": ["n", 3], "z": ["n", 1]},
    )
    x = normal(2000, 6)
    data = data_of(tmp_path, graph, x=x)
    fisher = fisher_sensitivity(graph, data, samples=2000, precisions=("int4",))
    exact = exact_sensitivity(graph, data, samples=2000, precisions=("int4",))
    assert fisher.curve is None
    for name, weight, out in (("small", w, x @ w), ("large", v, x @ v)):
        e = x @ (quantize_weight(weight, INT4, 1).dequantized - weight)
        wanted = 0.5 * np.square(e / out.std()).mean()
        assert by_name(exact.layers)[name].kl == pytest.approx(wanted, rel=1e-3)
        # The deviation comes from the first 256 samples.
        assert by_name(fisher.layers)[name].kl == pytest.approx(wanted, rel=0.25)


def test_that_token_outputs_are_averaged_over_positions(tmp_path: Path) -> None:
    w = normal(6, 4)
    graph = opened(
        tmp_path,
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="head")],
        {"w": w},
        {"x": (TensorProto.FLOAT, ["n", 5, 6])},
        {"y": ["n", 5, 4]},
    )
    x = normal(400, 5, 6)
    data = data_of(tmp_path, graph, Task.TOKENS, x=x)
    wanted = mean_kl(x @ w, x @ quantize_weight(w, INT4, 1).dequantized)
    exact = exact_sensitivity(graph, data, precisions=("int4",))
    fisher = fisher_sensitivity(graph, data, precisions=("int4",))
    assert exact.layers[0].kl == pytest.approx(wanted, rel=1e-3)
    assert fisher.layers[0].kl == pytest.approx(wanted, rel=0.3)
    assert fisher.curve is None


def attention_like(tmp_path: Path) -> Graph:
    """Embedding, a product of two activations, and an LSTM with the time first."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embedding"),
        helper.make_node("Transpose", ["e"], ["et"], name="swap", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["e", "et"], ["a"], name="scores"),
        helper.make_node("Softmax", ["a"], ["p"], name="attention", axis=-1),
        helper.make_node("MatMul", ["p", "e"], ["c"], name="context"),
        helper.make_node("Transpose", ["c"], ["t"], name="time_first", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "lw", "lr", "lb"], ["", "h"], name="lstm", hidden_size=4),
        helper.make_node("Squeeze", ["h", "zero"], ["s"], name="squeeze"),
        helper.make_node("Gemm", ["s", "w"], ["y"], name="head"),
    ]
    weights: dict[str, np.ndarray] = {
        "table": normal(20, 6),
        "lw": normal(1, 16, 6),
        "lr": normal(1, 16, 4),
        "lb": normal(1, 32),
        "zero": np.array([0], np.int64),
        "w": normal(4, 3, scale=2),
    }
    return opened(tmp_path, nodes, weights, {"ids": (TensorProto.INT64, ["n", 7])}, {"y": ["n", 3]})


def test_that_embeddings_products_and_recurrent_layers_are_estimated(tmp_path: Path) -> None:
    graph = attention_like(tmp_path)
    data = data_of(tmp_path, graph, ids=RNG.integers(0, 20, (400, 7)))
    precisions = ("int4", "int8-activations")
    fisher = by_name(fisher_sensitivity(graph, data, precisions=precisions).layers)
    exact = by_name(exact_sensitivity(graph, data, precisions=precisions).layers)
    assert set(fisher) == set(exact) >= {"embedding", "scores", "context", "lstm", "head"}
    assert set(fisher["embedding"].by_precision) == {"int4"}
    assert set(fisher["scores"].by_precision) == {"int8-activations"}
    assert fisher["scores"].kl == fisher["scores"].by_precision["int8-activations"]
    for name, estimate in fisher.items():
        assert estimate.method == "fisher"
        for precision, kl in estimate.by_precision.items():
            assert 0.5 < kl / exact[name].by_precision[precision] < 2


def test_that_a_layer_without_gradient_is_measured_instead(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="hidden"),
        helper.make_node("QuantizeLinear", ["h", "s", "zp"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "zp"], ["d"], name="dq"),
        helper.make_node("MatMul", ["d", "w2"], ["y"], name="head"),
    ]
    graph = opened(
        tmp_path,
        nodes,
        {
            "w1": W1,
            "w2": W2,
            "s": np.array(0.03, np.float32),
            "zp": np.array(128, np.uint8),
        },
        {"x": (TensorProto.FLOAT, ["n", 6])},
        {"y": ["n", 4]},
    )
    data = data_of(tmp_path, graph, x=X, labels=Y)
    events = Events()
    result = fisher_sensitivity(graph, data, reporter=events)
    layers = by_name(result.layers)
    assert (layers["hidden"].method, layers["head"].method) == ("exact", "fisher")
    assert layers["hidden"].kl > 0
    assert any("hidden" in text for text in events.texts)


def test_that_a_network_torch_cannot_run_is_measured_instead(tmp_path: Path) -> None:
    graph = opened(
        tmp_path,
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
            helper.make_node("Reshape", ["h", "squares"], ["m"], name="square"),
            helper.make_node("Det", ["m"], ["d"], name="volume"),
        ],
        {"w": normal(6, 12), "squares": np.array([-1, 3, 2, 2], np.int64)},
        {"x": (TensorProto.FLOAT, ["n", 6])},
        {"d": ["n", 3]},
    )
    data = data_of(tmp_path, graph, x=X)
    events = Events()
    result = fisher_sensitivity(graph, data, reporter=events, precisions=("int4",))
    assert result.method == "exact"
    assert any("volume" in text for text in events.texts)
    assert by_name(result.layers)["product"].kl > 0


def test_that_layers_in_branches_are_measured_and_those_around_estimated(tmp_path: Path) -> None:
    def body(name: str, weight: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [f"{name}_y"], name=f"{name}_product")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n", 4])],
        )

    graph = opened(
        tmp_path,
        [
            helper.make_node("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
            helper.make_node("Greater", ["total", "never"], ["c"], name="test"),
            helper.make_node(
                "If", ["c"], ["h"], name="branch", then_branch=body("a", "wa"), else_branch=body("b", "wb")
            ),
            helper.make_node("MatMul", ["h", "w"], ["y"], name="head"),
        ],
        {
            "wa": normal(6, 4),
            "wb": normal(6, 4),
            "w": normal(4, 3),
            "never": np.array(1e9, np.float32),
        },
        {"x": (TensorProto.FLOAT, ["n", 6])},
        {"y": ["n", 3]},
    )
    data = data_of(tmp_path, graph, x=X)
    events = Events()
    result = fisher_sensitivity(graph, data, reporter=events, precisions=("int4",))
    assert result.method == "fisher"
    layers = by_name(result.layers)
    assert {name for name, layer in layers.items() if layer.method == "fisher"} == {"head"}
    taken = next(layer for name, layer in layers.items() if "b_product" in name)
    idle = next(layer for name, layer in layers.items() if "a_product" in name)
    assert taken.kl > 0
    assert idle.kl == 0


def test_that_a_tied_weight_is_changed_in_one_layer_only(tmp_path: Path) -> None:
    w = normal(4, 4)
    graph = opened(
        tmp_path,
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="one"),
            helper.make_node("MatMul", ["h", "w"], ["y"], name="two"),
        ],
        {"w": w},
        {"x": (TensorProto.FLOAT, ["n", 4])},
        {"y": ["n", 4]},
    )
    x = normal(200, 4)
    data = data_of(tmp_path, graph, Task.CLASSIFY, x=x)
    layers = by_name(exact_sensitivity(graph, data, precisions=("int2",), reference="int2").layers)
    q = quantize_weight(w, LayerScheme(Precision.INT2, weight_range=WeightRange.MSE), 1).dequantized
    x = x.astype(np.float64)
    assert layers["one"].kl == pytest.approx(mean_kl(x @ w @ w, x @ q @ w), rel=1e-3)
    assert layers["two"].kl == pytest.approx(mean_kl(x @ w @ w, x @ w @ q), rel=1e-3)


@pytest.mark.parametrize("batch", [1, 4])
def test_that_a_fixed_batch_and_its_padding_are_handled(tmp_path: Path, batch: int) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    results = []
    for size in (batch, "n"):
        folder = tmp_path / str(size)
        folder.mkdir()
        graph = opened(
            folder,
            nodes,
            {"w1": W1, "w2": W2},
            {"x": (TensorProto.FLOAT, [size, 6])},
            {"y": [size, 4]},
        )
        data = data_of(folder, graph, x=X[:30], labels=Y[:30])
        results.append(
            [method(graph, data, precisions=("int4",)) for method in (fisher_sensitivity, exact_sensitivity)]
        )
    for fixed, free in zip(*results, strict=True):
        assert fixed.samples == free.samples == 30
        for a, b in zip(fixed.layers, free.layers, strict=True):
            if fixed.method == "exact":
                assert a.kl == pytest.approx(b.kl, rel=1e-4)
            else:
                assert 0.4 < a.kl / b.kl < 2.5


def test_that_cancelling_keeps_the_layers_already_reported(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X, labels=Y)
    token = CancelToken()
    events = Events(token, cancel_after=1)
    with pytest.raises(JobCancelled):
        exact_sensitivity(graph, data, reporter=events, cancel=token)
    assert [row.name for row in events.layers] == ["first"]
    token = CancelToken()
    events = Events(token, cancel_after=2)
    with pytest.raises(JobCancelled):
        fisher_sensitivity(graph, data, reporter=events, cancel=token)
    assert {row.name for row in events.layers} == {"first", "second"}


def test_that_only_the_chosen_layers_are_measured(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X)
    result = exact_sensitivity(graph, data, layers=["second"])
    assert [layer.name for layer in result.layers] == ["second"]
    with pytest.raises(RecipeError, match="third"):
        exact_sensitivity(graph, data, layers=["third"])


@pytest.mark.parametrize("name", ["int5x", "fp32", "int9-activations", "x-activations"])
def test_that_an_unknown_precision_is_refused(tmp_path: Path, name: str) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X)
    with pytest.raises(RecipeError, match=name):
        fisher_sensitivity(graph, data, precisions=(name,))


def test_that_no_samples_are_refused(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X)
    with pytest.raises(DataError):
        fisher_sensitivity(graph, data, samples=0)


def test_that_one_sample_is_enough(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    data = data_of(tmp_path, graph, x=X[:1], labels=Y[:1])
    result = fisher_sensitivity(graph, data)
    assert all(layer.kl_low == 0 and layer.kl_high >= layer.kl for layer in result.layers)


def test_that_unsure_samples_of_a_confident_network_get_more_draws(tmp_path: Path) -> None:
    graph = perceptron(tmp_path)
    # Hidden units scale with x: large inputs have saturated outputs, a few small ones do not.
    x = X * 15
    x[::25] *= 0.03
    data = data_of(tmp_path, graph, x=x, labels=logits_of(x).argmax(1))
    truth = by_name(exact_sensitivity(graph, data, precisions=("int8",)).layers)
    estimates = []
    for seed in range(8):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("quantstudio.engine.analysis.estimate.SEED", seed)
            found = by_name(fisher_sensitivity(graph, data, precisions=("int8",)).layers)
        estimates.append([found[name].by_precision["int8"] for name in truth])
    exact = np.array([layer.by_precision["int8"] for layer in truth.values()])
    spread = np.std(estimates, axis=0) / np.mean(estimates, axis=0)
    # Twelve samples with one draw of signs each would spread by about 40 %.
    assert (spread < 0.3).all()
    np.testing.assert_allclose(np.mean(estimates, axis=0), exact, rtol=0.35)


@needs_shared
@pytest.mark.parametrize(
    ("net", "samples", "least"),
    [("fmnist_resnet", 512, 0.95), ("fmnist_mobilenet", 192, 0.95), ("fmnist_vit", 192, 0.9)],
)
def test_that_the_ranking_matches_the_exact_one_at_four_bits(net: str, samples: int, least: float) -> None:
    graph = open_model(MODELS / f"{net}.onnx")
    spec = DataSpec(str(TRAIN), parse_transform(TRANSFORM), samples)
    data = open_dataset(spec, graph.summary.inputs)
    fisher = by_name(fisher_sensitivity(graph, data, samples=samples, precisions=("int4",)).layers)
    exact = by_name(exact_sensitivity(graph, data, samples=samples, precisions=("int4",)).layers)
    assert set(fisher) == set(exact)
    pairs = np.array([(fisher[name].kl, exact[name].kl) for name in fisher])
    assert spearmanr(pairs[:, 0], pairs[:, 1]).statistic >= least
    assert 0.7 < np.median(pairs[:, 0] / pairs[:, 1]) < 1.4


@pytest.mark.parametrize("method", [fisher_sensitivity, exact_sensitivity], ids=["fisher", "exact"])
def test_that_a_weight_that_holds_nan_is_left_out_by_name(tmp_path: Path, method: object) -> None:
    """A table of biases whose last row is never read: the model's outputs are numbers all the same."""
    table = normal(5, 4)
    table[-1] = np.nan
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["bias"], name="bias_table"),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Add", ["h", "bias"], ["y"], name="shift"),
    ]
    inputs: dict[str, tuple[int, list[Any]]] = {
        "x": (TensorProto.FLOAT, ["n", 6]),
        "rows": (TensorProto.INT64, ["n"]),
    }
    graph = opened(tmp_path, nodes, {"w": normal(6, 4), "table": table}, inputs, {"y": ["n", 4]})
    data = data_of(tmp_path, graph, x=X, rows=np.arange(len(X)) % 4)
    events = Events()
    result = method(graph, data, precisions=("int4",), reporter=events)  # type: ignore[operator]
    assert set(by_name(result.layers)) == {"product"}
    assert [text for text in events.texts if "'bias_table'" in text and "'table' holds NaN" in text]


def test_that_a_network_without_float_layers_is_not_run_but_said_to_be_quantized(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="round"),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"], name="product"),
        helper.make_node("Cast", ["i"], ["f"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"], name="scale"),
    ]
    weights = {"w": RNG.integers(-9, 9, (6, 4)).astype(np.int8)}
    graph = opened(tmp_path, nodes, weights, {"x": (TensorProto.FLOAT, ["n", 6])}, {"y": ["n", 4]})
    events = Events()
    result = fisher_sensitivity(graph, data_of(tmp_path, graph, x=X), reporter=events)
    assert result.layers == ()
    assert [text for text in events.texts if "1 of 1 are quantized already" in text]
    assert not [text for text in events.texts if "torch form" in text]
