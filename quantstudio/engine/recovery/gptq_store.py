"""Layers that are solved, kept until all are: a run that was cancelled or killed does the rest.

    gptq/KEY/LAYER.npz    weights of one layer and its errors; KEY stands for all they were made from

The folder goes when the step is done: what comes of it is kept by the store of steps.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.files import write_bytes
from quantstudio.core.folders import cache_folder
from quantstudio.core.recovered import LayerRecovered


class LayerStore:
    """Solved layers of one run on disk.

    Args:
        inputs: All that decides what comes of the run, as JSON values.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        self._key = hashlib.sha256(text.encode()).hexdigest()

    @property
    def _folder(self) -> Path:
        return cache_folder("gptq", self._key)

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
        """Keep a layer.

        Raises:
            OutputError: the cache folder cannot be written.
        """
        content = io.BytesIO()
        after = np.nan if gain.after is None else gain.after
        np.savez(content, weight=weight, before=np.float64(gain.before), after=np.float64(after))
        write_bytes(self._path(layer), content.getvalue())

    def clear(self) -> None:
        """Drop what was kept: the run is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, layer: str) -> Path:
        return self._folder / f"{hashlib.sha256(layer.encode()).hexdigest()[:32]}.npz"
