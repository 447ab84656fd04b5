"""What the doctor found, kept by the content of all it looked at: the second question is answered at once."""

from __future__ import annotations

import json
from typing import TypeVar

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.files import write_text
from quantstudio.core.findings import digest_of
from quantstudio.core.folders import cache_folder, cache_root
from quantstudio.core.keeping import kept_if_possible

T = TypeVar("T")

# Raised when the same data gets another answer.
VERSION = 3
_KEPT = 200


def key_of(kind: str, **inputs: object) -> str:
    """Name of an answer."""
    return digest_of({"kind": kind, "version": VERSION, **inputs})[:40]


def recall(kind: type[T], key: str) -> T | None:
    """An answer given before; None where there is none that can be read."""
    path = cache_root() / "doctor" / f"{key}.json"
    try:
        return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, CodecError):
        return None


def remember(key: str, answer: object) -> None:
    """Keep an answer, and the latest of the others; where the cache cannot be written that is logged."""
    with kept_if_possible("answers about data"):
        folder = cache_folder("doctor")
        write_text(folder / f"{key}.json", json.dumps(to_json(answer), allow_nan=False))
        files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[_KEPT:]:
            file.unlink(missing_ok=True)
