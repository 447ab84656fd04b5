"""Names of schemes: what recipes, menus and the command line call a pair of formats.

"fp32" and "fp16"; for every integer format W of the catalogue "static-W", "dynamic-W" and "weight-W"; and
"static-W-a4" with activations of four bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import (
    GROUP_CHANNELS,
    ActivationFormat,
    ActivationPrecision,
    Granularity,
    Grid,
    LayerScheme,
    Precision,
    WeightFormat,
    WeightRange,
    activation_formats,
    catalogue_version,
    integer_formats,
    scheme_of,
    weight_formats,
)

CUSTOM = "custom"
# The preset that measures several recipes and keeps the best.
AUTO = "auto"
# Weights that share a scale where they are stored alone, as MatMulNBits takes them.
BLOCK_SIZES = ("16", "32", "64", "128", "256")
ASYMMETRIC = "/asymmetric"
# Widths of one kind that are listed name by name.
_FEW = 2
# Behind a codebook: which channels share it.
_SHARED = {"layer": "table", f"group{GROUP_CHANNELS}": "group"}
# Other spellings of a scheme.
_ALIASES = {"float16": "fp16", "float32": "fp32"}


class _NamedSchemes(Mapping[str, LayerScheme]):
    """What the catalogue holds at the moment it is asked."""

    def __getitem__(self, name: str) -> LayerScheme:
        return _schemes(catalogue_version())[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_schemes(catalogue_version()))

    def __len__(self) -> int:
        return len(_schemes(catalogue_version()))


# The schemes a person chooses from by one word, in the order menus show them.
NAMED_SCHEMES: Mapping[str, LayerScheme] = _NamedSchemes()


@lru_cache(maxsize=2)
def _schemes(_version: int) -> dict[str, LayerScheme]:
    floats = [row for row in weight_formats() if not row.is_integer]
    found = {row.name: scheme_of(row, ActivationPrecision.FP32) for row in floats}
    for activations in _in_menu_order():
        kind = "static" if activations.is_static else "dynamic" if activations.is_dynamic else "weight"
        suffix = f"-a{activations.bits}" if activations.bits < Precision.INT8.bits else ""
        for row in integer_formats():
            found[f"{kind}-{row.name}{suffix}"] = scheme_of(row, activations)
    return found


@lru_cache(maxsize=2)
def _names(version: int) -> dict[LayerScheme, str]:
    return {
        scheme.with_weight_range(rule): name
        for name, scheme in _schemes(version).items()
        for rule in WeightRange
    }


def _in_menu_order() -> list[ActivationFormat]:
    """What runs on integers first, then weights alone, then what is simulated."""
    rows = activation_formats()
    static = [row for row in rows if row.is_static]
    return [
        *(row for row in static if not row.is_simulated),
        *(row for row in rows if row.is_dynamic),
        ActivationPrecision.FP32,
        *(row for row in static if row.is_simulated),
    ]


def named_scheme(name: str) -> LayerScheme:
    """The scheme of a name, or of another spelling of it ("float16").

    Raises:
        RecipeError: there is none; the hint lists what there is.
    """
    scheme = _found(name)
    if scheme is None:
        raise RecipeError(
            f"unknown precision {name!r}", hint=f"Choose one of {listed_schemes(NAMED_SCHEMES)}"
        )
    return scheme


def _found(name: str) -> LayerScheme | None:
    """The scheme of a name; "weight-int4/64" has one scale for each block of 64 weights of a row.

    "weight-int4/64/asymmetric" has a zero point for each as well. "static-codebook4/layer" has one codebook
    for all channels of a layer, as "static-table4" has, and "static-codebook4/group8" one for eight, as
    "static-group4" has.

    Raises:
        RecipeError: the blocks are of a size that no kernel takes, or the format has none, or no zero points.
    """
    plain, _, size = name.removesuffix(ASYMMETRIC).partition("/")
    if size in _SHARED and "codebook" in plain:
        return NAMED_SCHEMES.get(plain.replace("codebook", _SHARED[size]))
    scheme = NAMED_SCHEMES.get(_ALIASES.get(plain, plain))
    if not size:
        return None if name.endswith(ASYMMETRIC) else scheme
    if scheme is None or not scheme.is_weight_only:
        return None
    if size not in BLOCK_SIZES:
        raise RecipeError(
            f"blocks of {size!r} weights: no kernel takes them",
            hint=f"Choose one of {', '.join(BLOCK_SIZES)}",
        )
    symmetric, weights = not name.endswith(ASYMMETRIC), scheme.weights
    # Tables belong to channels, and signs have no zero point: what would be ignored is refused.
    if weights.has_codebook or (not symmetric and weights.grid is not Grid.UNIFORM):
        what = "blocks of weights" if weights.has_codebook else "zero points"
        raise RecipeError(f"{weights.label} weights have no {what}", hint=f"Give {plain} alone")
    return replace(scheme, granularity=Granularity.PER_GROUP, group_size=int(size), symmetric=symmetric)


def as_scheme(precision: LayerScheme | str) -> LayerScheme:
    """The scheme itself, or the one of a name.

    Raises:
        RecipeError: there is no scheme of that name; the hint lists what there is.
    """
    return named_scheme(precision) if isinstance(precision, str) else precision


def scheme_labels() -> frozenset[str]:
    """What chips call the named schemes: "INT8", "W4A8"."""
    return _labels(catalogue_version())


@lru_cache(maxsize=2)
def _labels(version: int) -> frozenset[str]:
    return frozenset(scheme.label for scheme in _schemes(version).values())


def forms_of(weights: WeightFormat) -> tuple[str, ...]:
    """Names of the schemes that mean a format, what a layer should get first: static, dynamic, alone."""
    return _forms(catalogue_version(), weights)


@lru_cache(maxsize=64)
def _forms(version: int, weights: WeightFormat) -> tuple[str, ...]:
    return tuple(
        name
        for name, scheme in _schemes(version).items()
        if scheme.weights == weights and not scheme.is_simulated
    )


def schemes_by_bits(names: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """Names by the bits of their weights, as menus list them.

    Most bits come first; of one width what runs on integers, grids before tables, and what is simulated last.
    """
    found: dict[int, tuple[str, ...]] = {}
    for name in sorted(names, key=lambda name: _menu_place(NAMED_SCHEMES[name])):
        bits = NAMED_SCHEMES[name].weights.bits
        found[bits] = (*found.get(bits, ()), name)
    return found


def _menu_place(scheme: LayerScheme) -> tuple[int, bool, int, bool, int]:
    kinds = (scheme.is_static, scheme.is_dynamic, scheme.is_weight_only)
    kind = kinds.index(True) if True in kinds else len(kinds)
    weights = scheme.weights
    return -weights.bits, scheme.is_simulated, kind, weights.has_codebook, len(weights.label)


def preset_names() -> tuple[str, ...]:
    """What a preset may be called: any scheme, for every layer that can have it, or "auto"."""
    return (*NAMED_SCHEMES, AUTO)


def preset_scheme(name: str) -> LayerScheme:
    """The scheme a preset gives every layer that can have it.

    Raises:
        RecipeError: there is none; the hint lists what there is.
    """
    scheme = _found(name)
    if scheme is None:
        raise RecipeError(f"unknown preset {name!r}", hint=f"Choose one of {listed_schemes(preset_names())}")
    return scheme


def listed_schemes(names: Iterable[str]) -> str:
    """Names of schemes in a few words: "fp32, fp16, static-W, weight-W (W: int8, int4)".

    Kinds that hold every integer format are said once, others name by name.
    """
    left, kinds = list(names), []
    formats = [row.name for row in integer_formats()]
    for pattern in dict.fromkeys(_pattern(name, formats) for name in left):
        members = [pattern.replace("W", one) for one in formats] if "W" in pattern else []
        if members and all(member in left for member in members):
            kinds.append(pattern)
            left = [name for name in left if name not in members]
    floats = [name for name in left if "-" not in name]
    text = ", ".join([*floats, *kinds, *(name for name in left if name not in floats)])
    return f"{text} (W: {_listed_formats(formats)})" if kinds else text or "fp32"


def _listed_formats(names: Iterable[str]) -> str:
    """Names, those that differ in their bits alone said together where they are many: "int8/6/5, ternary"."""
    widths: dict[str, list[str]] = {}
    for name in names:
        stem = name.rstrip("0123456789")
        widths.setdefault(stem, []).append(name.removeprefix(stem))
    return ", ".join(
        f"{stem}{'/'.join(bits)}" if len(bits) > _FEW else ", ".join(f"{stem}{one}" for one in bits)
        for stem, bits in widths.items()
    )


def _pattern(name: str, formats: Sequence[str]) -> str:
    """A scheme's name with W in the place of its integer format."""
    parts = name.split("-")
    return "-".join("W" if part in formats else part for part in parts)


def scheme_name(scheme: LayerScheme) -> str:
    """The one-word name of a scheme, whatever its weight range rule; "custom" if it has none."""
    return _names(catalogue_version()).get(scheme, CUSTOM)
