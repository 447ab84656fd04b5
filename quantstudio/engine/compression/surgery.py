"""A graph without some of its units: every constant cut, every size that is written down corrected."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from quantstudio.engine.compression.dependencies import Dependencies
from quantstudio.engine.compression.labels import Labels, LabelSet
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import Array, as_array, as_tensor
from quantstudio.engine.model.derive import derived_graph, editable_copy


class Cut:
    """What is left of axes when units are gone.

    Args:
        labels: Which labels are one.
        gone: Labels of the units that are taken away.
    """

    def __init__(self, labels: LabelSet, gone: Labels) -> None:
        self._labels = labels
        self._left = np.ones(labels.count, dtype=bool)
        self._left[labels.roots(gone)] = False

    def mask(self, labels: Labels) -> NDArray[np.bool_]:
        """Which places are left."""
        left: NDArray[np.bool_] = self._left[self._labels.roots(labels)]
        return left


class _Surgery(Cut):
    """A cut that edits a model."""

    def __init__(self, labels: LabelSet, gone: Labels, model: ModelProto) -> None:
        super().__init__(labels, gone)
        self._model = model
        self._names = NameSource(model)

    def replace_constant(self, node: NodeProto, slot: int, values: Array) -> None:
        """Give a node a constant of its own at an input."""
        name = self._names.given(f"{node.name}.{slot}")
        self._model.graph.initializer.append(as_tensor(name, values))
        while len(node.input) <= slot:
            node.input.append("")
        node.input[slot] = name


def gone_labels(found: Dependencies, gone: Mapping[str, NDArray[np.bool_]]) -> Labels:
    """Labels of units to take away.

    Args:
        found: The groups.
        gone: By group, which of its units go, shape [units].
    """
    chosen = [found.units[name][mask] for name, mask in gone.items()]
    return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)


def without_units(
    graph: Graph, found: Dependencies, gone: Mapping[str, NDArray[np.bool_]], note: str
) -> Graph:
    """The graph with units gone from it; tensors they do not touch keep every bit.

    Args:
        graph: The graph the groups are of.
        found: Its groups.
        gone: By group, which of its units go, shape [units]; some unit of every group has to stay.
        note: What was done, one sentence for a person.
    """
    model = editable_copy(graph)
    surgery = _Surgery(found.flow.labels, gone_labels(found, gone), model)
    nodes = {node.name: node for node in model.graph.node}
    for name, change in found.flow.edits:
        change(surgery, nodes[name])
    for tensor in model.graph.initializer:
        masks = [None if axis is None else surgery.mask(axis) for axis in found.flow.constant_axes(tensor)]
        if all(mask is None or mask.all() for mask in masks):
            continue
        values = as_array(tensor)
        for axis, mask in enumerate(masks):
            if mask is not None:
                values = values.compress(mask, axis=axis)
        tensor.CopyFrom(as_tensor(tensor.name, values))
    return derived_graph(graph, model, note)
