"""Any opset from 7 on to one that has block quantization and 4 bit types (21).

Adapters are needed only where an operator's attributes became inputs, a default changed or the meaning did;
the list was made by comparing all schemas of opsets 7 to 21. Everything else keeps its form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from quantstudio.core.errors import UnsupportedOpError
from quantstudio.engine.graph.names import fresh_name
from quantstudio.engine.graph.protos import (
    NATIVE_TYPES,
    Array,
    all_graphs,
    as_tensor,
    attribute,
    float_attribute,
    int_attribute,
    ints_attribute,
    remove_attribute,
    set_attribute,
    string_attribute,
)
from quantstudio.engine.graph.shapes import Shape
from quantstudio.engine.graph.view import index

TARGET_OPSET = 21
OLDEST_OPSET = 7
_IR_VERSION = 10


@dataclass(slots=True)
class _Edit:
    """One node under conversion, and what an adapter needs around it."""

    node: NodeProto
    body: GraphProto
    types: dict[str, tuple[int, Shape | None]]
    taken: set[str]
    before: list[NodeProto]
    after: list[NodeProto]

    def constant(self, hint: str, value: Array) -> str:
        """Name of a new initializer."""
        name = fresh_name(f"{self.node.name}.{hint}", self.taken)
        self.body.initializer.append(as_tensor(name, value))
        return name

    def tensor(self, hint: str) -> str:
        """Name for a new intermediate tensor."""
        return fresh_name(f"{self.node.name}.{hint}", self.taken)

    def dtype(self, slot: int = 0) -> np.dtype[np.generic]:
        """numpy type of an input; float32 where inference cannot tell."""
        kind, _shape = self.types.get(self.node.input[slot], (TensorProto.FLOAT, None))
        known = kind if kind in NATIVE_TYPES else TensorProto.FLOAT
        return np.dtype(helper.tensor_dtype_to_np_dtype(known))

    def rank(self, slot: int = 0) -> int | None:
        """Rank of an input, or None."""
        _kind, shape = self.types.get(self.node.input[slot], (0, None))
        return None if shape is None else len(shape)

    def set_input(self, slot: int, name: str) -> None:
        """Set an input, filling skipped optional ones with empty names."""
        while len(self.node.input) <= slot:
            self.node.input.append("")
        self.node.input[slot] = name

    def unsupported(self, why: str) -> UnsupportedOpError:
        """The error for a form that has no equivalent."""
        return UnsupportedOpError(
            f"{self.node.op_type} {why}",
            where=f"node {self.node.name!r}",
            hint=f"A form of it in a newer opset, best {TARGET_OPSET}, is needed",
        )


def convert_opset(model: ModelProto, types: dict[str, tuple[int, Shape | None]]) -> int:
    """Bring the default domain to opset 21 (a newer one is kept) and the IR to at least 10.

    Args:
        model: Model to edit; all nodes named.
        types: Types inferred at the model's present opset.

    Returns:
        The opset it came from.

    Raises:
        UnsupportedOpError: a node uses a form that has no equivalent, or the opset is older than 7.
    """
    entry = next(entry for entry in model.opset_import if entry.domain == "")
    source = int(entry.version)
    if source < OLDEST_OPSET:
        raise UnsupportedOpError(
            f"opset {source} is older than {OLDEST_OPSET}, the oldest that can be read",
            hint=f"A form of it in a newer opset, best {TARGET_OPSET}, is needed",
        )
    model.ir_version = max(model.ir_version, _IR_VERSION)
    if source >= TARGET_OPSET:
        return source
    taken = {"", *index(model.graph).names()}
    for _scope, body in list(all_graphs(model.graph)):
        position = 0
        while position < len(body.node):
            node = body.node[position]
            edit = _Edit(node, body, types, taken, [], [])
            if not node.domain:
                for before, adapter in _ADAPTERS.get(node.op_type, ()):
                    if source < before:
                        adapter(edit)
            for extra in edit.before:
                body.node.insert(position, extra)
                position += 1
            for extra in edit.after:
                position += 1
                body.node.insert(position, extra)
            position += 1
    entry.version = TARGET_OPSET
    return source


Adapter = Callable[[_Edit], None]


def _axes_to_input(edit: _Edit) -> None:
    axes = ints_attribute(edit.node, "axes")
    remove_attribute(edit.node, "axes")
    if axes is not None and len(edit.node.input) < 2:
        edit.set_input(1, edit.constant("axes", np.array(axes, dtype=np.int64)))


def _split_to_input(edit: _Edit) -> None:
    sizes = ints_attribute(edit.node, "split")
    remove_attribute(edit.node, "split")
    if sizes is not None:
        edit.set_input(1, edit.constant("split", np.array(sizes, dtype=np.int64)))


def _split_count(edit: _Edit) -> None:
    if len(edit.node.input) < 2 or not edit.node.input[1]:
        set_attribute(edit.node, "num_outputs", len(edit.node.output))


def _clip_limits(edit: _Edit) -> None:
    for slot, name in ((1, "min"), (2, "max")):
        limit = attribute(edit.node, name)
        if limit is not None:
            edit.set_input(slot, edit.constant(name, np.array(limit.f, dtype=edit.dtype())))
    remove_attribute(edit.node, "min", "max")


def _dropout_ratio(edit: _Edit) -> None:
    remove_attribute(edit.node, "ratio")


def _pad_to_input(edit: _Edit) -> None:
    pads = ints_attribute(edit.node, "pads") or []
    value = float_attribute(edit.node, "value", 0.0)
    remove_attribute(edit.node, "pads", "value")
    edit.set_input(1, edit.constant("pads", np.array(pads, dtype=np.int64)))
    if value:
        edit.set_input(2, edit.constant("value", np.array(value, dtype=edit.dtype())))


def _slice_to_input(edit: _Edit) -> None:
    for slot, name in ((1, "starts"), (2, "ends"), (3, "axes")):
        values = ints_attribute(edit.node, name)
        if values is not None:
            edit.set_input(slot, edit.constant(name, np.array(values, dtype=np.int64)))
    remove_attribute(edit.node, "starts", "ends", "axes")


def _topk_to_input(edit: _Edit) -> None:
    k = int_attribute(edit.node, "k", 1)
    remove_attribute(edit.node, "k")
    edit.set_input(1, edit.constant("k", np.array([k], dtype=np.int64)))


def _softmax_axis(edit: _Edit) -> None:
    """Before opset 13 the input was seen as a matrix, split at `axis` (default 1)."""
    node = edit.node
    axis = int_attribute(node, "axis", 1)
    rank = edit.rank()
    if axis == -1 or (rank is not None and axis % rank == rank - 1):
        set_attribute(node, "axis", -1)
        return
    source, target = node.input[0], node.output[0]
    flat, shape, result = edit.tensor("matrix"), edit.tensor("shape"), edit.tensor("rows")
    edit.before.append(helper.make_node("Flatten", [source], [flat], f"{node.name}.flatten", axis=axis))
    edit.before.append(helper.make_node("Shape", [source], [shape], f"{node.name}.shape_of"))
    edit.after.append(helper.make_node("Reshape", [result, shape], [target], f"{node.name}.reshape"))
    node.input[0], node.output[0] = flat, result
    set_attribute(node, "axis", -1)


def _upsample_to_resize(edit: _Edit) -> None:
    node = edit.node
    scales = attribute(node, "scales")
    if scales is not None:
        name = edit.constant("scales", np.array(list(scales.floats), dtype=np.float32))
    else:
        name = node.input[1]
    remove_attribute(node, "scales")
    del node.input[1:]
    _resize_asymmetric(edit, name)


def _resize_10(edit: _Edit) -> None:
    scales = edit.node.input[1]
    del edit.node.input[1:]
    _resize_asymmetric(edit, scales)


def _resize_asymmetric(edit: _Edit, scales: str) -> None:
    node = edit.node
    mode = string_attribute(node, "mode", "nearest")
    node.op_type = "Resize"
    edit.set_input(2, scales)
    set_attribute(node, "mode", "linear" if mode in ("linear", "bilinear") else mode)
    set_attribute(node, "coordinate_transformation_mode", "asymmetric")
    if mode == "nearest":
        set_attribute(node, "nearest_mode", "floor")


def _scatter(edit: _Edit) -> None:
    edit.node.op_type = "ScatterElements"


def _batchnorm_spatial(edit: _Edit) -> None:
    if not int_attribute(edit.node, "spatial", 1):
        raise edit.unsupported("with spatial=0 was removed from ONNX")
    remove_attribute(edit.node, "spatial")


def _grid_sample_mode(edit: _Edit) -> None:
    mode = string_attribute(edit.node, "mode", "bilinear")
    set_attribute(edit.node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _dft_axis(edit: _Edit) -> None:
    axis = int_attribute(edit.node, "axis", 1)
    remove_attribute(edit.node, "axis")
    edit.set_input(2, edit.constant("axis", np.array(axis, dtype=np.int64)))


def _roi_align_mode(edit: _Edit) -> None:
    if attribute(edit.node, "coordinate_transformation_mode") is None:
        set_attribute(edit.node, "coordinate_transformation_mode", "output_half_pixel")


def _scan_8(edit: _Edit) -> None:
    raise edit.unsupported("of opset 8 has a batch axis that later opsets do not have")


def _group_norm(edit: _Edit) -> None:
    """Scale and bias were one per group before opset 21, one per channel since."""
    node = edit.node
    groups = int_attribute(node, "num_groups", 1)
    _kind, shape = edit.types.get(node.input[0], (0, None))
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int):
        raise edit.unsupported("needs a known number of channels")
    repeats = edit.constant("repeats", np.array([1, shape[1] // groups], dtype=np.int64))
    flat = edit.constant("flat", np.array([-1], dtype=np.int64))
    column = edit.constant("column", np.array([-1, 1], dtype=np.int64))
    for slot, hint in ((1, "scale"), (2, "shift")):
        names = [edit.tensor(f"{hint}_{step}") for step in ("column", "tiled", "channels")]
        edit.before += [
            helper.make_node("Reshape", [node.input[slot], column], [names[0]], f"{node.name}.{hint}_column"),
            helper.make_node("Tile", [names[0], repeats], [names[1]], f"{node.name}.{hint}_tile"),
            helper.make_node("Reshape", [names[1], flat], [names[2]], f"{node.name}.{hint}_flat"),
        ]
        node.input[slot] = names[2]


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


def _table() -> dict[str, tuple[tuple[int, Adapter], ...]]:
    return {f"Reduce{name}": ((18, _axes_to_input),) for name in _REDUCTIONS} | {
        "ReduceSum": ((13, _axes_to_input),),
        "Squeeze": ((13, _axes_to_input),),
        "Unsqueeze": ((13, _axes_to_input),),
        "Split": ((13, _split_to_input), (18, _split_count)),
        "Clip": ((11, _clip_limits),),
        "Dropout": ((12, _dropout_ratio),),
        "Pad": ((11, _pad_to_input),),
        "Slice": ((10, _slice_to_input),),
        "TopK": ((10, _topk_to_input),),
        "Softmax": ((13, _softmax_axis),),
        "LogSoftmax": ((13, _softmax_axis),),
        "Hardmax": ((13, _softmax_axis),),
        "Upsample": ((10, _upsample_to_resize),),
        "Resize": ((11, _resize_10),),
        "Scatter": ((11, _scatter),),
        "BatchNormalization": ((9, _batchnorm_spatial),),
        "GridSample": ((20, _grid_sample_mode),),
        "DFT": ((20, _dft_axis),),
        "RoiAlign": ((16, _roi_align_mode),),
        "Scan": ((9, _scan_8),),
        "GroupNormalization": ((21, _group_norm),),
    }


# Adapters of an operator, each applied to models whose opset is below its number.
_ADAPTERS = _table()


def newest_opset() -> int:
    """The newest opset whose operators this program knows."""
    return int(onnx.defs.onnx_opset_version())
