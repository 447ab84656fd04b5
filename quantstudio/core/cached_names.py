"""What a person calls a file of the cache: the model it was made from."""

from __future__ import annotations

import json
import re
from pathlib import Path

from quantstudio.core.folders import cache_root

# Where in a sentence a path ends.
_END_OF_PATH = r"[^\s:'\",;()]+"
_KINDS = {
    "variants": "the variant",
    "statistics": "the kept statistics",
    "steps": "the network behind a step",
}


def in_names_of_the_user(text: str) -> str:
    """A message with the user's files in place of those QuantStudio keeps of them.

    A normalised graph has the name of the file it was made from, which the summary beside it holds.
    """
    root = str(cache_root())
    if root not in text:
        return text
    return re.sub(re.escape(root) + _END_OF_PATH, lambda found: _name_of(Path(found[0])), text)


def _name_of(path: Path) -> str:
    try:
        source = json.loads(path.with_suffix(".json").read_text(encoding="utf-8")).get("source_path")
    except (OSError, ValueError, AttributeError):
        source = None
    if isinstance(source, str) and source:
        return source
    inside = path.relative_to(cache_root()).parts
    return _KINDS.get(inside[0] if inside else "", "the model")
