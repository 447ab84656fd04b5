"""Files of weights beside models of more than 2 GiB: named by their content, and gone with the last model."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# As `engine.graph.writing` names them beside a result, and `engine.model.cache` beside a graph.
_NAME = re.compile(rb"(?:weights-[0-9a-f]{16}|[0-9a-f]{64})\.bin")


def named_weights(model: Path) -> set[str]:
    """Names of the files of weights that a model file speaks of and that lie beside it."""
    if model.suffix != ".onnx" or next(model.parent.glob("*.bin"), None) is None:
        return set()
    try:
        with model.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            names = {found.group().decode() for found in _NAME.finditer(content)}
    except (OSError, ValueError):  # it is missing, or empty
        return set()
    return {name for name in names if (model.parent / name).is_file()}


def drop_unnamed(folder: Path, names: Iterable[str]) -> None:
    """Remove those of some files of weights that no model of the folder speaks of any more."""
    left = set(names)
    for model in folder.glob("*.onnx") if left else ():
        left -= named_weights(model)
    for name in left:
        # In use after all, as Windows tells: it stays.
        with suppress(OSError):
            (folder / name).unlink()
