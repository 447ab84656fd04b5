"""Graphs and data made in memory, without the importer, for calibration and weight statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.layers import LayerInfo, ModelSummary, TensorInfo
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.graph.graph import Graph


def graph_of(model: onnx.ModelProto, layers: Sequence[LayerInfo] = (), path: str = "") -> Graph:
    """A graph around a model, with unique node names and inferred types."""
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    inferred = onnx.shape_inference.infer_shapes(model)
    summary = ModelSummary(
        path, path, "graph-digest", "", 17, _infos(inferred.graph.input), (), tuple(layers), (), 0, 0, 0
    )
    return Graph(inferred, summary)


def dataset_of(graph: Graph, folder: Path, **arrays: NDArray[Any]) -> Dataset:
    """The arrays as a data set for the graph."""
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return open_dataset(DataSpec(str(folder / "data.npz")), graph.summary.inputs)


def _infos(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorInfo, ...]:
    found = []
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        found.append(TensorInfo(value.name, dtype, shape))
    return tuple(found)
