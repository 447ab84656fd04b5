"""What is measured of a language model: how well it foretells a text, and how fast it writes."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.intervals import Interval


@dataclass(frozen=True, slots=True)
class GenerationSpeed:
    """How fast a decoder with a cache writes, one token at a time, from interleaved runs.

    Attributes:
        prompt_tokens: Tokens it reads before it writes.
        new_tokens: Tokens it writes after the first, in each run.
        first_token_ms: Median time from the prompt to the first token.
        token_ms: Median time of each further token.
        tokens_per_second: Of those further tokens.
        first_token_speedup: Base time over this model's, from paired runs.
        token_speedup: The same of each further token.
        threads: Threads of the runtime.
        runs: Timed runs.
    """

    prompt_tokens: int
    new_tokens: int
    first_token_ms: float
    token_ms: float
    tokens_per_second: float
    first_token_speedup: Interval
    token_speedup: Interval
    threads: int
    runs: int


@dataclass(frozen=True, slots=True)
class RoundedCache:
    """What a cache of INT8 keys and values would cost: simulated, as no file holds one.

    Attributes:
        bytes_per_token: Bytes it takes for each token read, a scale for each head included.
        growth: Perplexity with it over that with the float cache, of the same model, paired, with its 95 %
            interval.
        tokens: Tokens judged: those that read from the cache.
    """

    bytes_per_token: int
    growth: Interval
    tokens: int


@dataclass(frozen=True, slots=True)
class LanguageFigures:
    """How a language model does on a text, against the base.

    Attributes:
        perplexity: Of the text: exp of the mean negative log-likelihood of each next token, with its 95 %
            interval.
        growth: Its perplexity over the base's, from the same tokens, paired; 1 for the base.
        kl: Mean KL divergence of the next token's distribution from the base's, nats.
        kl_p99: 99th percentile over the tokens.
        same_top: Share of tokens for which the likeliest next token is the base's.
        tokens: Tokens judged.
        context: Tokens of a window; a token sees only what lies before it in its window.
        cache_bytes_per_token: Bytes of keys and values kept for each token read; 0 without a cache.
        speed: How fast it writes; None where it has no cache or was not timed.
        int8_cache: What an INT8 cache would cost, simulated; None without a cache that grows.
    """

    perplexity: Interval
    growth: Interval
    kl: float
    kl_p99: float
    same_top: float
    tokens: int
    context: int
    cache_bytes_per_token: int = 0
    speed: GenerationSpeed | None = None
    int8_cache: RoundedCache | None = None
