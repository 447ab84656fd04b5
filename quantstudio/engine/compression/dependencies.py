"""Dependency groups of a network: which channels of which layers have to be taken away together.

Source: Fang et al. 2023, DepGraph: Towards Any Structural Pruning, arXiv:2301.12900; here by labels that are
followed through the operators, so that what is coupled is told place by place, not layer by layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from quantstudio.core.channel_groups import ChannelGroup
from quantstudio.engine.compression.flow import LONE, Flow
from quantstudio.engine.compression.labels import Labels
from quantstudio.engine.compression.trace import bound_shapes, walk
from quantstudio.engine.graph.view import GraphView


@dataclass(frozen=True, slots=True, eq=False)
class Dependencies:
    """The groups of a network, and what is needed to take units away.

    Attributes:
        flow: Labels of every tensor.
        groups: In the order of the network.
        units: Labels of the units of each group, one a unit, by name of the group.
    """

    flow: Flow
    groups: tuple[ChannelGroup, ...]
    units: Mapping[str, Labels]

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """Groups that units can be taken from."""
        return tuple(group for group in self.groups if group.is_prunable)


_Key = tuple[str, int]
_Place = tuple[str, int, int]
# How often other factors of split axes are tried.
_ROUNDS = 8


def dependencies(model: ModelProto, sizes: Mapping[str, int] | None = None) -> Dependencies:
    """The dependency groups of a graph.

    Args:
        model: A normalised model.
        sizes: Size by symbolic dimension, for what work is counted at.
    """
    view = GraphView(model)
    shapes, samples = bound_shapes(model, sizes or {})
    choices: dict[str, int] = {}
    best = found = _grouped(walk(view, shapes, samples, choices))
    for _round in range(_ROUNDS):
        stuck = _stuck(found)
        if not stuck:
            break
        choices.update(stuck)
        found = _grouped(walk(view, shapes, samples, choices))
        if _removable(found) > _removable(best):
            best = found
    return best


def _removable(found: Dependencies) -> int:
    return sum(group.channels for group in found.prunable)


def _stuck(found: Dependencies) -> dict[str, int]:
    """The next factor of each axis that a node splits and that nothing can be taken from as it is."""
    free = [found.units[group.name] for group in found.prunable]
    roots = np.concatenate(free) if free else np.zeros(0, dtype=np.int64)
    stuck = {}
    for name, (factors, labels) in found.flow.split.items():
        chosen = found.flow.choices.get(name, 0)
        if chosen + 1 < factors and not np.isin(found.flow.labels.roots(labels), roots).any():
            stuck[name] = chosen + 1
    return stuck


def _grouped(flow: Flow) -> Dependencies:
    """Units that have the same places in the same constants are a group."""
    makers: dict[_Key, list[str]] = defaultdict(list)
    readers: dict[_Key, list[str]] = defaultdict(list)
    labels: dict[_Key, Labels] = {}
    inner = {(claim.constant, claim.axis) for claim in flow.claims if claim.is_inner}
    for claim, own in flow.claims.items():
        key = (claim.constant, claim.axis)
        (makers if claim.makes else readers)[key].append(claim.node)
        labels[key] = own
    places: dict[int, dict[_Key, int]] = defaultdict(dict)
    for key, own in labels.items():
        roots, counts = np.unique(flow.labels.roots(own), return_counts=True)
        for root, times in zip(roots.tolist(), counts.tolist(), strict=True):
            places[root][key] = times
    kinds: dict[tuple[tuple[_Place, ...], str], list[int]] = defaultdict(list)
    for root, held in places.items():
        kinds[tuple((*key, times) for key, times in held.items()), flow.labels.reason(root)].append(root)
    order = {node.name: number for number, node in enumerate(flow.view.nodes)}
    groups, units = _named(kinds, makers, readers, order, inner)
    return Dependencies(flow, groups, units)


def _named(
    kinds: Mapping[tuple[tuple[_Place, ...], str], Sequence[int]],
    makers: Mapping[_Key, Sequence[str]],
    readers: Mapping[_Key, Sequence[str]],
    order: Mapping[str, int],
    inner: Set[_Key],
) -> tuple[tuple[ChannelGroup, ...], dict[str, Labels]]:
    groups: list[ChannelGroup] = []
    units: dict[str, Labels] = {}
    for (signature, reason), roots in kinds.items():
        keys = [place[:2] for place in signature]
        made, read = (
            sorted({name for key in keys for name in table.get(key, ())}, key=lambda name: order[name])
            for table in (makers, readers)
        )
        wanted = (made or read)[0]
        name, number = wanted, 1
        while name in units:
            number += 1
            name = f"{wanted} {number}"
        width = min((times for *key, times in signature if tuple(key) not in inner), default=1)
        readers_only = tuple(one for one in read if one not in made)
        why = reason or (LONE if len(roots) == 1 else "")
        groups.append(ChannelGroup(name, len(roots), width, tuple(made), readers_only, why))
        units[name] = np.array(sorted(roots), dtype=np.int64)
    groups.sort(key=lambda group: min(order[name] for name in (*group.makers, *group.readers)))
    return tuple(groups), units
