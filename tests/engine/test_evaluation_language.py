"""A language model is judged by how well it foretells a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.events import NULL_REPORTER, never_cancelled
from quantstudio.core.judgement import Task
from quantstudio.core.results import CompareResult
from quantstudio.engine.evaluation.compare import compare_json
from quantstudio.engine.evaluation.generation import Decoder, cache_pairs, caches_of
from quantstudio.engine.evaluation.latency import LatencyBudget
from quantstudio.engine.graph.runtime import open_session
from quantstudio.engine.model.open import open_model
from quantstudio.engine.tasks.compare import compare
from quantstudio.engine.tasks.inputs import dataset_of
from tests.engine.builders import outputs_of
from tests.engine.decoders import TEXT, DecoderShape, decoder, random_weights, tokenizer_json

SHAPE = DecoderShape(layers=1)
WINDOW = 32


def disturbed(weights: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        name: (value + share * value.std() * rng.standard_normal(value.shape)).astype(np.float32)
        if value.ndim == 2
        else value
        for name, value in weights.items()
    }


def data_of(folder: Path) -> dict[str, Any]:
    tokenizer_json(folder / "tokenizer.json")
    (folder / "text.txt").write_text(TEXT * 4, encoding="utf-8")
    return dict(to_json(DataSpec(str(folder / "text.txt"), parse_transform(f"context={WINDOW}"))))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompareResult]:
    folder = tmp_path_factory.mktemp("language")
    weights = random_weights(SHAPE, scale=0.5)
    onnx.save(decoder(SHAPE, weights), folder / "base.onnx")
    onnx.save(decoder(SHAPE, disturbed(weights, 0.2)), folder / "other.onnx")
    found = compare(
        base=str(folder / "base.onnx"),
        variants=[str(folder / "other.onnx")],
        data=data_of(folder),
        latency=False,
        footprint=False,
    )
    return folder, found


def log_shares(path: Path, ids: np.ndarray) -> np.ndarray:
    """Of the next token at each position, by a plain run and plain arithmetic."""
    feed: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
    }
    for part in ("key", "value"):
        feed[f"past_key_values.0.{part}"] = np.zeros((len(ids), 2, 0, 16), np.float32)
    logits = outputs_of(path, feed)[0].astype(np.float64)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


def test_that_perplexity_kl_and_the_same_likeliest_token_are_those_of_the_scores(compared) -> None:
    folder, result = compared
    tokens = np.array([ord(letter) - 32 for letter in TEXT * 4], np.int64)
    count = (len(tokens) - 1) // WINDOW
    ids, following = (tokens[k : k + count * WINDOW].reshape(count, WINDOW) for k in (0, 1))
    p, q = log_shares(folder / "base.onnx", ids), log_shares(folder / "other.onnx", ids)
    picked = [np.take_along_axis(one, following[..., None], axis=-1) for one in (p, q)]
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    base, other = (variant.language for variant in result.variants)
    assert base is not None
    assert other is not None
    assert base.perplexity.value == pytest.approx(np.exp(-picked[0].mean()), rel=1e-5)
    assert other.perplexity.value == pytest.approx(np.exp(-picked[1].mean()), rel=1e-5)
    assert other.growth.value == pytest.approx(np.exp(picked[0].mean() - picked[1].mean()), rel=1e-5)
    assert other.kl == pytest.approx(kl.mean(), rel=1e-4)
    assert other.kl_p99 == pytest.approx(np.percentile(kl, 99, method="higher"), rel=1e-4)
    assert other.same_top == pytest.approx((p.argmax(-1) == q.argmax(-1)).mean())
    assert (other.tokens, other.context) == (count * WINDOW, WINDOW)


def test_that_intervals_hold_their_values_and_the_base_grows_by_nothing(compared) -> None:
    base, other = (variant.language for variant in compared[1].variants)
    assert other.perplexity.low < other.perplexity.value < other.perplexity.high
    assert other.growth.low < other.growth.value < other.growth.high
    assert (base.growth.low, base.growth.high, base.kl, base.same_top) == (1, 1, 0, 1)


def test_that_the_headline_is_the_likelihood_kept(compared) -> None:
    result = compared[1]
    figure = result.variants[1].headline
    assert result.judgement.task is Task.TOKENS
    assert result.judgement.outputs == ("logits",)
    assert figure.metric == "likelihood"
    assert figure.value == pytest.approx(1 / result.variants[1].language.growth.value)
    assert figure.base - figure.loss.value / 100 == pytest.approx(figure.value)


def test_that_the_comparison_says_all_of_it_in_json(compared) -> None:
    row = compare_json(compared[1])["variants"][1]
    assert set(row["language"]["perplexity"]) == {"value", "low", "high"}
    assert row["metrics"]["perplexity"] == pytest.approx(row["language"]["perplexity"]["value"])
    assert row["headline"]["metric"] == "likelihood"
    assert row["language"]["int8_cache"]["bytes_per_token"] == 2 * 2 * (16 + 4)
    assert set(row["language"]["int8_cache"]["growth"]) == {"value", "low", "high"}


def test_that_an_encoder_that_sees_what_follows_is_not_said_to_foretell(tmp_path: Path) -> None:
    model = decoder(DecoderShape(layers=1, with_past=False))
    later = next(node for node in model.graph.node if node.op_type == "Greater")
    unseen = next(node for node in model.graph.node if node.op_type == "Or")
    given = next(name for name in unseen.input if not name.startswith(later.output[0]) and "Equal" in name)
    unseen.input[0] = unseen.input[1] = given
    onnx.save(model, tmp_path / "m.onnx")
    path = str(tmp_path / "m.onnx")
    found = compare(base=path, variants=[path], data=data_of(tmp_path), latency=False, footprint=False)
    assert found.variants[1].language is None
    figure = found.variants[1].headline
    assert figure is not None
    assert figure.metric == "agreement"


def test_that_a_decoder_writes_with_its_cache_what_it_would_write_without(tmp_path: Path) -> None:
    weights = random_weights(SHAPE)
    onnx.save(decoder(SHAPE, weights), tmp_path / "m.onnx")
    session = open_session(tmp_path / "m.onnx", threads=1)
    writer, tokens = Decoder(session), np.array([[5, 9, 2, 7]])
    feed = writer.inputs.feed(tokens)
    whole = session.run(["logits"], feed)[0]
    _, key, value = session.run(None, writer.inputs.feed(tokens[:, :3]))
    more = writer.inputs.more(tokens[:, 3:], 3)
    more |= {"past_key_values.0.key": key, "past_key_values.0.value": value}
    np.testing.assert_allclose(session.run(["logits"], more)[0][0, 0], whole[0, 3], atol=1e-5)
    first, each = writer.turn_ms(tokens, 3, never_cancelled())
    assert first > 0
    assert each > 0


@pytest.mark.parametrize(
    ("made", "read"),
    [
        (["present.1.key", "present.0.value"], ["past_key_values.1.key", "past_key_values.0.value"]),
        (["present_key_10", "present_value_1"], ["past_key_10", "past_value_1"]),
        (["new_cache_k_0", "new_cache_v_0"], ["cache_k_0", "cache_v_0"]),
    ],
)
def test_that_caches_go_back_in_where_their_names_say(made: list[str], read: list[str]) -> None:
    wanted = dict(zip(made, read, strict=True))
    assert cache_pairs(made, read) == wanted
    assert cache_pairs(made, read[::-1]) == wanted


@pytest.mark.parametrize("read", [["past_x", "past_y"], ["past.1", "past.2"]])
def test_that_caches_whose_names_say_nothing_go_back_in_order(read: list[str]) -> None:
    made = ["present.0.key", "present.1.key"]
    assert cache_pairs(made, read) == dict(zip(made, read, strict=True))


def test_that_speed_with_the_cache_and_its_bytes_are_measured_in_turns(compared) -> None:
    folder, _ = compared
    data = dataset_of(open_model(folder / "base.onnx"), data_of(folder))
    paths = [folder / "base.onnx", folder / "other.onnx"]
    budget = LatencyBudget(0.0, 3, 3)
    base, other = caches_of(paths, data, threads=1, provider="cpu", reporter=NULL_REPORTER, budget=budget)
    assert base.bytes_per_token == 2 * 2 * 16 * 4
    assert base.speed is not None
    assert other.speed is not None
    assert base.speed.token_speedup.value == 1
    assert other.speed.runs == 3
    assert (other.speed.prompt_tokens, other.speed.new_tokens) == (16, 16)
    assert other.speed.tokens_per_second == pytest.approx(1e3 / other.speed.token_ms)
    assert other.speed.token_ms * other.speed.token_speedup.value == pytest.approx(base.speed.token_ms)


def test_that_a_decoder_without_a_cache_has_no_such_speed(tmp_path: Path) -> None:
    onnx.save(decoder(DecoderShape(layers=1, with_past=False)), tmp_path / "m.onnx")
    data = dataset_of(open_model(tmp_path / "m.onnx"), data_of(tmp_path))
    (use,) = caches_of([tmp_path / "m.onnx"], data, threads=1, provider="cpu", reporter=NULL_REPORTER)
    assert use.bytes_per_token == 0
    assert use.speed is None
