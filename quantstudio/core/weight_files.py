"""Files of weights beside models of more than 2 GiB: named by their content, and gone with the last model."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# As `engine.graph.writing` names them beside a result, and `engine.model.cache` beside a graph.
_NAME = re.compile(rb"(?:weights-[0-9a-f]{16}|[0-9a-f]{64})\.bin")
# No model that names others is larger, which is why it names them.
_LARGEST_MODEL = 2**31


def named_weights(model: Path) -> set[str]:
    """Names of the files of weights that a model file speaks of and that lie beside it."""
    if model.suffix != ".onnx" or next(model.parent.glob("*.bin"), None) is None:
        return set()
    return {name for name in _names_in(model) if (model.parent / name).is_file()}


def drop_unnamed(folder: Path, names: Iterable[str]) -> None:
    """Remove those of some files of weights that nothing in the folder speaks of any more.

    A model somebody renamed is looked into whatever it is called now.
    """
    left = set(names)
    for other in folder.iterdir() if left else ():
        if other.suffix != ".bin":
            left -= _names_in(other)
    for name in left:
        # In use after all, as Windows tells: it stays.
        with suppress(OSError):
            (folder / name).unlink()


def _names_in(file: Path) -> set[str]:
    try:
        if not 0 < file.stat().st_size < _LARGEST_MODEL:
            return set()
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {found.group().decode() for found in _NAME.finditer(content)}
    except (OSError, ValueError):  # it is gone, or a folder
        return set()
