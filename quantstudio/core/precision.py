"""Number formats of weights and activations, and the scheme a layer runs in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Precision(StrEnum):
    """Number format of a layer's weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT6 = "int6"
    INT4 = "int4"
    INT3 = "int3"
    INT2 = "int2"
    BINARY = "binary"

    @property
    def bits(self) -> int:
        """Bits a weight takes."""
        return _BITS[self]

    @property
    def is_integer(self) -> bool:
        """Whether weights live on an integer grid."""
        return self not in (Precision.FP32, Precision.FP16)


_BITS = {
    Precision.FP32: 32,
    Precision.FP16: 16,
    Precision.INT8: 8,
    Precision.INT6: 6,
    Precision.INT4: 4,
    Precision.INT3: 3,
    Precision.INT2: 2,
    Precision.BINARY: 1,
}


class ActivationPrecision(StrEnum):
    """Number format of the tensors a layer reads.

    INT8 has ranges fixed by calibration (static); INT8_DYNAMIC measures the range on every run.
    """

    FP32 = "fp32"
    INT8 = "int8"
    INT8_DYNAMIC = "int8-dynamic"


class Granularity(StrEnum):
    """How many weights share one scale."""

    PER_TENSOR = "per-tensor"
    PER_CHANNEL = "per-channel"
    PER_GROUP = "per-group"


class WeightRange(StrEnum):
    """How a weight scale is chosen: the full range, or the one with the least squared error."""

    MINMAX = "minmax"
    MSE = "mse"


@dataclass(frozen=True, slots=True)
class LayerScheme:
    """How one layer is stored and run.

    Attributes:
        weights: Number format of the weights.
        activations: Number format of the layer's inputs.
        granularity: Which weights share a scale.
        group_size: Weights a scale covers with PER_GROUP, along the reduced axis.
        weight_range: Rule that picks the weight scale.
    """

    weights: Precision = Precision.FP32
    activations: ActivationPrecision = ActivationPrecision.FP32
    granularity: Granularity = Granularity.PER_CHANNEL
    group_size: int = 32
    weight_range: WeightRange = WeightRange.MINMAX

    @property
    def is_float(self) -> bool:
        """Whether nothing of the layer is on an integer grid."""
        return not self.weights.is_integer and self.activations is ActivationPrecision.FP32

    @property
    def is_static(self) -> bool:
        """Whether activation ranges come from calibration."""
        return self.activations is ActivationPrecision.INT8

    @property
    def is_dynamic(self) -> bool:
        """Whether activation ranges are measured on every run."""
        return self.activations is ActivationPrecision.INT8_DYNAMIC

    @property
    def is_weight_only(self) -> bool:
        """Whether only the weights are on an integer grid."""
        return self.weights.is_integer and self.activations is ActivationPrecision.FP32

    @property
    def label(self) -> str:
        """Short name for a table cell: INT8, W4, W4A8, INT8 dyn, FP16, FP32."""
        if self.is_float:
            return self.weights.value.upper()
        bits = "B1" if self.weights is Precision.BINARY else str(self.weights.bits)
        if self.is_weight_only:
            return f"W{bits}"
        if self.is_dynamic:
            return "INT8 dyn" if self.weights is Precision.INT8 else f"W{bits} dyn"
        return "INT8" if self.weights is Precision.INT8 else f"W{bits}A8"

    def with_weight_range(self, weight_range: WeightRange) -> LayerScheme:
        """The same scheme with another rule for the weight scale."""
        return replace(self, weight_range=weight_range)


FP32 = LayerScheme()
FP16 = LayerScheme(Precision.FP16)
STATIC_INT8 = LayerScheme(Precision.INT8, ActivationPrecision.INT8)
DYNAMIC_INT8 = LayerScheme(Precision.INT8, ActivationPrecision.INT8_DYNAMIC)
WEIGHT_INT8 = LayerScheme(Precision.INT8)
WEIGHT_INT4 = LayerScheme(Precision.INT4, granularity=Granularity.PER_GROUP, weight_range=WeightRange.MSE)
STATIC_INT4 = LayerScheme(Precision.INT4, ActivationPrecision.INT8, weight_range=WeightRange.MSE)

# The schemes a person chooses from by one word, in the order menus show them.
NAMED_SCHEMES: dict[str, LayerScheme] = {
    "fp32": FP32,
    "fp16": FP16,
    "static-int8": STATIC_INT8,
    "dynamic-int8": DYNAMIC_INT8,
    "weight-int8": WEIGHT_INT8,
    "weight-int4": WEIGHT_INT4,
    "static-int4": STATIC_INT4,
}


_SCHEME_NAMES = {
    scheme.with_weight_range(rule): name for name, scheme in NAMED_SCHEMES.items() for rule in WeightRange
}


def scheme_name(scheme: LayerScheme) -> str:
    """The one-word name of a scheme, whatever its weight range rule; "custom" if it has none."""
    return _SCHEME_NAMES.get(scheme, "custom")
