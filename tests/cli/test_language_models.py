"""A language model from the command line: inspected, examined, quantized, compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from quantstudio.cli.language_table import language_rows, language_title
from quantstudio.cli.main import app
from quantstudio.core.language import GenerationSpeed, LanguageFigures, RoundedCache
from quantstudio.core.results import CompareResult, Interval, VariantResult
from tests.engine.decoders import TEXT, DecoderShape, decoder, tokenizer_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("decoder")
    onnx.save(decoder(DecoderShape(layers=1)), made / "model.onnx")
    tokenizer_json(made / "tokenizer.json")
    (made / "text.txt").write_text(TEXT * 4, encoding="utf-8")
    return made


def variant(name: str, figures: LanguageFigures) -> VariantResult:
    return VariantResult(
        path=name,
        name=name,
        size_bytes=1,
        metrics={},
        drop=None,
        drop_method="",
        p_value=None,
        per_class=(),
        segments=(),
        agreement=None,
        latency_ms=None,
        speedup=None,
        peak_memory_bytes=0,
        footprint=None,
        provider="cpu",
        samples=20,
        language=figures,
    )


def ran(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_that_the_doctor_reads_text_and_says_its_perplexity(folder: Path) -> None:
    said = ran("data", folder / "model.onnx", folder / "text.txt", "--transform", "context=32")
    assert "Perplexity of FP32" in said
    assert "quick brown fox" in said.replace("\n", " ")


def test_that_sensitivity_reads_text_too(folder: Path) -> None:
    common = ("--data", folder / "text.txt", "--transform", "context=32", "--samples", "4")
    ran("sensitivity", folder / "model.onnx", *common, "--json", folder / "s.json")
    layers = json.loads((folder / "s.json").read_text(encoding="utf-8"))["layers"]
    assert all(layer["kl"] >= 0 for layer in layers)


def test_that_the_table_of_language_models_says_what_was_measured() -> None:
    speed = GenerationSpeed(16, 8, 5.0, 2.0, 500.0, Interval(1, 1, 1), Interval(2, 1.5, 2.5), 1, 5)
    growth = Interval(1.031, 1.02, 1.04)
    cache = RoundedCache(160, Interval(1.002, 1.001, 1.004), 480)
    found = LanguageFigures(Interval(18.4, 18.0, 19.0), growth, 0.01, 0.2, 0.93, 640, 32, 512, speed, cache)
    base = replace(found, growth=Interval(1, 1, 1), speed=replace(speed, token_speedup=Interval(1, 1, 1)))
    result = CompareResult(tuple(variant(n, f) for n, f in (("a", base), ("b", found))), 20, 1.0, False)
    assert language_title(result) == "640 tokens in windows of 32; speed with the cache, 8 tokens after 16"
    assert language_rows(result)[0][2:5] == ("—", "—", "—")
    row = language_rows(result)[1]
    assert row[1:5] == ("18.40 [18.00, 19.00]", "1.031 [1.020, 1.040]", "0.0100, 0.200", "93.00%")
    assert row[5:7] == ("5.00 ms", "500.0 [2.00×]")
    assert row[8] == "160 B, × 1.002 [1.001, 1.004]"
