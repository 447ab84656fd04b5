"""Which tensors go on the integer grid: the decision, apart from writing it down.

A node is *integer* when it runs on integers in the optimized graph: layers with a static scheme, and
operators between them that have an integer kernel. A tensor is *quantized* when the file holds a Q/DQ pair
for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.errors import CalibrationError, RecipeError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.precision import LayerScheme, Precision
from quantstudio.core.recipe import FIRST_EMISSION, ActivationScope
from quantstudio.core.statistics import Statistics
from quantstudio.core.target import target_named
from quantstudio.engine.graph.learned_ranges import learned_ranges
from quantstudio.engine.graph.protos import attribute_value
from quantstudio.engine.graph.view import GraphView
from quantstudio.engine.quantization.activations import (
    ACTIVATION_GRID,
    ActivationParams,
    clamped_params,
    range_params,
)

# Operators that only move values: integer in, the same integers out, with the scale of their input.
SAME_SCALE = frozenset(
    {"Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
# Operators with an integer kernel of their own that gives its output another scale.
RESCALING = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid"})
# Operators that disappear into the QuantizeLinear behind them when its range says what they say.
FOLDING = frozenset({"Relu", "Clip"})
# Layers whose integer kernel can write float32, so that nothing is rounded at their output.
FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})
# Operators that ONNX Runtime turns into an integer kernel whenever Q/DQ nodes surround them.
RECOGNIZED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators the runtime moves Q and DQ nodes across.
TRANSPARENT = SAME_SCALE | FOLDING
# Tensors beyond this are masks or overflow, not signal: their step would swallow everything else.
LARGEST_MAGNITUDE = 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """What the emitter writes down.

    Attributes:
        schemes: Scheme of every layer by name, as far as it can be met.
        notes: Why a layer does not have the scheme that was asked for, by layer.
        integer: Names of main-graph nodes that run on integers.
        quantized: Scale and zero point of every tensor with a Q/DQ pair.
        folded: Names of Relu and Clip nodes that disappear into the QuantizeLinear behind them.
        barriers: Node inputs (node name, index) the runtime must not see a DequantizeLinear at.
        narrowed: Scale and zero point by tensor and bits, where layers read a quantized tensor with fewer
            bits than others need of it.
        apart: Biases (node name of the Add, input index) the runtime must not join with the product before.
    """

    schemes: dict[str, LayerScheme]
    notes: dict[str, str]
    integer: frozenset[str] = frozenset()
    quantized: dict[str, ActivationParams] = field(default_factory=dict)
    folded: frozenset[str] = frozenset()
    barriers: frozenset[tuple[str, int]] = frozenset()
    narrowed: dict[tuple[str, int], ActivationParams] = field(default_factory=dict)
    apart: frozenset[tuple[str, int]] = frozenset()


def make_plan(view: GraphView, statistics: Statistics | None, effective: EffectivePlan) -> Plan:
    """Which tensors an effective plan puts on the integer grid.

    Raises:
        RecipeError: a range is set for a tensor that does not exist.
        CalibrationError: a layer is static and there are no statistics for what it reads.
    """
    _check_ranges(view, effective)
    schemes, notes = dict(effective.schemes), dict(effective.notes)
    nodes = {node.name: node for node in view.nodes}
    for name, scheme in schemes.items():
        if name in nodes and not scheme.is_float:
            reason = _unmet(nodes[name], scheme, view)
            if reason:
                schemes[name], notes[name] = LayerScheme(), reason
    static = [node for node in view.nodes if node.name in schemes and schemes[node.name].is_static]
    if not static:
        return Plan(schemes, notes)
    if statistics is None:
        raise CalibrationError(
            "static quantization needs activation ranges and there are none",
            where=static[0].name,
            hint=Hint("Choose a dynamic or weight-only precision, or calibrate first", HintAction.CALIBRATE),
        )
    planner = _StaticPlanner(view, statistics, effective, schemes, static)
    return replace(planner.plan(), notes=notes)


def _check_ranges(view: GraphView, effective: EffectivePlan) -> None:
    known = view.inputs.union(view.producer)
    for tensor in effective.activation_ranges:
        if tensor not in known:
            raise RecipeError(
                f"the recipe sets the range of tensor {tensor!r}, which is not in this model",
                hint="Remove that range or open the model the recipe was made for",
            )


def activation_inputs(node: onnx.NodeProto, view: GraphView) -> Iterator[tuple[int, str]]:
    """Index and name of the data tensors an operator reads that are not constants."""
    count = {"Add": 2, "Mul": 2, "MatMul": 2, "Concat": len(node.input)}.get(node.op_type, 1)
    for index, name in enumerate(node.input[:count]):
        if name and not view.is_constant(name):
            yield index, name


def _unmet(node: onnx.NodeProto, scheme: LayerScheme, view: GraphView) -> str:
    """Why an operator cannot have an integer scheme although operators of its type can; empty if it can."""
    if scheme.is_weight_only:
        return ""
    if node.op_type == "LSTM" and attribute_value(node, "layout", 0):
        return "stays FP32: the integer kernel takes no batch-first layout"
    if node.op_type == "Gemm" and attribute_value(node, "transA", 0):
        return "stays FP32: integer kernels do not take a transposed input (transA)"
    if node.op_type in ("Gemm", "MatMul") and view.is_constant(node.input[0]):
        return "stays FP32: integer kernels take the weight as the second operand, here it is the first"
    if (
        node.op_type == "Conv"
        and len(node.input) > 2
        and node.input[2]
        and not view.is_constant(node.input[2])
    ):
        return "stays FP32: its bias is computed while the model runs"
    return ""


class _StaticPlanner:
    def __init__(
        self,
        view: GraphView,
        statistics: Statistics,
        effective: EffectivePlan,
        schemes: dict[str, LayerScheme],
        static: list[onnx.NodeProto],
    ) -> None:
        self.view = view
        self.statistics = statistics
        self.calibration = effective.calibration
        self.scope = effective.activation_scope
        self.emission = effective.emission
        self.schemes = schemes
        self.layers = {node.name for node in static}
        self.integer = set(self.layers)
        self.target = target_named(effective.target)
        self.params: dict[tuple[str, int], ActivationParams] = {}
        self.overrides = effective.activation_ranges
        self.learned = learned_ranges(view.nodes)

    def plan(self) -> Plan:
        for node in self.view.nodes:
            if node.name in self.layers:
                self._require_statistics(node)
        self._grow()
        quantized = self._quantized_tensors()
        folded = {node.name for node in self.view.nodes if self._folds(node)}
        return Plan(
            schemes=self.schemes,
            notes={},
            integer=frozenset(self.integer),
            quantized=quantized,
            folded=frozenset(folded),
            barriers=frozenset(self._barriers(quantized)),
            narrowed=dict(self._narrowed(quantized)),
            apart=frozenset(self._biases_apart(quantized) if self.emission > FIRST_EMISSION else ()),
        )

    def _require_statistics(self, node: onnx.NodeProto) -> None:
        for _, name in activation_inputs(node, self.view):
            if name not in self.statistics.tensors and name not in self.overrides:
                raise CalibrationError(
                    f"there are no activation statistics for tensor {name!r}",
                    where=node.name,
                    hint=Hint("Calibrate this model again", HintAction.CALIBRATE),
                )

    # Operators between the layers: the largest set in which each is fed by integers and read by integers.

    def _grow(self) -> None:
        kinds = SAME_SCALE | FOLDING
        if self.scope is ActivationScope.ALL:
            kinds = kinds | RESCALING
        candidates = [n for n in self.view.nodes if n.op_type in kinds and self._has_integer_form(n)]
        self.integer |= {node.name for node in candidates}
        changed = True
        while changed:
            changed = False
            for node in candidates:
                if node.name in self.integer and not (self._fed(node) and self._wanted(node)):
                    self.integer.discard(node.name)
                    changed = True

    def _has_integer_form(self, node: onnx.NodeProto) -> bool:
        inputs = [name for _, name in activation_inputs(node, self.view)]
        if not inputs or not all(self._is_signal(name) for name in (*inputs, *node.output)):
            return False
        if node.op_type == "Clip":
            return self._clip_limits(node) is not None
        if node.op_type == "MaxPool" and len(node.output) > 1:
            return False
        if node.op_type == "Resize" and attribute_value(node, "mode", b"nearest") != b"nearest":
            return False
        if node.op_type == "Split" and not all(self.view.consumers[name] for name in node.output):
            return False
        if node.op_type == "Mul" and len(set(node.input)) < 2:
            return False
        constants = [name for name in node.input if name and self.view.is_constant(name)]
        if node.op_type in ("Add", "Mul", "Concat"):
            return all(self._is_plain_constant(name) for name in constants)
        return True

    def _is_plain_constant(self, name: str) -> bool:
        array = self.view.array(name)
        if array is None or array.dtype != np.float32 or not array.size:
            return False
        return bool(np.isfinite(array).all() and np.abs(array).max() < LARGEST_MAGNITUDE)

    def _fed(self, node: onnx.NodeProto) -> bool:
        """Whether everything the operator reads comes on integers."""
        for _, name in activation_inputs(node, self.view):
            if name in self.view.inputs:
                if node.op_type not in SAME_SCALE:
                    return False
            elif not self.is_integer_tensor(name):
                return False
        return True

    def _folds(self, node: onnx.NodeProto) -> bool:
        """Whether a Relu or Clip goes into the kernel before it; a value someone else reads must exist."""
        source = node.input[0]
        producer = self.view.producer.get(source)
        return (
            node.op_type in FOLDING
            and node.name in self.integer
            and producer is not None
            and (producer.name in self.layers or producer.op_type in RESCALING)
            and len(self.view.consumers[source]) == 1
            and source not in self.view.outputs
        )

    def _wanted(self, node: onnx.NodeProto) -> bool:
        """Whether being integer saves a conversion for a reader, or for a layer that must write integers."""
        if self._folds(node) and self.view.producer[node.input[0]].name in self.layers:
            # Also behind a product, which could write float: with a float Relu in between the runtime does
            # not recognise the pattern at all.
            return True
        return any(
            reader.name in self.integer for name in node.output for reader in self.view.consumers[name]
        )

    def _must_quantize(self, node: onnx.NodeProto | None) -> bool:
        return node is not None and node.name in self.layers and node.op_type not in FLOAT_OUTPUT

    def is_integer_tensor(self, name: str) -> bool:
        """Whether an integer node writes the tensor."""
        node = self.view.producer.get(name)
        return node is not None and node.name in self.integer

    # Ranges.

    def _is_signal(self, name: str) -> bool:
        """Whether a tensor has a range that an operator between layers may be quantized with."""
        if name in self.overrides:
            return True
        histogram = self.statistics.tensors.get(name)
        if histogram is None or name in self.statistics.masked:
            return False
        return max(-histogram.minimum, histogram.maximum) < LARGEST_MAGNITUDE

    def _own_params(self, name: str, bits: int) -> ActivationParams:
        """Scale and zero point from a tensor's own range: set by hand, learned, or read off its histogram."""
        if (name, bits) not in self.params:
            histogram = self.statistics.tensors.get(name)
            override = self.overrides.get(name) or self.learned.get((name, bits))
            if histogram is None and override is None:
                # Calibration leaves out what only a Relu or Clip reads. Whatever that cuts off need not be
                # represented, so the range behind it will do.
                readers = self.view.consumers[name]
                if len(readers) == 1 and readers[0].op_type in FOLDING:
                    return self._own_params(readers[0].output[0], bits)
                raise CalibrationError(
                    f"there are no activation statistics for tensor {name!r}",
                    hint=Hint("Calibrate this model again", HintAction.CALIBRATE),
                )
            grid = self.target.activation_grid(bits)
            params = range_params(histogram, self.calibration, override, grid)
            self.params[name, bits] = replace(params, tensor=name)
        return self.params[name, bits]

    def _clip_limits(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """Constant limits around zero of a Relu or Clip, or None."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        limits = [-np.inf, np.inf]
        for index in (1, 2):
            name = node.input[index] if len(node.input) > index else ""
            if name:
                array = self.view.array(name)
                if array is None:
                    return None
                limits[index - 1] = float(array.reshape(-1)[0])
        low, high = limits
        return (low, high) if low <= 0 < high else None

    def _params(self, name: str, bits: int) -> ActivationParams:
        """Scale and zero point a tensor gets: its input's behind operators that only move values."""
        node = self.view.producer.get(name)
        if node is None or node.name not in self.integer:
            return self._own_params(name, bits)
        if node.op_type in SAME_SCALE:
            return self._params(node.input[0], bits)
        own = self._own_params(name, bits)
        limits = self._clip_limits(node) if node.op_type in FOLDING else None
        return own if limits is None else clamped_params(own, *limits)

    def _bits_read(self, node: onnx.NodeProto) -> int:
        """Bits an integer operator reads; operators between the layers read the byte."""
        return self.schemes[node.name].activations.bits if node.name in self.layers else ACTIVATION_GRID.bits

    def _bits(self, name: str) -> int:
        """Bits of a tensor: as few as all its readers take, if it is made anew and nobody else sees it."""
        node = self.view.producer.get(name)
        moved = node is not None and node.name in self.integer and node.op_type in SAME_SCALE
        readers = self.view.consumers[name]
        seen = name in self.view.outputs | self.view.captured
        if moved or seen or not readers or any(reader.name not in self.layers for reader in readers):
            return ACTIVATION_GRID.bits
        return max(self._bits_read(reader) for reader in readers)

    def _narrowed(
        self, quantized: Mapping[str, ActivationParams]
    ) -> Iterator[tuple[tuple[str, int], ActivationParams]]:
        for node in self.view.nodes:
            if node.name in self.layers:
                bits = self._bits_read(node)
                for _, name in activation_inputs(node, self.view):
                    if quantized[name].grid.bits > bits:
                        yield (name, bits), self._params(name, bits)

    def _quantized_tensors(self) -> dict[str, ActivationParams]:
        names: list[str] = []
        for node in self.view.nodes:
            if node.name not in self.integer:
                continue
            names.extend(name for _, name in activation_inputs(node, self.view))
            if self._must_quantize(node) or node.op_type not in FLOAT_OUTPUT:
                names.extend(node.output)
        inner = {node.input[0] for node in self.view.nodes if self._folds(node)}
        return {
            name: self._params(name, self._bits(name)) for name in dict.fromkeys(names) if name not in inner
        }

    # Biases behind products.

    def _biases_apart(self, quantized: Mapping[str, ActivationParams]) -> Iterator[tuple[str, int]]:
        """Biases that ONNX Runtime 1.31 would join with a static product of more than two axes.

        Where it knows every dimension it makes Reshape, Gemm, Reshape of MatMul and Add, before it looks at
        Q/DQ pairs; that Gemm has a float bias and runs in float, at a fifth to a third of FP32's speed.
        """
        for node in self.view.nodes:
            if node.op_type != "MatMul" or node.name not in self.layers or node.output[0] in quantized:
                continue
            shape, readers = self.view.shapes.get(node.input[0]), self.view.consumers[node.output[0]]
            if shape is None or len(shape) < 3 or not all(isinstance(size, int) for size in shape):
                continue
            if len(readers) == 1 and readers[0].op_type == "Add" and node.output[0] not in self.view.outputs:
                for index, name in enumerate(readers[0].input):
                    bias = self.view.array(name)
                    if bias is not None and bias.dtype == np.float32 and bias.ndim in (1, 2):
                        yield readers[0].name, index

    # Float layers among integers.

    def _barriers(self, quantized: Mapping[str, ActivationParams]) -> Iterator[tuple[str, int]]:
        for node in self.view.nodes:
            if node.op_type not in RECOGNIZED or node.name in self.integer:
                continue
            scheme = self.schemes.get(node.name, LayerScheme())
            if scheme.is_dynamic:
                continue
            reads = [
                index
                for index, name in activation_inputs(node, self.view)
                if name in quantized and self.is_integer_tensor(name)
            ]
            if reads and self._would_be_fused(node, scheme, quantized, len(reads)):
                yield node.name, reads[0]

    def _would_be_fused(
        self,
        node: onnx.NodeProto,
        scheme: LayerScheme,
        quantized: Mapping[str, ActivationParams],
        integer_inputs: int,
    ) -> bool:
        """Whether ONNX Runtime 1.31 would run this float layer on integers.

        A product fuses when both operands are dequantized, whatever follows; Conv, ConvTranspose and Gemm
        when a QuantizeLinear follows, even with a float weight (WeightBiasQuantization).
        """
        if node.op_type in FLOAT_OUTPUT and (scheme.weights != Precision.FP32 or integer_inputs > 1):
            return True
        return node.op_type != "MatMul" and self._meets_quantize(node.output[0], quantized)

    def _meets_quantize(self, name: str, quantized: Mapping[str, ActivationParams]) -> bool:
        if name in quantized:
            return True
        return any(
            self._meets_quantize(reader.output[0], quantized)
            for reader in self.view.consumers[name]
            if reader.op_type in TRANSPARENT
        )
