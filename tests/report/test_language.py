"""The report's table of language models: perplexity with its ends, nearness to FP32, speed with the cache."""

from __future__ import annotations

from dataclasses import replace

from quantstudio.core.results import CompareResult
from quantstudio.report.language import COLUMNS, language_table
from tests.gui.test_compare_language import BASE, SMALL


def test_that_a_language_model_has_a_table_of_its_own() -> None:
    other = replace(SMALL, name="unlike", language=None)
    table = language_table(CompareResult((BASE, SMALL, other), 20, 1.0, labelled=False))
    assert table is not None
    assert table.columns == COLUMNS
    assert table.said == ("640 tokens in windows of 32; speed with the cache, 8 tokens behind a prompt of 16")
    base, small, unlike = table.rows
    assert base[:4] == ("FP32", "16.00 [15.00, 17.00]", "—", "—")
    assert small[1:3] == ("20.00 [19.00, 21.00]", "1.250 [1.200, 1.300]")
    assert small[7].startswith("500.0 (2.0")
    assert set(unlike[1:]) == {base[2]}


def test_that_what_foretells_no_text_has_no_such_table() -> None:
    plain = replace(BASE, language=None)
    assert language_table(None) is None
    assert language_table(CompareResult((plain,), 20, 1.0, labelled=False)) is None
