"""The search of ranges, layer by layer behind the quantized ones before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.pipeline.context import StepContext
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.gptq_layers import GptqLayer, gptq_layers
from quantstudio.engine.recovery.gptq_solve import places_of
from quantstudio.engine.recovery.second_moments import SecondMoments
from quantstudio.engine.recovery.walk import TwoPathWalk, samples_at_once
from quantstudio.engine.recovery.weight_formats import LayerFormat
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings
from quantstudio.engine.torch_graph.module import Node

Tensor = torch.Tensor

# Input vectors the moments of a layer are made of.
_ROWS = 12_000
_WIDEST, _NARROWEST = 1.1, 0.2
_SMALLEST = 1e-30


@dataclass(slots=True)
class FoundRanges:
    """What the search came to.

    Attributes:
        weights: Rounded weights by initializer.
        errors: By layer, error power at its outputs over their power: with the quantizer's range, with this.
    """

    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)


def found_ranges(
    graph: Graph,
    context: StepContext,
    *,
    samples: int,
    candidates: int,
    reporter: Reporter,
    cancel: CancelToken,
) -> FoundRanges:
    """The ranges of all layers with integer weights on equal steps that only they read.

    Args:
        graph: The network.
        context: Its plan and data.
        samples: Samples that go through it.
        candidates: Ranges tried for every scale.
        reporter: Told of every layer.
        cancel: Looked at before every chunk of every node.
    """
    statistics = context.statistics(graph) if context.plan.is_static else None
    fake = FakeQuantized(graph, statistics, context.plan)
    layers = {
        name: layer
        for name, layer in gptq_layers(graph, fake, context.plan).items()
        if not layer.format.entries and not layer.format.is_sign and len(layer.readers) == 1
    }
    found = FoundRanges()
    if not layers:
        return found
    device = resolve_device(context.device)
    places = places_of(context.dataset, samples, samples_at_once(graph))
    count = sum(stop - start for start, stop in places)
    with torch_settings(worker_threads()), torch.no_grad():
        fake = fake.to(device).eval()
        feeds: list[Mapping[str, Tensor]] = [
            {name: torch.from_numpy(np.array(value)).to(device) for name, value in batch.feed.items()}
            for start, stop in places
            for batch in context.dataset.batches(stop - start, start=start, stop=stop)
        ]
        walk = TwoPathWalk(fake, feeds, cancel)
        for node in walk.nodes:
            layer = layers.get(node.name)
            if layer is not None:
                cancel.raise_if_set()
                reporter.progress(len(found.errors), len(layers), "layers", f"Searching {layer.name}")
                _search(walk, fake, layer, node, max(1, _ROWS // count), candidates, found)
                if len(found.errors) == len(layers):
                    break
            for _ in walk.step(node):
                pass
    return found


def _search(
    walk: TwoPathWalk,
    fake: FakeQuantized,
    layer: GptqLayer,
    node: Node,
    limit: int,
    candidates: int,
    found: FoundRanges,
) -> None:
    """Find the ranges of one layer, and put its weights on the quantized path."""
    real = layer.matrix.to_matrix(fake.network.initializer(layer.weight).detach())
    moments = SecondMoments(layer.matrix.groups, real.shape[2])
    for number, chunk in enumerate(walk.chunks):
        _, quantized = walk.read(node, layer.matrix.data_slot, chunk)
        moments.add(layer.matrix.rows_of(quantized, number, limit))
    hessian, wanted = moments.hessian, real.cpu().double()
    if not bool(torch.isfinite(hessian).all()):
        raise CalibrationError(
            "what the layer reads holds NaN or infinity",
            where=layer.name,
            hint=Hint("Check the data and its transform", HintAction.CHOOSE_DATA),
        )
    plain = layer.matrix.to_matrix(fake.weights[layer.name, layer.matrix.slot].cpu()).double()
    power = max(float(_output_errors(wanted, hessian).sum()), _SMALLEST)
    before = _output_errors(plain - wanted, hessian)
    chosen = searched(wanted, hessian, layer.format, candidates)
    after = _output_errors(chosen - wanted, hessian)
    if layer.format.is_shared:
        chosen = chosen if float(after.sum()) < float(before.sum()) else plain
    else:
        chosen = torch.where((after < before)[..., None], chosen, plain)
    left = float(_output_errors(chosen - wanted, hessian).sum())
    values = layer.matrix.to_weight(chosen.float()).contiguous()
    found.weights[layer.weight] = values.numpy()
    found.errors[layer.name] = float(before.sum()) / power, left / power
    walk.replaced[layer.name, layer.matrix.slot] = values.to(fake.network.device)


def searched(wanted: Tensor, hessian: Tensor, format_: LayerFormat, candidates: int) -> Tensor:
    """Weights rounded on the grid whose range costs the outputs least.

    Blocks of columns are searched one after the other, each with those before it rounded already: what they
    miss meets its moments once, and every candidate those within the block alone.

    Args:
        wanted: Weights [G, O, K].
        hessian: Second moments of what they meet, [G, K, K].
        format_: What values they may take.
        candidates: Ranges to try.
    """
    columns = wanted.shape[2]
    size = format_.block or columns
    found = wanted.clone()
    high = max(format_.high, 1)
    reach = high if format_.low >= -high else (high - format_.low) / 2
    for start in range(0, columns, size):
        part = slice(start, min(start + size, columns))
        rows = wanted[..., part]
        widest = (rows.abs().amax(2, keepdim=True) / reach).clamp_min(_SMALLEST)
        if format_.is_shared:
            widest = widest.max().expand_as(widest)
        within, before = hessian[:, part, part], slice(0, start)
        met = 2 * (found[..., before] - wanted[..., before]) @ hessian[:, before, part]
        best = torch.full(wanted.shape[:2], torch.inf, dtype=wanted.dtype)
        kept = rows.clone()
        for ratio in torch.linspace(_WIDEST, _NARROWEST if high > 1 else 0.1, candidates).tolist():
            scale = widest * ratio
            trial = (rows / scale).round().clamp(format_.low, format_.high) * scale
            error = _output_errors(trial - rows, within) + (met * (trial - rows)).sum(2)
            if format_.is_shared:
                error = error.sum().expand_as(error)
            better = error < best
            best = torch.where(better, error, best)
            kept = torch.where(better[..., None], trial, kept)
        found[..., part] = kept
    return found


def _output_errors(difference: Tensor, hessian: Tensor) -> Tensor:
    """Mean squared output of every channel, [G, O]."""
    return ((difference @ hessian) * difference).sum(2)
