"""How far every layer's output is from the float network's, before and behind a step that trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.bias_targets import find_targets
from quantstudio.engine.torch_graph.module import TorchGraph

Tensor = torch.Tensor


class LayerErrors:
    """Errors of layer outputs on one batch.

    Args:
        reference: The float network whose inner tensors are those of the quantized one without rounding.
        plan: Which layers are quantized.
        feed: The batch.

    Attributes:
        spreads: Standard deviation of every layer's output, with its bias and without, by tensor.
        measure: What an error is a share of, for a person.
    """

    measure = "error of the output, of its spread"

    def __init__(self, reference: Graph, plan: EffectivePlan, feed: Mapping[str, Tensor]) -> None:
        network = TorchGraph(reference.proto)
        outputs = {
            layer.name: network.node(layer.name).outputs[0]
            for layer in reference.layers
            if network.has_node(layer.name) and not _is_float(plan, layer.name)
        }
        self._feed = {name: feed[name] for name in network.input_names if name in feed}
        self._outputs = outputs
        biased = [target.output for target in find_targets(reference) if target.layer in outputs]
        with torch.no_grad():
            found = network.run(self._feed, list(dict.fromkeys([*outputs.values(), *biased])))
        self._wanted = {name: value for name, value in found.items() if value.is_floating_point()}
        self.spreads = {name: _spread(value) for name, value in self._wanted.items()}

    def measured(self, module: FakeQuantized) -> dict[str, float]:
        """Root mean square error of every layer's output, as a share of its spread."""
        produced = {name for node in module.network.nodes for name in node.outputs}
        asked = {
            layer: name
            for layer, name in self._outputs.items()
            if name in produced and self.spreads.get(name, 0.0) > 0
        }
        with torch.no_grad():
            found = module.run(self._feed, list(asked.values()))
        return {
            layer: float((found[name] - self._wanted[name].to(found[name].device)).square().mean().sqrt())
            / self.spreads[name]
            for layer, name in asked.items()
            if found[name].shape == self._wanted[name].shape
        }


def _spread(value: Tensor) -> float:
    return float(value.float().std(correction=0))


def _is_float(plan: EffectivePlan, layer: str) -> bool:
    scheme = plan.schemes.get(layer)
    return scheme is None or scheme.is_float
