"""Writes a variant: a pure function of graph, statistics and plan that gives the same bytes every time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import onnx

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.errors import BuildError
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, LayerScheme, Precision
from quantstudio.core.recipe import FIRST_EMISSION, PACKED_FILES, SHARED_VALUES
from quantstudio.core.statistics import Statistics
from quantstudio.core.statistics_file import statistics_digest
from quantstudio.core.target import target_named
from quantstudio.engine.graph.builder import Constants, NodeList
from quantstudio.engine.graph.channel_limits import without_limits
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import bodies, used_domains, used_names
from quantstudio.engine.graph.view import GraphView, Scope
from quantstudio.engine.quantization.activations import ActivationParams
from quantstudio.engine.quantization.biases import with_biases_joined
from quantstudio.engine.quantization.block_weights import tied_tables
from quantstudio.engine.quantization.dynamic import CONTRIB_DOMAIN, write_dynamic
from quantstudio.engine.quantization.float16 import write_float16
from quantstudio.engine.quantization.layer_node import LayerNode
from quantstudio.engine.quantization.plan import (
    RESCALING,
    SAME_SCALE,
    Plan,
    activation_inputs,
    make_plan,
)
from quantstudio.engine.quantization.qdq import add_pair, add_quantized_constant, write_static
from quantstudio.engine.quantization.quantized_weights import KnownWeights
from quantstudio.engine.quantization.shared_floats import shared_floats
from quantstudio.engine.quantization.weight_only import write_weight_only

PRODUCER = "QuantStudio"
RECIPE_KEY = "quantstudio.recipe"
VARIANT_KEY = "quantstudio.variant"


@dataclass(frozen=True, slots=True, eq=False)
class Emission:
    """A written variant and the plan behind it.

    Attributes:
        model: The variant.
        plan: What was decided.
        variant: Its name.
        parts: Names of the nodes each layer became.
        unlimited: Layers whose channels had limits of their own, which their integers go without.
        shared: Layers of float weights that are written as tables and indices.
    """

    model: onnx.ModelProto
    plan: Plan
    variant: str
    parts: dict[str, tuple[str, ...]]
    unlimited: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def emit(graph: Graph, statistics: Statistics | None, effective: EffectivePlan) -> onnx.ModelProto:
    """The variant a plan describes.

    Args:
        graph: Normalised model, after the steps of the plan.
        statistics: Activation statistics of that graph; only static layers need them.
        effective: What every layer becomes.

    Raises:
        RecipeError: a range is set for a tensor that does not exist.
        CalibrationError: a static layer has no statistics.
    """
    return emit_with_plan(graph, statistics, effective).model


def emit_with_plan(
    graph: Graph,
    statistics: Statistics | None,
    effective: EffectivePlan,
    cancel: CancelToken | None = None,
    known: KnownWeights | None = None,
) -> Emission:
    """As `emit`, with what was decided on the way.

    `cancel` is looked at before every node; `known` holds integers of an earlier writing of the same weights
    by the same plan, and gets those of this one.
    """
    static = {name for name, scheme in effective.schemes.items() if scheme.is_static}
    view, unlimited = without_limits(GraphView(graph.proto), static, SAME_SCALE | RESCALING)
    view = with_biases_joined(view, static)
    plan = make_plan(view, statistics, effective)
    variant = variant_name(graph, statistics if plan.integer else None, effective)
    emitter = _Emitter(graph, view, plan, effective, cancel or never_cancelled(), known)
    model = emitter.model()
    for key, value in ((RECIPE_KEY, effective.recipe_digest), (VARIANT_KEY, variant)):
        model.metadata_props.add(key=key, value=value)
    parts = {name: tuple(nodes) for name, nodes in emitter.parts.items()}
    return Emission(model, plan, variant, parts, unlimited, tuple(emitter.shared))


def variant_name(graph: Graph, statistics: Statistics | None, effective: EffectivePlan) -> str:
    """Hash of all a file is made from, the recipe as written included; no statistics where none are read."""
    digest = hashlib.sha256()
    for part in (graph.digest, statistics_digest(statistics) if statistics else "", effective.recipe_digest):
        digest.update(part.encode() + b"\n")
    if effective.emission != FIRST_EMISSION:
        digest.update(f"emission {effective.emission}\n".encode())
    return digest.hexdigest()


class _Emitter:
    def __init__(
        self,
        graph: Graph,
        view: GraphView,
        plan: Plan,
        effective: EffectivePlan,
        cancel: CancelToken,
        known: KnownWeights | None,
    ) -> None:
        self.known = known
        self.graph = graph
        self.cancel = cancel
        self.view = view
        self.target = target_named(effective.target)
        self.plan = plan
        is_first_form = effective.emission < PACKED_FILES
        self.names = NameSource(graph.proto, is_short=not is_first_form)
        self.is_packed = not is_first_form and not effective.unpacked
        self.shares_floats = effective.emission >= SHARED_VALUES and not effective.unpacked
        self.shared: list[str] = []
        self.constants = Constants(self.names)
        self.layers: dict[str, LayerInfo] = {layer.name: layer for layer in graph.layers}
        self.parts: dict[str, list[str]] = {}
        self.clips = effective.weight_ranges
        self.is_narrow = is_first_form
        self.tied = tied_tables(view, self.layers, plan.schemes) if self.is_packed else {}
        # A tensor the file must offer under its own name (outputs, what bodies read) keeps that name on the
        # float side; the name before the Q/DQ pair is then another one.
        public = view.outputs | view.captured
        self.raw: dict[str, str] = {}
        self.real: dict[str, str] = {}
        for tensor in plan.quantized:
            if self._is_integer(tensor) and tensor in public:
                self.raw[tensor], self.real[tensor] = self.names.fresh(f"{tensor}_raw"), tensor
            else:
                self.raw[tensor], self.real[tensor] = tensor, self.names.fresh(f"{tensor}_dequantized")

    def model(self) -> onnx.ModelProto:
        source = self.graph.proto
        model = onnx.ModelProto(
            ir_version=source.ir_version,
            opset_import=source.opset_import,
            producer_name=PRODUCER,
            functions=source.functions,
        )
        main = model.graph
        main.name = source.graph.name
        main.input.extend(source.graph.input)
        main.output.extend(source.graph.output)
        nodes = NodeList(self.names, self.constants, is_packed=self.is_packed)
        for tensor in source.graph.input:
            self._add_pair(tensor.name, nodes)
        for node in self.view.nodes:
            self._write(node, self.view.main, nodes)
            for tensor_name in node.output:
                self._add_pair(tensor_name, nodes)
        main.node.extend(nodes.nodes)
        self.parts.update(nodes.owned)
        main.initializer.extend(self.constants.protos)
        used = set(used_names(main))
        main.initializer.extend(t for t in source.graph.initializer if t.name in used)
        main.sparse_initializer.extend(source.graph.sparse_initializer)
        imported = {opset.domain for opset in model.opset_import}
        if CONTRIB_DOMAIN in set(used_domains(main)) - imported:
            model.opset_import.add(domain=CONTRIB_DOMAIN, version=1)
        return model

    def _is_integer(self, tensor: str) -> bool:
        node = self.view.producer.get(tensor)
        return node is not None and node.name in self.plan.integer

    def _add_pair(self, tensor: str, nodes: NodeList) -> None:
        params = self.plan.quantized.get(tensor)
        if params is not None:
            add_pair(nodes, tensor, self.raw[tensor], self.real[tensor], params)

    def _write(self, original: onnx.NodeProto, scope: Scope, nodes: NodeList) -> None:
        """Write one node of the main graph or of a body."""
        self.cancel.raise_if_set()
        node = onnx.NodeProto()
        node.CopyFrom(original)
        inputs: dict[int, ActivationParams] = {}
        if scope.parent is None:
            inputs = self._rename(original, node, nodes)
        for body in bodies(node):
            self._write_body(body, scope)
        layer = self.layers.get(original.name)
        scheme = self.plan.schemes.get(original.name, FP32)
        if layer is None:
            if scope.parent is None and self._is_relu_of_small_weights(original):
                self._write_relu_as_max(node, nodes)
            else:
                nodes.append(node)
            return
        nodes.owner = layer.name
        if scheme == FP32:
            self._share(layer, node, scope, nodes)
            nodes.append(node)
        else:
            self._write_layer(layer, scheme, node, original, scope, nodes, inputs)
        nodes.owner = ""

    def _share(self, layer: LayerInfo, node: onnx.NodeProto, scope: Scope, nodes: NodeList) -> None:
        """Let a float layer read its weight out of a table, where that is smaller."""
        name = layer.weight_name
        if not self.shares_floats or scope.parent is not None or not self.view.is_constant(name):
            return
        made = nodes.made(("shared", name))
        if made is None:
            value = self.view.array(name)
            if value is None or value.dtype != np.float32:
                return
            found = shared_floats(nodes, np.asarray(value, dtype=np.float32), name, layer.channel_axis)
            made = nodes.keep(("shared", name), found or "")
        if made:
            self.shared.append(layer.name)
            for slot, given in enumerate(node.input):
                if given == name:
                    node.input[slot] = made

    def _write_layer(
        self,
        layer: LayerInfo,
        scheme: LayerScheme,
        node: onnx.NodeProto,
        original: onnx.NodeProto,
        scope: Scope,
        nodes: NodeList,
        inputs: dict[int, ActivationParams],
    ) -> None:
        shape = self.view.shapes.get(original.input[1]) if len(original.input) > 1 else None
        _write_layer(
            LayerNode(
                node=node,
                layer=layer,
                scheme=scheme,
                scope=scope,
                nodes=nodes,
                clip=self.clips.get(layer.name),
                inputs=inputs,
                index_rank=None if shape is None else len(shape),
                known=self.known,
                is_narrow=self.is_narrow,
                table=self.tied.get(layer.name, ""),
                max_bits=8 if scheme.is_weight_only else self.target.weight_bits,
            )
        )

    def _is_relu_of_small_weights(self, node: onnx.NodeProto) -> bool:
        """Whether a float Relu follows a weight-only product, with or without a bias in between."""
        if node.op_type != "Relu" or node.name in self.plan.integer:
            return False
        producer = self.view.producer.get(node.input[0])
        if producer is not None and producer.op_type == "Add":
            makers = [self.view.producer.get(name) for name in producer.input]
            producer = next((maker for maker in makers if maker is not None), None)
        if producer is None or producer.op_type not in ("Gemm", "MatMul"):
            return False
        return self.plan.schemes.get(producer.name, FP32).is_weight_only

    def _write_relu_as_max(self, node: onnx.NodeProto, nodes: NodeList) -> None:
        """Relu as Max(x, 0).

        With a Relu behind it ONNX Runtime 1.31 does not make MatMulNBits of a product and dequantizes the
        whole weight on every run.
        """
        zero = nodes.constants.shared("zero") or nodes.constants.share(
            "zero", (nodes.constants.add("zero", np.float32(0)),)
        )
        nodes.add("Max", [node.input[0], *zero], node.name, outputs=list(node.output), own_name=True)

    def _write_body(self, body: onnx.GraphProto, parent: Scope) -> None:
        """Write the nodes of a body (already a copy) in place."""
        scope = Scope(body, parent, {t.name: t for t in body.initializer})
        # Constants of their own: the runtime fuses a product only with weights of the same graph, and 1.31
        # fails to load where they are in the graph around it.
        nodes = NodeList(self.names, Constants(self.names), is_packed=self.is_packed)
        for node in list(body.node):
            self._write(node, scope, nodes)
        self.parts.update(nodes.owned)
        del body.node[:]
        body.node.extend(nodes.nodes)
        used = set(used_names(body))
        kept = [t for t in body.initializer if t.name in used]
        del body.initializer[:]
        body.initializer.extend([*nodes.constants.protos, *kept])

    def _rename(
        self, original: onnx.NodeProto, node: onnx.NodeProto, nodes: NodeList
    ) -> dict[int, ActivationParams]:
        """Point a main-graph node at the right side of each Q/DQ pair; params of the inputs on integers."""
        quantized = self.plan.quantized
        is_integer = original.name in self.plan.integer
        inputs = {}
        data = dict(activation_inputs(original, self.view))
        for index, name in enumerate(original.input):
            if name in quantized:
                if is_integer and index in data:
                    node.input[index], inputs[index] = self._data(original.name, name, nodes)
                elif self._is_integer(name):
                    node.input[index] = self.real[name]
            elif (original.name, index) in self.plan.apart:
                node.input[index] = self._bias_apart(name, nodes)
            elif is_integer and original.name not in self.layers and self._is_operand(original, index):
                value = np.asarray(self.view.array(name), dtype=np.float32)
                node.input[index] = add_quantized_constant(nodes, name, value, self.target.activation_grid())
        for index, name in enumerate(original.output):
            node.output[index] = self.raw.get(name, name)
        for index in range(len(original.input)):
            if (original.name, index) in self.plan.barriers:
                node.input[index] = self._barrier(node.input[index], nodes)
        return inputs

    def _data(self, reader: str, tensor: str, nodes: NodeList) -> tuple[str, ActivationParams]:
        """What an integer operator reads of a quantized tensor: the tensor, or a copy of fewer bits."""
        scheme = self.plan.schemes.get(reader, FP32)
        params = self.plan.narrowed.get((tensor, scheme.activations.bits)) if scheme.is_static else None
        if params is None:
            return self.real[tensor], self.plan.quantized[tensor]
        key = ("narrowed", tensor, params.grid)
        made = nodes.made(key)
        if made is None:
            made = nodes.keep(key, self.names.fresh(f"{tensor}_int{params.grid.bits}_dequantized"))
            add_pair(nodes, f"{tensor}_int{params.grid.bits}", self.real[tensor], made, params)
        return made, params

    def _bias_apart(self, name: str, nodes: NodeList) -> str:
        """A bias with a leading axis more than a Gemm takes: the runtime leaves its Add alone."""
        made = nodes.made(("apart", name))
        if made is None:
            value = np.asarray(self.view.array(name), dtype=np.float32)
            wide = value.reshape((1,) * (3 - value.ndim) + value.shape)
            made = nodes.keep(("apart", name), nodes.constants.add(f"{name}_apart", wide))
        return made

    def _is_operand(self, node: onnx.NodeProto, index: int) -> bool:
        return node.op_type in ("Add", "Mul", "Concat") and self.view.is_constant(node.input[index])

    def _barrier(self, tensor: str, nodes: NodeList) -> str:
        """A copy that no optimizer removes.

        Max of one tensor is that tensor. Behind it ONNX Runtime no longer sees the DequantizeLinear that
        would make it run a float layer on integers; Identity would be removed before.
        """
        made = nodes.made(("barrier", tensor))
        if made is None:
            made = nodes.keep(("barrier", tensor), nodes.add("Max", [tensor], f"{tensor}_keep_float"))
        return made


def _write_layer(layer: LayerNode) -> None:
    try:
        _write_as(layer, layer.scheme)
    except BuildError as error:
        # Below, tensors are known, not the layer they belong to.
        raise BuildError(error.what, where=error.where or layer.name, hint=error.hint) from error


def _write_as(layer: LayerNode, scheme: LayerScheme) -> None:
    if scheme.is_static:
        write_static(layer)
    elif scheme.is_dynamic:
        write_dynamic(layer)
    elif scheme.weights == Precision.FP16:
        write_float16(layer)
    else:
        write_weight_only(layer)
