"""Synthetic networks with their weights in a file beside, of any size: written one layer at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def write_products(path: Path, *, layers: int, width: int, half: bool = False) -> Path:
    """A chain of products with a Relu behind each, as ONNX with external data; the path.

    Args:
        path: The model; its weights lie beside it, under its name and `.data`.
        layers: Products, a matrix each.
        width: Rows and columns of a matrix.
        half: Weights and interface of float16.
    """
    kind, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    base = np.random.default_rng(0).standard_normal((width, width), dtype=np.float32)
    base *= np.float32((2 / width) ** 0.5)
    data, tensors, nodes, last, offset = Path(f"{path}.data"), [], [], "x", 0
    with data.open("wb") as handle:
        for i in range(layers):
            # Rolled, not drawn: gigabytes of random numbers take minutes.
            matrix = np.roll(base, 7 * i, axis=0).astype(dtype)
            handle.write(matrix.tobytes())
            tensor = TensorProto(
                name=f"w{i}", data_type=kind, dims=matrix.shape, data_location=TensorProto.EXTERNAL
            )
            for key, value in (("location", data.name), ("offset", offset), ("length", matrix.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            offset += matrix.nbytes
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"y{i}"], f"/layers.{i}/MatMul"))
            nodes.append(helper.make_node("Relu", [f"y{i}"], [f"r{i}"], f"/layers.{i}/Relu"))
            last = f"r{i}"
    ends = [helper.make_tensor_value_info(name, kind, ["batch", width]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return path


if __name__ == "__main__":
    write_products(Path(sys.argv[1]), layers=int(sys.argv[2]), width=int(sys.argv[3]))
