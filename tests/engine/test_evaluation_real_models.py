"""Figures known from elsewhere for models trained by others."""

import pytest

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.layers import TensorInfo
from quantstudio.core.samples import sample
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.evaluation.compare import compare
from tests.shared_data import MODELS, TEST, THIRD_PARTY, TRANSFORM, needs_shared

pytestmark = pytest.mark.shared


@needs_shared
def test_that_fashion_mnist_accuracy_is_the_published_one() -> None:
    inputs = (TensorInfo("input", "float32", ("batch", 1, 28, 28)),)
    data = open_dataset(DataSpec(str(TEST), parse_transform(TRANSFORM)), inputs)
    result = compare(MODELS / "fmnist_mobilenet.onnx", [], data, threads=1, latency=False, footprint=False)
    assert result.samples == 10_000
    assert round(result.variants[0].metrics["top1"], 4) == 0.9099


@needs_shared
def test_that_a_model_for_single_pictures_is_measured_one_by_one() -> None:
    inputs = (TensorInfo("Input3", "float32", (1, 1, 28, 28)),)
    spec = DataSpec(str(THIRD_PARTY / "mnist_t10k.npz"), parse_transform("layout=NCHW"), samples=500)
    data = open_dataset(spec, inputs)
    result = compare(THIRD_PARTY / "mnist_cntk.onnx", [], data, threads=1, latency=False, footprint=False)
    assert result.samples == 500
    assert result.variants[0].metrics["top1"] > 0.97


def test_that_the_bundled_sample_has_segments_and_classes() -> None:
    found = sample()
    inputs = (TensorInfo("input", "float32", ("batch", 1, 8, 8)),)
    data = open_dataset(DataSpec(str(found.test), parse_transform(found.transform)), inputs)
    result = compare(found.model, [], data, threads=1, latency=False, footprint=False)
    measured = result.variants[0]
    assert measured.metrics["top1"] == pytest.approx(0.995, abs=2e-3)
    assert [row.support for row in measured.per_class] == [60] * 10
    assert {row.label for row in measured.segments} == {"ink=bold", "ink=medium", "ink=thin"}
