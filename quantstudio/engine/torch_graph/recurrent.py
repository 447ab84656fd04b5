"""LSTM, GRU and RNN on torch's fused kernels."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from quantstudio.engine.torch_graph.registry import Attributes, Result, operator, unsupported

Tensor = torch.Tensor

# Where each of torch's gates lies in ONNX's order: LSTM iofc -> ifgo, GRU zrh -> rzn.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}

_DEFAULT_ACTIVATIONS = {
    "LSTM": ["sigmoid", "tanh", "tanh"],
    "GRU": ["sigmoid", "tanh"],
    "RNN": ["tanh"],
}

# Weight re-ordered for torch, by the ONNX weight it was made from and that weight's version: inference does
# it once, training again after each step (the gradient must flow through).
_reordered: MutableMapping[Tensor, tuple[int, Tensor]] = WeakTensorKeyDictionary()


def _gates_in_torch_order(weight: Tensor, kind: str) -> Tensor:
    """A [directions, gates * hidden, ...] tensor with its gates in torch's order."""
    order = _GATES[kind]
    if order == (0,):
        return weight
    if torch.is_grad_enabled() and weight.requires_grad:
        return _reorder(weight, order)
    version = weight._version
    known = _reordered.get(weight)
    if known is None or known[0] != version:
        known = (version, _reorder(weight.detach(), order))
        _reordered[weight] = known
    return known[1]


def _reorder(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    gates = weight.chunk(len(order), 1)
    return torch.cat([gates[i] for i in order], 1)


def _flat_weights(kind: str, w: Tensor, r: Tensor, b: Tensor | None, hidden: int) -> list[Tensor]:
    """Weights of each direction in the order torch's kernels take them."""
    gates = len(_GATES[kind])
    w, r = _gates_in_torch_order(w, kind), _gates_in_torch_order(r, kind)
    if b is None:
        zeros = w.new_zeros(w.shape[0], gates * hidden)
        input_bias, hidden_bias = zeros, zeros
    else:
        first, second = b.chunk(2, 1)
        input_bias, hidden_bias = _reorder(first, _GATES[kind]), _reorder(second, _GATES[kind])
    flat: list[Tensor] = []
    for d in range(w.shape[0]):
        flat += [w[d], r[d], input_bias[d], hidden_bias[d]]
    return flat


def _check(kind: str, attributes: Attributes, lengths: Tensor | None, x: Tensor) -> None:
    if attributes.flag("layout"):
        raise unsupported(f"{kind} with the batch first")
    if "clip" in attributes:
        raise unsupported(f"{kind} with clipping")
    named = [
        name.decode() if isinstance(name, bytes) else str(name)
        for name in attributes.value("activations") or []
    ]
    default = _DEFAULT_ACTIVATIONS[kind]
    if named and [name.lower() for name in named] != default * (len(named) // len(default)):
        raise unsupported(f"{kind} with activations {', '.join(named)}")
    if lengths is not None and not bool((lengths == x.shape[0]).all()):
        raise unsupported(f"{kind} with sequences of different lengths")


def _recurrent(
    kind: str,
    attributes: Attributes,
    inputs: tuple[Tensor | None, ...],
) -> Result:
    operands = list(inputs) + [None] * (8 - len(inputs))
    x, w, r, b, lengths, h0, c0, peephole = operands
    if x is None or w is None or r is None:
        raise unsupported(f"{kind} without weights")
    _check(kind, attributes, lengths, x)
    if peephole is not None:
        raise unsupported("LSTM with peepholes")
    hidden, directions = r.shape[-1], w.shape[0]
    is_reverse = attributes.text("direction", "forward") == "reverse"
    flat = _flat_weights(kind, w, r, b, hidden)
    zeros = x.new_zeros(directions, x.shape[1], hidden)
    h = h0 if h0 is not None else zeros
    sequence = x.flip(0) if is_reverse else x
    both = directions == 2
    cell: tuple[Tensor, ...] = ()
    # Arguments: has_biases, layers, dropout, train, bidirectional, batch_first.
    if kind == "LSTM":
        y, h_last, c_last = torch.lstm(
            sequence, (h, c0 if c0 is not None else zeros), flat, True, 1, 0.0, False, both, False
        )
        cell = (c_last,)
    elif kind == "GRU":
        if not attributes.flag("linear_before_reset"):
            raise unsupported("GRU with linear_before_reset=0, which torch has no kernel for")
        y, h_last = torch.gru(sequence, h, flat, True, 1, 0.0, False, both, False)
    else:
        y, h_last = torch.rnn_tanh(sequence, h, flat, True, 1, 0.0, False, both, False)
    if is_reverse:
        y = y.flip(0)
    y = y.reshape(y.shape[0], y.shape[1], directions, hidden).permute(0, 2, 1, 3)
    return (y, h_last, *cell)


@operator("LSTM")
def lstm(attributes: Attributes, *inputs: Tensor | None) -> Result:
    """Long short-term memory; outputs Y, Y_h, Y_c."""
    return _recurrent("LSTM", attributes, inputs)


@operator("GRU")
def gru(attributes: Attributes, *inputs: Tensor | None) -> Result:
    """Gated recurrent unit (linear_before_reset = 1); outputs Y, Y_h."""
    return _recurrent("GRU", attributes, inputs)


@operator("RNN")
def rnn(attributes: Attributes, *inputs: Tensor | None) -> Result:
    """Plain recurrent layer with tanh; outputs Y, Y_h."""
    return _recurrent("RNN", attributes, inputs)
