"""Layer by layer through the network: moments, weights, biases, each behind those that are done already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from quantstudio.core.errors import CalibrationError
from quantstudio.core.events import CancelToken, Reporter
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recovered import LayerRecovered
from quantstudio.engine.quantization.fake_quantization import FakeQuantized
from quantstudio.engine.recovery.bias_targets import BiasTarget
from quantstudio.engine.recovery.code_grids import Floats
from quantstudio.engine.recovery.compensation import Compensation, SingularMomentsError, asymmetric_target
from quantstudio.engine.recovery.gptq_layers import GptqLayer
from quantstudio.engine.recovery.gptq_store import LayerStore
from quantstudio.engine.recovery.output_metric import OutputMetrics
from quantstudio.engine.recovery.second_moments import SecondMoments, leaned
from quantstudio.engine.recovery.sums import Sum, sums_behind
from quantstudio.engine.recovery.walk import Chunk, TwoPathWalk
from quantstudio.engine.torch_graph.module import Node

Tensor = torch.Tensor

# Input vectors a layer's moments are made of: of a group with few columns fewer are enough.
_ROWS = 20_000
_GROUP_ROWS = 6_000
_SMALLEST = 1e-30
MEASURE = "power of the error at its output, of that of the output"
# Where channels were chosen together both powers are of what the answers hang on.
FELT = "power of the error at its output, of that of the output, as the answers hang on its channels"


@dataclass(frozen=True, slots=True, eq=False)
class GptqOptions:
    """How layers are solved.

    Attributes:
        is_asymmetric: Whether the target is what the float network gives on its own inputs, and what is
            missing in what it is added to.
        sweeps: Refits of the grid, each with a round of single moves.
        corrects_biases: Whether the mean error of every layer goes into its bias.
        is_joint: Whether channels are chosen together.
    """

    is_asymmetric: bool = True
    sweeps: int = 3
    corrects_biases: bool = True
    is_joint: bool = False


@dataclass(slots=True, eq=False)
class GptqRun:
    """The work under way.

    Attributes:
        walk: Both paths through the network.
        fake: The network, rounded as planned: its weights are what rounding makes of each.
        layers: What is to be solved, by name.
        samples: Samples in all chunks.
        options: How layers are solved.
        store: Where solved layers are kept.
        reporter: Told of every layer.
        cancel: Looked at between layers.
        weights: Weights found, by initializer.
        shifts: What the biases are raised by, by layer.
        gains: Error of every layer that is done, with each weight rounded by itself and as they are chosen.
        plain: Layers whose weights are rounded by themselves, as nothing can be learned from what they read.
        metrics: What errors of the channels of layers cost together; None where each counts by itself.
        sums: What the outputs of layers are added to, by layer.
    """

    walk: TwoPathWalk
    fake: FakeQuantized
    layers: Mapping[str, GptqLayer]
    samples: int
    options: GptqOptions
    store: LayerStore
    reporter: Reporter
    cancel: CancelToken
    metrics: OutputMetrics | None = None
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    shifts: dict[str, Floats] = field(default_factory=dict)
    gains: dict[str, LayerRecovered] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    sums: dict[str, Sum] = field(init=False)
    _moments: dict[str, SecondMoments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        network = self.fake.network
        given = {
            name: layer.bias.output if layer.bias is not None else network.node(name).outputs[0]
            for name, layer in self.layers.items()
            if len(layer.readers) == 1 and self.options.is_asymmetric
        }
        kept = {name: tensor for name, tensor in given.items() if tensor not in network.output_names}
        self.sums = sums_behind(network.nodes, kept, network.input_names)

    def go(self) -> None:
        """Solve all layers.

        One that reads the same in every sample, such as one behind a layer that never fires, is rounded by
        itself: its weights make no difference but to its mean, which its bias takes up.

        Raises:
            CalibrationError: moments hold NaN or infinity, which names the layer; or all layers are such.
            UnsupportedOpError: torch has no form of a node.
            JobCancelled: the run was cancelled.
        """
        done = 0
        for node in self.walk.nodes:
            layer = self.layers.get(node.name)
            self.store.pass_by(*self._done_to(node))
            if layer is None:
                for _ in self.walk.step(node):
                    pass
                continue
            self.cancel.raise_if_set()
            self.reporter.progress(done, len(self.layers), "layers", f"Solving {layer.name}")
            try:
                self._find(layer, node)
            except CalibrationError as error:
                raise CalibrationError(error.what, where=layer.name, hint=error.hint) from error
            self._pass(layer, node)
            done += 1
            if done == len(self.layers):
                break
        if not self.gains:
            raise CalibrationError(
                "what every layer reads is the same in all samples",
                hint=Hint("Give samples that differ, or check their transform", HintAction.CHOOSE_DATA),
            )

    def _done_to(self, node: Node) -> list[str | bytes]:
        """All the plan does to a node, so that layers behind equal ones are known to be equal."""
        layer, behind = self.layers.get(node.name), self.sums.get(node.name)
        weights = [self.fake.weights.get((node.name, slot)) for slot in range(len(node.inputs))]
        # A layer looks ahead to how the sum behind it reads its other part.
        places = [node.name] if behind is None else [node.name, behind.node.name]
        said = [*places, *(repr(self.fake.rounding.get(one)) for one in places), repr(layer and layer.format)]
        return [*said, *(weight.cpu().numpy().tobytes() for weight in weights if weight is not None)]

    def _find(self, layer: GptqLayer, node: Node) -> None:
        """Take a layer's weights from an earlier run or solve it, and put them on the quantized path."""
        # A weight that several layers read is solved with what all before it saw.
        is_alone = len(layer.readers) == 1
        is_felt = self.metrics is not None and self.metrics.knows(layer.name)
        kept = self.store.find(layer.name, FELT if is_felt else MEASURE) if is_alone else None
        found = kept or self._solve(layer, node)
        if found is None:
            self.plain.append(layer.name)
            return
        weight, gain = found
        if is_alone and kept is None:
            self.store.put(weight, gain)
        self.weights[layer.weight], self.gains[layer.name] = weight, gain
        for reader in layer.readers:
            on_device = torch.from_numpy(weight).to(self.fake.network.device)
            self.walk.replaced[reader, layer.matrix.slot] = on_device
        self.reporter.found(gain)

    def _solve(self, layer: GptqLayer, node: Node) -> tuple[NDArray[np.float32], LayerRecovered] | None:
        """A layer's weights as they lie, and what they won back; None where no choice of them matters."""
        real = self.fake.network.initializer(layer.weight)
        float_weight = layer.matrix.to_matrix(real.detach())
        is_centred = layer.bias is not None and self.options.corrects_biases
        moments = SecondMoments(layer.matrix.groups, float_weight.shape[2], is_centred)
        metric = self.metrics.of(layer.name) if self.metrics is not None else None
        power = self._gather(layer, node, moments, float_weight, metric)
        shared = self._moments.get(layer.weight)
        if shared is not None:
            moments.join(shared)
        if len(layer.readers) > 1:
            self._moments[layer.weight] = moments
        if moments.is_constant or power <= _SMALLEST:
            return None
        hessian, wanted = moments.hessian, float_weight.cpu().double()
        met = wanted @ moments.across
        if moments.missing is not None:
            met = met + moments.missing
        target, (likely, asked) = wanted, leaned(hessian, met, wanted, moments.count, self.samples)
        try:
            if self.options.is_asymmetric and (moments.is_apart or moments.missing is not None):
                target = asymmetric_target(wanted, likely, asked)
            problem = Compensation(target, likely, self.cancel)
            grid = layer.format.best(problem.rows, problem.row_importance)
            chosen = problem.solved(grid, self.options.sweeps, None if metric is None else metric.numpy())
        except SingularMomentsError:
            return None
        plain = self.fake.weights[layer.name, layer.matrix.slot].cpu()
        before, after = (
            _error(values.double(), hessian, met, power, metric)
            for values in (layer.matrix.to_matrix(plain), chosen.values.float())
        )
        found: NDArray[np.float32] = layer.matrix.to_weight(chosen.values.float()).contiguous().numpy()
        return found, LayerRecovered(layer.name, before, after, MEASURE if metric is None else FELT)

    def _gather(
        self, layer: GptqLayer, node: Node, moments: SecondMoments, weight: Tensor, metric: Tensor | None
    ) -> float:
        """Add up the moments of what a layer reads; the power of what it is to write."""
        rows = _ROWS if layer.matrix.groups == 1 else _GROUP_ROWS
        limit = max(1, rows // max(self.samples, 1))
        power, count, shape = 0.0, 0, torch.Size()
        sums = torch.zeros(weight.shape[:2], dtype=torch.float64, device=weight.device)
        for number, chunk in enumerate(self.walk.chunks):
            self.cancel.raise_if_set()
            real, quantized = self.walk.read(node, layer.matrix.data_slot, chunk)
            seen = layer.matrix.rows_of(quantized, number, limit)
            same = real is quantized
            meant = seen if same else layer.matrix.rows_of(real, number, limit)
            moments.add(seen, None if same else meant)
            outputs = weight @ meant
            if number == 0 and layer.name in self.sums:
                written = node.compute(*self.walk.inputs(node, chunk)[0])
                shape = written.shape[1:] if isinstance(written, Tensor) else shape
            missing = self._missing(layer.name, chunk, shape)
            if missing is not None:
                lost = layer.matrix.written_of(missing, number, limit)
                moments.add_missing(seen, lost)
                outputs = outputs + lost
            power += float((_felt(outputs, metric) * outputs).sum())
            sums += outputs.sum(2).double()
            count += meant.shape[2]
        means = sums[..., None] / max(count, 1)
        mean = (_felt(means, metric) * means).sum() if moments.has_mean else 0.0
        return max(float(power / max(count, 1) - mean), _SMALLEST)

    def _missing(self, layer: str, chunk: Chunk, shape: torch.Size) -> Tensor | None:
        """What the quantized path lacks in what a layer's output is added to, where that is of its shape."""
        behind = self.sums.get(layer)
        if behind is None:
            return None
        real, quantized = self.walk.read(behind.node, behind.slot, chunk)
        return None if real is quantized or real.shape[1:] != shape else real - quantized

    def _pass(self, layer: GptqLayer, node: Node) -> None:
        """Compute the layer on both paths, and take its mean error out of the quantized one."""
        bias = layer.bias if self.options.corrects_biases else None
        output, off, count = node.outputs[0], torch.zeros(()), 0
        for chunk in self.walk.step(node, waits=bias is not None):
            if bias is None:
                continue
            real, quantized = chunk.both(output)
            missing = self._missing(layer.name, chunk, real.shape[1:])
            lost = real - quantized if missing is None else real - quantized + missing
            rows = lost.movedim(bias.channel_axis, -1).reshape(-1, bias.channels)
            off = off + rows.sum(0, dtype=torch.float64).cpu()
            count += len(rows)
            if chunk is self.walk.chunks[-1]:
                self._shift(layer.name, bias, output, off / max(count, 1))

    def _shift(self, name: str, bias: BiasTarget, output: str, shift: Tensor) -> None:
        """Raise a layer's output on the quantized path as its bias will."""
        self.shifts[name] = np.asarray(shift)
        _, value = self.walk.chunks[-1].both(output)
        shape = [1] * value.ndim
        shape[bias.channel_axis % value.ndim] = -1
        self.walk.shifts[output] = shift.to(value).reshape(shape)


def _error(values: Tensor, hessian: Tensor, met: Tensor, power: float, metric: Tensor | None) -> float:
    """Error power at the output, over its power: E|y - V x_q|^2 / E|y|^2, in the metric of the channels."""
    felt = _felt(values, metric)
    quantized = (felt @ hessian * values).sum()
    return max(float(power + quantized - 2 * (felt * met).sum()), 0.0) / power


def _felt(outputs: Tensor, metric: Tensor | None) -> Tensor:
    """Outputs [1, O, R] times what errors of the channels cost together."""
    return outputs if metric is None else metric.to(outputs) @ outputs
