"""LSTM, GRU and RNN: a hidden unit is a row of every gate and a column of the recurrent weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from quantstudio.engine.compression.flow import Edit, Flow, Shrink, Unprunable, rule
from quantstudio.engine.compression.labels import Axes, Labels
from quantstudio.engine.graph.protos import int_attribute, set_attribute

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Input slots: initial states, and the peepholes of an LSTM with how many it has.
_STATES, _PEEPHOLES, _PEEPHOLE_COUNT = (5, 6), 7, 3


@rule("LSTM", "GRU", "RNN")
def recurrent(flow: Flow, node: NodeProto) -> Sequence[Axes]:
    """Hidden units are the channels, the same ones in every direction."""
    source, weight, again = node.input[:3]
    if not all(flow.is_constant(name) for name in node.input[1:4] if name):
        raise Unprunable(f"weights of {node.name} are computed")
    if int_attribute(node, "layout", 0):
        raise Unprunable(f"{node.name} has its samples first")
    gates, axes = _GATES[node.op_type], flow.of(source)
    flow.keep(axes[:2], f"{node.name} runs along it")
    flow.ends(node, 0, 2)
    if axes[2] is not None:
        flow.labels.join(axes[2], flow.claim(node, weight, 2))
    units = flow.claim(node, again, 2)
    flow.labels.join(np.tile(units, gates), flow.claim(node, weight, 1, makes=True))
    flow.labels.join(np.tile(units, gates), flow.claim(node, again, 1, makes=True))
    if _has(node, 3):
        flow.labels.join(np.tile(units, 2 * gates), flow.claim(node, node.input[3], 1))
    if _has(node, 4):
        flow.keep(flow.of(node.input[4]), f"{node.name} runs along it")
    _join_states(flow, node, units)
    flow.edit(node, _hidden_size(units.copy()))
    steps, samples, width = flow.shape(source)
    directions, rows, _width = flow.shape(weight)
    flow.count(node, steps * samples * directions * gates, (units, rows // gates), (axes[2], width))
    flow.count(node, steps * samples * directions * gates, (units, rows // gates), (units, rows // gates))
    results: list[Axes] = [(None, None, None, units), (None, None, units), (None, None, units)]
    return results[: len(node.output)]


def _has(node: NodeProto, slot: int) -> bool:
    return len(node.input) > slot and bool(node.input[slot])


def _join_states(flow: Flow, node: NodeProto, units: Labels) -> None:
    """Initial states: constants are cut, zeros left out, those of the outside keep all units."""
    for slot in _STATES:
        if not _has(node, slot) or (slot == _PEEPHOLES - 1 and node.op_type != "LSTM"):
            continue
        name = node.input[slot]
        if flow.is_constant(name):
            flow.labels.join(units, flow.claim(node, name, 2))
        elif _is_zero(flow, name):
            flow.edit(node, _without_input(slot, units.copy()))
        else:
            state = flow.of(name)[2]
            if state is None:
                flow.keep([units], f"an initial state comes from {flow.fixed_reason(name)}")
            else:
                flow.labels.join(units, state)
    if node.op_type == "LSTM" and _has(node, _PEEPHOLES):
        own = flow.claim(node, node.input[_PEEPHOLES], 1)
        flow.labels.join(np.tile(units, _PEEPHOLE_COUNT), own)


def _is_zero(flow: Flow, name: str) -> bool:
    """Whether a tensor is zeros of some shape, which is what a state that is left out is."""
    made = flow.view.producer.get(name)
    while made is not None and made.op_type in ("Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice"):
        made = flow.view.producer.get(made.input[0])
    if made is None:
        return False
    if made.op_type == "ConstantOfShape":
        value = next((a.t for a in made.attribute if a.name == "value"), None)
        return value is None or (not any(value.raw_data) and not any(value.float_data))
    if made.op_type == "Expand":
        array = flow.view.array(made.input[0])
        return array is not None and not array.any()
    return False


def _without_input(slot: int, units: Labels) -> Edit:
    def change(shrink: Shrink, node: NodeProto) -> None:
        if not shrink.mask(units).all():
            node.input[slot] = ""

    return change


def _hidden_size(units: Labels) -> Edit:
    def change(shrink: Shrink, node: NodeProto) -> None:
        set_attribute(node, "hidden_size", int(shrink.mask(units).sum()))

    return change
