"""Models and data small enough to check by hand, following the data set's protocol."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quantstudio.core.judgement import INFERRED, Judging


def linear_model(path: Path, weight: NDArray[np.float32], repeats: int = 0) -> Path:
    """output = x @ weight, then `repeats` products with the identity: same values, more work."""
    width = weight.shape[1]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h0"], name="first")]
    nodes += [
        helper.make_node("MatMul", [f"h{i}", f"eye{i}"], [f"h{i + 1}"], name=f"more{i}")
        for i in range(repeats)
    ]
    nodes.append(helper.make_node("Identity", [f"h{repeats}"], ["y"], name="last"))
    # A runtime may drop a product with a constant identity; a slightly different matrix each keeps them.
    eyes = [
        numpy_helper.from_array(np.eye(width, dtype=np.float32) * np.float32(1 + (i + 1) * 1e-6), f"eye{i}")
        for i in range(repeats)
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(weight, "w"), *eyes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path))
    return path


@dataclass(frozen=True)
class ArrayBatch:
    """A part of the data."""

    feed: dict[str, NDArray[Any]]
    count: int
    start: int

    @property
    def held(self) -> int:
        return self.count


@dataclass
class ArrayDataset:
    """Data in memory for a one-input model."""

    x: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32] | None = None
    class_names: tuple[str, ...] = ()
    segments: dict[str, NDArray[Any]] = field(default_factory=dict)
    digest: str = "test"
    name: str = "x"
    fixed_batch: int | None = None
    given_axes: dict[str, int] = field(default_factory=dict)
    judging: Judging = INFERRED
    trusted: bool = False
    next_tokens: NDArray[np.int64] | None = None

    @property
    def sample_axes(self) -> dict[str, int]:
        return {self.name: 0}

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[ArrayBatch]:
        end = len(self) if stop is None else stop
        for first in range(start, end, size):
            part = self.x[first : min(first + size, end)]
            yield ArrayBatch({self.name: part}, len(part), first)
