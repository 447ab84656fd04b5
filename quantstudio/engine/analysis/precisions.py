"""What sensitivity can be asked about: names of precisions, and which of them a layer can have.

A name is a weight format of the catalogue ("fp16", "int8", "int4", ...), a format of the inputs
("int8-activations" to "int2-activations"), both joined by "+" ("int4+int8-activations"), or the scheme that
consists of them ("static-int4").
Weights have one scale per output channel; "int4/tensor" has one for the whole tensor, "int4/group32" one for
32 weights along the reduced axis of a matrix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.errors import RecipeError
from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import group_axis
from quantstudio.core.precision import (
    Granularity,
    LayerScheme,
    Precision,
    activation_formats,
    weight_formats,
    weight_range_of,
)
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.quantization.float16 import LARGEST_HALF
from quantstudio.engine.quantization.weights import quantize_weight

ACTIVATIONS_SUFFIX = "-activations"
DEFAULT_GROUP = 32

_ACTIVATIONS = re.compile(r"int([2-8])-activations")
_GROUP = re.compile(r"group(\d+)?")


@dataclass(frozen=True, slots=True)
class Trial:
    """One precision to try on every layer that can have it.

    Attributes:
        name: Its one spelling: "int4/channel" is "int4".
        weights: Scheme of the weights; None where they stay as they are.
        activations: Grid of the inputs; None where they stay as they are. Always one scale per tensor: the
            kernels know no other.
        weights_name: Name of the weights part alone; empty without.
        activations_name: Name of the activations part alone; empty without.
    """

    name: str
    weights: LayerScheme | None
    activations: IntegerGrid | None
    weights_name: str = ""
    activations_name: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what it consists of: weights, activations, or both."""
        return tuple(part for part in (self.weights_name, self.activations_name) if part)

    def obstacle(self, layer: LayerInfo, weight: NDArray[np.float32] | None) -> str:
        """Why a layer cannot have it; empty where it can.

        Args:
            layer: The layer.
            weight: Its weight; None without one.
        """
        if self.activations is not None and not reads_floats(layer):
            return "it reads no float activations"
        if self.weights is None:
            return ""
        if weight is None:
            return "it has no weights"
        if self.weights.granularity is Granularity.PER_GROUP:
            grouped = group_axis(weight.shape, layer.channel_axis) is not None
            return "" if grouped else "groups need a matrix, which it is not"
        if self.weights.weights == Precision.FP16 and not np.abs(weight).max(initial=0.0) <= LARGEST_HALF:
            return f"its weights reach beyond {LARGEST_HALF:g}, where FP16 ends"
        return ""

    def rounded(self, weight: NDArray[np.float32], channel_axis: int | None) -> NDArray[np.float32]:
        """A weight as this precision stores it, in float32."""
        assert self.weights is not None
        if self.weights.weights == Precision.FP16:
            return weight.astype(np.float16).astype(np.float32)
        return quantize_weight(weight, self.weights, channel_axis).dequantized


def reads_floats(layer: LayerInfo) -> bool:
    """Whether there is an activation to quantize; an embedding reads indices."""
    return layer.op_type != "Gather" and bool(layer.inputs)


def trial(name: str) -> Trial:
    """The trial of a name.

    Raises:
        RecipeError: there is no such precision.
    """
    parts = _spelled(name).split("+")
    activations = [part for part in parts if part.endswith(ACTIVATIONS_SUFFIX)]
    weights = [part for part in parts if not part.endswith(ACTIVATIONS_SUFFIX)]
    if len(activations) > 1 or len(weights) > 1:
        raise _unknown(name)
    weights_name, scheme = _weights(weights[0], name) if weights else ("", None)
    grid = _grid(activations[0], name) if activations else None
    activations_name = activations[0] if activations else ""
    spelled = "+".join(part for part in (weights_name, activations_name) if part)
    return Trial(spelled, scheme, grid, weights_name, activations_name)


def _spelled(name: str) -> str:
    """A scheme's name as the weights and activations it consists of; other names as they are."""
    scheme = NAMED_SCHEMES.get(name)
    if scheme is None or scheme == LayerScheme():
        return name
    weights = scheme.sensitivity_names[0]
    if scheme.is_float or scheme.is_weight_only:
        return weights
    return f"{weights}+{scheme.activations.sensitivity_name}"


def _weights(part: str, name: str) -> tuple[str, LayerScheme]:
    base, _, suffix = part.partition("/")
    known = {row.name: row for row in weight_formats()}
    precision = known.get(base)
    if precision is None or precision == Precision.FP32 or ("/" in part and not precision.is_integer):
        raise _unknown(name)
    rule = weight_range_of(precision)  # as the presets do
    if "/" not in part or suffix == "channel":
        return base, LayerScheme(precision, weight_range=rule)
    if suffix == "tensor":
        return part, LayerScheme(precision, granularity=Granularity.PER_TENSOR, weight_range=rule)
    group = _GROUP.fullmatch(suffix)
    size = int(group.group(1) or DEFAULT_GROUP) if group else 0
    if size < 2:
        raise _unknown(name)
    scheme = LayerScheme(precision, granularity=Granularity.PER_GROUP, group_size=size, weight_range=rule)
    return f"{base}/group{size}", scheme


def _grid(part: str, name: str) -> IntegerGrid:
    found = _ACTIVATIONS.fullmatch(part)
    if found is None:
        raise _unknown(name)
    return IntegerGrid(int(found.group(1)), signed=False)


def _unknown(name: str) -> RecipeError:
    weights = ", ".join(row.name for row in weight_formats() if row != Precision.FP32)
    activations = ", ".join(row.sensitivity_name for row in activation_formats() if row.is_static)
    return RecipeError(
        f"sensitivity does not know precision {name!r}",
        hint=f"Choose from {weights}, with /tensor or /group32 behind integers, {activations}, both, such as "
        f"int4+int8{ACTIVATIONS_SUFFIX}, or a scheme such as static-int4",
    )
