"""If, Loop and Scan: operators that run bodies, which are graphs of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from quantstudio.engine.torch_graph.registry import Attributes, unsupported

Tensor = torch.Tensor
# A body as a function of its own inputs, in order; what it reads from outside is bound.
Body = Callable[[Sequence[Tensor]], list[Tensor]]
BodyKernel = Callable[[Attributes, Mapping[str, Body], Sequence[Tensor | None], int], tuple[Tensor, ...]]


def run_if(
    _: Attributes, bodies: Mapping[str, Body], inputs: Sequence[Tensor | None], count: int
) -> tuple[Tensor, ...]:
    """The outputs of the branch that the condition chooses."""
    condition = _present(inputs[0])
    return tuple(bodies["then_branch" if bool(condition.reshape(()).item()) else "else_branch"](()))[:count]


def run_loop(
    _: Attributes, bodies: Mapping[str, Body], inputs: Sequence[Tensor | None], count: int
) -> tuple[Tensor, ...]:
    """What is carried from turn to turn, then what each turn adds, stacked on a new first axis."""
    limit, going = inputs[0], inputs[1]
    carried = [_present(x) for x in inputs[2:]]
    device = carried[0].device if carried else None
    is_going = torch.tensor(True) if going is None else going
    turns = None if limit is None else int(limit.reshape(()).item())
    rows: list[list[Tensor]] = []
    turn = 0
    while bool(is_going.reshape(()).item()) and (turns is None or turn < turns):
        number = torch.tensor(turn, dtype=torch.int64, device=device)
        is_going, *results = bodies["body"]([number, is_going, *carried])
        carried, added = results[: len(carried)], results[len(carried) :]
        rows.append(added)
        turn += 1
    if not rows and count > len(carried):
        raise unsupported("Loop without a turn, whose stacked outputs have no shape")
    stacked = [torch.stack(list(column)) for column in zip(*rows, strict=True)]
    return (*carried, *stacked)[:count]


def run_scan(
    attributes: Attributes, bodies: Mapping[str, Body], inputs: Sequence[Tensor | None], count: int
) -> tuple[Tensor, ...]:
    """The state after the last step, then what each step gives, stacked along the asked axes."""
    given = [_present(x) for x in inputs]
    scanned = attributes.integer("num_scan_inputs", 1)
    state, sequences = given[: len(given) - scanned], given[len(given) - scanned :]
    axes = attributes.integers("scan_input_axes") or [0] * scanned
    backwards = attributes.integers("scan_input_directions") or [0] * scanned
    steps = [
        (x.flip(axis) if is_back else x).unbind(axis)
        for x, axis, is_back in zip(sequences, axes, backwards, strict=True)
    ]
    rows: list[list[Tensor]] = []
    for parts in zip(*steps, strict=True):
        results = bodies["body"]([*state, *parts])
        state = results[: len(state)]
        rows.append(results[len(state) :])
    columns = list(zip(*rows, strict=True))
    if not rows and count > len(state):
        raise unsupported("Scan without a step, whose stacked outputs have no shape")
    out_axes = attributes.integers("scan_output_axes") or [0] * len(columns)
    out_back = attributes.integers("scan_output_directions") or [0] * len(columns)
    stacked = []
    for column, axis, is_back in zip(columns, out_axes, out_back, strict=True):
        y = torch.stack(list(column), axis)
        stacked.append(y.flip(axis) if is_back else y)
    return (*state, *stacked)[:count]


def _present(x: Tensor | None) -> Tensor:
    if x is None:
        raise unsupported("an operand that is left out")
    return x


# Scan of opset 8 has a batch axis; opset conversion refuses or rewrites it.
BODY_KERNELS: dict[str, BodyKernel] = {"If": run_if, "Loop": run_loop, "Scan": run_scan}
