"""What sensitivity can be asked about: names of precisions, and which of them a layer can have.

A name is a number format of the weights ("fp16", "int8", "int6", "int4", "int3", "int2", "binary"), one of
the inputs ("int8-activations" to "int2-activations"), or both joined by "+" ("int4+int8-activations").
Weights have one scale an output channel; "int4/tensor" has one for the whole tensor, "int4/group32" one for
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
from quantstudio.core.precision import Granularity, LayerScheme, Precision, WeightRange
from quantstudio.engine.quantization.float16 import LARGEST_HALF
from quantstudio.engine.quantization.weights import quantize_weight

ACTIVATIONS_SUFFIX = "-activations"
DEFAULT_GROUP = 32
WEIGHT_PRECISIONS = tuple(p.value for p in Precision if p is not Precision.FP32)

_ACTIVATIONS = re.compile(r"int([2-8])-activations")
_GROUP = re.compile(r"group(\d+)?")
_HINT = (
    f"Choose from {', '.join(WEIGHT_PRECISIONS)}, with /tensor or /group32 behind integers, "
    f"int8{ACTIVATIONS_SUFFIX}, int4{ACTIVATIONS_SUFFIX}, or both, such as int4+int8{ACTIVATIONS_SUFFIX}"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One precision to try on every layer that can have it.

    Attributes:
        name: Its one spelling: "int4/channel" is "int4".
        weights: Scheme of the weights; None where they stay as they are.
        activations: Grid of the inputs; None where they stay as they are. Always one scale a tensor: the
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
        if self.weights.weights is Precision.FP16 and not np.abs(weight).max(initial=0.0) <= LARGEST_HALF:
            return f"its weights reach beyond {LARGEST_HALF:g}, where FP16 ends"
        return ""

    def rounded(self, weight: NDArray[np.float32], channel_axis: int | None) -> NDArray[np.float32]:
        """A weight as this precision stores it, in float32."""
        assert self.weights is not None
        if self.weights.weights is Precision.FP16:
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
    parts = name.split("+")
    activations = [part for part in parts if part.endswith(ACTIVATIONS_SUFFIX)]
    weights = [part for part in parts if not part.endswith(ACTIVATIONS_SUFFIX)]
    if len(activations) > 1 or len(weights) > 1:
        raise _unknown(name)
    weights_name, scheme = _weights(weights[0], name) if weights else ("", None)
    grid = _grid(activations[0], name) if activations else None
    activations_name = activations[0] if activations else ""
    spelled = "+".join(part for part in (weights_name, activations_name) if part)
    return Trial(spelled, scheme, grid, weights_name, activations_name)


def _weights(part: str, name: str) -> tuple[str, LayerScheme]:
    base, _, suffix = part.partition("/")
    if base not in WEIGHT_PRECISIONS or ("/" in part and not Precision(base).is_integer):
        raise _unknown(name)
    precision = Precision(base)
    # As the presets do: full range at 8 bits, least squared error where the grid is coarse.
    rule = WeightRange.MINMAX if precision is Precision.INT8 else WeightRange.MSE
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
    return RecipeError(f"sensitivity does not know precision {name!r}", hint=_HINT)
