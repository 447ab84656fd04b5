"""Collects the nodes and constants of a new graph, with unique names and shared constants."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from quantstudio.engine.graph.mapped import kept
from quantstudio.engine.graph.names import NameSource
from quantstudio.engine.graph.protos import as_tensor


class Constants:
    """New initializers of one graph or body."""

    def __init__(self, names: NameSource) -> None:
        self._names = names
        self._shared: dict[Hashable, tuple[str, ...]] = {}
        self.protos: list[TensorProto] = []

    def add(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """A new initializer; its final name."""
        final = self._names.fresh(name)
        self.protos.append(as_tensor(final, np.asarray(value)))
        return final

    def add_weight(self, name: str, value: NDArray[Any]) -> str:
        """A new initializer that keeps the name of the weight it is made of; its final name."""
        final = self._names.given(name)
        self.protos.append(as_tensor(final, np.asarray(value)))
        return final

    def add_int4(self, name: str, values: NDArray[np.int8]) -> str:
        """A new INT4 initializer of integers in -8..7, two per byte, low nibble first; its final name."""
        return self._add_nibbles(self._names.fresh(name), values, TensorProto.INT4)

    def add_int4_weight(self, name: str, values: NDArray[np.int8], *, signed: bool = True) -> str:
        """As `add_int4`, with the name of the weight; unsigned ones are in 0..15."""
        return self._add_nibbles(
            self._names.given(name), values, TensorProto.INT4 if signed else TensorProto.UINT4
        )

    def _add_nibbles(self, final: str, values: NDArray[np.int8], kind: int) -> str:
        flat = values.reshape(-1)
        if flat.size % 2:
            flat = np.append(flat, np.int8(0))
        nibbles = flat.astype(np.uint8) & np.uint8(15)
        packed = nibbles[0::2] | (nibbles[1::2] << np.uint8(4))
        self.protos.append(
            kept(TensorProto(name=final, data_type=kind, dims=values.shape, raw_data=packed.tobytes()))
        )
        return final

    def shared(self, key: Hashable) -> tuple[str, ...] | None:
        """Names kept under a key by `share`, or None."""
        return self._shared.get(key)

    def share(self, key: Hashable, names: Sequence[str]) -> tuple[str, ...]:
        """Keep names, so that a second layer with the same need uses the same constants."""
        self._shared[key] = tuple(names)
        return self._shared[key]


class NodeList:
    """The nodes of one graph or body as they are written, in order.

    Attributes:
        nodes: What was written.
        owner: Layer being written; empty between layers.
        owned: Names of the nodes written for each layer.
        is_packed: Whether weights of fewer than eight bits are packed.
    """

    def __init__(self, names: NameSource, constants: Constants, *, is_packed: bool = False) -> None:
        self.is_packed = is_packed
        self.names = names
        self.constants = constants
        self.nodes: list[onnx.NodeProto] = []
        self.owner = ""
        self.owned: dict[str, list[str]] = {}
        self._made: dict[Hashable, str] = {}

    def append(self, node: onnx.NodeProto) -> None:
        """A node as it is."""
        self.nodes.append(node)
        self._own(node.name)

    def _own(self, name: str) -> None:
        if self.owner:
            self.owned.setdefault(self.owner, []).append(name)

    def add(
        self,
        op_type: str,
        inputs: Sequence[str],
        name: str,
        *,
        outputs: Sequence[str] | None = None,
        own_name: bool = False,
        **attributes: Any,  # noqa: ANN401  ONNX attributes
    ) -> str:
        """A new node of the default domain; the name of its first output.

        Args:
            op_type: Operator.
            inputs: Tensors it reads.
            name: Node name, made unique unless `own_name` says that this node takes the place of the old one.
            outputs: Tensors it writes; None makes one up.
            own_name: Keep the name as it is.
            attributes: ONNX attributes.
        """
        final = name if own_name else self.names.fresh(name)
        outputs = list(outputs) if outputs is not None else [self.names.fresh(f"{final}_output")]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=final, **attributes))
        self._own(final)
        return outputs[0]

    def made(self, key: Hashable) -> str | None:
        """Tensor kept under a key by `keep` in this graph, or None."""
        return self._made.get(key)

    def keep(self, key: Hashable, tensor: str) -> str:
        """Remember a tensor computed here, so that a second reader uses the same nodes."""
        self._made[key] = tensor
        return tensor
