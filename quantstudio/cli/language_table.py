"""What a comparison says of language models, for a terminal."""

from __future__ import annotations

from quantstudio.cli.output import format_bytes
from quantstudio.core.figures import significant
from quantstudio.core.language import GenerationSpeed, LanguageFigures
from quantstudio.core.results import CompareResult, Interval

LANGUAGE_COLUMNS = (
    "model",
    "perplexity [95 %]",
    "over the base's [95 %]",
    "KL mean, 99 %",
    "same top token",
    "first token",
    "tokens a second [speed-up]",
    "cache a token",
    "INT8 cache, simulated: bytes a token, perplexity [95 %]",
)


def language_title(result: CompareResult) -> str:
    """What the figures are of; empty where no model foretells a text."""
    found = next((v.language for v in result.variants if v.language is not None), None)
    if found is None:
        return ""
    title = f"{found.tokens:,} tokens in windows of {found.context}"
    if found.speed is not None:
        title += f"; speed with the cache, {found.speed.new_tokens} tokens after {found.speed.prompt_tokens}"
    return title


def language_rows(result: CompareResult) -> list[tuple[str, ...]]:
    """One row a model that foretells a text."""
    return [
        _row(v.name, v.language, is_base=index == 0)
        for index, v in enumerate(result.variants)
        if v.language is not None
    ]


def _row(name: str, figures: LanguageFigures, *, is_base: bool) -> tuple[str, ...]:
    kept, cache = figures.cache_bytes_per_token, figures.int8_cache
    return (
        name,
        _with_ends(figures.perplexity),
        "—" if is_base else _with_ends(figures.growth, 3),
        "—" if is_base else f"{significant(figures.kl)}, {significant(figures.kl_p99)}",
        "—" if is_base else f"{figures.same_top:.2%}",
        "—" if figures.speed is None else f"{figures.speed.first_token_ms:.2f} ms",
        "—" if figures.speed is None else _pace(figures.speed, is_base=is_base),
        format_bytes(kept) if kept else "—",
        "—" if cache is None else f"{format_bytes(cache.bytes_per_token)}, × {_with_ends(cache.growth, 3)}",
    )


def _pace(speed: GenerationSpeed, *, is_base: bool) -> str:
    text = f"{speed.tokens_per_second:.1f}"
    return text if is_base else f"{text} [{speed.token_speedup.value:.2f}×]"


def _with_ends(found: Interval, digits: int = 2) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
