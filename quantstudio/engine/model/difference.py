"""How far two results of one network lie apart, and how far rounding alone moves them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import ModelProto

from quantstudio.engine.graph.protos import Array, all_graphs

# Folding a normalization rounds each weight once more (2^-24 relative); a hundred layers of that stay an
# order of magnitude below this. A wrong fold is off by far more than one part in a thousand.
TOLERANCE = 1e-4
# Half precision keeps 11 bits, bfloat16 8.
HALF_TOLERANCE = 1e-2
BFLOAT16_TOLERANCE = 5e-2

# Results within [-1, 1] that the runtime computes to the rounding of 1, not of the result: sigmoid(-17) is
# 4e-8, and ONNX Runtime 1.31 answers 0, 6e-8 or 1.2e-7, by the kernel that computes it.
_BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Softmax", "Softsign", "Erf", "Sin", "Cos"})
_MOVES = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
BOUNDED_STEP = 4 * float(np.finfo(np.float32).eps)
# A network of a hundred layers rounds at each of them, an input moved by one rounding only once.
_ROUNDINGS = 32


def relative_difference(expected: Array, found: Array) -> float:
    """Largest absolute difference over the largest finite magnitude expected.

    Equal infinities and NaNs agree. Integers and booleans: the share of elements that differ.
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if not expected.size:
        return 0.0
    if expected.dtype.kind != "f":
        return float(np.mean(expected != found))
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    if not (np.isfinite(a[~same]).all() and np.isfinite(b[~same]).all()):
        return float("inf")
    finite = np.abs(a[np.isfinite(a)])
    largest = max(float(finite.max()), float(np.finfo(np.float32).eps))
    return float(np.abs(a[~same] - b[~same]).max()) / largest


def tolerance_of(expected: Array) -> float:
    """Largest accepted relative difference for an output of this type; 0 for integers."""
    if expected.dtype.kind != "f":
        return 0.0
    return HALF_TOLERANCE if expected.dtype == np.float16 else TOLERANCE


def largest_difference(expected: Array, found: Array) -> float:
    """Largest absolute difference of two float results of one shape; infinite where one is and one is not."""
    a, b = expected.astype(np.float64), found.astype(np.float64)
    apart = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not apart.any():
        return 0.0
    difference = np.abs(a[apart] - b[apart])
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def is_rounding(expected: Array, found: Array, moved: list[Array], *, is_bounded: bool) -> bool:
    """Whether a difference is no larger than what rounding does to this tensor.

    Args:
        expected: What the original computes.
        found: What is compared with it, of the same shape.
        moved: What the original computes when its input moves by one rounding, or in another order.
        is_bounded: The tensor holds results of a function such as sigmoid (see `bounded_tensors`).
    """
    if expected.shape != found.shape or expected.dtype.kind != "f" or not expected.size:
        return False
    noise = [largest_difference(expected, one) for one in moved if one.shape == expected.shape]
    allowed = max((_ROUNDINGS * one for one in noise if np.isfinite(one)), default=0.0)
    return largest_difference(expected, found) <= max(allowed, BOUNDED_STEP if is_bounded else 0.0)


def moved_by_rounding(feed: dict[str, Array], seed: int) -> dict[str, Array]:
    """The feed with each float value moved up or down by one rounding of its type."""
    generator = np.random.default_rng(seed)
    moved = {}
    for name, value in feed.items():
        if value.dtype.kind == "f":
            signs = generator.integers(0, 2, value.shape) * 2 - 1
            step = float(np.finfo(value.dtype.name).eps)
            value = np.asarray(value.astype(np.float64) * (1 + signs * step)).astype(value.dtype)
        moved[name] = value
    return moved


def bounded_tensors(model: ModelProto) -> frozenset[str]:
    """Tensors that hold results of functions with values in [-1, 1], moved about but not computed with."""
    found: set[str] = set()
    for _scope, graph in all_graphs(model.graph):
        for node in graph.node:
            moves = node.op_type in _MOVES and any(name in found for name in node.input)
            if moves or node.op_type in _BOUNDED:
                found.update(node.output)
    return frozenset(found)


def bounded_sources(model: ModelProto, outputs: Iterable[str]) -> frozenset[str]:
    """What goes into the functions with values in [-1, 1] that these outputs come from."""
    makers = {name: node for node in model.graph.node for name in node.output}
    waiting, sources = list(outputs), set()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in _BOUNDED:
            sources.add(node.input[0])
        elif node.op_type in _MOVES:
            waiting += node.input
    return frozenset(sources)


def is_saturated(values: Array) -> bool:
    """Whether all values of a float tensor are nearly one: comparing them proves little."""
    return bool(values.size) and float(np.ptp(values.astype(np.float64))) < 1e-3
