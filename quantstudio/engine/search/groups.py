"""Layers that must move together, found from the graph.

* Projections that read one tensor and meet in one attention share their whole scheme: a runtime joins them
  into one product, and one precision for Q, K and V is what a person expects of a head.
* Layers that read one weight share their whole scheme: there is one tensor to store.
* Layers that meet in one Add or Concat share the precision of their activations, not of their weights. The
  integer kernels of both take a scale for every input, so the grids themselves may differ; but with one input
  on integers and one in float, the whole operator falls back to float and pays a conversion at each side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import onnx

from quantstudio.core.search_results import GroupKind, LayerGroup
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.quantization.plan import FOLDING, SAME_SCALE, activation_inputs

ATTENTION_OPERATORS = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention"})
JOINS = frozenset({"Add", "Concat"})
_CARRIERS = SAME_SCALE | FOLDING


def find_groups(graph: Graph) -> tuple[LayerGroup, ...]:
    """Every group of at least two quantizable layers; groups of one kind that share a layer are one."""
    finder = _Finder(graph)
    found = [*finder.attention(), *finder.tied(), *finder.joins()]
    return tuple(
        group
        for kind in GroupKind
        for group in _merged(kind, [g for g in found if g.kind is kind], finder.order)
    )


def shared_scheme_sets(groups: Iterable[LayerGroup], layers: Iterable[str]) -> list[tuple[str, ...]]:
    """The layers as sets that share one scheme; a layer of no such group is a set of its own."""
    order = {name: index for index, name in enumerate(layers)}
    whole = [g for g in groups if g.kind is not GroupKind.JOIN]
    sets = _connected([[n for n in g.layers if n in order] for g in whole] + [[n] for n in order])
    ordered = [tuple(sorted(names, key=order.__getitem__)) for names in sets]
    return sorted(ordered, key=lambda names: order[names[0]])


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.view = GraphView(graph.proto)
        self.layers = {layer.name: layer for layer in graph.layers if layer.quantizable and not layer.scope}
        self.all = [layer for layer in graph.layers if layer.quantizable]
        self.weighted = {name for name, layer in self.layers.items() if layer.weight_name}
        self.order = {layer.name: index for index, layer in enumerate(graph.layers)}

    def attention(self) -> Iterator[LayerGroup]:
        """Projections of each attention, by the tensor they read."""
        for node in self.view.nodes:
            inputs = [name for name in node.input if name and not self.view.is_constant(name)]
            if node.op_type == "MatMul":
                if len(inputs) < 2:
                    continue
            elif node.op_type not in ATTENTION_OPERATORS:
                continue
            by_source: dict[str, list[str]] = defaultdict(list)
            for name in self._projections(inputs):
                by_source[self.layers[name].inputs[0]].append(name)
            for names in by_source.values():
                if len(names) > 1:
                    yield LayerGroup(GroupKind.ATTENTION, tuple(names), node.name)

    def _projections(self, tensors: Iterable[str]) -> list[str]:
        """Nearest layers with weights behind some tensors."""
        queue, seen, found = list(tensors), set(tensors), []
        while queue:
            node = self.view.producer.get(queue.pop())
            if node is None:
                continue
            if node.name in self.weighted:
                found.append(node.name)
                continue
            new = [name for name in node.input if name and name not in seen]
            seen.update(new)
            queue.extend(new)
        return sorted(set(found), key=self.order.__getitem__)

    def tied(self) -> Iterator[LayerGroup]:
        """Layers that read one initializer."""
        readers: dict[str, list[str]] = defaultdict(list)
        for layer in self.all:
            if layer.weight_name:
                readers[layer.weight_name].append(layer.name)
        for weight, names in readers.items():
            if len(names) > 1:
                yield LayerGroup(GroupKind.TIED, tuple(names), weight)

    def joins(self) -> Iterator[LayerGroup]:
        """Layers whose results meet in one Add or Concat."""
        for node in self.view.nodes:
            if node.op_type not in JOINS:
                continue
            names = [
                name
                for _, tensor in activation_inputs(node, self.view)
                for name in self._writers(tensor)
                if name in self.weighted
            ]
            if len(set(names)) > 1:
                yield LayerGroup(GroupKind.JOIN, tuple(dict.fromkeys(names)), node.name)

    def _writers(self, tensor: str) -> Iterator[str]:
        """The layer that writes a tensor through operators that keep its grid; all of a join's."""
        node: onnx.NodeProto | None = self.view.producer.get(tensor)
        while node is not None and node.op_type in _CARRIERS and node.name not in self.layers:
            node = self.view.producer.get(node.input[0])
        if node is not None and node.name in self.layers:
            yield node.name


def _merged(kind: GroupKind, groups: list[LayerGroup], order: Mapping[str, int]) -> Iterator[LayerGroup]:
    """Groups of one kind, joined where they share a layer."""
    first_place: dict[str, str] = {}
    for group in groups:
        for name in group.layers:
            first_place.setdefault(name, group.where)
    for names in _connected([list(group.layers) for group in groups]):
        ordered = tuple(sorted(names, key=order.__getitem__))
        yield LayerGroup(kind, ordered, first_place[ordered[0]])


def _connected(sets: list[list[str]]) -> list[set[str]]:
    """Sets joined wherever they share a member, in the order of their first appearance."""
    joined: list[set[str]] = []
    for names in sets:
        if not names:
            continue
        touching = [other for other in joined if not other.isdisjoint(names)]
        union = set(names).union(*touching)
        joined = [other for other in joined if other.isdisjoint(names)]
        joined.append(union)
    return joined
