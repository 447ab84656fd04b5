"""Layers that are solved, kept by all that came before them: what an earlier run solved is not solved again.

    gptq/KEY.npz    weights of one layer and its errors

KEY stands for the network, the samples, the settings, and for what was done to every node up to the layer. So
a run that was cancelled or killed does the rest, and a plan that differs from another in a late layer takes
over all layers before that, bit for bit. What was used longest ago goes once the folder is large. A cache
that cannot be written costs nothing but the solving.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import OutputError
from quantstudio.core.files import write_bytes
from quantstudio.core.folders import cache_folder, cache_root
from quantstudio.core.recovered import LayerRecovered

logger = logging.getLogger(__name__)

LIMIT_BYTES = 1 << 30


class LayerStore:
    """Solved layers on disk, as one walk through a network comes by them.

    Args:
        inputs: All that decides what comes of a run besides what the plan makes of the nodes, as JSON values.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        self._passed = hashlib.sha256(text.encode())
        self._is_writable = True

    def pass_by(self, *parts: str | bytes) -> None:
        """Take in what is done to the next node of the walk: all layers from it on depend on that."""
        for part in parts:
            content = part.encode() if isinstance(part, str) else part
            self._passed.update(len(content).to_bytes(8, "big") + content)

    def find(self, layer: str, measure: str) -> tuple[NDArray[np.float32], LayerRecovered] | None:
        """Weights of a layer as they lie, and what they won back; None where it is not there, or damaged."""
        path = self._path()
        try:
            with np.load(path, allow_pickle=False) as kept:
                weight = np.asarray(kept["weight"], dtype=np.float32)
                before, after = (float(kept[name]) for name in ("before", "after"))
            os.utime(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return weight, LayerRecovered(layer, before, after, measure)

    def put(self, weight: NDArray[np.float32], gain: LayerRecovered) -> None:
        """Keep a layer; where the cache folder cannot be written that is logged once, and none is kept."""
        if not self._is_writable:
            return
        content = io.BytesIO()
        after = np.nan if gain.after is None else gain.after
        np.savez(content, weight=weight, before=np.float64(gain.before), after=np.float64(after))
        try:
            cache_folder("gptq")
            write_bytes(self._path(), content.getvalue())
        except OutputError as error:
            self._is_writable = False
            logger.warning("solved layers are not kept, a cancelled run begins anew: %s", error)

    def _path(self) -> Path:
        return _folder() / f"{self._passed.hexdigest()}.npz"


def prune_layers(limit_bytes: int = LIMIT_BYTES) -> None:
    """Remove what was used longest ago until the rest fits the limit."""
    found = []
    for path in _folder().glob("*"):
        if path.is_dir():  # a run of an earlier version that was never finished
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            found.append((path.stat().st_mtime, path.stat().st_size, path))
        except FileNotFoundError:  # another process tidies up, too
            continue
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > limit_bytes:
            path.unlink(missing_ok=True)


def _folder() -> Path:
    return cache_root() / "gptq"
