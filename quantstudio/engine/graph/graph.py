"""The normalised ONNX graph in memory, the only source of truth after import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantstudio.core.layers import LayerInfo, ModelSummary

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A normalised model with its summary. Never edited: builds copy `proto`.

    Guarantees of the normaliser that everything downstream relies on: one opset (the default domain's is
    `summary.opset`, at least 21, IR 10), every node has a unique non-empty name, main-graph nodes are in
    topological order, weights are initializers (no Constant nodes, no initializer among the graph inputs),
    weights are reached directly (no Reshape/Transpose/Identity between initializer and layer),
    value_info is complete where inference can tell. Where the proof held (nearly always: a note says where it
    did not), BatchNormalization after Conv is folded and spatial ReduceMean is GlobalAveragePool.

    Attributes:
        proto: The model.
        summary: Inputs, outputs, layers, digests, notes.
    """

    proto: onnx.ModelProto
    summary: ModelSummary

    @property
    def digest(self) -> str:
        """SHA-256 of the normalised graph."""
        return self.summary.digest

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """Layers in execution order."""
        return self.summary.layers
