"""What an error at a layer's output costs the answers of its network, over all its channels together.

Near the float network the KL divergence of the answers is a quadratic form of the error at any layer's
output, g' e squared, with g the gradient of a random direction of the answers whose covariance is their
Fisher information. The mean of g g' says which errors of the channels add up and which cancel further on.

Sources: Martens & Grosse 2015, K-FAC, arXiv:1503.05671, section 3 (the factor of a layer's outputs); Tseng et
al. 2025, YAQA, arXiv:2505.22988 (for choosing weights).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from quantstudio.core.errors import MeasureError
from quantstudio.core.events import CancelToken
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.recovery.distillation import Distillation, output_losses
from quantstudio.engine.recovery.layer_matrix import LayerMatrix
from quantstudio.engine.recovery.walk import sample_sizes
from quantstudio.engine.torch_graph.module import Node, TorchGraph
from quantstudio.engine.torch_graph.registry import Result

Tensor = torch.Tensor
Value = Tensor | None
_SEED = 0
# Samples that say what the answers hang on, how many go through at once, and bytes of their tensors, all of
# which the way back needs.
_SAMPLES, _TOGETHER, _BYTES = 128, 16, 1 << 28


class OutputMetrics:
    """The metric of every layer's output, measured when the first is asked for.

    Args:
        graph: The float network.
        network: The same in torch; its hooks are free.
        layers: Matrices of the layers that are asked about, by name.
        data: Samples, of which the first are looked at.
        cancel: Looked at between batches.
    """

    def __init__(
        self,
        graph: Graph,
        network: TorchGraph,
        layers: Mapping[str, LayerMatrix],
        data: Dataset,
        cancel: CancelToken,
    ) -> None:
        self._graph, self._network, self._layers = graph, network, layers
        self._data, self._cancel = data, cancel
        self._generator = torch.Generator().manual_seed(_SEED)
        self._sums: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}
        self._scales: dict[str, float] = {}
        self._found: dict[str, Tensor] | None = None

    def knows(self, layer: str) -> bool:
        """Whether a layer is asked about, so far as that can be told without measuring."""
        return layer in self._layers

    def of(self, layer: str) -> Tensor | None:
        """The metric of a layer, float64 [O, O], of mean diagonal 1; None where no answer hangs on it.

        Raises:
            UnsupportedOpError: torch has no form of a node.
            JobCancelled: `cancel` was set.
        """
        if layer not in self._layers:
            return None
        if self._found is None:
            self._found = self._measured()
        return self._found.get(layer)

    def measured(self, layer: str) -> Tensor | None:
        """As `of`, on one scale for all layers: what errors of one cost beside those of another."""
        found = self.of(layer)
        return None if found is None else found * self._scales[layer]

    def _measured(self) -> dict[str, Tensor]:
        device = self._network.device
        together = max(1, min(_TOGETHER, _BYTES // (4 * max(sum(sample_sizes(self._graph)), 1))))
        feeds = [
            {name: torch.from_numpy(np.array(value)).to(device) for name, value in one.feed.items()}
            for one in self._data.batches(together, stop=min(_SAMPLES, len(self._data)))
        ]
        model = self._graph.proto
        try:
            losses = output_losses(self._graph, self._data, self._cancel)
        except MeasureError:  # no output holds numbers that could be nearer or further
            return {}
        answers = Distillation(losses, model, model)
        with torch.no_grad():
            plain = [self._network.run(feed, answers.wanted) for feed in feeds]
        answers.set_scale([[one[name] for name in answers.wanted] for one in plain])
        del plain
        for name in self._layers:
            self._network.hooks[name] = self._kept
        try:
            with torch.enable_grad():
                for feed in feeds:
                    self._cancel.raise_if_set()
                    self._add(feed, answers)
        finally:
            for name in self._layers:
                self._network.hooks.pop(name, None)
            self._seen.clear()
        means = self._scales
        means.update({name: float(total.diagonal().mean()) for name, total in self._sums.items()})
        return {
            name: (total / means[name]).cpu()
            for name, total in self._sums.items()
            if bool(torch.isfinite(total).all()) and means[name] > 0
        }

    def _kept(self, node: Node, inputs: tuple[Value, ...]) -> Result:
        made = node.compute(*inputs)
        if isinstance(made, torch.Tensor):
            # The first layers hang on nothing with a gradient: there it begins.
            made = made if made.requires_grad else made.detach().requires_grad_(True)
            self._seen[node.name] = made
        return made

    def _add(self, feed: Mapping[str, Tensor], distillation: Distillation) -> None:
        self._seen.clear()
        answers = self._network.run(feed, distillation.wanted)
        ends = [answers[name] for name in distillation.wanted]
        directions = distillation.directions(ends, self._generator)
        hang = [(end, along) for end, along in zip(ends, directions, strict=True) if end.requires_grad]
        names = list(self._seen)
        if not hang or not names:
            return
        slopes: tuple[Tensor | None, ...] = torch.autograd.grad(
            [end for end, _ in hang],
            [self._seen[name] for name in names],
            [along for _, along in hang],
            allow_unused=True,
        )
        for name, slope in zip(names, slopes, strict=True):
            if slope is None:
                continue
            rows = self._layers[name].written_of(slope, 0, slope.numel())
            product = (rows[0] @ rows[0].T).double()
            self._sums[name] = product if name not in self._sums else self._sums[name] + product
