"""What a recipe comes to for one model, worked out once: what builds, predictions and searches go by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from quantstudio.core.codebooks import codebook_pays, why_no_codebook
from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layer_parts import whole_name
from quantstudio.core.layer_schemes import LayerSchemes
from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import packs
from quantstudio.core.precision import FP32, Granularity, LayerScheme, Precision, at_weights
from quantstudio.core.recipe import (
    BIASES_APART,
    DEFAULT_SEED,
    EMISSION,
    FIRST_EMISSION,
    LARGEST_SEED,
    PACKED_FILES,
    SHARED_VALUES,
    ActivationScope,
    CalibrationSettings,
    LayerRule,
    RangeMethod,
    RangeOverride,
    Recipe,
)
from quantstudio.core.schemes import listed_schemes
from quantstudio.core.steps import Step, StepInfo, completed_steps
from quantstudio.core.target import DEFAULT_TARGET, Target, target_named

_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


@dataclass(frozen=True, eq=False)
class EffectivePlan:
    """A recipe resolved against the layers of a model; nobody who holds it needs the recipe.

    Two plans are equal where they come to the same thing, whatever rules they were written with.

    Attributes:
        schemes: Scheme of every layer by name, in the order of the layers: what was asked, or FP32 where the
            layer cannot have that.
        asked: What the last matching rule asks for, whether the layer can have it or not.
        notes: Why a layer does not have what was asked for, by layer.
        rule_schemes: Schemes the rules name, also those that no layer matches.
        activation_scope: Which tensors static quantization covers.
        calibration: How ranges are read off the statistics of static tensors.
        activation_ranges: Ranges set by hand (low, high), by tensor.
        weight_ranges: Clip ranges of weights set by hand (low, high), by layer.
        target: Name of the hardware and runtime the integer types are chosen for.
        steps: Steps that are on, in order.
        seed: Of the random numbers of the steps; the default where no step draws any.
        emission: Form of the file, where it makes a difference for these layers; else the first.
        unpacked: Whether weights that could be packed are not.
        recipe: What it was made from, written out. Not part of `digest`.
    """

    schemes: Mapping[str, LayerScheme]
    asked: Mapping[str, LayerScheme] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    rule_schemes: tuple[LayerScheme, ...] = ()
    activation_scope: ActivationScope = ActivationScope.ALL
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    activation_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    weight_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    target: str = DEFAULT_TARGET.name
    steps: tuple[Step, ...] = ()
    seed: int = DEFAULT_SEED
    emission: int = EMISSION
    unpacked: bool = False
    recipe: Recipe = field(default_factory=Recipe)

    @cached_property
    def recipe_digest(self) -> str:
        """Digest of the recipe, which built files name; predictions, made on every edit, never ask for it."""
        return self.recipe.digest

    @cached_property
    def is_static(self) -> bool:
        """Whether any layer needs activation ranges from calibration."""
        return any(scheme.is_static for scheme in self.schemes.values())

    @property
    def is_float(self) -> bool:
        """Whether every layer stays FP32."""
        return all(is_fp32(scheme) for scheme in self.schemes.values())

    @property
    def without_steps(self) -> EffectivePlan:
        """What the layers become, whatever happened to the graph before."""
        return replace(self, steps=(), seed=DEFAULT_SEED)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what matters of the plan; recipes that give every layer the same thing share it."""
        text = json.dumps(self._essence(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, EffectivePlan) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def _essence(self) -> dict[str, Any]:
        known: dict[LayerScheme, Any] = {}
        schemes = {}
        for name, scheme in self.schemes.items():
            if name in self.weight_ranges:
                schemes[name] = _scheme_essence(scheme, self.weight_ranges[name])
            else:
                if scheme not in known:
                    known[scheme] = _scheme_essence(scheme, None)
                schemes[name] = known[scheme]
        essence: dict[str, Any] = {"schemes": schemes, "target": self.target}
        if self.steps:
            essence["steps"] = [[step.name, dict(step.settings)] for step in self.steps]
            essence["seed"] = self.seed
        if self.emission != FIRST_EMISSION:
            essence["emission"] = self.emission
        if self.unpacked:
            essence["unpacked"] = True
        if self.is_static:
            by_percentile = self.calibration.method is RangeMethod.PERCENTILE
            essence["static"] = [
                self.activation_scope.value,
                self.calibration.method.value,
                self.calibration.percentile if by_percentile else None,
                self.calibration.samples,
                dict(self.activation_ranges),
            ]
        return essence


def is_fp32(scheme: LayerScheme) -> bool:
    """Whether nothing happens to a layer with this scheme."""
    return scheme.is_float and scheme.weights == Precision.FP32


def _scheme_essence(scheme: LayerScheme, clip: tuple[float, float] | None) -> dict[str, Any]:
    """What of a scheme makes a difference: no group size without groups, no range rule without a search."""
    values: dict[str, Any] = to_json(scheme)
    integer = scheme.weights.is_integer
    if scheme.granularity is Granularity.PER_GROUP and scheme.is_static:
        # Integer kernels of static layers take scales per channel, never per group.
        values["granularity"] = Granularity.PER_CHANNEL.value
    if not integer:
        del values["granularity"]
    if not integer or values["granularity"] != Granularity.PER_GROUP:
        del values["group_size"]
    if not scheme.weights.has_range_rule or clip:
        del values["weight_range"]
    if scheme.symmetric or values.get("granularity") != Granularity.PER_GROUP:
        del values["symmetric"]
    if integer and clip:
        values["clip"] = clip
    return values


class LayerList:
    """Layers of a model, with what decides what they can have; made once where many recipes are resolved.

    Args:
        layers: The layers, in order.
    """

    def __init__(self, layers: Iterable[LayerInfo]) -> None:
        self.layers = tuple(layers)
        self.by_name = {layer.name: layer for layer in self.layers}
        self.products = tuple(layer.name for layer in self.layers if layer.op_type == "MatMul")
        self.tables = tuple(layer.name for layer in self.layers if layer.op_type == "Gather")
        numbers: dict[tuple[str, bool, tuple[str, ...], str], int] = {}
        # Hundreds of layers are of a handful of kinds.
        self.kinds = {
            layer.name: numbers.setdefault(
                (layer.op_type, bool(layer.weight_name), layer.schemes, layer.stored_as), len(numbers)
            )
            for layer in self.layers
        }
        self.examples = {self.kinds[layer.name]: layer for layer in reversed(self.layers)}
        self._numbers = np.fromiter(self.kinds.values(), dtype=np.intp, count=len(self.kinds))
        self._grouped: tuple[LayerSchemes, list[tuple[int, LayerScheme, int]]] | None = None

    @classmethod
    def of(cls, layers: Iterable[LayerInfo]) -> LayerList:
        """The list of these layers; they themselves where they are one."""
        return layers if isinstance(layers, cls) else cls(layers)

    def __iter__(self) -> Iterator[LayerInfo]:
        return iter(self.layers)

    def groups(self, schemes: LayerSchemes) -> list[tuple[int, LayerScheme, int]]:
        """Kinds of layers with the schemes they have, and how many layers do; in the order of the layers.

        Args:
            schemes: Of these layers, in their order.
        """
        known = self._grouped  # a plan is resolved, then named
        if known is not None and known[0] is schemes:
            return known[1]
        width = len(schemes.kinds)
        both = self._numbers * width + schemes.numbers
        counts = np.bincount(both)
        found = sorted((int((both == pair).argmax()), pair) for pair in np.flatnonzero(counts).tolist())
        groups = [(pair // width, schemes.kinds[pair % width], int(counts[pair])) for _, pair in found]
        self._grouped = schemes, groups
        return groups


def resolve(
    recipe: Recipe, layers: Iterable[LayerInfo], steps: Iterable[StepInfo] | None = None
) -> EffectivePlan:
    """The plan a recipe comes to for these layers.

    Args:
        recipe: The recipe.
        layers: Layers of the model; a `LayerList` where many recipes are resolved for them.
        steps: Steps there are. With them, settings a recipe leaves out are filled in, wrong ones refused and
            the seed dropped where no step draws a random number; without, steps are taken as they stand.

    Raises:
        RecipeError: an exact rule names a layer that does not exist, or asks for what it cannot have; a
            weight range is reversed; the target is unknown; a step is unknown or a setting does not fit; the
            seed is none.
    """
    if not 0 <= recipe.seed <= LARGEST_SEED:
        raise RecipeError(
            f"the seed {recipe.seed} is none", hint="Give a whole number of at least 0 that takes 63 bits"
        )
    known = None if steps is None else {info.name: info for info in steps}
    if known is not None:
        # Written out, so that a default that is left out and one that is given make the same file.
        recipe = replace(recipe, steps=completed_steps(recipe.steps, known.values()))
    listed = LayerList.of(layers)
    legal = _Legal(target_named(recipe.target), listed)
    for rule in recipe.rules:
        if rule.is_exact:
            _check_exact(rule, listed, legal)
    for override in recipe.weight_ranges:
        _check_weight_range(override, listed.by_name)
    asked = LayerSchemes(recipe.asked_schemes(listed.layers))
    schemes, notes = _granted(recipe, legal, listed, asked)
    on = tuple(step for step in recipe.steps if step.is_on)
    draws = bool(on) if known is None else any(known[step.name].uses_seed for step in on)
    kinds = schemes.kinds
    # Keys and bytes of plans that come out the same in every form stay what they were.
    emission = _emission(recipe, schemes, kinds, listed, has_steps=bool(on))
    return EffectivePlan(
        schemes=schemes,
        asked=asked,
        notes=notes,
        rule_schemes=tuple(dict.fromkeys(rule.scheme for rule in recipe.rules)),
        activation_scope=recipe.activation_scope,
        calibration=recipe.calibration,
        activation_ranges={o.tensor: (o.low, o.high) for o in recipe.activation_ranges},
        weight_ranges={o.tensor: (o.low, o.high) for o in recipe.weight_ranges},
        target=recipe.target,
        steps=on,
        seed=recipe.seed if draws else DEFAULT_SEED,
        emission=emission,
        unpacked=recipe.unpacked
        and (emission == SHARED_VALUES or (emission == PACKED_FILES and any(map(packs, kinds)))),
        recipe=recipe,
    )


def _emission(
    recipe: Recipe,
    schemes: Mapping[str, LayerScheme],
    kinds: Sequence[LayerScheme],
    listed: LayerList,
    *,
    has_steps: bool,
) -> int:
    """The first form that gives what the form of the recipe gives: such plans keep their keys and bytes."""
    asked = min(recipe.emission, PACKED_FILES)
    if recipe.emission >= SHARED_VALUES and has_steps and any(map(is_fp32, kinds)):
        return recipe.emission
    if asked == PACKED_FILES:
        integers = any(scheme.weights.is_integer for scheme in kinds)
        if (has_steps and integers) or any(map(packs, kinds)):
            return asked
    if any(schemes[name].is_weight_only for name in listed.tables):
        return asked  # the head of a decoder may be its embedding, stored once
    if any(schemes[name].is_static for name in listed.products):
        return min(recipe.emission, BIASES_APART)
    return FIRST_EMISSION


def fitting(recipe: Recipe, layers: Iterable[LayerInfo]) -> EffectivePlan | None:
    """The plan a recipe comes to, its steps taken as they stand; None where it does not fit the layers."""
    try:
        return resolve(recipe, layers)
    except RecipeError:
        return None


class _Legal:
    """What layers can have on a target, asked once per kind of layer: there are hundreds of layers."""

    def __init__(self, target: Target, listed: LayerList) -> None:
        self.target = target
        self._listed = listed
        self._refused: dict[int, frozenset[int]] = {}

    def refused(self, scheme: LayerScheme) -> frozenset[int]:
        """Kinds of layers that cannot have a scheme, which the recipe that is resolved must hold."""
        known = self._refused.get(id(scheme))
        if known is None:
            kinds = self._listed.examples.items()
            known = frozenset(
                kind for kind, layer in kinds if not self.target.support(layer, scheme).is_legal
            )
            self._refused[id(scheme)] = known
        return known


def _granted(
    recipe: Recipe, legal: _Legal, listed: LayerList, asked: LayerSchemes
) -> tuple[LayerSchemes, dict[str, str]]:
    """What every layer gets, and why it is not what was asked."""
    groups = listed.groups(asked)
    is_refused = any(kind in legal.refused(scheme) for kind, scheme, _ in groups)
    has_codebooks = any(scheme.weights.has_codebook for _, scheme, _ in groups)
    if not is_refused and not has_codebooks and recipe.activation_scope is not ActivationScope.WEIGHTED:
        return asked, {}
    schemes, kinds, notes = dict(asked), listed.kinds, dict[str, str]()
    if is_refused:
        for name, scheme in asked.items():
            if kinds[name] in legal.refused(scheme):
                schemes[name], notes[name] = FP32, _refusal(listed.by_name[name], scheme)
    if has_codebooks:
        for name, scheme in schemes.items():
            if scheme.weights.has_codebook and not codebook_pays(listed.by_name[name], scheme.weights):
                schemes[name] = at_weights(scheme, Precision.INT8)
                why = why_no_codebook(listed.by_name[name], scheme.weights)
                notes[name] = f"{scheme.label} asked; {schemes[name].label}: {why}"
    if recipe.activation_scope is ActivationScope.WEIGHTED:
        _leave_products(recipe, listed, schemes, notes)
    return LayerSchemes(schemes) if notes else asked, notes


def _leave_products(
    recipe: Recipe, listed: LayerList, schemes: dict[str, LayerScheme], notes: dict[str, str]
) -> None:
    """Products of two activations stay float, unless a rule names them one by one."""
    named = frozenset(n for rule in recipe.rules if rule.is_exact for n in rule.names)
    for layer in listed:
        if not layer.weight_name and schemes[layer.name].is_static and layer.name not in named:
            schemes[layer.name] = FP32
            notes[layer.name] = "stays FP32: only layers with weights are quantized in this recipe"


def _refusal(layer: LayerInfo, asked: LayerScheme) -> str:
    why = layer.reason or f"no {asked.label} form of {layer.op_type}"
    if not layer.reason and not layer.weight_name:
        why = f"it multiplies two activations, and there is no {asked.label} form of that"
    elif not layer.reason and layer.scope and asked.is_static:
        why = "inside a control-flow body, where nothing is calibrated"
    return f"{asked.label} asked; stays {'as it is' if layer.stored_as else 'FP32'}: {why}"


def _check_weight_range(override: RangeOverride, listed: Mapping[str, LayerInfo]) -> None:
    if override.tensor not in listed:
        raise RecipeError(
            f"the recipe clips the weights of layer {override.tensor!r}, which is not in this model",
            hint="Remove that weight range or open the model the recipe was made for",
        )
    if not -_LARGEST_FLOAT32 <= override.low < override.high <= _LARGEST_FLOAT32:
        raise RecipeError(
            f"weight range [{override.low:g}, {override.high:g}] is not a finite range",
            where=override.tensor,
            hint="Give a finite range with low below high",
        )


def _check_exact(rule: LayerRule, listed: LayerList, legal: _Legal) -> None:
    refused = legal.refused(rule.scheme)
    if not refused and listed.by_name.keys() >= set(rule.names):
        return
    for name in rule.names:
        layer = listed.by_name.get(name)
        if layer is None and whole_name(name) in listed.by_name:
            continue  # a part that a step is to make
        if layer is None:
            raise RecipeError(
                f"the recipe names layer {name!r}, which is not in this model",
                hint=Hint("Use a pattern with *, or a name from the list of layers", HintAction.LIST_LAYERS),
            )
        if listed.kinds[name] in refused:
            reason = legal.target.support(layer, rule.scheme).reason
            raise RecipeError(
                f"the layer cannot be {rule.scheme.label} ({reason})",
                where=name,
                hint=f"It can be: {listed_schemes(legal.target.schemes(layer))}",
            )
