"""Targets: for what hardware and runtime a model is quantized, and what each makes legal and fast there.

One capability table per target: for every operator type and kind of scheme whether the file may hold it,
whether an integer kernel runs it, and why not where it does not. A target also says which integers stand for
activations and how far weights may reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

from quantstudio.core.affine import IntegerGrid
from quantstudio.core.errors import RecipeError
from quantstudio.core.layers import LayerInfo
from quantstudio.core.plugins import load_plugins
from quantstudio.core.precision import FP32, STATIC_INT4, LayerScheme, catalogue_version
from quantstudio.core.processor import sums_saturate
from quantstudio.core.schemes import NAMED_SCHEMES, scheme_name

PLUGINS = "quantstudio.targets"


class SchemeKind(StrEnum):
    """What kernels tell apart in a scheme; the number of bits is none of it."""

    FLOAT = "float"
    STATIC = "static"
    DYNAMIC = "dynamic"
    WEIGHT_ONLY = "weight-only"
    PACKED = "packed"


# The scheme whose name in a layer's list says that the graph lets the layer have the whole kind.
_ANCHORS = {
    SchemeKind.FLOAT: "fp16",
    SchemeKind.STATIC: "static-int8",
    SchemeKind.DYNAMIC: "dynamic-int8",
    SchemeKind.WEIGHT_ONLY: "weight-int8",
    SchemeKind.PACKED: "weight-int4",
}


def scheme_kind(scheme: LayerScheme) -> SchemeKind:
    """The kind of a scheme."""
    if scheme.is_float:
        return SchemeKind.FLOAT
    if scheme.is_static:
        return SchemeKind.STATIC
    if scheme.is_dynamic:
        return SchemeKind.DYNAMIC
    return SchemeKind.PACKED if scheme.is_packed else SchemeKind.WEIGHT_ONLY


@dataclass(frozen=True, slots=True)
class Capability:
    """One row of a target's table: what it does with one operator type.

    Attributes:
        fast: Kinds an integer kernel runs.
        slow: Kinds the file may hold and no integer kernel runs: smaller, not faster.
        refused: Why it has none of the kinds that are in neither, by kind, in words.
    """

    fast: frozenset[SchemeKind] = frozenset()
    slow: frozenset[SchemeKind] = frozenset()
    refused: Mapping[SchemeKind, str] = field(default_factory=dict)

    @property
    def legal(self) -> frozenset[SchemeKind]:
        """Kinds the file may hold."""
        return self.fast | self.slow


@dataclass(frozen=True, slots=True)
class Support:
    """Whether one layer can have one scheme on a target.

    Attributes:
        is_legal: Whether the file may hold it.
        is_fast: Whether an integer kernel runs it in the precision it asks for.
        reason: Why it is not legal, or not fast, in words; empty where it is both.
    """

    is_legal: bool
    is_fast: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Hardware and runtime a model is quantized for.

    Attributes:
        name: As recipes and the command line spell it.
        label: As a menu shows it.
        text: What it is for and what it changes, in a sentence.
        operators: The capability table, by operator type.
        signed_activations: Whether activations are S8, symmetric about zero; else U8 with a zero point.
        weight_bits: Bits an integer kernel may take of a weight: 7 keeps 16-bit sums from overflowing.
    """

    name: str
    label: str
    text: str
    operators: Mapping[str, Capability]
    signed_activations: bool = False
    weight_bits: int = 8

    def kinds(self, op_type: str, *, in_body: bool = False) -> frozenset[SchemeKind]:
        """Kinds an operator type with constant weights can have; nothing is calibrated inside a body."""
        row = self.operators.get(op_type)
        if row is None:
            return frozenset()
        return row.legal - {SchemeKind.STATIC} if in_body else row.legal

    def support(self, layer: LayerInfo, scheme: LayerScheme) -> Support:
        """Whether a layer can have a scheme here; float32 always."""
        kind = scheme_kind(scheme)
        if kind is SchemeKind.FLOAT and scheme.weights == FP32.weights:
            return Support(True)
        row = self.operators.get(layer.op_type, _NOTHING)
        allowed = _ANCHORS[kind] in layer.schemes
        if not layer.weight_name and scheme_name(scheme) == scheme_name(STATIC_INT4):
            # Recipes of the first version leave products of two activations float under this one scheme.
            allowed = allowed and scheme_name(scheme) in layer.schemes
        if not allowed or (kind is not SchemeKind.FLOAT and kind not in row.legal):
            why = layer.reason or row.refused.get(kind, "") or f"no {scheme.label} form of {layer.op_type}"
            return Support(False, reason=why)
        if scheme.is_simulated:
            return Support(True, reason=_SIMULATED)
        if kind in row.fast or kind is SchemeKind.FLOAT:
            return Support(True, kind in row.fast)
        return Support(True, reason=row.refused.get(kind, _UNPACKED))

    def schemes(self, layer: LayerInfo) -> tuple[str, ...]:
        """Names of the schemes a layer can have here, in the order of menus.

        Without weights their format makes no difference: one scheme is listed for each of activations.
        """
        bare = LayerInfo("", layer.op_type, layer.weight_name[:1], schemes=layer.schemes)
        return _schemes(self, bare, catalogue_version())

    def activation_grid(self, bits: int = 8) -> IntegerGrid:
        """The integers that stand for static activations of so many bits."""
        return IntegerGrid(bits, signed=self.signed_activations)


@lru_cache(maxsize=1024)
def _schemes(target: Target, layer: LayerInfo, _version: int) -> tuple[str, ...]:
    """Worked out once for layers alike in what decides: menus and tables ask for hundreds."""
    return tuple(
        name
        for name, scheme in NAMED_SCHEMES.items()
        if target.support(layer, scheme).is_legal
        and (layer.weight_name or name in layer.schemes or not scheme.is_static)
    )


def writable_schemes(kinds: frozenset[SchemeKind]) -> tuple[str, ...]:
    """Names of the schemes of some kinds, float first."""
    return tuple(
        name
        for name, scheme in NAMED_SCHEMES.items()
        if scheme == FP32 or scheme_kind(scheme) in kinds | {SchemeKind.FLOAT}
    )


_SIMULATED = "no kernel multiplies activations of so few bits: 8-bit kernels compute with values kept to them"
_UNPACKED = "weights are unpacked when the model is loaded and computed in float"
_NOTHING = Capability()

_STATIC, _DYNAMIC = SchemeKind.STATIC, SchemeKind.DYNAMIC
_WEIGHT, _PACKED = SchemeKind.WEIGHT_ONLY, SchemeKind.PACKED

# Measured on ONNX Runtime 1.31. A dynamic Conv is ConvInteger, which takes one weight scale for all channels
# and runs at 0.1 to 0.3 of the speed of the float kernel, so it would lose on both counts.
_SLOW_CONVOLUTION = "ConvInteger takes one weight scale for all channels and is slower than FP32"
_NO_KERNEL = "there is no integer kernel for it"
_NO_GROUPS = "no kernel unpacks groups of its weights"
_ALONE = Capability(
    slow=frozenset({_WEIGHT}), refused={_STATIC: _NO_KERNEL, _DYNAMIC: _NO_KERNEL, _PACKED: _NO_GROUPS}
)
_ROWS = "rows are picked, not multiplied"

ONNX_RUNTIME_CPU: Mapping[str, Capability] = MappingProxyType(
    {
        "Conv": Capability(
            fast=frozenset({_STATIC}),
            slow=frozenset({_WEIGHT, _PACKED}),
            refused={_DYNAMIC: _SLOW_CONVOLUTION},
        ),
        "Gemm": Capability(fast=frozenset({_STATIC, _DYNAMIC, _WEIGHT, _PACKED})),
        "MatMul": Capability(fast=frozenset({_STATIC, _DYNAMIC, _WEIGHT, _PACKED})),
        "ConvTranspose": _ALONE,
        "Einsum": _ALONE,
        "GRU": _ALONE,
        "RNN": _ALONE,
        # Of the recurrent layers only LSTM has an integer kernel (DynamicQuantizeLSTM).
        "LSTM": Capability(
            fast=frozenset({_DYNAMIC}),
            slow=frozenset({_WEIGHT}),
            refused={_STATIC: _NO_KERNEL, _PACKED: _NO_GROUPS},
        ),
        "Gather": Capability(
            slow=frozenset({_WEIGHT, _PACKED}),
            refused={_STATIC: _ROWS, _DYNAMIC: _ROWS, _WEIGHT: _ROWS, _PACKED: _ROWS},
        ),
    }
)

WITH_VNNI = Target(
    "cpu-x86-vnni",
    "x86 with VNNI",
    "ONNX Runtime on x86 processors of 2019 and later: U8 activations, S8 weights per channel",
    ONNX_RUNTIME_CPU,
)

WITHOUT_VNNI = Target(
    "cpu-x86",
    "x86 without VNNI",
    "ONNX Runtime on any x86 processor: weights keep to 7 bits, as older ones add up pairs of products in 16 "
    "bits, which overflow with 8",
    ONNX_RUNTIME_CPU,
    weight_bits=7,
)

# Standard operators only. Fast is what ONNX Runtime on x86 runs, as that is what is measured: it has slow
# kernels for S8 activations, and none for a layer before a Relu.
_ELSEWHERE = "S8 activations are for other runtimes: ONNX Runtime on x86 computes them slowly, or in float"
_NOT_STANDARD = "standard ONNX has no integer form of it"

ANY_QDQ: Mapping[str, Capability] = MappingProxyType(
    {
        "Conv": Capability(
            slow=frozenset({_STATIC, _WEIGHT, _PACKED}),
            refused={_DYNAMIC: _SLOW_CONVOLUTION, _STATIC: _ELSEWHERE},
        ),
        **{
            op_type: Capability(
                fast=frozenset({_DYNAMIC, _WEIGHT, _PACKED}),
                slow=frozenset({_STATIC}),
                refused={_STATIC: _ELSEWHERE},
            )
            for op_type in ("Gemm", "MatMul")
        },
        "LSTM": Capability(
            slow=frozenset({_WEIGHT}),
            refused={_STATIC: _NO_KERNEL, _DYNAMIC: _NOT_STANDARD, _PACKED: _NO_GROUPS},
        ),
        **{name: ONNX_RUNTIME_CPU[name] for name in ("ConvTranspose", "Einsum", "GRU", "RNN", "Gather")},
    }
)

OTHER_RUNTIMES = Target(
    "onnx-qdq-s8",
    "other runtimes (S8)",
    "QDQ in standard ONNX with S8 activations symmetric about zero, for runtimes other than ONNX Runtime on "
    "x86, where it is slower than FP32",
    ANY_QDQ,
    signed_activations=True,
)

# What a new recipe is made for: the machine it is made on, so that what is measured here is what it says. On
# a processor without VNNI a static INT8 MobileNet of 8-bit weights lost 1.1 points, of 7-bit weights none.
DEFAULT_TARGET = WITHOUT_VNNI if sums_saturate() else WITH_VNNI

_TARGETS: dict[str, Target] = {}


def register_target(row: Target) -> None:
    """Add a target.

    Raises:
        ValueError: the name is taken.
    """
    if row.name in _TARGETS:
        raise ValueError(f"there is a target {row.name!r} already")
    _TARGETS[row.name] = row


def targets() -> tuple[Target, ...]:
    """Every target, those that come with QuantStudio first."""
    load_plugins(PLUGINS)
    return tuple(_TARGETS.values())


def target_named(name: str) -> Target:
    """The target of a name.

    Raises:
        RecipeError: there is none; the hint lists what there is.
    """
    found = next((one for one in targets() if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in targets())
        raise RecipeError(f"unknown target {name!r}", hint=f"Known targets: {known}")
    return found


def target_or_default(name: str) -> Target:
    """The target of a name; the default one where a recipe names one that is not installed here."""
    return next((one for one in targets() if one.name == name), DEFAULT_TARGET)


register_target(WITH_VNNI)
register_target(WITHOUT_VNNI)
register_target(OTHER_RUNTIMES)
