"""Where a run spends its time, layer by layer: shares from ONNX Runtime's profile, never totals.

Profiling adds time, so totals come from un-profiled interleaved runs (`evaluation/latency.py`).
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from quantstudio.core.events import CancelToken
from quantstudio.core.layers import LayerInfo
from quantstudio.engine.graph.runtime import Feed, open_session, run
from quantstudio.engine.quantization.emit import Emission
from quantstudio.engine.quantization.kernels import map_kernels

RUNS = 12
_KERNEL = "_kernel_time"


def layer_times_us(
    layers: Sequence[LayerInfo],
    emission: Emission,
    model: Path,
    feed: Feed,
    *,
    threads: int | None,
    cancel: CancelToken,
) -> tuple[dict[str, float], float]:
    """Median kernel time of every layer, and of everything else, in microseconds.

    Args:
        layers: Layers of the graph.
        emission: How the variant was written; maps fused kernels back to layers.
        model: The variant's file.
        feed: One batch.
        threads: Intra-op threads.
        cancel: Ends a run in progress, too.

    Returns:
        Time by layer name (0 for layers the runtime folded away), and the time no layer owns: layout
        changes, borders between precisions, unlisted operators.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized_path = Path(folder) / "optimized.onnx"
        session = open_session(
            model,
            threads=threads,
            optimized_path=optimized_path,
            profile_prefix=Path(folder) / "profile",
            cancel=cancel,
        )
        for _ in range(RUNS):
            run(session, feed, cancel=cancel)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        optimized = onnx.load(optimized_path).graph
    by_node = _median_by_node(events)
    times: dict[str, float] = {}
    for name, kernel in map_kernels(layers, emission, optimized).items():
        times[name] = by_node.pop(kernel.node, 0.0) if kernel.node else 0.0
    return times, sum(by_node.values())


def _median_by_node(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    runs: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            runs[name.removesuffix(_KERNEL)].append(float(event["dur"]))
    # The first run includes one-time preparation.
    return {name: median(times[1:] or times) for name, times in runs.items()}
