"""Listening to layers in a torch pass: what each reads and writes, and the gradients there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.errors import UnsupportedOpError
from quantstudio.core.layers import LayerInfo
from quantstudio.engine.analysis.precisions import Trial
from quantstudio.engine.torch_graph.module import Node
from quantstudio.engine.torch_graph.registry import FALLBACK_HINT

Tensor = torch.Tensor
Value = Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class LayerProbe:
    """What is asked about one layer.

    Attributes:
        layer: The layer.
        slot: Position of the weight among the node's inputs; None without one.
        weight_errors: Quantized minus float weight, by weight precision.
        activation_grids: Integer grid by activation precision.
        trials: What is asked about, by name; each needs one of those, or one of both.
        reference: The trial the layer's headline figures are for.
    """

    layer: LayerInfo
    slot: int | None
    weight_errors: dict[str, Tensor]
    activation_grids: dict[str, IntegerGrid]
    trials: dict[str, Trial]
    reference: Trial


@dataclass(slots=True, eq=False)
class Tap:
    """What one layer read and wrote in the current pass."""

    node: Node
    inputs: tuple[Value, ...]
    activations: dict[int, Tensor] = field(default_factory=dict)
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class TapGradients:
    """Gradients at a layer, by output and by input position."""

    outputs: dict[int, Tensor]
    activations: dict[int, Tensor]


class Recorder:
    """Hook that keeps what a layer reads and writes, with its own handle on each activation.

    The handle is a view: its gradient is what flows through this layer alone, although other layers read the
    same tensor. <that gradient, activation error> is the effect of quantizing the activation, without running
    the layer again.
    """

    def __init__(self, probe: LayerProbe, taps: dict[str, Tap]) -> None:
        self._probe = probe
        self._taps = taps

    def __call__(self, node: Node, inputs: tuple[Value, ...]) -> Tensor | tuple[Tensor, ...]:
        """Run the node and keep what it read and wrote."""
        tap = Tap(node, inputs)
        operands = list(inputs)
        if self._probe.activation_grids:
            for i, x in enumerate(inputs):
                if x is None or not x.is_floating_point() or node.inputs[i] not in self._probe.layer.inputs:
                    continue
                handle = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
                operands[i] = tap.activations[i] = handle
        result = node.compute(*operands)
        outputs = (result,) if isinstance(result, torch.Tensor) else result
        # The first layer of a network without activation handles, and embeddings: the graph starts here.
        outputs = tuple(
            y.detach().requires_grad_() if y.is_floating_point() and not y.requires_grad else y
            for y in outputs
        )
        tap.outputs = outputs
        self._taps[node.name] = tap
        return outputs[0] if isinstance(result, torch.Tensor) else outputs


def tap_gradients(
    taps: Mapping[str, Tap], outputs: Sequence[Tensor], seeds: Sequence[Tensor]
) -> dict[str, TapGradients]:
    """Gradients of the sum of outputs times seeds, at every tap.

    Raises:
        UnsupportedOpError: torch cannot go back through an operator, or memory runs out.
    """
    keys: list[tuple[str, bool, int]] = []
    wanted: list[Tensor] = []
    for name, tap in taps.items():
        for i, y in enumerate(tap.outputs):
            if y.requires_grad:
                keys.append((name, True, i))
                wanted.append(y)
        for i, x in tap.activations.items():
            keys.append((name, False, i))
            wanted.append(x)
    ends = [(y, s) for y, s in zip(outputs, seeds, strict=True) if y.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if ends and wanted:
        with torch_failures("the backward pass"):
            found = torch.autograd.grad(
                [y for y, _ in ends], wanted, grad_outputs=[s for _, s in ends], allow_unused=True
            )
    result = {name: TapGradients({}, {}) for name in taps}
    for (name, is_output, i), gradient in zip(keys, found, strict=True):
        if gradient is not None:
            (result[name].outputs if is_output else result[name].activations)[i] = gradient
    return result


@contextmanager
def torch_failures(where: str) -> Iterator[None]:
    """torch's own errors (no derivative, shapes it refuses, no memory on the device) as one of ours.

    Raises:
        UnsupportedOpError: torch failed in the block.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedOpError(
            f"torch cannot compute this: {reason}", where=where, hint=FALLBACK_HINT
        ) from error
