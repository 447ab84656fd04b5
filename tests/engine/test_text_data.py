"""Text is data: windows of tokens, with all else a language model reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.data.text import TextNetwork, text_network
from quantstudio.engine.model.open import open_model
from quantstudio.engine.tasks.inputs import dataset_of
from tests.engine.decoders import TEXT, DecoderShape, decoder, tokenizer_json

IDS = TensorInfo("input_ids", "int64", ("batch_size", "sequence_length"))
MASK = TensorInfo("attention_mask", "int64", ("batch_size", "past + sequence_length"))
PAST = TensorInfo("past_key_values.0.key", "float32", ("batch_size", 2, "past", 16))


def written(folder: Path, text: str = TEXT, name: str = "text.txt", **more: object) -> Path:
    """A text with its tokenizer beside it."""
    tokenizer_json(folder / "tokenizer.json", **more)  # type: ignore[arg-type]
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def opened(
    path: Path, *inputs: TensorInfo, transform: str = "context=16", samples: int = 0, **network: object
) -> Dataset:
    spec = DataSpec(str(path), parse_transform(transform), samples)
    return open_dataset(spec, inputs or (IDS,), network=TextNetwork(**network))  # type: ignore[arg-type]


def test_that_text_is_cut_into_windows_whose_last_token_has_its_successor_too(tmp_path: Path) -> None:
    data = opened(written(tmp_path, "abcdefghi"), transform="context=4")
    ids = next(data.batches(8)).feed["input_ids"]
    assert len(data) == 2
    assert [["".join(chr(32 + t) for t in row)] for row in ids] == [["abcd"], ["efgh"]]
    assert data.next_tokens is not None
    assert ["".join(chr(32 + t) for t in row) for row in data.next_tokens] == ["bcde", "fghi"]


def test_that_every_other_input_gets_what_a_decoder_with_an_empty_cache_reads(tmp_path: Path) -> None:
    positions = TensorInfo("position_ids", "int32", ("batch_size", "sequence_length"))
    kinds = TensorInfo("token_type_ids", "int64", ("batch_size", "sequence_length"))
    switch = TensorInfo("use_cache_branch", "bool", (1,))
    places = TensorInfo("cache_position", "int64", ("sequence_length",))
    feed = next(opened(written(tmp_path), IDS, MASK, positions, kinds, PAST, switch, places).batches(3)).feed
    assert feed["attention_mask"].tolist() == [[1] * 16] * 3
    assert feed["position_ids"].dtype == np.int32
    assert feed["position_ids"].tolist() == [list(range(16))] * 3
    assert not feed["token_type_ids"].any()
    assert feed["past_key_values.0.key"].shape == (3, 2, 0, 16)
    assert feed["use_cache_branch"].tolist() == [False]
    assert feed["cache_position"].tolist() == list(range(16))


def test_that_a_cache_of_fixed_length_is_given_empty_and_masked(tmp_path: Path) -> None:
    mask = TensorInfo("attention_mask", "int64", ("batch_size", 40))
    past = TensorInfo("past_key_values.0.key", "float32", ("batch_size", 2, 24, 16))
    feed = next(opened(written(tmp_path), IDS, mask, past).batches(1)).feed
    assert feed["attention_mask"].tolist() == [[0] * 24 + [1] * 16]
    assert feed["past_key_values.0.key"].shape == (1, 2, 24, 16)


def test_that_lines_of_json_are_texts_one_after_the_other(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "abcd"}), "", json.dumps("efgh"), json.dumps({"content": "ij"})]
    data = opened(written(tmp_path, "\n".join(lines), "text.jsonl"), transform="context=9")
    assert "".join(chr(32 + t) for t in data.raw(0)) == "abcdefghi"


def test_that_a_short_text_is_one_shorter_window(tmp_path: Path) -> None:
    data = opened(written(tmp_path, "abcdef"), transform="")
    assert next(data.batches(4)).feed["input_ids"].shape == (1, 5)


def test_that_a_tokenizer_that_cuts_and_fills_text_is_told_not_to(tmp_path: Path) -> None:
    cutting = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    data = opened(written(tmp_path, "abcdefghi", truncation=cutting), transform="context=8")
    assert len(data) == 1


def test_that_only_as_much_is_read_as_the_samples_need(tmp_path: Path) -> None:
    data = opened(written(tmp_path, TEXT * 3), samples=2)
    assert len(data) == 2
    assert data.next_tokens is not None
    assert data.next_tokens.shape == (2, 16)


def test_that_the_digest_follows_the_text_and_the_windows(tmp_path: Path) -> None:
    path = written(tmp_path)
    one, same, other = opened(path), opened(path), opened(path, transform="context=8")
    path.write_text(TEXT.upper(), encoding="utf-8")
    assert one.digest == same.digest
    assert len({one.digest, other.digest, opened(path).digest}) == 3


@pytest.mark.parametrize(
    ("text", "transform", "network", "said"),
    [
        pytest.param("", "", {}, "the text is empty", id="empty"),
        pytest.param("a", "", {}, "a single token", id="one token"),
        pytest.param(TEXT, "", {"vocabulary": 50}, "do not belong together", id="vocabulary"),
        pytest.param(TEXT, "context=64", {"longest": 32}, "longer than the model's context of 32", id="long"),
    ],
)
def test_that_text_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, text: str, transform: str, network: dict[str, int], said: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=said) as caught:
        opened(path, transform=transform, **network)
    assert "\n" not in caught.value.one_line


def test_that_text_without_a_tokenizer_says_where_one_belongs(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(DataError, match=r"needs the model's tokenizer.json"):
        opened(path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="the tokenizer cannot be read"):
        opened(path)


@pytest.mark.parametrize(
    ("line", "said"), [("{", "line 2 is not JSON"), ('{"id": 3}', "line 2 holds no text")], ids=str
)
def test_that_a_line_without_text_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        opened(written(tmp_path, f'{{"text": "abc"}}\n{line}\n', "text.jsonl"))


def test_that_a_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes("für".encode("latin-1") * 20)
    with pytest.raises(DataError, match="not UTF-8"):
        opened(path)


def test_that_an_input_text_cannot_feed_is_named(tmp_path: Path) -> None:
    picture = TensorInfo("pixel_values", "float32", ("batch_size", 3, 8, 8))
    with pytest.raises(DataError, match="text gives nothing for the model's input 'pixel_values'"):
        opened(written(tmp_path), IDS, picture)
    with pytest.raises(DataError, match="reads no tokens"):
        opened(written(tmp_path), PAST)


def test_that_a_context_nothing_vouches_for_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing says that the model reads so many tokens"):
        opened(written(tmp_path), transform="context=100000")
    assert opened(written(tmp_path), transform="context=100000", longest=200_000).next_tokens is not None


def test_that_a_context_is_only_for_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", input_ids=np.zeros((4, 8), np.int64))
    with pytest.raises(DataError, match="context= is for text"):
        opened(tmp_path / "data.npz")
    with pytest.raises(DataError, match="no number of tokens"):
        parse_transform("context=many")
    assert parse_transform("context=64").text == "context=64"


def test_that_a_model_tells_its_vocabulary_and_its_longest_text(tmp_path: Path) -> None:
    onnx.save(decoder(DecoderShape(layers=1, positions=48, with_past=False)), tmp_path / "m.onnx")
    found = text_network(open_model(tmp_path / "m.onnx").summary)
    assert (found.vocabulary, found.longest) == (96, 48)
    (tmp_path / "config.json").write_text(json.dumps({"n_positions": 40}), encoding="utf-8")
    assert text_network(open_model(tmp_path / "m.onnx").summary).longest == 40


def test_that_the_tokenizer_beside_the_model_is_found(tmp_path: Path) -> None:
    onnx.save(decoder(DecoderShape(layers=1)), tmp_path / "m.onnx")
    tokenizer_json(tmp_path / "tokenizer.json")
    (tmp_path / "texts").mkdir()
    path = tmp_path / "texts" / "some.txt"
    path.write_text(TEXT, encoding="utf-8")
    data = dataset_of(open_model(tmp_path / "m.onnx"), to_json(DataSpec(str(path))))
    assert len(data) == 1
    assert next(data.batches(1)).feed["past_key_values.0.key"].shape[2] == 0


@pytest.mark.parametrize(
    ("line", "message"), [("[" * 100_000, "is not JSON"), ('{"other": 1}', "holds no text")]
)
def test_that_a_line_that_is_no_text_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=f"line 1 {message}"):
        opened(written(tmp_path, line + "\n", "text.jsonl"))


def test_that_half_a_character_is_read_as_a_question_mark(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"text": "abc\ud800def"}) + "\n", "text.jsonl")
    assert opened(path, transform="context=4").text(0) == "abc?"


def test_that_a_line_without_end_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened(written(tmp_path, "abcdefgh" * 64)).digest
    monkeypatch.setattr("quantstudio.engine.data.text._LONGEST_LINE", 7)
    monkeypatch.setattr("quantstudio.engine.data.text._BLOCK", 20)
    assert opened(tmp_path / "text.txt").digest == whole
