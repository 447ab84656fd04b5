"""How fast a built file is beside the network it was made from, and what keeps it where it is not faster."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx

from quantstudio.core.events import CancelToken, NullReporter
from quantstudio.core.figures import counted
from quantstudio.core.layers import LayerInfo
from quantstudio.core.results import BuildResult, BuiltLayer, Interval
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session
from quantstudio.engine.search.candidates import MIN_CHANNELS

CONFIRMING = LatencyBudget(seconds=2.0, min_rounds=25, max_rounds=300)
# For a warning less will do.
CHECKING = LatencyBudget(seconds=1.0, min_rounds=15, max_rounds=150)
# A file this much slower than FP32 is warned of; timings differ by some per cent.
NOTED_SPEED = 0.95
_NAMED = 3
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def speed_against(
    graph: Graph, built: Path, dataset: Dataset, cancel: CancelToken, budget: LatencyBudget | None = None
) -> Interval:
    """Times faster than the network a file is, one sample a run, in rounds that alternate between the two.

    Raises:
        MeasureError: one of them does not run on the data.
        JobCancelled: the token was set.
    """
    feed = next(iter(dataset.batches(1, stop=1))).feed
    timed = interleaved_latency(
        [Path(graph.summary.graph_path), built],
        feed,
        budget=budget or CONFIRMING,
        reporter=NullReporter(),
        cancel=cancel,
    )
    return timed.speedups[1]


def slowness(graph: Graph, built: BuildResult, dataset: Dataset, cancel: CancelToken) -> str:
    """What to say of a file that takes longer than FP32, and why it does; empty where it does not.

    Raises:
        MeasureError: one of the two does not run on the data.
        JobCancelled: the token was set.
    """
    speed = speed_against(graph, Path(built.output), dataset, cancel, CHECKING)
    if speed.value >= NOTED_SPEED or speed.high >= 1.0:
        return ""
    reasons = reasons_of_slowness(graph.layers, built.layers, _operators(Path(built.output), cancel))
    why = f": {'; '.join(reasons)}" if reasons else ""
    return (
        f"The file is slower than FP32, {speed.value:.2f} times its speed on this machine{why}. "
        "The preset auto takes what is not slower."
    )


def reasons_of_slowness(
    layers: Sequence[LayerInfo], built: Sequence[BuiltLayer], operators: Counter[str]
) -> list[str]:
    """What costs time in a file of integers.

    Args:
        layers: Of the network.
        built: What became of them.
        operators: Nodes of the graph as the runtime has optimized it, by operator.
    """
    quantized = [one for one in built if one.weights not in ("fp32", "fp16")]
    floats = [one for one in quantized if not one.is_integer_kernel and one.kernel.endswith("(float)")]
    integer = {one.name for one in quantized if one.is_integer_kernel}
    narrow = [
        layer.name
        for layer in layers
        if layer.name in integer and layer.op_type == "Conv" and layer.weight_shape[0] < MIN_CHANNELS
    ]
    conversions = sum(operators[name] for name in _CONVERSIONS)
    found = []
    if floats:
        names = _few([one.name for one in floats])
        found.append(f"{len(floats)} of {counted(len(built), 'layer')} compute in float ({names})")
    if conversions > max(2, len(integer)):
        layers_of_integers = counted(len(integer), "integer layer")
        found.append(f"{conversions} conversions between integers and floats for {layers_of_integers}")
    if narrow:
        found.append(
            f"{counted(len(narrow), 'convolution')} with fewer than {MIN_CHANNELS} channels, which integer "
            f"kernels are slower for ({_few(narrow)})"
        )
    if not found:
        found.append("its layers are so small that converting costs more than integers save")
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _operators(path: Path, cancel: CancelToken) -> Counter[str]:
    with tempfile.TemporaryDirectory(prefix="quantstudio-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(path, threads=1, optimized_path=optimized, keep_float_layers=False, cancel=cancel)
        return Counter(node.op_type for node in onnx.load(optimized).graph.node)
