"""What the issue promises of the reference networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.precision import FP32
from quantstudio.core.recipe import uniform_recipe
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.evaluation.latency import LatencyBudget
from quantstudio.engine.model.open import open_model
from quantstudio.engine.search import presets
from quantstudio.engine.search.presets import build_preset
from tests.engine.exact_products import exact_session
from tests.engine.recipe_builds import build_variant
from tests.shared_data import MODELS, TEST, THIRD_PARTY, TRAIN, TRANSFORM, needs_shared

# Of 10,000: enough to see a loss, few enough for a test.
JUDGED = 3000

pytestmark = [needs_shared, pytest.mark.shared]


def calibrated(name, train=TRAIN, transform=TRANSFORM, samples=512, trust=False):
    graph = open_model(Path(name), trust=trust)
    spec = DataSpec(str(train), parse_transform(transform), samples=samples)
    dataset = open_dataset(spec, graph.summary.inputs)
    return graph, dataset, calibrate(graph, dataset, samples=samples)


def accuracy_points(path, graph, test=TEST, transform=TRANSFORM):
    spec = DataSpec(str(test), parse_transform(transform), samples=JUDGED)
    dataset = open_dataset(spec, graph.summary.inputs)
    session = exact_session(path)
    labels = np.asarray(dataset.labels)
    right = 0
    for batch in dataset.batches(250):
        scores = np.asarray(session.run(None, batch.feed)[0])[: batch.count]
        right += int((scores.argmax(1) == labels[batch.start : batch.start + batch.count]).sum())
    return 100 * right / len(dataset)


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [("fmnist_mobilenet.onnx", 22), ("fmnist_mobilenet.raw.onnx", 22), ("fmnist_resnet.bn13.onnx", 9)],
)
def test_that_static_int8_keeps_accuracy_with_every_convolution_on_integers(tmp_path, name, convolutions):
    graph, _, statistics = calibrated(MODELS / name)
    path = tmp_path / "v.onnx"
    built = build_variant(graph, statistics, uniform_recipe("static-int8"), path)
    kernels = [layer.kernel for layer in built.layers]
    assert kernels.count("QLinearConv") == convolutions
    assert kernels.count("QGemm") == 1
    drop = accuracy_points(graph.summary.graph_path, graph) - accuracy_points(path, graph)
    assert drop <= 0.3


def test_that_a_model_of_raw_pixels_and_batch_one_keeps_accuracy(tmp_path):
    test = THIRD_PARTY / "mnist_t10k.npz"
    graph, _, statistics = calibrated(THIRD_PARTY / "mnist_cntk.onnx", test, "layout=NCHW")
    path = tmp_path / "v.onnx"
    built = build_variant(graph, statistics, uniform_recipe("static-int8"), path)
    assert all(layer.is_integer_kernel for layer in built.layers)
    before = accuracy_points(graph.summary.graph_path, graph, test, "layout=NCHW")
    assert before - accuracy_points(path, graph, test, "layout=NCHW") <= 0.3


def test_that_three_layers_kept_float_are_the_only_float_ones(tmp_path):
    graph, _, statistics = calibrated(MODELS / "fmnist_mobilenet.onnx", samples=128)
    kept = [graph.layers[i].name for i in (4, 9, 15)]
    recipe = uniform_recipe("static-int8").assign(kept, FP32)
    first = build_variant(graph, statistics, recipe, tmp_path / "a.onnx")
    assert [layer.name for layer in first.layers if not layer.is_integer_kernel] == kept
    build_variant(graph, statistics, recipe, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_that_auto_holds_a_transformer(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "TIMING", LatencyBudget(seconds=0.5, min_rounds=10, max_rounds=50))
    graph, dataset, statistics = calibrated(MODELS / "fmnist_vit.onnx", samples=128)
    path = tmp_path / "v.onnx"
    _, built = build_preset(graph, dataset, statistics, "auto", path)
    drop = accuracy_points(graph.summary.graph_path, graph) - accuracy_points(path, graph)
    assert drop <= 0.5, built.preset
    assert built.preset.startswith("Chose ")
