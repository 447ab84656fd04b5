"""The effect of weight errors on a scalar, sample by sample, for many errors at once.

With g the gradient at a layer's output and e(dW) = layer(x; dW) the output error of a weight error, the
effect on sample n is <g_n, e_n> = <G_n, dW>, where G_n is that sample's weight gradient. G_n does not depend
on dW: computed once it serves every bit width. Where G_n is large and little reused (a Gemm with one row a
sample) running the layer on dW is cheaper, so each layer takes whichever costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention

from quantstudio.engine.torch_graph.convolution import pad_spatial, window_pads
from quantstudio.engine.torch_graph.module import Node

Tensor = torch.Tensor
Value = Tensor | None

# Multiplications one float moved through memory is worth, when G is read back to be contracted.
_MEMORY_COST = 4


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Where the samples are in a tensor.

    Attributes:
        axis: Axis that grows with the batch.
        fold: Rows of that axis a sample owns; more than 1 where another axis was folded in, samples
            outermost.
    """

    axis: int
    fold: int = 1


def per_sample(tensor: Tensor, layout: BatchLayout) -> Tensor:
    """The tensor as one row a sample, [B, values]."""
    moved = tensor.movedim(layout.axis, 0)
    return moved.reshape(moved.shape[0] // layout.fold, -1)


def dot_per_sample(a: Tensor, b: Tensor, layout: BatchLayout) -> Tensor:
    """Sum of a * b for each sample, [B]."""
    effects: Tensor = torch.linalg.vecdot(per_sample(a, layout), per_sample(b, layout))
    return effects


def weight_effects(
    node: Node,
    inputs: tuple[Value, ...],
    slot: int,
    errors: Sequence[Tensor],
    gradients: Sequence[tuple[int, Tensor, BatchLayout]],
) -> Tensor:
    """<g_n, layer output error> for each sample and weight error, [B, P].

    Args:
        node: The layer.
        inputs: What it read, weight included.
        slot: Position of the weight among the inputs.
        errors: Weight errors dW, each of the weight's shape.
        gradients: Output position, gradient there, and where its samples are.
    """
    first = gradients[0]
    if len(gradients) == 1 and first[0] == 0:
        gradient, layout = first[1], first[2]
        if node.op_type == "Conv" and slot == 1 and layout.axis == 0:
            return _convolution_effects(node, inputs, errors, gradient, layout)
        if node.op_type in ("MatMul", "Gemm") and slot == 1:
            found = _product_effects(node, inputs, errors, gradient, layout)
            if found is not None:
                return found
    columns = []
    for error in errors:
        changed = output_errors(node, inputs, slot, error)
        columns.append(
            torch.stack([dot_per_sample(g, changed[i], layout) for i, g, layout in gradients]).sum(0)
        )
    return torch.stack(columns, 1)


_LINEAR_IN_WEIGHT = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "Einsum"})


def output_errors(node: Node, inputs: tuple[Value, ...], slot: int, error: Tensor) -> tuple[Tensor, ...]:
    """What a weight error changes at each output of a layer."""
    operands = list(inputs)
    if node.op_type in _LINEAR_IN_WEIGHT:
        operands[slot] = error
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            operands[2:] = []
        return _as_tuple(node.compute(*operands))
    plain = _as_tuple(node.compute(*operands))
    weight = operands[slot]
    assert weight is not None
    operands[slot] = weight + error
    return tuple(b - a for a, b in zip(plain, _as_tuple(node.compute(*operands)), strict=True))


def _as_tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, torch.Tensor) else result


def _contract(weight_gradient: Tensor, errors: Sequence[Tensor], fold: int) -> Tensor:
    """[B * fold, ...] weight gradients against each error, [B, P]."""
    rows = weight_gradient.flatten(1)
    effects = rows @ torch.stack([error.flatten() for error in errors], 1)
    return effects if fold == 1 else effects.reshape(-1, fold, effects.shape[1]).sum(1)


def _convolution_effects(
    node: Node, inputs: tuple[Value, ...], errors: Sequence[Tensor], gradient: Tensor, layout: BatchLayout
) -> Tensor:
    x, weight = inputs[0], inputs[1]
    assert x is not None
    assert weight is not None
    groups = node.attributes.integer("group", 1)
    dimensions = weight.ndim - 2
    if groups == 1 and dimensions == 2 and gradient[0, 0].numel() > _MEMORY_COST:
        columns = _columns(node, x, weight)
        return _contract(gradient.flatten(2) @ columns.transpose(1, 2), errors, layout.fold)
    # Depthwise and grouped: all errors in one convolution, each group's output channels repeated P times.
    stacked = torch.stack([error.reshape(groups, -1, *error.shape[1:]) for error in errors], 1).flatten(0, 2)
    changed = node.compute(x, stacked)
    assert isinstance(changed, torch.Tensor)
    split = changed.reshape(changed.shape[0], groups, len(errors), -1)
    wanted = gradient.reshape(gradient.shape[0], groups, 1, -1)
    effects: Tensor = torch.linalg.vecdot(split, wanted).sum(1)
    return effects if layout.fold == 1 else effects.reshape(-1, layout.fold, effects.shape[1]).sum(1)


def _columns(node: Node, x: Tensor, weight: Tensor) -> Tensor:
    """Patches of x that each output position sees, [B, C * K * K, positions]."""
    attributes = node.attributes
    kernel = list(weight.shape[2:])
    strides = attributes.integers("strides") or [1, 1]
    dilations = attributes.integers("dilations") or [1, 1]
    pads = window_pads(attributes, x.shape[2:], kernel, strides, dilations)
    if any(before != after for before, after in pads):
        x, pads = pad_spatial(x, pads), [(0, 0), (0, 0)]
    if kernel == [1, 1] and not any(before for before, _ in pads):
        return x[:, :, :: strides[0], :: strides[1]].flatten(2)
    padding = tuple(before for before, _ in pads)
    return F.unfold(x, tuple(kernel), tuple(dilations), padding, tuple(strides))


def _product_effects(
    node: Node, inputs: tuple[Value, ...], errors: Sequence[Tensor], gradient: Tensor, layout: BatchLayout
) -> Tensor | None:
    """MatMul and Gemm with the weight second; None where the samples are not in the rows."""
    x = inputs[0]
    attributes = node.attributes
    if x is None or errors[0].ndim != 2 or attributes.flag("transA") or layout.axis == gradient.ndim - 1:
        return None
    if x.ndim != gradient.ndim:
        return None
    transposed = node.op_type == "Gemm" and attributes.flag("transB")
    matrices = [error.T if transposed else error for error in errors]
    alpha = attributes.real("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    samples = x.shape[layout.axis] // layout.fold
    rows = x.movedim(layout.axis, 0).reshape(samples, -1, x.shape[-1])
    wanted = gradient.movedim(layout.axis, 0).reshape(samples, -1, gradient.shape[-1])
    count, tokens = len(errors), rows.shape[1]
    if tokens * (count - 1) > _MEMORY_COST * count:
        effects = _contract(rows.transpose(1, 2) @ wanted, matrices, 1)
    else:
        changed = (rows @ torch.cat(matrices, 1)).reshape(samples, tokens, count, -1)
        effects = (changed * wanted.unsqueeze(2)).sum((1, 3))
    return effects * alpha if alpha != 1.0 else effects
