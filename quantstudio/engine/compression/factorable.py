"""Layers that two smaller ones can take the place of, and what each form of them costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from quantstudio.core.layers import LayerInfo
from quantstudio.engine.compression.factors import Form
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.recovery.bias_targets import BiasTarget, find_targets
from quantstudio.engine.recovery.layer_matrix import LayerMatrix, layer_matrix
from quantstudio.engine.torch_graph.module import TorchGraph

_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True, eq=False)
class FactorableLayer:
    """A layer that can be written as two.

    Attributes:
        layer: The layer.
        matrix: Its weight and data as matrices.
        bias: Where its mean error can be taken up; None where it has no constant bias.
        outputs: Channels O it writes.
        columns: Inputs K of each.
        kernel: Kernel of a convolution of two axes; else empty.
        stride: Step of that kernel from line to line.
    """

    layer: LayerInfo
    matrix: LayerMatrix
    bias: BiasTarget | None
    outputs: int
    columns: int
    kernel: tuple[int, ...] = ()
    stride: int = 1

    @property
    def parameters(self) -> int:
        """Weights it has."""
        return self.outputs * self.columns

    @property
    def forms(self) -> tuple[Form, ...]:
        """Forms it can be written in."""
        has_lines = len(self.kernel) == 2 and min(self.kernel) > 1
        return (Form.MATRIX, Form.LINES) if has_lines else (Form.MATRIX,)

    def costs(self, form: Form, rank: int) -> tuple[int, float]:
        """Weights of a form, and operations at one place of the output."""
        if form is Form.MATRIX:
            cost = rank * (self.columns + self.outputs)
            return cost, cost
        read, written = self.columns // self.kernel[1], self.outputs * self.kernel[1]
        # The first of two goes over all columns of the picture, whatever the step along a line.
        return rank * (read + written), rank * (read * self.stride + written)

    def macs(self, at_a_place: float) -> float:
        """Multiply-accumulates of a sample that are so many at one place of the output; 0 if nobody knows."""
        return 0.0 if self.layer.macs is None else self.layer.macs * at_a_place / self.parameters

    def largest_rank(self, form: Form) -> int:
        """Largest rank at which two layers have fewer weights and take fewer operations than one."""
        return (self.parameters - 1) // int(max(self.costs(form, 1)))

    def ranks(self, form: Form, step: int) -> range:
        """Ranks worth looking at: multiples of a step, or all of a layer that is too narrow for it."""
        most = self.largest_rank(form)
        return range(step, most + 1, step) if most >= 2 * step else range(1, most + 1)


def factorable_layers(graph: Graph, network: TorchGraph) -> Iterator[FactorableLayer]:
    """The layers that can be written as two, in order of execution.

    Left out are grouped convolutions, which are small already, weights that several nodes read or that are
    not in single precision, what lies in a body, and matrices so narrow that two are no smaller.

    Args:
        graph: The network.
        network: The same in torch.
    """
    view = GraphView(graph.proto)
    targets = {target.layer: target for target in find_targets(graph)}
    for layer in graph.layers:
        name = layer.weight_name
        if layer.op_type not in _OPERATORS or layer.scope or layer.groups != 1 or not view.is_constant(name):
            continue
        if not network.has_node(layer.name) or len(view.consumers[name]) != 1:
            continue
        node = network.node(layer.name)
        slots = [slot for slot, given in enumerate(node.inputs) if given == name]
        weight = network.initializer(name)
        if len(slots) != 1 or weight.dtype != torch.float32 or view.is_constant(node.inputs[1 - slots[0]]):
            continue
        if layer.op_type != "Conv" and (weight.ndim != 2 or (layer.op_type == "Gemm" and slots[0] != 1)):
            continue
        matrix = layer_matrix(node, slots[0], weight)
        if matrix is None:
            continue
        _, outputs, columns = matrix.to_matrix(weight).shape
        kernel = tuple(weight.shape[2:]) if weight.ndim == 4 else ()
        strides = node.attributes.integers("strides") or [1] * len(kernel)
        stride = strides[1] if kernel else 1
        found = FactorableLayer(layer, matrix, targets.get(layer.name), outputs, columns, kernel, stride)
        if any(found.largest_rank(form) for form in found.forms):
            yield found
