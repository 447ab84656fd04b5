"""What each layer may become in a search, and what every choice costs in bits, bytes, time and nats."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantstudio.core.codebooks import codebook_pays
from quantstudio.core.costs import CostTable, FileForm, LayerCost, container_name
from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import RecipeError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import LayerInfo
from quantstudio.core.packing import WeightCount, parameter_counts, searched, weight_owners
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP32,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    LayerScheme,
    Precision,
    at_weights,
    searched_formats,
)
from quantstudio.core.predict.kl_model import KlModel, kl_parts
from quantstudio.core.recipe import (
    ActivationScope,
    LayerRule,
    Recipe,
    is_legal,
    uniform_recipe,
)
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.schemes import listed_schemes
from quantstudio.core.search_results import ActivationFamily, GroupKind, LayerGroup
from quantstudio.core.statistics import Statistics
from quantstudio.core.target import Target
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.writing import model_size
from quantstudio.engine.quantization.emit import emit_with_plan
from quantstudio.engine.quantization.kernels import weight_bytes_by_layer
from quantstudio.engine.quantization.packed_prices import packed_prices
from quantstudio.engine.search.allocation import Option, Problem, Quantity, Unit
from quantstudio.engine.search.groups import shared_scheme_sets
from quantstudio.engine.search.options import worthwhile

# Operators whose writers take any number of bits in an INT8 container.
_ANY_BITS = frozenset({"Conv", "Gemm", "MatMul"})


def eight_bit_scheme(layer: LayerInfo, family: ActivationFamily, target: Target) -> LayerScheme:
    """The 8-bit scheme of a layer in a family on a target; weights alone, or FP32, where it has no such."""
    wanted: tuple[LayerScheme, ...] = (WEIGHT_INT8,)
    if family in (ActivationFamily.STATIC, ActivationFamily.WEIGHTED):
        wanted = (STATIC_INT8, WEIGHT_INT8)
    elif family is ActivationFamily.DYNAMIC:
        # Dynamic convolutions are slower than float ones, so there is no such scheme.
        wanted = (DYNAMIC_INT8, STATIC_INT8, WEIGHT_INT8)
    return next((scheme for scheme in wanted if is_legal(layer, scheme, target)), FP32)


def base_recipe(graph: Graph, family: ActivationFamily, kept: Recipe) -> Recipe:
    """Every layer of a family at 8 bits.

    Args:
        graph: The model.
        family: What layers do with activations.
        kept: Recipe of which steps, seed, range settings and target are taken over.
    """
    scope = ActivationScope.WEIGHTED if family is ActivationFamily.WEIGHTED else ActivationScope.ALL
    if family in (ActivationFamily.STATIC, ActivationFamily.WEIGHTED):
        rules: tuple[LayerRule, ...] = (LayerRule(STATIC_INT8),)
    elif family is ActivationFamily.DYNAMIC:
        rules = (LayerRule(DYNAMIC_INT8), LayerRule(STATIC_INT8, op_types=("Conv",)))
    else:
        rules = (LayerRule(WEIGHT_INT8),)
    start = replace(kept.bare, rules=rules, activation_scope=scope)
    others = {
        layer.name: eight_bit_scheme(layer, family, kept.on_target)
        for layer in searched_layers(graph)
        if start.scheme_for(layer) != eight_bit_scheme(layer, family, kept.on_target)
    }
    for scheme in dict.fromkeys(others.values()):
        start = start.assign([name for name, own in others.items() if own == scheme], scheme)
    return start


def searched_layers(graph: Graph) -> tuple[LayerInfo, ...]:
    """Layers whose weights a search chooses a precision for."""
    return searched(graph.layers)


def families_of(graph: Graph, target: Target) -> tuple[ActivationFamily, ...]:
    """Families worth measuring for a graph on a target, the first being the usual one."""
    layers = searched_layers(graph)
    static = [layer for layer in layers if is_legal(layer, STATIC_INT8, target)]
    dynamic = [layer for layer in layers if is_legal(layer, DYNAMIC_INT8, target)]
    convolutions = sum(layer.op_type == "Conv" for layer in layers)
    if not static and not dynamic:
        return (ActivationFamily.WEIGHT_ONLY,)
    if convolutions > len(dynamic):
        return (ActivationFamily.STATIC,)
    families = [ActivationFamily.STATIC, ActivationFamily.WEIGHTED] if static else []
    return (*families, ActivationFamily.DYNAMIC) if dynamic else tuple(families)


def byte_costs(
    graph: Graph, statistics: Statistics | None, containers: Collection[str], scope: ActivationScope
) -> CostTable:
    """Exact bytes from one emission per container; no times.

    Args:
        graph: The model.
        statistics: Activation statistics; without them static layers have no price.
        containers: Named schemes; "fp32" is added.
        scope: What static plans put on integers.
    """
    recipes = {
        name: uniform_recipe(name, activation_scope=scope)
        for name in containers
        if not (name.startswith("static") and statistics is None)
    }
    by_layer: dict[str, dict[str, int]] = {}
    sizes: dict[str, int] = {}
    affected: dict[str, int] = {}
    for name, recipe in {"fp32": Recipe(), **recipes}.items():
        emission = emit_with_plan(graph, statistics, resolve(recipe, graph.layers))
        own = weight_bytes_by_layer(graph.layers, emission)
        kinds = {layer: container_name(scheme) for layer, scheme in emission.plan.schemes.items()}
        # A recipe may put some layers into another container: only those in its own are priced by it.
        by_layer[name] = {layer: size for layer, size in own.items() if kinds[layer] == name}
        sizes[name] = model_size(emission.model) - sum(own.values())
        affected[name] = len(by_layer[name])
    structure = sizes["fp32"]
    overhead = {
        name: round((sizes[name] - structure) / affected[name]) if affected[name] else 0 for name in sizes
    }
    packed = packed_prices(graph, statistics, containers, structure, scope=scope)
    return CostTable(
        layers={
            layer.name: LayerCost(
                {name: by_layer[name][layer.name] for name in sizes if layer.name in by_layer[name]}
                | dict(packed.by_layer[layer.name]),
                count=WeightCount.of(layer),
            )
            for layer in graph.layers
        },
        structure_bytes=structure,
        overhead_bytes={**overhead, **packed.overhead, "fp32": 0},
    )


@dataclass(frozen=True, slots=True)
class _Pricing:
    """What shares are of: layers that own their weight (a tied one counts once), weights, layers."""

    owners: frozenset[str]
    weights: int
    layers: int

    @classmethod
    def of(cls, layers: Sequence[LayerInfo]) -> _Pricing:
        owners = weight_owners(layers)
        weights = sum(parameter_counts(layer, owns_weight=layer.name in owners)[0] for layer in layers)
        return cls(owners, max(weights, 1), max(len(layers), 1))


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Everything a problem is made from, whatever the predictor and the bounds.

    Attributes:
        graph: The model.
        family: Activations in the plans.
        rows: Sensitivity by layer.
        groups: Layers kept together.
        bytes: File bytes by layer and scheme, for the tensors the family puts on integers.
        costs: Measured times; None where latency is not predicted.
        pinned: Schemes set by hand, by layer.
        target: What the plans are built for.
        border_ratio: What a layer adds to the time at its borders when it alone is not static, as part of the
            FP32 run.
        packs_file: Whether weights of four bits may be packed into the file, with float activations: the
            file gets smaller than INT8, and slower.
        form: Of the files that are written.
    """

    graph: Graph
    family: ActivationFamily
    rows: Mapping[str, LayerSensitivity]
    groups: tuple[LayerGroup, ...]
    bytes: CostTable
    costs: CostTable | None
    pinned: Mapping[str, LayerScheme]
    target: Target
    border_ratio: Mapping[str, float] = field(default_factory=dict)
    packs_file: bool = False
    form: FileForm = FileForm.PACKED

    def totals(self, schemes: Mapping[str, LayerScheme], predictor: KlModel) -> dict[Quantity, float]:
        """Every quantity of a plan given as schemes, whichever family it is of."""
        layers = {layer.name: layer for layer in searched_layers(self.graph)}
        total = dict.fromkeys(Quantity, 0.0) | self._base(layers, predictor)
        pricing = _Pricing.of(list(layers.values()))
        for name, layer in layers.items():
            for quantity, cost in self._costs_of([layer], schemes[name], predictor, pricing).items():
                total[quantity] += cost
        return total

    def keeps_pins(self, schemes: Mapping[str, LayerScheme]) -> bool:
        """Whether every layer set by hand is as it was set."""
        return all(schemes[name] == scheme for name, scheme in self.pinned.items())

    def problem(
        self, predictor: KlModel, *, floats: bool, fewest_bits: int = 1, is_whole: bool = False
    ) -> Problem:
        """The knapsack under a predictor.

        Args:
            predictor: What single layers add up to.
            floats: Whether layers may stay FP32.
            fewest_bits: Integer weights below this are left out where there are others.
            is_whole: Whether options stay that no plan of the least KL would take.

        Raises:
            RecipeError: two layers that move together are pinned to different schemes, or to one that one of
                them cannot have.
        """
        layers = {layer.name: layer for layer in searched_layers(self.graph)}
        pricing = _Pricing.of(list(layers.values()))
        units: list[Unit] = []
        position: dict[str, int] = {}
        for names in shared_scheme_sets(self.groups, layers):
            members = [layers[name] for name in names]
            schemes = self._schemes(members, floats=floats, fewest_bits=fewest_bits)
            options = tuple(
                Option(scheme, self._costs_of(members, scheme, predictor, pricing)) for scheme in schemes
            )
            position.update(dict.fromkeys(names, len(units)))
            units.append(Unit(names, options if is_whole else worthwhile(options)))
        return Problem(tuple(units), self._joins(position, units), self._base(layers, predictor))

    def _schemes(
        self, members: Sequence[LayerInfo], *, floats: bool, fewest_bits: int
    ) -> tuple[LayerScheme, ...]:
        """Schemes every member can have."""
        pins = {name: self.pinned[name] for name in (m.name for m in members) if name in self.pinned}
        if len(set(pins.values())) > 1:
            raise RecipeError(
                f"layers {' and '.join(list(pins)[:2])} share one precision and are pinned to different ones",
                hint="Pin them to the same precision, or only one of them",
            )
        if pins:
            name, scheme = next(iter(pins.items()))
            for member in members:
                if not is_legal(member, scheme, self.target):
                    raise RecipeError(
                        f"the layer cannot be {scheme.label}, which {name} is pinned to and it shares",
                        where=member.name,
                        hint=f"It can be: {listed_schemes(self.target.schemes(member))}",
                    )
            return (scheme,)
        common = [s for s in self._own_schemes(members[0]) if all(s in self._own_schemes(m) for m in members)]
        enough = [s for s in common if not s.weights.is_integer or s.weights.bits >= fewest_bits]
        integers = [s for s in (enough or common) if s.weights.is_integer]
        return (*integers, FP32) if floats or not integers else tuple(integers)

    def _own_schemes(self, layer: LayerInfo) -> list[LayerScheme]:
        eight = eight_bit_scheme(layer, self.family, self.target)
        found = []
        if eight.weights.is_integer:
            any_bits = layer.op_type in _ANY_BITS and not eight.is_weight_only
            formats = [row for row in searched_formats() if codebook_pays(layer, row)]
            found = [at_weights(eight, row) for row in (formats if any_bits else (Precision.INT8,))]
            if (self.packs_file or eight.is_weight_only) and is_legal(layer, WEIGHT_INT4, self.target):
                found.append(WEIGHT_INT4)
        return [s for s in found if self._kl_parts(layer, s) is not None]

    def _kl_parts(self, layer: LayerInfo, scheme: LayerScheme) -> dict[str, float] | None:
        return kl_parts(
            self.rows.get(layer.name),
            scheme,
            reads_floats=layer.op_type != "Gather",
            weight_bits=self.target.weight_bits,
        )

    def _costs_of(
        self,
        members: Sequence[LayerInfo],
        scheme: LayerScheme,
        predictor: KlModel,
        pricing: _Pricing,
    ) -> dict[Quantity, float]:
        costs = dict.fromkeys(Quantity, 0.0)
        for layer in members:
            owns = layer.name in pricing.owners
            costs[Quantity.KL] += predictor.linear(self._kl_parts(layer, scheme) or {})
            costs[Quantity.FILE_BYTES] += _or_zero(
                self.bytes.file_bytes_of(layer.name, scheme, form=self.form)
            )
            own = parameter_counts(layer, owns_weight=owns)[0]
            costs[Quantity.AVERAGE_BITS] += own * scheme.weights.bits / pricing.weights
            costs[Quantity.SHARE_ABOVE_8] += (scheme.weights.bits > 8) / pricing.layers
            costs[Quantity.LATENCY_RATIO] += self._time(layer.name, scheme)
        return costs

    def _time(self, layer: str, scheme: LayerScheme) -> float:
        """Change of the whole run's time, as part of the FP32 run; none where it was not timed."""
        borders = 0.0 if scheme.is_static else self.border_ratio.get(layer, 0.0)
        if self.costs is None:
            return borders
        change = self.costs.time_of(layer, scheme) - self.costs.time_of(layer, FP32)
        return borders + self.costs.written_ratio * _or_zero(change)

    def _base(self, layers: Mapping[str, LayerInfo], predictor: KlModel) -> dict[Quantity, float]:
        """What layers that are not searched, and everything else, add."""
        rest = [layer for layer in self.graph.layers if layer.name not in layers]
        file = float(self.bytes.structure_bytes)
        latency, kl = 1.0 if self.costs is None else self.costs.written_ratio, 0.0
        start = base_recipe(self.graph, self.family, Recipe(target=self.target.name))
        for layer in rest:
            scheme = start.scheme_for(layer)
            if self.family is ActivationFamily.WEIGHTED and not layer.weight_name:
                scheme = FP32
            file += _or_zero(self.bytes.file_bytes_of(layer.name, scheme, form=self.form))
            latency += self._time(layer.name, scheme)
            kl += predictor.linear(self._kl_parts(layer, scheme) or {})
        return {Quantity.KL: kl, Quantity.FILE_BYTES: file, Quantity.LATENCY_RATIO: latency}

    def _joins(self, position: Mapping[str, int], units: Sequence[Unit]) -> tuple[tuple[int, ...], ...]:
        """Sets of units that meet in an integer Add or Concat and could differ."""
        if self.family is not ActivationFamily.STATIC:
            return ()  # those operators are float there anyway
        found = []
        for group in self.groups:
            if group.kind is not GroupKind.JOIN:
                continue
            indices = sorted({position[name] for name in group.layers if name in position})
            free = [i for i in indices if _is_free(units[i], self.pinned)]
            if len(free) > 1:
                found.append(tuple(free))
        return tuple(found)


def _is_free(unit: Unit, pinned: Mapping[str, LayerScheme]) -> bool:
    """Whether a unit was not pinned; a pin wins over the wish for one activation precision."""
    return len(unit.options) > 1 and not any(name in pinned for name in unit.layers)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def pins_of(graph: Graph, rules: Sequence[LayerRule], target: Target) -> dict[str, LayerScheme]:
    """Schemes set by hand: the last rule that matches a layer.

    Raises:
        RecipeError: a rule matches no layer whose precision is searched, or asks for what one cannot have.
    """
    found: dict[str, LayerScheme] = {}
    for rule in rules:
        matching = [layer for layer in searched_layers(graph) if rule.matches(layer)]
        if not matching:
            others = [layer.name for layer in graph.layers if rule.matches(layer)]
            if others:
                raise RecipeError(
                    f"the pin {rule.label!r} matches only layers whose precision is not searched",
                    where=others[0],
                    hint="A search chooses the precision of layers with weights; leave the pin out",
                )
            raise RecipeError(
                f"no layer matches the pin {rule.label!r}",
                hint=Hint("The list of layers shows their names", HintAction.LIST_LAYERS),
            )
        for layer in matching:
            if not is_legal(layer, rule.scheme, target):
                raise RecipeError(
                    f"the layer cannot be pinned to {rule.scheme.label}",
                    where=layer.name,
                    hint=f"It can be: {listed_schemes(target.schemes(layer))}",
                )
            found[layer.name] = rule.scheme
    return found
