"""Which layers are factored, and at which ranks, as the settings ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantstudio.core.errors import RecipeError
from quantstudio.core.figures import percent
from quantstudio.core.precision import FP32
from quantstudio.core.recipe import LayerRule
from quantstudio.engine.compression.factorable import FactorableLayer
from quantstudio.engine.compression.factors import Form
from quantstudio.engine.compression.low_rank_settings import LowRankSettings, RankBy
from quantstudio.engine.compression.rank_budget import Choice, cheapest, within_budget

_WHERE = "step low-rank"


def picked(layers: Mapping[str, FactorableLayer], settings: LowRankSettings) -> dict[str, FactorableLayer]:
    """The layers that may be factored.

    Raises:
        RecipeError: a name that is given fits none that can be.
    """
    wanted = dict(layers)
    if settings.layers.strip():
        named = [_matching(layers, name) for name in _names(settings.layers)]
        wanted = {name: layer for name, layer in layers.items() if any(name in one for one in named)}
    kept = {name for one in _names(settings.keep) for name in _matching(layers, one)}
    return {name: layer for name, layer in wanted.items() if name not in kept}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _matching(layers: Mapping[str, FactorableLayer], name: str) -> set[str]:
    rule = LayerRule(FP32, (name,)).by_node([one.layer for one in layers.values()])
    found = {one.layer.name for one in layers.values() if rule.matches(one.layer)}
    if not found:
        listed = ", ".join(list(layers)[:5]) + (", ..." if len(layers) > 5 else "")
        raise RecipeError(
            f"no layer {name!r} can be factored",
            where=_WHERE,
            hint=f"Layers that can: {listed}" if layers else "Nothing in this network can",
        )
    return found


def chosen_ranks(
    layers: Mapping[str, FactorableLayer],
    choices: Mapping[str, Sequence[Choice]],
    powers: Mapping[str, float],
    settings: LowRankSettings,
) -> dict[str, Choice]:
    """What every layer becomes.

    Args:
        layers: Layers that may be factored.
        choices: What each can become, the layer as it is first.
        powers: What the output of each is worth, on the scale of the errors.
        settings: What is asked.

    Raises:
        RecipeError: a budget cannot be kept, which names the nearest that can; operations are to be counted
            and the shapes of a layer are unknown.
    """
    if settings.by is RankBy.ENERGY:
        return {name: _by_energy(of, settings.energy, powers[name]) for name, of in choices.items()}
    if settings.by is RankBy.RANK:
        return {name: _by_rank(layers[name], of, settings.rank) for name, of in choices.items()}
    by_macs = settings.by is RankBy.MACS
    unknown = [name for name, layer in layers.items() if layer.layer.macs is None]
    if by_macs and unknown:
        raise RecipeError(
            "operations cannot be counted, as shapes are unknown",
            where=unknown[0],
            hint="Give a budget of parameters",
        )
    whole = sum(of[0].cost(by_macs=by_macs) for of in choices.values())
    least = cheapest(choices, by_macs=by_macs)
    if settings.share * whole < least:
        what = "operations" if by_macs else "weights"
        nearest = percent(_up(least / whole), 1)
        raise RecipeError(
            f"{percent(settings.share, 1)} of the {what} cannot be reached; {nearest} can",
            where=_WHERE,
            hint=f"Give a share of at least {_up(least / whole):g}"
            + (", or a smaller multiple of ranks" if settings.round_to > 1 else ""),
        )
    return within_budget(choices, settings.share * whole, by_macs=by_macs)


def _up(share: float) -> float:
    """Rounded up to a thousandth."""
    return -(-share * 1000 // 1) / 1000


def _by_energy(choices: Sequence[Choice], energy: float, power: float) -> Choice:
    enough = [one for one in choices if one.error <= (1 - energy) * power]
    return min(enough, key=lambda one: one.parameters)


def _by_rank(layer: FactorableLayer, choices: Sequence[Choice], rank: int) -> Choice:
    """The rank as a matrix, or about as many weights by lines, whichever errs less."""
    found = [one for one in choices if one.form is Form.MATRIX and one.rank == rank]
    if not found:
        return choices[0]
    lines = [one for one in choices if one.form is Form.LINES and one.parameters <= found[0].parameters]
    return min([*found, *lines[-1:]], key=lambda one: one.error)


def candidate_ranks(layer: FactorableLayer, form: Form, settings: LowRankSettings, most: int) -> list[int]:
    """Ranks of a form that are looked at, some of them where there are more than so many."""
    if settings.by is RankBy.RANK:
        rank = settings.rank
        if form is Form.LINES:
            rank = layer.costs(Form.MATRIX, rank)[0] // layer.costs(Form.LINES, 1)[0]
        return [rank] if 1 <= rank <= layer.largest_rank(form) else []
    ranks = layer.ranks(form, settings.round_to)
    if len(ranks) <= most:
        return list(ranks)
    return sorted({ranks[round(at * (len(ranks) - 1) / (most - 1))] for at in range(most)})
