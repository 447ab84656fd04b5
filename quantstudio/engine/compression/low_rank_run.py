"""The work of `low-rank`: what ranks cost each layer, which it gets, its factors behind those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from quantstudio.core.effective_plan import resolve
from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.figures import counted, percent
from quantstudio.core.recipe import Recipe
from quantstudio.core.recovered import LayerRecovered
from quantstudio.engine.compression.factorable import FactorableLayer, factorable_layers
from quantstudio.engine.compression.factored_graph import write_factors
from quantstudio.engine.compression.factors import FactorProblem, Factors, Form
from quantstudio.engine.compression.low_rank_settings import LowRankSettings, Metric
from quantstudio.engine.compression.rank_budget import Choice
from quantstudio.engine.compression.rank_choice import candidate_ranks, chosen_ranks, picked
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import worker_threads
from quantstudio.engine.model.derive import derived_graph, editable_copy
from quantstudio.engine.pipeline.context import StepContext, StepOutcome
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.bias_targets import BiasTarget, set_bias
from quantstudio.engine.recovery.compensation import asymmetric_target
from quantstudio.engine.recovery.gptq_solve import feeds_of, places_of
from quantstudio.engine.recovery.output_metric import OutputMetrics
from quantstudio.engine.recovery.second_moments import SecondMoments, leaned
from quantstudio.engine.recovery.walk import TwoPathWalk, samples_at_once
from quantstudio.engine.torch_graph.device import resolve_device, torch_settings
from quantstudio.engine.torch_graph.module import Node

Tensor = torch.Tensor

# Input vectors a layer's moments are made of.
_ROWS = 20_000
# Bytes that what errors of all channels cost together may take: of wide layers it is a large matrix each.
_METRIC_BYTES = 2**30
# Ranks by lines that are tried, each of which is fitted.
_LINES_TRIED = 12
MEASURE = "power of the error at its output, of that of the output, by singular values alone"


def factored(
    graph: Graph, context: StepContext, settings: LowRankSettings, reporter: Reporter, cancel: CancelToken
) -> StepOutcome:
    """The graph with layers written as two where that is cheaper.

    Raises:
        RecipeError: a layer that is named cannot be factored, or a budget cannot be kept.
        CalibrationError: a weight, or what a layer reads, holds NaN or infinity.
        UnsupportedOpError: torch has no form of a node.
        JobCancelled: `cancel` was set.
    """
    device = resolve_device(context.device)
    fake = FakeQuantized(graph, None, resolve(Recipe(), graph.layers))
    everyone = {one.layer.name: one for one in factorable_layers(graph, fake.network)}
    layers = picked(everyone, settings)
    if not layers:
        return StepOutcome(graph, "No layer can be written as two: the graph is as it was.", {"layers": {}})
    _check_finite(layers, fake)
    places = places_of(context.dataset, settings.samples, samples_at_once(graph))
    with torch_settings(worker_threads()), torch.no_grad():
        fake = fake.to(device).eval().requires_grad_(False)
        feeds = feeds_of(context.dataset, places, device, cancel)
        metrics = None
        if settings.metric is Metric.ANSWERS and _fits(layers):
            matrices = {name: one.matrix for name, one in layers.items()}
            metrics = OutputMetrics(graph, fake.network, matrices, context.dataset, cancel)
            # Where answers hang on nothing that is listed, each output counts by itself.
            metrics = metrics if any(metrics.measured(name) is not None for name in layers) else None
        count = sum(stop - start for start, stop in places)
        run = _Run(fake, layers, feeds, count, metrics, settings, reporter, cancel)
        found = run.survey()
        chosen = chosen_ranks(layers, found.choices, found.powers, settings)
        run.factor({name: one for name, one in chosen.items() if one.form is not None})
    return _outcome(graph, run, chosen)


def _fits(layers: Mapping[str, FactorableLayer]) -> bool:
    """Whether there is room to know what errors of all channels of every layer cost together."""
    return sum(8 * one.outputs**2 for one in layers.values()) <= _METRIC_BYTES


def _check_finite(layers: Mapping[str, FactorableLayer], fake: FakeQuantized) -> None:
    for name, layer in layers.items():
        if not bool(torch.isfinite(fake.network.initializer(layer.layer.weight_name)).all()):
            raise CalibrationError("its weights hold NaN or infinity", where=name)


@dataclass(slots=True)
class _Survey:
    """What every layer can become.

    Attributes:
        choices: By layer, the layer as it is first.
        powers: What the outputs of each are worth, on the scale of the errors.
    """

    choices: dict[str, Sequence[Choice]] = field(default_factory=dict)
    powers: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Run:
    """The work under way.

    Attributes:
        fake: The network, nothing of it rounded.
        layers: What may be factored, in order of execution.
        feeds: Samples, a chunk each.
        samples: How many.
        metrics: What errors of the channels of layers cost together; None where each counts by itself.
        settings: What is asked.
        reporter: Told of every layer.
        cancel: Looked at between layers.
        factors: Found, by layer.
        shifts: What biases are raised by, by layer.
        gains: Error of every layer by singular values alone, and as it is.
    """

    fake: FakeQuantized
    layers: Mapping[str, FactorableLayer]
    feeds: Sequence[Mapping[str, Tensor]]
    samples: int
    metrics: OutputMetrics | None
    settings: LowRankSettings
    reporter: Reporter
    cancel: CancelToken
    factors: dict[str, Factors] = field(default_factory=dict)
    shifts: dict[str, Tensor] = field(default_factory=dict)
    gains: dict[str, LayerRecovered] = field(default_factory=dict)

    def survey(self) -> _Survey:
        """Walk through the float network and see what each layer can become."""
        found = _Survey()
        walk = TwoPathWalk(self.fake, self.feeds, self.cancel)
        for node in walk.nodes:
            layer = self.layers.get(node.name)
            if layer is not None:
                self.cancel.raise_if_set()
                done = len(found.choices)
                self.reporter.progress(done, len(self.layers), "layers", f"Looking at {node.name}")
                moments = self._moments(walk, node, layer)
                found.choices[node.name], found.powers[node.name] = self._choices(layer, moments)
                if len(found.choices) == len(self.layers):
                    break
            for _ in walk.step(node):
                pass
        return found

    def factor(self, chosen: Mapping[str, Choice]) -> None:
        """Walk once more and factor each layer behind those before it."""
        walk = TwoPathWalk(self.fake, self.feeds, self.cancel)
        for node in walk.nodes if chosen else ():
            choice = chosen.get(node.name)
            if choice is None or choice.form is None:
                for _ in walk.step(node):
                    pass
                continue
            self.cancel.raise_if_set()
            done = len(self.factors)
            self.reporter.progress(done, len(chosen), "layers", f"Factoring {node.name}")
            layer = self.layers[node.name]
            moments = self._moments(walk, node, layer)
            found = self._factored(layer, moments, choice.form, choice.rank)
            self.factors[node.name] = found
            whole = layer.matrix.to_weight(found.whole(layer.kernel)[None]).float()
            walk.replaced[node.name, layer.matrix.slot] = whole.to(self.fake.network.device)
            self._pass(walk, node, layer)
            if len(self.factors) == len(chosen):
                break

    def _weight(self, layer: FactorableLayer) -> Tensor:
        own = self.fake.network.initializer(layer.layer.weight_name).detach()
        return layer.matrix.to_matrix(own)[0].cpu().double()

    def _moments(self, walk: TwoPathWalk, node: Node, layer: FactorableLayer) -> SecondMoments:
        moments = SecondMoments(1, layer.columns, layer.bias is not None)
        limit = max(1, _ROWS // max(self.samples, 1))
        for number, chunk in enumerate(walk.chunks):
            self.cancel.raise_if_set()
            real, seen = walk.read(node, layer.matrix.data_slot, chunk)
            rows = layer.matrix.rows_of(seen, number, limit)
            moments.add(rows, None if real is seen else layer.matrix.rows_of(real, number, limit))
        return moments

    def _metric(self, name: str) -> Tensor | None:
        return None if self.metrics is None else self.metrics.measured(name)

    def _choices(self, layer: FactorableLayer, moments: SecondMoments) -> tuple[list[Choice], float]:
        """What a layer can become, and what its output is worth."""
        name, weight = layer.layer.name, self._weight(layer)
        kept = Choice(None, 0, layer.parameters, layer.macs(layer.parameters), 0.0)
        metric = self._metric(name)
        if moments.is_constant or (self.metrics is not None and metric is None):
            return [kept], 0.0
        hessian, _ = leaned(moments.hessian, weight[None], weight[None], moments.count, self.samples)
        problem = self._problem(name, weight, hessian[0], metric, layer.kernel)
        unit = 1.0 if metric is not None else 1 / max(problem.power, 1e-30)
        choices, tails = [kept], problem.tails()
        for form in layer.forms:
            most = layer.parameters if form is Form.MATRIX else _LINES_TRIED
            for rank in candidate_ranks(layer, form, self.settings, most):
                self.cancel.raise_if_set()
                is_matrix = form is Form.MATRIX
                error = (
                    float(tails[rank])
                    if is_matrix
                    else problem.error(problem.begun(rank).whole(layer.kernel))
                )
                parameters, at_a_place = layer.costs(form, rank)
                choices.append(Choice(form, rank, parameters, layer.macs(at_a_place), error * unit))
        return choices, problem.power * unit

    def _factored(self, layer: FactorableLayer, moments: SecondMoments, form: Form, rank: int) -> Factors:
        """The factors of a layer for what it reads behind those that are factored already."""
        name, weight = layer.layer.name, self._weight(layer)[None]
        met = weight @ moments.across
        likely, asked = leaned(moments.hessian, met, weight, moments.count, self.samples)
        target = asymmetric_target(weight, likely, asked) if moments.is_apart else weight
        metric = self._metric(name)
        found = self._problem(name, target[0], likely[0], metric, layer.kernel).factors(form, rank)
        own = torch.eye(layer.columns, dtype=torch.float64)
        plain = FactorProblem(weight[0], own, None, layer.kernel)
        alone = plain.factors(form, rank) if form is Form.MATRIX else plain.begun(rank)
        power = max(float((weight @ moments.across * weight).sum()), 1e-30)
        before, after = (
            max(power + float((one @ moments.hessian[0] * one).sum() - 2 * (one * met[0]).sum()), 0.0) / power
            for one in (alone.whole(layer.kernel), found.whole(layer.kernel))
        )
        gain = LayerRecovered(name, before, after, MEASURE)
        self.gains[name] = gain
        self.reporter.found(gain)
        return found

    def _problem(
        self, name: str, weight: Tensor, hessian: Tensor, metric: Tensor | None, kernel: tuple[int, ...]
    ) -> FactorProblem:
        try:
            return FactorProblem(weight, hessian, metric, kernel)
        except CalibrationError as error:
            raise CalibrationError(error.what, where=name, hint=error.hint) from error

    def _pass(self, walk: TwoPathWalk, node: Node, layer: FactorableLayer) -> None:
        """Compute the layer on both paths, and take its mean error out of the factored one."""
        bias, output = layer.bias, node.outputs[0]
        off, count = torch.zeros(()), 0
        for chunk in walk.step(node, waits=bias is not None):
            if bias is None:
                continue
            real, now = chunk.both(output)
            rows = (real - now).movedim(bias.channel_axis, -1).reshape(-1, bias.channels)
            off = off + rows.sum(0, dtype=torch.float64).cpu()
            count += len(rows)
            if chunk is walk.chunks[-1]:
                self._shift(walk, bias, output, off / max(count, 1))

    def _shift(self, walk: TwoPathWalk, bias: BiasTarget, output: str, shift: Tensor) -> None:
        self.shifts[bias.layer] = shift
        _, value = walk.chunks[-1].both(output)
        shape = [1] * value.ndim
        shape[bias.channel_axis % value.ndim] = -1
        walk.shifts[output] = shift.to(value).reshape(shape)


def _outcome(graph: Graph, run: _Run, chosen: Mapping[str, Choice]) -> StepOutcome:
    layers = {name: one for name, one in chosen.items() if one.form is not None}
    if not layers:
        return StepOutcome(
            graph, "Two layers are nowhere cheaper than one: the graph is as it was.", {"layers": {}}
        )
    model = editable_copy(graph)
    write_factors(model, {name: (run.layers[name], found) for name, found in run.factors.items()})
    for name, shift in run.shifts.items():
        bias = run.layers[name].bias
        if bias is not None:
            set_bias(model, bias, np.asarray(shift))
    before = sum(layer.parameters for layer in run.layers.values())
    after = sum(one.parameters for one in chosen.values())
    alone, left = (
        float(np.mean([getattr(gain, which) for gain in run.gains.values()])) for which in ("before", "after")
    )
    summary = (
        f"Wrote {len(layers)} of {counted(len(chosen), 'layer')} as two, with {_span(layers)} channels in "
        f"between: {percent(after / before, 1)} of their weights are left. Outputs are off by "
        f"{percent(left, 1)} of their power on average; singular values alone leave {percent(alone, 1)}."
    )
    if run.metrics is None and run.settings.metric is Metric.ANSWERS:
        summary += (
            " Errors count by the power of outputs, as what they do to the answers could not be weighed."
        )
    details = {
        "layers": {name: {"form": str(one.form), "rank": one.rank} for name, one in layers.items()},
        "kept": [name for name in chosen if name not in layers],
        "parameters": [before, after],
        "samples": run.samples,
    }
    return StepOutcome(derived_graph(graph, model, summary), summary, details)


def _span(layers: Mapping[str, Choice]) -> str:
    ranks = sorted(one.rank for one in layers.values())
    return f"{ranks[0]}" if ranks[0] == ranks[-1] else f"{ranks[0]} to {ranks[-1]}"
