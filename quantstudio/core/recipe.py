"""The recipe: immutable data that says how every layer is quantized. Undo is the previous recipe."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from itertools import filterfalse
from operator import attrgetter
from re import Pattern

from quantstudio.core.codebooks import codebook_pays
from quantstudio.core.codec import to_json
from quantstudio.core.layer_parts import parts_by_whole, whole_name
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, LayerScheme, Precision, WeightRange, at_weights
from quantstudio.core.schemes import as_scheme
from quantstudio.core.steps import Step
from quantstudio.core.target import DEFAULT_TARGET, Target, target_or_default

RECIPE_SCHEMA = "quantstudio.recipe/2"
# Forms a plan is written in. The second keeps biases apart from static products, which then run on integers;
# the third uses all 2^b levels below 8 bits, packs what it stores, and keeps what lies on a grid already; the
# fourth stores float weights that steps let take few values as indices into tables.
FIRST_EMISSION, BIASES_APART, PACKED_FILES, SHARED_VALUES = 1, 2, 3, 4
EMISSION = SHARED_VALUES
DEFAULT_SEED = 0
LARGEST_SEED = (1 << 63) - 1  # what the generators of NumPy and torch both take


class RangeMethod(StrEnum):
    """How an activation range is read off its histogram."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


class ActivationScope(StrEnum):
    """Which tensors static quantization puts on the integer grid.

    ALL quantizes every operator that has an integer kernel (Relu, Add, pools, ... between the layers), which
    conv nets need to stay integer throughout. WEIGHTED quantizes only around operators that own weights,
    which transformers and hand-written softmax or norm chains need to stay accurate.
    """

    ALL = "all"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True)
class LayerRule:
    """One line of the recipe: the layers it matches get the scheme.

    Attributes:
        scheme: What matching layers become.
        names: Exact names of nodes, or patterns with * and ?, which fit the node's name or the path of its
            module (`LayerInfo.label`); a layer matches if any does, and with it the parts that a step made of
            it (`core.layer_parts`). Empty: every name.
        op_types: Operators; empty: every operator.
    """

    scheme: LayerScheme
    names: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()

    def matches(self, layer: LayerInfo) -> bool:
        """Whether the rule speaks about this layer."""
        if self.op_types and layer.op_type not in self.op_types:
            return False
        if not self.names or layer.name in self.names or whole_name(layer.name) in self.names:
            return True
        own = {name for name in (layer.name, layer.label) if name}
        own |= {whole_name(name) for name in own}
        patterns = [_pattern(name) for name in self.names if "*" in name or "?" in name]
        return any(pattern.fullmatch(name) for pattern in patterns for name in own)

    def by_node(self, layers: Sequence[LayerInfo]) -> LayerRule:
        """The rule as recipes hold it: a module's path that a person wrote becomes the name of its node."""
        nodes = {layer.label: layer.name for layer in layers if layer.label}
        return replace(self, names=tuple(nodes.get(name, name) for name in self.names))

    def by_title(self, layers: Sequence[LayerInfo]) -> LayerRule:
        """The rule with what layers are called; as it is where `by_node` would not take that back."""
        titles = {layer.name: layer.title for layer in layers}
        named = replace(self, names=tuple(titles.get(name, name) for name in self.names))
        return named if named.by_node(layers) == self else self

    @property
    def is_universal(self) -> bool:
        """Whether the rule speaks about every layer."""
        return not self.names and not self.op_types

    @property
    def is_exact(self) -> bool:
        """Whether the rule lists layers one by one."""
        if not self.names or self.op_types:
            return False
        together = "\n".join(self.names)  # a rule can name hundreds of layers, and is asked on every edit
        return "*" not in together and "?" not in together

    @property
    def label(self) -> str:
        """The rule as one line: "Conv, MatMul in encoder.* -> INT8"."""
        names = ", ".join(self.names[:3]) + (
            f" and {len(self.names) - 3} more" if len(self.names) > 3 else ""
        )
        parts = [", ".join(self.op_types), f"in {names}" if names and self.op_types else names]
        return f"{' '.join(p for p in parts if p) or 'every layer'} → {self.scheme.label}"


@dataclass(frozen=True, slots=True)
class RangeOverride:
    """A range set by hand; wins over calibration.

    Attributes:
        tensor: Activation tensor, or the layer's name for its weights.
        low: Smallest value kept.
        high: Largest value kept.
    """

    tensor: str
    low: float
    high: float

    def __post_init__(self) -> None:
        # 0 and 0.0 are equal but differ in JSON: the digest must not tell them apart.
        object.__setattr__(self, "low", float(self.low) + 0.0)
        object.__setattr__(self, "high", float(self.high) + 0.0)


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How activation ranges are chosen; `samples` is how many were asked for."""

    method: RangeMethod = RangeMethod.MSE
    percentile: float = 99.999
    samples: int = 512

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentile", float(self.percentile) + 0.0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a graph becomes a variant.

    Attributes:
        rules: In order; the last rule that matches a layer decides. A layer no rule matches stays FP32, and
            so does one whose deciding rule asks for something the layer cannot have, if the rule is a
            pattern; an exact rule that cannot be met is an error (see `effective_plan.resolve`).
        calibration: Range settings for every static tensor.
        activation_scope: Which tensors static quantization covers.
        activation_ranges: Activation ranges set by hand.
        weight_ranges: Weight clip ranges set by hand; `tensor` is the layer's name.
        target: Name of the hardware and runtime the integer types are chosen for (see `core.target`).
        steps: What happens to the graph before it is quantized, in order; those that are off do nothing.
        seed: Of the random numbers a step draws.
        emission: Form of the file; recipes of what older versions built do not name theirs, the first.
        unpacked: Whether weights of fewer than eight bits take a byte each, for runtimes that do not compute
            at load what hangs on constants alone.
    """

    rules: tuple[LayerRule, ...] = ()
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    activation_scope: ActivationScope = ActivationScope.ALL
    activation_ranges: tuple[RangeOverride, ...] = ()
    weight_ranges: tuple[RangeOverride, ...] = ()
    target: str = DEFAULT_TARGET.name
    steps: tuple[Step, ...] = ()
    seed: int = DEFAULT_SEED
    emission: int = EMISSION
    unpacked: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON; equal recipes have equal digests."""
        values = to_json(self)
        # What version 1 could not say is left out where it says nothing: built files name their recipe by
        # this digest, and those of an old recipe must stay the same byte for byte.
        if not self.steps:
            del values["steps"]
        if self.seed == DEFAULT_SEED:
            del values["seed"]
        for rule in values["rules"]:
            if rule["scheme"]["symmetric"]:
                del rule["scheme"]["symmetric"]
        # The form of the file is no part of what is asked for; the digest of the plan knows it.
        del values["emission"]
        if not self.unpacked:
            del values["unpacked"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bare(self) -> Recipe:
        """The recipe without precisions: its steps, seed, range settings and target, which a search keeps."""
        return Recipe(
            calibration=self.calibration,
            target=self.target,
            steps=self.steps,
            seed=self.seed,
            unpacked=self.unpacked,
        )

    def scheme_for(self, layer: LayerInfo) -> LayerScheme:
        """The scheme the layer gets: what is asked, INT8 where no codebook pays, FP32 where it is illegal."""
        return _given(layer, self.asked_scheme(layer), self.on_target)

    @property
    def on_target(self) -> Target:
        """The target; the default one where the recipe names one that is not known here."""
        return target_or_default(self.target)

    def asked_scheme(self, layer: LayerInfo) -> LayerScheme:
        """The scheme the last matching rule asks for, whether the layer can have it or not."""
        for rule in reversed(self.rules):
            if rule.matches(layer):
                return rule.scheme
        return FP32

    def asked_schemes(self, layers: Sequence[LayerInfo]) -> dict[str, LayerScheme]:
        """`asked_scheme` of every layer in one pass over the rules: for many layers named one by one."""
        # What stands before a rule about every layer decides nothing.
        last = max((index for index, rule in enumerate(self.rules) if rule.is_universal), default=-1)
        names = map(attrgetter("name"), layers)
        asked = dict.fromkeys(names, self.rules[last].scheme if last >= 0 else FP32)
        known, parts = len(asked), parts_by_whole([layer.name for layer in layers])
        for rule in self.rules[last + 1 :]:
            if rule.is_exact:
                asked.update(dict.fromkeys(rule.names, rule.scheme))
                while len(asked) > known:  # names that no layer has come last
                    asked.popitem()
                for whole in parts.keys() & set(rule.names):
                    asked.update(dict.fromkeys(parts[whole], rule.scheme))
            else:
                asked.update({layer.name: rule.scheme for layer in layers if rule.matches(layer)})
        return asked

    def schemes(self, layers: Sequence[LayerInfo]) -> dict[str, LayerScheme]:
        """`scheme_for` of every layer."""
        asked, target = self.asked_schemes(layers), self.on_target
        return {layer.name: _given(layer, asked[layer.name], target) for layer in layers}

    def assign(self, names: Sequence[str], scheme: LayerScheme) -> Recipe:
        """The recipe with these layers set to the scheme, and no older exact rule left for them.

        What is changed is built in the form of today.
        """
        if not names:
            # A rule without names would speak about every layer.
            return self
        chosen = frozenset(names)
        rules: list[LayerRule] = []
        for rule in self.rules:
            if rule.is_exact:
                kept = tuple(filterfalse(chosen.__contains__, rule.names))
                if not kept:
                    continue
                if len(kept) < len(rule.names):
                    rule = replace(rule, names=kept)
            rules.append(rule)
        # Exact rules never name the same layer twice, so among those at the end order does not matter: one
        # line per scheme stays, however often single layers are set.
        for index in range(len(rules) - 1, -1, -1):
            if not rules[index].is_exact:
                break
            if rules[index].scheme == scheme:
                rules[index] = replace(rules[index], names=(*rules[index].names, *names))
                return replace(self, rules=tuple(rules), emission=EMISSION)
        return replace(self, rules=(*rules, LayerRule(scheme, tuple(names))), emission=EMISSION)

    def by_node(self, layers: Sequence[LayerInfo]) -> Recipe:
        """The recipe with the names of nodes where a person wrote paths of modules."""
        return replace(self, rules=tuple(rule.by_node(layers) for rule in self.rules))

    def with_rule(self, rule: LayerRule) -> Recipe:
        """The recipe with one more rule at the end, built in the form of today."""
        return replace(self, rules=(*self.rules, rule), emission=EMISSION)


def is_legal(layer: LayerInfo, scheme: LayerScheme, target: Target) -> bool:
    """Whether the layer can have the scheme on a target; float32 always."""
    return target.support(layer, scheme).is_legal


def _given(layer: LayerInfo, asked: LayerScheme, target: Target) -> LayerScheme:
    """What a layer gets of what is asked; see `core.effective_plan`."""
    if not is_legal(layer, asked, target):
        return FP32
    return asked if codebook_pays(layer, asked.weights) else at_weights(asked, Precision.INT8)


def uniform_recipe(
    scheme: LayerScheme | str,
    *,
    calibration: CalibrationSettings | None = None,
    activation_scope: ActivationScope = ActivationScope.ALL,
    weight_range: WeightRange | None = None,
) -> Recipe:
    """Every layer that can gets the same scheme.

    Args:
        scheme: A scheme, or a name from `core.schemes.NAMED_SCHEMES`.
        calibration: Range settings.
        activation_scope: See `ActivationScope`.
        weight_range: Overrides the scheme's weight range rule.

    Raises:
        RecipeError: the name is unknown.
    """
    scheme = as_scheme(scheme)
    if weight_range is not None:
        scheme = scheme.with_weight_range(weight_range)
    return Recipe(
        rules=(LayerRule(scheme),),
        calibration=calibration or CalibrationSettings(),
        activation_scope=activation_scope,
    )


@lru_cache(maxsize=4096)
def _pattern(name: str) -> Pattern[str]:
    """Only * and ? are special: node names are full of brackets, which glob syntax would eat."""
    return re.compile(
        "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in name), re.DOTALL
    )
