"""What an INT8 cache would cost a decoder, simulated step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from quantstudio.core.events import NULL_REPORTER, never_cancelled
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation import cache_precision
from quantstudio.engine.evaluation.cache_precision import (
    int8_bytes_per_token,
    int8_caches,
    rounded_by_head,
    rounded_cache,
)
from quantstudio.engine.evaluation.generation import Decoder
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm
from quantstudio.engine.graph.runtime import open_session
from quantstudio.engine.model.open import open_model
from quantstudio.engine.tasks.inputs import dataset_of
from tests.engine.decoders import DecoderShape, decoder, random_weights
from tests.engine.test_evaluation_language import data_of

FORM = OutputForm(Meaning.TOKENS, probabilities=False, classes=96)
KEYS = TensorInfo("past_key_values.0.key", "float32", ("batch", 2, "past", 16))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Decoder, Dataset]:
    folder = tmp_path_factory.mktemp("cache")
    shape = DecoderShape(layers=1)
    onnx.save(decoder(shape, random_weights(shape)), folder / "m.onnx")
    dataset = dataset_of(open_model(folder / "m.onnx"), data_of(folder))
    return folder / "m.onnx", Decoder(open_session(folder / "m.onnx", threads=1)), dataset


def test_that_each_head_of_each_token_has_a_scale_of_its_own() -> None:
    rng = np.random.default_rng(0)
    kept = rng.standard_normal((2, 2, 5, 16)).astype(np.float32) * np.array([[[[1]], [[100]]]], np.float32)
    found = rounded_by_head(kept, KEYS)
    largest = np.abs(kept).max(axis=3, keepdims=True)
    assert np.all(np.abs(found - kept) <= largest / 127 * 0.501)
    codes = found / (largest / 127)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    np.testing.assert_allclose(rounded_by_head(found, KEYS), found, rtol=1e-5)
    turned = TensorInfo(KEYS.name, "float32", ("batch", 2, 16, "past"))
    np.testing.assert_array_equal(
        rounded_by_head(kept.transpose(0, 1, 3, 2), turned), found.transpose(0, 1, 3, 2)
    )


def test_that_a_byte_a_number_and_a_scale_a_head_are_counted() -> None:
    assert int8_bytes_per_token([KEYS]) == 2 * (16 + 4)
    assert int8_bytes_per_token([TensorInfo("input_ids", "int64", ("batch", "tokens"))]) == 0


def test_that_a_cache_that_is_kept_costs_nothing_and_one_that_is_lost_costs_much(
    opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer, dataset = opened

    def growth() -> float:
        found = rounded_cache(writer, dataset, FORM, NULL_REPORTER, never_cancelled())
        assert found is not None
        return found.growth.value

    real = growth()
    monkeypatch.setattr(cache_precision, "rounded_by_head", lambda kept, _info: kept)
    assert growth() == 1
    monkeypatch.setattr(cache_precision, "rounded_by_head", lambda kept, _info: 0 * kept)
    lost = abs(growth() - 1)
    assert 0 < abs(real - 1) < 0.1 * lost


def test_that_steps_with_a_float_cache_foretell_what_the_whole_window_does(opened) -> None:
    _, writer, _ = opened
    tokens = np.random.default_rng(0).integers(0, 96, (2, 32))
    stepwise = cache_precision._losses(writer, tokens, FORM, is_rounded=False, cancel=never_cancelled())
    scores, _ = writer.read(tokens, {}, 0, never_cancelled())
    shares = scores - np.log(np.exp(scores.astype(np.float64)).sum(-1, keepdims=True))
    whole = -np.take_along_axis(shares[:, :-1], tokens[:, 1:, None], axis=2)[..., 0]
    np.testing.assert_allclose(stepwise.mean(), whole[:, 8:].mean(), rtol=1e-5)


def test_that_a_model_without_a_growing_cache_has_no_such_figure(opened, tmp_path: Path) -> None:
    _, _, dataset = opened
    path = tmp_path / "m.onnx"
    onnx.save(decoder(DecoderShape(layers=1, with_past=False)), path)
    assert int8_caches([path], dataset, FORM, threads=1, provider="cpu", reporter=NULL_REPORTER) == (None,)
