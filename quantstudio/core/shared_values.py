"""Weights that take few values: bytes of the indices and tables a file holds them as."""

from __future__ import annotations

from quantstudio.core.codebooks import UNPACKING_BYTES
from quantstudio.core.packing import BYTES, NIBBLES, WORDS

# Values a table can have.
MOST_ENTRIES = BYTES
FLOAT_BYTES = 4


def table_size(values: int) -> int:
    """Entries of the table that holds so many values: as many as the digits of an index tell apart."""
    return next(radix for radix in sorted((*WORDS, NIBBLES, MOST_ENTRIES)) if values <= radix)


def index_bytes(weights: int, entries: int, tables: int) -> int:
    """Bytes of the indices of so many weights, and of their tables."""
    radix = table_size(entries)
    if radix == MOST_ENTRIES:
        indices = weights
    elif radix == NIBBLES:
        indices = -(-weights // 2)
    else:
        indices = -(-weights // WORDS[radix].digits) * WORDS[radix].bytes
    return indices + FLOAT_BYTES * tables * radix


def table_pays(weights: int, entries: int, tables: int) -> bool:
    """Whether indices and tables, and the operators that look them up, take clearly less than floats."""
    return index_bytes(weights, entries, tables) + UNPACKING_BYTES < FLOAT_BYTES * weights
