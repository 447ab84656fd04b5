"""Layers that are solved, kept until all are: a run that was cancelled or killed does the rest.

    gptq/KEY/LAYER.npz    weights of one layer and its errors; KEY stands for all they were made from

The folder goes when the step is done: what comes of it is kept by the store of steps. Of runs that never came
to their end a few are kept. A cache that cannot be written costs nothing but the resuming.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
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

# Runs that never came to their end whose layers are kept; one is as large as its network in FP32.
_KEPT = 4


class LayerStore:
    """Solved layers of one run on disk.

    Args:
        inputs: All that decides what comes of the run, as JSON values.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._is_writable = True

    @property
    def _folder(self) -> Path:
        return cache_root() / "gptq" / self._key

    def find(self, layer: str, measure: str) -> tuple[NDArray[np.float32], LayerRecovered] | None:
        """Weights of a layer as they lie, and what they won back; None where it is not there, or damaged."""
        try:
            with np.load(self._path(layer), allow_pickle=False) as kept:
                weight = np.asarray(kept["weight"], dtype=np.float32)
                before, after = (float(kept[name]) for name in ("before", "after"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return weight, LayerRecovered(layer, before, after, measure)

    def put(self, layer: str, weight: NDArray[np.float32], gain: LayerRecovered) -> None:
        """Keep a layer; where the cache folder cannot be written that is logged once, and none is kept."""
        if not self._is_writable:
            return
        content = io.BytesIO()
        after = np.nan if gain.after is None else gain.after
        np.savez(content, weight=weight, before=np.float64(gain.before), after=np.float64(after))
        try:
            if not self._folder.is_dir():
                cache_folder("gptq", self._key)
                self._drop_oldest()
            write_bytes(self._path(layer), content.getvalue())
        except OutputError as error:
            self._is_writable = False
            logger.warning("solved layers are not kept, a cancelled run begins anew: %s", error)

    def clear(self) -> None:
        """Drop what was kept: the run is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _drop_oldest(self) -> None:
        """Drop all but the runs that were worked at last, of those that never came to their end.

        One of them that is still under way in another process loses nothing but what it could resume from.
        """
        others = [(_changed(one), one) for one in self._folder.parent.iterdir() if one != self._folder]
        for _, folder in sorted(others, reverse=True)[_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, layer: str) -> Path:
        return self._folder / f"{hashlib.sha256(layer.encode()).hexdigest()[:32]}.npz"


def _changed(folder: Path) -> float:
    """When a layer was last put into a folder; long ago where it is gone by now."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
