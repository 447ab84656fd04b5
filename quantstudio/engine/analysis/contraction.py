"""The effect of weight errors on a scalar, sample by sample, for many errors at once.

With g the gradient at a layer's output and e(dW) = layer(x; dW) the output error of a weight error, the
effect on sample n is <g_n, e_n> = <G_n, dW>, where G_n is that sample's weight gradient. G_n does not depend
on dW: computed once it serves every bit width. Where G_n is large and little reused (a Gemm with one row a
sample) running the layer on dW is cheaper, so each layer takes whichever costs less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.grad

from quantstudio.engine.torch_graph.convolution import pad_spatial, window_pads
from quantstudio.engine.torch_graph.module import Node

Tensor = torch.Tensor
Value = Tensor | None

# Multiplications one float moved through memory is worth, when G is read back to be contracted.
_MEMORY_COST = 4
# Above so many weights per output position, writing out a gradient for each sample costs more than running
# the layer on a handful of errors (measured on 3 x 3 layers with 32 to 128 channels).
_GRADIENT_COST = 200

# Weight gradients of all samples of a batch at once would fill the memory where weights are many (a language
# model's last layer takes 94 MB per sample).
TEMPORARY_BYTES = 64 * 2**20

_WEIGHT_GRADIENTS: dict[int, Callable[..., Tensor]] = {
    1: torch.nn.grad.conv1d_weight,
    2: torch.nn.grad.conv2d_weight,
    3: torch.nn.grad.conv3d_weight,
}


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
    """The tensor as one row per sample, [B, values]."""
    moved = tensor.movedim(layout.axis, 0)
    return moved.reshape(moved.shape[0] // layout.fold, -1)


def dot_per_sample(a: Tensor, b: Tensor, layout: BatchLayout) -> Tensor:
    """Sum of a * b for each sample, [B]."""
    left, right = per_sample(a, layout), per_sample(b, layout)
    if left.device.type != "cpu":
        found: Tensor = torch.linalg.vecdot(left, right)
        return found
    # numpy calls BLAS row by row; torch.linalg.vecdot writes the products out first (2.4 times slower).
    with np.errstate(invalid="ignore", over="ignore"):  # mask values; see `FisherPass`
        rows = np.vecdot(left.numpy(), right.numpy())
    return torch.from_numpy(np.asarray(rows))


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
            found = _convolution_effects(node, inputs, errors, gradient, layout)
            if found is not None:
                return found
        elif node.op_type in ("MatMul", "Gemm") and slot == 1:
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


def _contract(
    weight_gradient: Callable[[slice], Tensor], errors: Sequence[Tensor], rows: int, fold: int
) -> Tensor:
    """Weight gradients, [rows, ...] with `fold` rows per sample, against each error, [B, P].

    The gradients are asked for in parts that fit the memory.
    """
    columns = torch.stack([error.flatten() for error in errors], 1)
    parts = [weight_gradient(part).flatten(1) @ columns for part in _parts(rows, len(columns))]
    effects = torch.cat(parts)
    return effects if fold == 1 else effects.reshape(-1, fold, effects.shape[1]).sum(1)


def _parts(rows: int, values: int) -> Iterator[slice]:
    """Slices of so many rows of so many float32 values that each fits the memory for temporaries."""
    step = max(1, TEMPORARY_BYTES // (4 * max(values, 1)))
    yield from (slice(start, start + step) for start in range(0, rows, step))


def _convolution_effects(
    node: Node, inputs: tuple[Value, ...], errors: Sequence[Tensor], gradient: Tensor, layout: BatchLayout
) -> Tensor | None:
    """The cheapest way for this shape; None where that is running the layer on each error."""
    x, weight = inputs[0], inputs[1]
    assert x is not None
    assert weight is not None
    groups = node.attributes.integer("group", 1)
    positions = gradient[0, 0].numel()
    is_point = weight[0, 0].numel() == 1
    if groups == 1 and is_point and weight.ndim == 4 and positions > _MEMORY_COST:
        outward, columns = gradient.flatten(2), _point_columns(node, x).transpose(1, 2)
        return _contract(lambda part: outward[part] @ columns[part], errors, len(x), layout.fold)
    # Running P errors costs P forward passes of a dense layer.
    if groups == 1 and (len(errors) == 1 or weight.numel() > _GRADIENT_COST * positions):
        return None
    find = _WEIGHT_GRADIENTS.get(weight.ndim - 2)
    if find is None:
        return None
    return _contract(
        lambda part: _weight_gradients(find, node, x[part], weight, gradient[part]),
        errors,
        len(x),
        layout.fold,
    )


def _weight_gradients(
    find: Callable[..., Tensor], node: Node, x: Tensor, weight: Tensor, gradient: Tensor
) -> Tensor:
    """Each sample's own weight gradient, [B, C_out, C_in / groups, K...].

    Samples become groups of one convolution with batch 1, whose ordinary weight gradient holds them all. For
    depthwise layers that is 5 to 40 times faster than running them on three errors.
    """
    attributes = node.attributes
    samples, groups = x.shape[0], attributes.integer("group", 1)
    dimensions = weight.ndim - 2
    strides = attributes.integers("strides") or [1] * dimensions
    dilations = attributes.integers("dilations") or [1] * dimensions
    pads = window_pads(attributes, x.shape[2:], weight.shape[2:], strides, dilations)
    if any(before != after for before, after in pads):
        x, pads = pad_spatial(x, pads), [(0, 0)] * dimensions
    found = find(
        x.reshape(1, -1, *x.shape[2:]),
        (samples * weight.shape[0], *weight.shape[1:]),
        gradient.reshape(1, -1, *gradient.shape[2:]),
        tuple(strides),
        tuple(before for before, _ in pads),
        tuple(dilations),
        samples * groups,
    )
    return found.reshape(samples, *weight.shape)


def _point_columns(node: Node, x: Tensor) -> Tensor:
    """What a 1 x 1 convolution sees at each position, [B, C, positions]."""
    strides = node.attributes.integers("strides") or [1, 1]
    pads = window_pads(node.attributes, x.shape[2:], [1, 1], strides, [1, 1])
    return pad_spatial(x, pads)[:, :, :: strides[0], :: strides[1]].flatten(2)


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
        effects = _contract(lambda part: rows[part].transpose(1, 2) @ wanted[part], matrices, samples, 1)
    else:
        joined = torch.cat(matrices, 1)
        changes = []
        for part in _parts(samples, tokens * joined.shape[1]):
            changed = (rows[part] @ joined).reshape(-1, tokens, count, wanted.shape[-1])
            changes.append((changed * wanted[part].unsqueeze(2)).sum((1, 3)))
        effects = torch.cat(changes)
    return effects * alpha if alpha != 1.0 else effects


def grown_axis(two: tuple[int, ...], three: tuple[int, ...]) -> BatchLayout | None:
    """The axis that is 2k long for two samples and 3k for three, if there is exactly one."""
    if len(two) != len(three):
        return None
    changed = [i for i, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
    if len(changed) != 1:
        return None
    axis = changed[0]
    fold, rest = divmod(two[axis], 2)
    if rest or three[axis] != 3 * fold:
        return None
    return BatchLayout(axis, fold)


def fixed_layout(shape: tuple[int, ...], batch: int) -> BatchLayout | None:
    """With a fixed batch nothing can grow: the first axis, if it can hold the samples."""
    if batch == 1:
        return BatchLayout(0, shape[0]) if shape else None
    if not shape or shape[0] % batch:
        return None
    return BatchLayout(0, shape[0] // batch)
