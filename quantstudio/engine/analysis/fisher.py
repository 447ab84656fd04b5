"""Output Fisher: what quantizing each layer does to the output, from one forward and one backward pass.

For a small output error e of a layer the divergence from FP32 is 1/2 e' J' H J e, with J the Jacobian from
the layer's output to the network's and H the Hessian of the divergence there (Fisher matrix of the softmax,
or the identity over variances). With H = A A' and random signs v, the vector g = J' A v has
E[(g . e)^2] = e' J' H J e: one backward pass, started from A v, serves every layer, bit width and scheme. No
labels are needed, and signs vary far less than labels drawn from the softmax, which hit the rare, heavy
classes once in hundreds of samples.

Source: Martens 2020, arXiv:1412.1193, section 9 (Fisher and Gauss-Newton); Hutchinson 1990 for the signs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.affine import IntegerGrid, affine_qparams, sqnr_db
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.engine.analysis.contraction import (
    BatchLayout,
    dot_per_sample,
    fixed_layout,
    grown_axis,
    output_errors,
    weight_effects,
)
from quantstudio.engine.analysis.divergence import (
    Deviation,
    Objective,
    OutputKind,
    output_deviations,
)
from quantstudio.engine.analysis.taps import (
    LayerProbe,
    Recorder,
    Tap,
    TapGradients,
    tap_gradients,
    torch_failures,
)
from quantstudio.engine.calibration.histogram import MASK_MAGNITUDE, not_finite
from quantstudio.engine.torch_graph.module import TorchGraph

# Share of a uniform distribution mixed into the softmax. One that is saturated to the last bit has no
# curvature left and would call every error harmless, also those that cross a decision boundary.
_SMOOTHING = 1e-5

# A confident network owes nearly all its divergence to a few unsure samples, and one draw of signs for each
# is too few. Below this effective share of samples, those that carry the most get more draws: a tenth of the
# samples four times costs 40 % more and halves the error.
_FEW_SAMPLES = 0.25
_HEAVY = 2.0
_EXTRA_DRAWS = 4

Tensor = torch.Tensor
Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class BatchEffects:
    """What one batch says.

    Attributes:
        effects: (g . e)^2 / 2 by layer and precision, one per sample.
        outputs: The compared tensors (logits or values).
        sqnr: Signal and noise power of each layer's output at its reference; empty unless asked for.
        unreachable: Layers without a gradient path, whose samples cannot be told apart, or whose effects are
            no finite numbers.
    """

    effects: dict[str, dict[str, NDArray[np.float64]]]
    outputs: tuple[Array, ...]
    sqnr: dict[str, float]
    unreachable: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PassMemory:
    """What one batch leaves to those that follow.

    Attributes:
        signs: State of the random signs behind it, JSON.
        curvatures: How unsure the network is of each of its samples; empty for outputs that are not classes.
        seen_ranges: Smallest and largest value by activation tensor, up to this batch.
    """

    signs: str
    curvatures: NDArray[np.float64]
    seen_ranges: dict[str, tuple[float, float]]


class FisherPass:
    """Forward and backward passes over one graph with all its probes.

    Args:
        module: The network; its weights are frozen.
        probes: The layers.
        objective: What the outputs mean.
        ranges: Range by activation tensor and precision; tensors that are not in it get the range of what
            has been seen so far.
        seed: Of the signs.
    """

    def __init__(
        self,
        module: TorchGraph,
        probes: Sequence[LayerProbe],
        objective: Objective,
        *,
        ranges: Mapping[tuple[str, str], tuple[float, float]],
        seed: int = 0,
    ) -> None:
        self._module = module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self.probes = probes
        self._objective = objective
        self._ranges = dict(ranges)
        self._seen_ranges: dict[str, tuple[float, float]] = {}
        self._layouts: dict[str, BatchLayout | None] = {}
        self._is_single = False
        self._signs = np.random.default_rng(seed)
        self._deviations: tuple[Deviation, ...] = (1.0,) * len(objective.tensors)
        self._columns: Mapping[str, int] = {}
        self._curvatures = self._last_curvatures = np.zeros(0)
        self._errors_of_tensor: dict[tuple[str, str], Tensor] = {}
        # Bytes a sample takes while the backward pass waits; known after `find_layouts`.
        self.bytes_per_sample = 0

    @property
    def probes(self) -> Sequence[LayerProbe]:
        """The layers asked about; others may be asked about in the next batch."""
        return tuple(self._probes.values())

    @probes.setter
    def probes(self, probes: Sequence[LayerProbe]) -> None:
        self._probes = {probe.layer.name: probe for probe in probes}

    def memory(self) -> PassMemory:
        """What the batches so far leave to those that follow."""
        signs = json.dumps(self._signs.bit_generator.state)
        return PassMemory(signs, self._last_curvatures, dict(self._seen_ranges))

    def resume(self, memory: PassMemory) -> None:
        """Go on as if the batch that left this memory had been run here, after those before it."""
        self._signs.bit_generator.state = json.loads(memory.signs)
        self._curvatures = np.concatenate([self._curvatures, memory.curvatures])
        for name, ends in memory.seen_ranges.items():
            self._widen(name, ends)

    # -- where the samples are -------------------------------------------------------------------------

    def find_layouts(
        self, two: Mapping[str, Array], three: Mapping[str, Array], columns: Mapping[str, int]
    ) -> None:
        """Find each tensor's sample axis by running two and three samples and looking at what grew.

        Args:
            two: A feed of two samples.
            three: One of three.
            columns: Axis of the samples by input.
        """
        self._columns = dict(columns)
        small, large = self._shapes(two), self._shapes(three)
        self._layouts = {name: grown_axis(small[name], large[name]) for name in small}
        self.bytes_per_sample = 4 * sum(math.prod(large[n]) - math.prod(small[n]) for n in small)

    def assume_layouts(self, feed: Mapping[str, Array], batch: int) -> None:
        """Take the first axis as the samples', where nothing can grow because the batch size is fixed."""
        shapes = self._shapes(feed)
        self._layouts = {name: fixed_layout(shape, batch) for name, shape in shapes.items()}
        self._is_single = batch == 1
        self.bytes_per_sample = 4 * sum(math.prod(shape) for shape in shapes.values()) // batch

    def _layout_of(self, name: str, tensor: Tensor) -> BatchLayout | None:
        """Where the samples are in a tensor; feeds of one sample each may have lengths of their own."""
        if self._is_single:
            return fixed_layout(tuple(tensor.shape), 1)
        return self._layouts.get(name)

    def _shapes(self, feed: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        with torch.no_grad():
            return {name: tuple(t.shape) for name, t in self._module.record(feed).items()}

    def set_deviations(self, feed: Mapping[str, Array], count: int, held: int) -> None:
        """Take the spread that value outputs are divided by from these samples."""
        with torch.no_grad():
            found = self._module.run(feed, self._objective.tensors)
        values = [found[n].cpu().numpy() for n in self._objective.tensors]
        rows = [self._objective.rows(i, value, held, count) for i, value in enumerate(values)]
        self._deviations = output_deviations(rows, self._objective.split)

    # -- one batch -------------------------------------------------------------------------------------

    def run(
        self,
        feed: Mapping[str, Array],
        count: int,
        size: int,
        *,
        with_sqnr: bool = False,
        cancel: CancelToken | None = None,
    ) -> BatchEffects:
        """Effects of every layer and precision on the samples of one batch.

        Args:
            feed: Arrays by input name.
            count: Valid samples; the rest is padding.
            size: Samples in the feed.
            with_sqnr: Also run each layer on its reference error.
            cancel: Looked at before every pass and every layer.

        Raises:
            UnsupportedOpError: torch cannot compute a node on this data.
        """
        token = cancel or never_cancelled()
        found = self._draw_once(feed, count, size, token, with_sqnr=with_sqnr)
        rows = self._heavy_rows(found.outputs)
        if len(rows):
            part = {
                name: np.take(array, rows, axis=self._columns[name]) if name in self._columns else array
                for name, array in feed.items()
            }
            count = len(rows)
            extra = [self._draw_once(part, count, count, token).effects for _ in range(_EXTRA_DRAWS)]
            for layer, by_precision in found.effects.items():
                if not all(layer in draw for draw in extra):
                    continue
                for precision, values in by_precision.items():
                    more = sum(draw[layer][precision] for draw in extra)
                    values[rows] = (values[rows] + more) / (1 + _EXTRA_DRAWS)
        return found

    def _heavy_rows(self, outputs: Sequence[Array]) -> NDArray[np.int64]:
        """Samples worth more draws: none unless few samples carry the curvature seen so far."""
        if self._objective.kind is not OutputKind.CLASSES or not self._columns:
            return np.zeros(0, np.int64)
        axis = -1 if outputs[0].ndim == 2 else self._objective.class_axis
        values = torch.from_numpy(outputs[0])
        p = torch.softmax(values, axis) if self._objective.has_logits else values.clone()
        certainty = p.square_().sum(axis).reshape(len(p), -1)
        curvature = (1 - certainty.double()).mean(1).clamp_(min=0).numpy()
        self._last_curvatures = curvature
        self._curvatures = np.concatenate([self._curvatures, curvature])
        power = float(np.square(self._curvatures).mean())
        if power == 0 or float(self._curvatures.mean()) ** 2 / power > _FEW_SAMPLES:
            return np.zeros(0, np.int64)
        return np.flatnonzero(curvature > _HEAVY * self._curvatures.mean())

    def _draw_once(
        self,
        feed: Mapping[str, Array],
        count: int,
        size: int,
        cancel: CancelToken,
        *,
        with_sqnr: bool = False,
    ) -> BatchEffects:
        """One forward and backward pass with fresh signs."""
        cancel.raise_if_set()
        taps: dict[str, Tap] = {}
        self._module.hooks = {name: Recorder(probe, taps) for name, probe in self._probes.items()}
        try:
            found = self._module.run(feed, self._objective.tensors)
        finally:
            self._module.hooks = {}
        outputs = tuple(found[name] for name in self._objective.tensors)
        seeds = [self._seed(i, output.detach(), count, size) for i, output in enumerate(outputs)]
        gradients = tap_gradients(taps, outputs, seeds)
        self._errors_of_tensor.clear()
        effects: dict[str, dict[str, NDArray[np.float64]]] = {}
        unreachable = []
        sqnr = {}
        with torch.no_grad():
            for name, tap in taps.items():
                cancel.raise_if_set()
                probe = self._probes[name]
                with torch_failures(name):
                    layer_effects = self._layer_effects(probe, tap, gradients[name])
                squared = {
                    precision: values[:count].cpu().double().square().numpy() / 2
                    for precision, values in (layer_effects or {}).items()
                }
                # Mask values (-3.4e38) times a gradient of zero are not an estimate.
                if not squared or not all(np.isfinite(values).all() for values in squared.values()):
                    unreachable.append(name)
                    continue
                effects[name] = squared
                if with_sqnr:
                    cancel.raise_if_set()
                    sqnr[name] = self._output_sqnr(probe, tap)
        self._errors_of_tensor.clear()
        arrays = tuple(
            np.ascontiguousarray(self._objective.rows(i, output.detach().cpu().numpy(), size, count))
            for i, output in enumerate(outputs)
        )
        return BatchEffects(effects, arrays, sqnr, tuple(unreachable))

    def output_sqnr(self, feed: Mapping[str, Array], cancel: CancelToken) -> dict[str, float]:
        """SQNR in dB of each layer's own output at its reference precision, without gradients."""
        taps: dict[str, Tap] = {}
        self._module.hooks = {name: Recorder(probe, taps) for name, probe in self._probes.items()}
        try:
            with torch.no_grad():
                self._module.run(feed, self._objective.tensors)
                found = {}
                for name, tap in taps.items():
                    cancel.raise_if_set()
                    found[name] = self._output_sqnr(self._probes[name], tap)
                return found
        finally:
            self._module.hooks = {}
            self._errors_of_tensor.clear()

    def _seed(self, position: int, output: Tensor, count: int, size: int) -> Tensor:
        """Start of the backward pass, A v; zero for padding."""
        axis = self._objective.axis(position).axis
        rows = output.movedim(axis, 0) if axis >= 0 else output[None]
        seed = self._seed_of_rows(position, rows, size)
        seed[round(len(seed) * (count / size if axis >= 0 else 1)) :] = 0
        return seed.movedim(0, axis) if axis >= 0 else seed[0]

    def _seed_of_rows(self, position: int, rows: Tensor, size: int) -> Tensor:
        """The same with samples first; each has one row or several."""
        values = max(rows.numel() // max(size, 1), 1)
        seed: Tensor
        if self._objective.kind is OutputKind.VALUES:
            deviation = torch.as_tensor(self._deviations[position], dtype=rows.dtype, device=rows.device)
            seed = self._draw(rows) / (deviation * values**0.5)
        elif self._objective.kind is OutputKind.DECISIONS:
            p = torch.sigmoid(rows) if self._objective.has_logits else rows
            spread = (p * (1 - p)).clamp_(min=_SMOOTHING).sqrt_()
            # Of a probability itself the curvature is the inverse of its logit's.
            seed = self._draw(rows) * (spread if self._objective.has_logits else 1 / spread) / values**0.5
        else:
            seed = self._seed_of_scores(rows, values)
        return seed

    def _seed_of_scores(self, rows: Tensor, values: int) -> Tensor:
        class_axis = self._objective.class_axis
        scores = rows.movedim(class_axis, -1)
        p = torch.softmax(scores, -1) if self._objective.has_logits else scores
        p = p * (1 - _SMOOTHING) + _SMOOTHING / scores.shape[-1]
        root = p.sqrt()
        signs = self._draw(scores)
        seed: Tensor = root * signs - p * (root * signs).sum(-1, keepdim=True)
        if not self._objective.has_logits:
            seed = seed / p
        seed = seed / max(values // scores.shape[-1], 1) ** 0.5
        return seed.movedim(-1, class_axis)

    def _draw(self, like: Tensor) -> Tensor:
        """Signs, the same for a sample whatever the batch size."""
        # random() takes one draw an element in order; integers() buffers bits over calls.
        negative = torch.from_numpy(self._signs.random(tuple(like.shape)) < 0.5).to(like.device)
        return torch.where(negative, -torch.ones_like(like), torch.ones_like(like))

    # -- one layer -------------------------------------------------------------------------------------

    def _layer_effects(
        self, probe: LayerProbe, tap: Tap, gradients: TapGradients
    ) -> dict[str, Tensor] | None:
        weights = self._weight_effects(probe, tap, gradients)
        activations = self._activation_effects(probe, tap, gradients)
        if weights is None or activations is None:
            return None
        found = {**weights, **activations}
        # Effects are of first order, so the one of both together is their sum, before it is squared.
        asked = {}
        for name, one in probe.trials.items():
            parts = [found[part] for part in one.parts if part in found]
            if len(parts) == len(one.parts):
                asked[name] = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return asked or None

    def _weight_effects(
        self, probe: LayerProbe, tap: Tap, gradients: TapGradients
    ) -> dict[str, Tensor] | None:
        """None where samples cannot be told apart or no gradient comes."""
        if probe.slot is None or not probe.weight_errors:
            return {}
        located = []
        for i, gradient in gradients.outputs.items():
            layout = self._layout_of(tap.node.outputs[i], gradient)
            if layout is None:
                return None
            located.append((i, gradient, layout))
        if not located:
            return None
        errors = list(probe.weight_errors.values())
        columns = weight_effects(tap.node, tap.inputs, probe.slot, errors, located)
        return dict(zip(probe.weight_errors, columns.unbind(1), strict=True))

    def _activation_effects(
        self, probe: LayerProbe, tap: Tap, gradients: TapGradients
    ) -> dict[str, Tensor] | None:
        """None where samples cannot be told apart."""
        found: dict[str, Tensor] = {}
        for precision, grid in probe.activation_grids.items():
            total: Tensor | None = None
            for position, gradient in gradients.activations.items():
                name = tap.node.inputs[position]
                layout = self._layout_of(name, gradient)
                if layout is None:
                    return None
                error = self._activation_error(name, precision, tap.activations[position].detach(), grid)
                part = dot_per_sample(gradient, error, layout)
                total = part if total is None else total + part
            if total is not None:
                found[precision] = total
        return found

    def _activation_error(self, name: str, precision: str, x: Tensor, grid: IntegerGrid) -> Tensor:
        """Quantized minus float activation; shared by all layers that read the tensor."""
        key = (name, precision)
        if key not in self._errors_of_tensor:
            low, high = self._ranges.get(key) or self._seen_range(name, x)
            scale, zero_point = affine_qparams(low, high, grid)
            # Four vectorised passes: torch.fake_quantize_per_tensor_affine takes ten times as long.
            steps = x / float(scale)
            error = torch.round(steps).clamp_(grid.low - zero_point, grid.high - zero_point)
            self._errors_of_tensor[key] = error.sub_(steps).mul_(float(scale))
        return self._errors_of_tensor[key]

    def _seen_range(self, name: str, x: Tensor) -> tuple[float, float]:
        """Smallest and largest value of a tensor in all batches so far, as calibration sees them."""
        smallest, largest = torch.aminmax(x)
        low, high = float(smallest), float(largest)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise not_finite(name, "this data")
        if low <= -MASK_MAGNITUDE or high >= MASK_MAGNITUDE:
            kept = x[x.abs() < MASK_MAGNITUDE]
            low, high = (float(kept.min()), float(kept.max())) if kept.numel() else (0.0, 0.0)
        return self._widen(name, (low, high))

    def _widen(self, name: str, ends: tuple[float, float]) -> tuple[float, float]:
        known = self._seen_ranges.get(name, ends)
        self._seen_ranges[name] = (min(ends[0], known[0]), max(ends[1], known[1]))
        return self._seen_ranges[name]

    def _output_sqnr(self, probe: LayerProbe, tap: Tap) -> float:
        """SQNR of the layer's own first output at the reference precision, dB."""
        one = probe.reference
        signal = tap.outputs[0].detach()
        operands = [None if x is None else x.detach() for x in tap.inputs]
        weight_error = probe.weight_errors.get(one.weights_name)
        if one.activations is None and weight_error is not None and probe.slot is not None:
            noise = output_errors(tap.node, tuple(operands), probe.slot, weight_error)[0]
            return sqnr_db(_power(signal), _power(noise))
        if weight_error is not None and probe.slot is not None:
            weight = operands[probe.slot]
            assert weight is not None
            operands[probe.slot] = weight + weight_error
        for position, x in tap.activations.items() if one.activations is not None else ():
            grid = probe.activation_grids[one.activations_name]
            error = self._activation_error(tap.node.inputs[position], one.activations_name, x.detach(), grid)
            operands[position] = x.detach() + error
        result = tap.node.compute(*operands)
        noise = (result if isinstance(result, torch.Tensor) else result[0]) - signal
        return sqnr_db(_power(signal), _power(noise))


def _power(values: Tensor) -> float:
    """Sum of squares, in float64 (which not every device has)."""
    return float(values.detach().cpu().double().square().sum())
