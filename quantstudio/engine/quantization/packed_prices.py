"""What layers take in a file of packed weights besides their integers: read off one file a container."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from quantstudio.core.costs import PACKED, container_name
from quantstudio.core.effective_plan import resolve
from quantstudio.core.events import CancelToken
from quantstudio.core.packing import WeightCount, code_bytes, packs, unpacking_bytes
from quantstudio.core.recipe import ActivationScope, uniform_recipe
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.statistics import Statistics
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.writing import model_size
from quantstudio.engine.quantization.emit import emit_with_plan
from quantstudio.engine.quantization.kernels import weight_bytes_by_layer

# What is written for each container: a format that is rounded fast, and that every layer can have.
_EXAMPLES = {"static-int8": "static-int6", "dynamic-int8": "dynamic-int6", "weight-int8": "weight-int6"}


@dataclass(frozen=True, slots=True)
class PackedPrices:
    """Bytes under names that end in `PACKED`.

    Attributes:
        by_layer: Of constants besides the integers, by layer and name.
        overhead: Of nodes besides those that unpack, by name; a mean over layers.
    """

    by_layer: Mapping[str, Mapping[str, int]]
    overhead: Mapping[str, float]


def packed_prices(
    graph: Graph,
    statistics: Statistics | None,
    containers: Collection[str],
    structure_bytes: int,
    *,
    scope: ActivationScope = ActivationScope.ALL,
    cancel: CancelToken | None = None,
) -> PackedPrices:
    """Prices of the containers that packed weights run in.

    Args:
        graph: The model.
        statistics: Activation statistics; without them static layers have no price.
        containers: Names of those that are wanted.
        structure_bytes: What no scheme changes of the file.
        scope: What static plans put on integers.
        cancel: Looked at before every file.
    """
    counts = {layer.name: WeightCount.of(layer) for layer in graph.layers}
    by_layer: dict[str, dict[str, int]] = {layer.name: {} for layer in graph.layers}
    overhead: dict[str, float] = {}
    for container, example in _EXAMPLES.items():
        if container not in containers or (container.startswith("static") and statistics is None):
            continue
        recipe = uniform_recipe(NAMED_SCHEMES[example], activation_scope=scope)
        plan = resolve(recipe, graph.layers)
        if not any(map(packs, plan.schemes.values())):
            continue
        emission = emit_with_plan(graph, statistics, plan, cancel)
        taken, name = weight_bytes_by_layer(graph.layers, emission), f"{container}{PACKED}"
        schemes = emission.plan.schemes
        own = [n for n in taken if not schemes[n].is_float and container_name(schemes[n]) == container]
        extra = model_size(emission.model) - structure_bytes - sum(taken.values())
        seen: set[str] = set()
        for layer in graph.layers:
            if layer.name not in own:
                continue
            weights, count = schemes[layer.name].weights, counts[layer.name]
            owns = bool(layer.weight_name) and layer.weight_name not in seen
            seen.add(layer.weight_name)
            integers = code_bytes(weights, count) if owns else 0
            extra -= unpacking_bytes(weights, count) if owns else 0
            by_layer[layer.name][name] = taken[layer.name] - integers
        overhead[name] = extra / max(len(own), 1)
    return PackedPrices(by_layer, overhead)
