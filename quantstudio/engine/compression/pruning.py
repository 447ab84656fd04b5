"""The work behind `prune`: rounds of measuring what matters and of taking away, down to a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantstudio.core.errors import RecipeError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.engine.compression.allocation import Allocation, Allocator, Rounding
from quantstudio.engine.compression.costs import Costs, byte_costs, work_costs
from quantstudio.engine.compression.dependencies import Dependencies, dependencies
from quantstudio.engine.compression.importance import by_answers, by_weights
from quantstudio.engine.compression.kept_layers import kept_layers
from quantstudio.engine.compression.pruning_settings import Budget, Criterion, PruneSettings
from quantstudio.engine.compression.surgery import without_units
from quantstudio.engine.evaluation.latency import LatencyBudget, interleaved_latency
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.torch_graph.device import torch_settings

# How often a network is made and timed to find the one that is as fast as was asked for, and for how long.
_TRIALS, _SECONDS = 7, 2.0
# A network this much faster than was asked for is near enough.
_NEAR = 0.02


def pruned(
    graph: Graph, context: StepContext, settings: PruneSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph without the units that matter least.

    Raises:
        RecipeError: nothing can be taken from this network, the budget is under what can be reached, or no
            layer has a name that is to be kept.
        CalibrationError: what matters is no finite number.
        JobCancelled: `cancel` was set.
    """
    with torch_settings(worker_threads()):
        return _Pruning(graph, context, settings, reporter, cancel).outcome()


@dataclass(slots=True)
class _State:
    """A network under way.

    Attributes:
        graph: What is left.
        found: Its groups.
        allocator: What can be taken from it.
    """

    graph: Graph
    found: Dependencies
    allocator: Allocator


class _Pruning:
    """One pruning under way."""

    def __init__(
        self,
        graph: Graph,
        context: StepContext,
        settings: PruneSettings,
        reporter: Reporter,
        cancel: CancelToken,
    ) -> None:
        self.graph = graph
        self.context = context
        self.settings = settings
        self.reporter = reporter
        self.cancel = cancel
        self.sizes = sizes_of(graph, context)
        self.is_labelled = False
        self.whole: dict[str, int] = {}

    def outcome(self) -> StepOutcome:
        """Take away in rounds, and say what is left."""
        settings = self.settings
        if settings.amount >= 1.0:
            return StepOutcome(self.graph, f"All of the {settings.budget} is to be left: nothing to do.", {})
        start = self._state(self.graph, Budget.MACS if settings.budget is Budget.LATENCY else settings.budget)
        if settings.budget is Budget.LATENCY:
            share, measured = self._share_in_time(start)
            graph = self._in_rounds(start, Budget.MACS, share)
            return self._told(graph, {"latency_share": measured, "macs_asked": share})
        return self._told(self._in_rounds(start, settings.budget, settings.amount), {})

    def _state(self, graph: Graph, budget: Budget) -> _State:
        found = dependencies(graph.proto, self.sizes)
        if not found.prunable:
            reasons = sorted(found.groups, key=lambda group: -group.channels)
            raise RecipeError(
                "nothing can be taken away from this network"
                + (f": {reasons[0].name}: {reasons[0].reason}" if reasons else ""),
                where="step prune",
                hint="Factor or quantize its layers",
            )
        settings = self.settings
        self.whole = self.whole or {group.name: group.units for group in found.prunable}
        rounding = Rounding(settings.round_to, settings.least, self.whole)
        if settings.criterion is Criterion.MAGNITUDE:
            importance = by_weights(graph, found)
        else:
            measured = by_answers(
                graph,
                found,
                self.context.dataset,
                criterion=settings.criterion,
                samples=settings.samples,
                seed=self.context.seed,
                device=self.context.device,
                reporter=self.reporter,
                cancel=self.cancel,
            )
            importance, self.is_labelled = measured.importance, measured.is_labelled
        costs = self._costs(graph, found, budget)
        return _State(graph, found, Allocator(found, importance, costs, rounding, self._kept(found)))

    def _costs(self, graph: Graph, found: Dependencies, budget: Budget) -> Costs:
        return byte_costs(graph, found) if budget is Budget.BYTES else work_costs(found)

    def _kept(self, found: Dependencies) -> list[str]:
        kept = kept_layers(self.graph, self.settings.keep, "prune")
        return [group.name for group in found.prunable if kept.intersection(group.makers)]

    def _in_rounds(self, start: _State, budget: Budget, share: float) -> Graph:
        whole = self._costs(self.graph, start.found, budget).after(np.zeros(len(start.found.prunable)))
        self._check_reachable(start.allocator.least() / whole, share, str(budget))
        state, rounds = start, self.settings.rounds
        for number in range(1, rounds + 1):
            self.cancel.raise_if_set()
            self.reporter.progress(number - 1, rounds, "rounds", "Taking units away")
            wanted = whole * (1 - (1 - share) * number / rounds)
            allocation = state.allocator.within(wanted)
            graph = self._without(state, allocation)
            if number == rounds or not allocation.gone:
                if number == rounds:
                    self._check_reachable(allocation.cost / whole, max(share, wanted / whole), str(budget))
                    return graph
                continue
            state = self._state(graph, budget)
        return state.graph

    def _without(self, state: _State, allocation: Allocation) -> Graph:
        if not allocation.gone:
            return state.graph
        return without_units(state.graph, state.found, allocation.gone, "Pruned channels.")

    def _check_reachable(self, least: float, share: float, budget: str) -> None:
        if least > share + 1e-9:
            nearest = int(np.ceil(least * 1000)) / 1000
            raise RecipeError(
                f"{budget} {share:g} is under what can be reached: the nearest is {nearest:g}",
                where="step prune",
                hint=f"Give {nearest:g} or more, or let less of each group stay (least, keep, round_to)",
            )

    # -- time ------------------------------------------------------------------------------------------

    def _share_in_time(self, start: _State) -> tuple[float, float]:
        """What is left of the work in a network as fast as was asked for, and its share of the time."""
        whole = self._costs(self.graph, start.found, Budget.MACS).after(np.zeros(len(start.found.prunable)))
        least = start.allocator.least() / whole
        feed = next(self.context.dataset.batches(1)).feed
        low, high = least, 1.0
        reached = self._time_share(start, whole * low, feed)
        self._check_reachable(reached, self.settings.amount, "latency")
        best, share = (low, reached), self.settings.amount
        for trial in range(_TRIALS):
            self.cancel.raise_if_set()
            self.reporter.progress(trial, _TRIALS, "networks", "Timing networks of other sizes")
            share = min(max(share, low), high)
            found = self._time_share(start, whole * share, feed)
            if found <= self.settings.amount:
                low, best = share, (share, found)
                if found >= self.settings.amount - _NEAR:
                    break
            else:
                high = share
            share = (low + high) / 2
        return best

    def _time_share(self, start: _State, work: float, feed: Mapping[str, Any]) -> float:
        graph = self._without(start, start.allocator.within(work))
        paths = [Path(self.graph.summary.graph_path), Path(graph.summary.graph_path)]
        timed = interleaved_latency(paths, feed, budget=LatencyBudget(seconds=_SECONDS), cancel=self.cancel)
        return 1 / timed.speedups[1].value

    def _work(self, graph: Graph) -> float:
        """Multiply-accumulates of one sample of the data."""
        found = dependencies(graph.proto, self.sizes)
        return work_costs(found).after(np.zeros(len(found.prunable)))

    # -- words -----------------------------------------------------------------------------------------

    def _told(self, graph: Graph, further: Mapping[str, float]) -> StepOutcome:
        before, after = channel_counts(self.graph), channel_counts(graph)
        # Not of the table of layers, which knows no sizes but those that the model fixes.
        work = [round(self._work(one)) for one in (self.graph, graph)]
        sizes = [one.summary.weight_bytes for one in (self.graph, graph)]
        changed = {name: (count, after[name]) for name, count in before.items() if after.get(name) != count}
        details: dict[str, Any] = {
            "layers": {name: list(counts) for name, counts in changed.items() if counts[1] is not None},
            "macs": work,
            "bytes": sizes,
            "macs_share": work[1] / max(work[0], 1),
            "bytes_share": sizes[1] / max(sizes[0], 1),
            "criterion": str(self.settings.criterion),
            "is_labelled": self.is_labelled,
            **further,
        }
        if not changed:
            return StepOutcome(graph, "Took nothing away.", details)
        time = f", {percent(further['latency_share'])} of the time" if further else ""
        summary = (
            f"Took outputs from {counted(len(changed), 'layer')}: {percent(details['macs_share'])} of the "
            f"multiply-accumulates and {percent(details['bytes_share'])} of the weights are left{time}."
        )
        return StepOutcome(graph, summary, details)


def sizes_of(graph: Graph, context: StepContext) -> dict[str, int]:
    """Sizes of symbolic axes in the data, the samples' left out: what the work of a layer hangs on."""
    if context.data is None or not len(context.data):
        return {}
    feed = next(context.data.batches(1)).feed
    found: dict[str, int] = {}
    firsts = {value.shape[0] for value in graph.summary.inputs if value.shape}
    for value in graph.summary.inputs:
        for size, dim in zip(np.shape(feed.get(value.name, ())), value.shape, strict=False):
            if isinstance(dim, str) and dim not in firsts:
                found[dim] = int(size)
    return found


def channel_counts(graph: Graph) -> dict[str, int]:
    """Output channels of every layer with weights that has such."""
    return {
        layer.name: layer.weight_shape[layer.channel_axis]
        for layer in graph.layers
        if layer.weight_name and layer.channel_axis is not None and layer.op_type != "Gather"
    }
