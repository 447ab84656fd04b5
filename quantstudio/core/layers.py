"""A model as the table shows it: its inputs and outputs, and every layer that owns weights."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.record import Record


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, element type and shape of a graph input or output.

    Attributes:
        name: Tensor name.
        dtype: numpy name of the element type: "float32", "int64", ...
        shape: One entry a dimension; a string is a symbolic (dynamic) dimension, None an unknown one.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class LayerInfo(Record):
    """One row of the layer table.

    Attributes:
        name: Stable unique node name in the normalised graph; the layer's identity everywhere.
        op_type: ONNX operator.
        weight_name: Initializer that holds the weight; empty for activation x activation products.
        weight_shape: Shape of that initializer.
        parameters: Weights and biases of this layer (a tied weight counts where it is first used).
        weight_bytes: Bytes of those parameters as the file stores them now.
        macs: Multiply-accumulates for one sample, or None where shapes are unknown.
        share: Part of all the model's parameters, 0 to 1.
        quantizable: Whether any integer scheme is possible.
        reason: Why not, for a person; empty when quantizable.
        schemes: Names (see `core.schemes.NAMED_SCHEMES`) this layer can have.
        channel_axis: Axis of the weight along which per-channel scales run; None without weights.
        inputs: Activation tensors the layer reads.
        outputs: Tensors it writes.
        scope: Path of the enclosing If/Loop/Scan body; empty in the main graph.
        stored_as: Precision of weights the file itself holds quantized: "INT8", "INT4 packed", "codebook, 2
            bits"; empty for float weights.
        label: Path of its module, where the exporter kept it; no other layer has it. Empty where it did not.
        groups: Parts a convolution falls into that see nothing of each other; depthwise: one a channel.
    """

    name: str
    op_type: str
    weight_name: str = ""
    weight_shape: tuple[int, ...] = ()
    parameters: int = 0
    weight_bytes: int = 0
    macs: int | None = None
    share: float = 0.0
    quantizable: bool = True
    reason: str = ""
    schemes: tuple[str, ...] = ()
    channel_axis: int | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    scope: str = ""
    stored_as: str = ""
    label: str = ""
    groups: int = 1

    @property
    def title(self) -> str:
        """What it is called wherever people read: in tables, tips, plots, reports."""
        return self.label or self.name

    @property
    def stored_label(self) -> str:
        """What the file holds quantized, in a chip: "INT8 stored", "INT4 packed"; empty for float weights."""
        is_whole = not self.stored_as or " " in self.stored_as
        return self.stored_as if is_whole else f"{self.stored_as} stored"

    @property
    def full_title(self) -> str:
        """The title, with the node's own name where that is another."""
        return f"{self.label}  ({self.name})" if self.label not in ("", self.name) else self.name


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """What the window and `inspect` know of an opened model; plain values, no runtime objects.

    Attributes:
        source_path: The file the user opened.
        graph_path: The normalised ONNX in the cache; the only source of truth afterwards.
        digest: SHA-256 of the normalised graph with its weights.
        source_digest: SHA-256 of the source file.
        opset: Opset of the normalised graph.
        inputs: Graph inputs.
        outputs: Graph outputs.
        layers: Layers in execution order.
        edges: Pairs (producer layer, consumer layer) by index into `layers`, through unlisted nodes.
        parameters: All parameters.
        weight_bytes: Bytes of all initializers.
        file_bytes: Bytes of the file the user opened, with its data files; of the ONNX a program was exported
            to, as it is stored.
        notes: What normalisation changed and what it could not do, one sentence each.
        verified_error: Largest absolute output difference from the original on random input, relative to
            the output's largest magnitude.
        warnings: What makes results worthless or impossible, such as weights that are NaN.
    """

    source_path: str
    graph_path: str
    digest: str
    source_digest: str
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: tuple[LayerInfo, ...]
    edges: tuple[tuple[int, int], ...]
    parameters: int
    weight_bytes: int
    file_bytes: int
    notes: tuple[str, ...] = ()
    verified_error: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def titles(self) -> dict[str, str]:
        """What layers are called, by name."""
        return {layer.name: layer.title for layer in self.layers}

    @property
    def can_be_quantized(self) -> bool:
        """Whether any layer has float weights to quantize; in a file that was quantized before none has."""
        return any(layer.quantizable and layer.weight_name for layer in self.layers)

    def layer(self, name: str) -> LayerInfo | None:
        """The layer of that name, or None."""
        return next((layer for layer in self.layers if layer.name == name), None)
