"""A network whose weights are chosen together: the work of `gptq` between its settings and its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.statistics_file import statistics_digest
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.protos import as_tensor
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.bias_targets import set_bias
from quantstudio.engine.recovery.gptq_layers import GptqLayer, gptq_layers
from quantstudio.engine.recovery.gptq_run import GptqOptions, GptqRun
from quantstudio.engine.recovery.gptq_store import LayerStore, prune_layers
from quantstudio.engine.recovery.layer_matrix import LayerMatrix
from quantstudio.engine.recovery.output_metric import OutputMetrics
from quantstudio.engine.recovery.walk import TwoPathWalk, samples_at_once
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings

Tensor = torch.Tensor

# Tokens of text that go through at most, and at once: one says as much as an image's place does.
_TOKENS, _TOKENS_AT_ONCE = 24_576, 2048
# Layers that a summary names.
_NAMED = 5
# Channels that are chosen together, and channels times columns squared: beyond, there is no time for it, and
# many columns make up for most by themselves.
_MOST_JOINT, _JOINT_WORK = 2048, 1 << 24


def solved(
    graph: Graph,
    context: StepContext,
    options: GptqOptions,
    samples: int,
    settings: Mapping[str, Any],
    reporter: Reporter,
    cancel: CancelToken,
) -> StepOutcome:
    """The graph with weights that lie on the grids of the plan already, where errors cancel best.

    Args:
        graph: The network.
        context: Data, statistics and plan.
        options: How layers are solved.
        samples: Most samples that go through the network.
        settings: What a layer kept from a cancelled run must have been solved with, besides the above.
        reporter: Told of every layer.
        cancel: Looked at between layers.

    Raises:
        CalibrationError: moments hold NaN or infinity, which names the layer; or nothing varies at all.
        UnsupportedOpError: torch has no form of a node.
        JobCancelled: `cancel` was set.
    """
    statistics = context.statistics(graph) if context.plan.is_static else None
    device = resolve_device(context.device)
    places = places_of(context.dataset, samples, samples_at_once(graph))
    count = sum(stop - start for start, stop in places)
    fake = FakeQuantized(graph, statistics, context.plan)
    layers = gptq_layers(graph, fake, context.plan)
    if not layers:
        return StepOutcome(graph, "No layer with integer weights to choose: nothing was done.", {"layers": 0})
    inputs = {
        "graph": graph.digest,
        "data": context.dataset.digest,
        "samples": count,
        "statistics": statistics_digest(statistics) if statistics is not None else "",
        **settings,
    }
    with torch_settings(worker_threads()), torch.no_grad():
        fake = fake.to(device).eval().requires_grad_(False)
        walk = TwoPathWalk(fake, feeds_of(context.dataset, places, device, cancel), cancel)
        is_joint = options.is_joint and context.dataset.next_tokens is None
        joint = _joint_layers(layers, fake) if is_joint else {}
        metrics = OutputMetrics(graph, fake.network, joint, context.dataset, cancel) if joint else None
        run = GptqRun(walk, fake, layers, count, options, LayerStore(inputs), reporter, cancel, metrics)
        try:
            run.go()
        finally:
            prune_layers()
    return _outcome(graph, layers, run, count)


def _joint_layers(layers: Mapping[str, GptqLayer], fake: FakeQuantized) -> dict[str, LayerMatrix]:
    """Layers whose channels can be chosen together: those with a table each, as many as there is time for."""
    found = {}
    for name, layer in layers.items():
        groups, outputs, columns = layer.matrix.to_matrix(fake.network.initializer(layer.weight)).shape
        has_tables = layer.format.entries > 0 and not (layer.format.is_shared or layer.format.is_scaled)
        is_small = outputs <= _MOST_JOINT and outputs * columns**2 <= _JOINT_WORK
        if has_tables and is_small and groups == len(layer.readers) == 1 < outputs:
            found[name] = layer.matrix
    return found


def places_of(dataset: Dataset, samples: int, at_once: int) -> list[tuple[int, int]]:
    """Where each chunk of samples begins and ends: the first ones; from all over a text, as topics change.

    Args:
        dataset: Samples; of text they are windows.
        samples: Most samples; of text no more than hold some 25,000 tokens.
        at_once: Most samples of a chunk; of text a chunk holds some 2,000 tokens.
    """
    count, following = min(samples, len(dataset)), dataset.next_tokens
    if following is None:
        return [(start, min(start + at_once, count)) for start in range(0, count, at_once)]
    length = following.shape[1]
    count = min(count, max(2, _TOKENS // length))
    chunk = max(1, _TOKENS_AT_ONCE // length)
    left, step = len(dataset) - count, -(-count // chunk)
    starts = [at * chunk + left * at // max(step - 1, 1) for at in range(step)]
    return [(start, start + min(chunk, count - at * chunk)) for at, start in enumerate(starts)]


def feeds_of(
    dataset: Dataset, places: Sequence[tuple[int, int]], device: torch.device, cancel: CancelToken
) -> list[Mapping[str, Tensor]]:
    """The samples of every chunk, as torch reads them."""
    feeds: list[Mapping[str, Tensor]] = []
    for start, stop in places:
        cancel.raise_if_set()
        feeds.extend(
            {name: torch.from_numpy(np.array(value)).to(device) for name, value in batch.feed.items()}
            for batch in dataset.batches(stop - start, start=start, stop=stop)
        )
    return feeds


def _outcome(graph: Graph, layers: Mapping[str, GptqLayer], run: GptqRun, samples: int) -> StepOutcome:
    model = editable_copy(graph)
    for tensor in model.graph.initializer:
        if tensor.name in run.weights:
            tensor.CopyFrom(as_tensor(tensor.name, run.weights[tensor.name]))
    for name, shift in run.shifts.items():
        bias = layers[name].bias
        if bias is not None:
            set_bias(model, bias, shift)
    before = float(np.mean([gain.before for gain in run.gains.values()]))
    after = float(np.mean([gain.after for gain in run.gains.values() if gain.after is not None]))
    summary = (
        f"Chose the weights of {counted(len(run.gains), 'layer')}: outputs are off by {percent(after, 1)} of "
        f"their power on average, where weights rounded by themselves left {percent(before, 1)}."
    )
    if run.plain:
        names = ", ".join(run.plain[:_NAMED])
        more = f" and {len(run.plain) - _NAMED} more" if len(run.plain) > _NAMED else ""
        summary += f" Rounded plainly, as nothing can be learned from what they read: {names}{more}."
    details = {"layers": len(run.gains), "samples": samples, "plain": run.plain}
    return StepOutcome(derived_graph(graph, model, summary), summary, details)
