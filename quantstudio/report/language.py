"""What a report says of language models: perplexity, nearness to FP32, and how fast they write."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core import figures
from quantstudio.core.results import CompareResult, Interval, VariantResult

COLUMNS = (
    "Model",
    "Perplexity",
    "Over FP32's",
    "KL, mean",
    "KL, 99 %",
    "Same top token",
    "First token",
    "Tokens per second",
    "Cache per token",
    "INT8 cache, simulated",
)


@dataclass(frozen=True, slots=True)
class LanguageTable:
    """A table of its own.

    Attributes:
        said: What was measured, and how.
        columns: Headings.
        rows: Cells as text, the model's name first.
    """

    said: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def language_table(comparison: CompareResult | None) -> LanguageTable | None:
    """The table; None where no model foretells a text."""
    if comparison is None:
        return None
    found = next((v.language for v in comparison.variants if v.language is not None), None)
    if found is None:
        return None
    said = f"{figures.count(found.tokens)} tokens in windows of {found.context}"
    if found.speed is not None:
        new, prompt = found.speed.new_tokens, found.speed.prompt_tokens
        said += f"; speed with the cache, {new} tokens behind a prompt of {prompt}"
    rows = tuple(_row(v, is_base=index == 0) for index, v in enumerate(comparison.variants))
    return LanguageTable(said, COLUMNS, rows)


def _row(variant: VariantResult, *, is_base: bool) -> tuple[str, ...]:
    found = variant.language
    if found is None:
        return (variant.name, *[figures.NOTHING] * (len(COLUMNS) - 1))
    speed, kept, cache = found.speed, found.cache_bytes_per_token, found.int8_cache
    nothing = figures.NOTHING
    pace = nothing if speed is None else figures.number(speed.tokens_per_second, 1)
    if speed is not None and not is_base:
        pace += f" ({figures.ratio(speed.token_speedup.value)})"
    return (
        variant.name,
        _with_ends(found.perplexity, 2),
        nothing if is_base else _with_ends(found.growth, 3),
        nothing if is_base else figures.significant(found.kl),
        nothing if is_base else figures.significant(found.kl_p99),
        nothing if is_base else figures.percent(found.same_top),
        nothing if speed is None else figures.milliseconds(speed.first_token_ms),
        pace,
        figures.size(kept) if kept else nothing,
        nothing
        if cache is None
        else f"{figures.size(cache.bytes_per_token)}, × {_with_ends(cache.growth, 3)}",
    )


def _with_ends(found: Interval, digits: int) -> str:
    low, high = (figures.number(end, digits) for end in (found.low, found.high))
    return f"{figures.number(found.value, digits)} [{low}, {high}]"
