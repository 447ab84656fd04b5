"""Small decoders as exporters write them: a head, a cache of keys and values, names of modules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = Mapping[str, NDArray[Any]]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class DecoderShape:
    """A decoder's sizes.

    Attributes:
        layers: Blocks.
        hidden: Width.
        heads: Heads of the queries.
        kv_heads: Heads of keys and values; queries share them.
        inner: Width inside the feed-forward part.
        vocabulary: Tokens.
        positions: Rows of a learned table of positions; 0 for rotary ones.
        with_past: Whether there is a cache.
        rms: RMSNorm, or LayerNormalization.
        tied: Whether the head is the embedding, transposed.
        theta: Base of the rotary frequencies.
        epsilon: Of the normalizations.
    """

    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    inner: int = 128
    vocabulary: int = 96
    positions: int = 0
    with_past: bool = True
    rms: bool = True
    tied: bool = True
    theta: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        """Numbers a head."""
        return self.hidden // self.heads


def random_weights(shape: DecoderShape, seed: int = 0, scale: float = 1.0) -> dict[str, NDArray[np.float32]]:
    """Weights by the names of a checkpoint, matrices as [out, in]."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return np.asarray(scale * rng.standard_normal((rows, columns)) / np.sqrt(columns), np.float32)

    width, kv = shape.hidden, shape.kv_heads * shape.head_size
    found = {"model.embed_tokens.weight": matrix(shape.vocabulary, width)}
    if shape.positions:
        found["model.embed_positions.weight"] = matrix(shape.positions, width)
    for i in range(shape.layers):
        name = f"model.layers.{i}"
        sizes = {
            "self_attn.q_proj": (width, width),
            "self_attn.k_proj": (kv, width),
            "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (shape.inner, width),
            "mlp.up_proj": (shape.inner, width),
            "mlp.down_proj": (width, shape.inner),
        }
        found |= {f"{name}.{part}.weight": matrix(*size) for part, size in sizes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{name}.{norm}.weight"] = np.ones(width, np.float32)
    found["model.norm.weight"] = np.ones(width, np.float32)
    if not shape.tied:
        found["lm_head.weight"] = matrix(shape.vocabulary, width)
    return found


class _Writer:
    """Nodes and weights of a decoder."""

    def __init__(self, shape: DecoderShape, weights: Arrays) -> None:
        self.shape, self.weights = shape, weights
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.known: set[str] = set()

    def constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.known:
            self.known.add(name)
            self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def numbers(self, *values: int) -> str:
        name = "ints_" + "_".join(str(v) for v in values)
        return self.constant(name, np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"float_{value!r}", np.array(value, np.float32))

    def op(self, op_type: str, inputs: list[str], path: str, output: str = "", **attributes: Any) -> str:
        """One node at a module's path; its output."""
        count = sum(n.name.startswith(f"{path}/{op_type}") for n in self.nodes)
        name = f"{path}/{op_type}" + (f"_{count}" if count else "")
        made = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(op_type, inputs, [made], name, **attributes))
        return made

    def linear(self, x: str, path: str) -> str:
        """A product, its matrix as [in, out] under a name that says nothing, as exporters write it."""
        key = path.strip("/").replace("/", ".") + ".weight"
        matrix = self.constant(f"onnx::MatMul_{len(self.tensors)}", self.weights[key].T)
        return self.op("MatMul", [x, matrix], path)

    def norm(self, x: str, path: str) -> str:
        weight = path.strip("/").replace("/", ".") + ".weight"
        scale = self.constant(weight, self.weights[weight])
        if not self.shape.rms:
            shift = self.constant(weight.replace(".weight", ".bias"), np.zeros(self.shape.hidden, np.float32))
            return self.op("LayerNormalization", [x, scale, shift], path, axis=-1, epsilon=self.shape.epsilon)
        squared = self.op("Pow", [x, self.number(2.0)], path)
        mean = self.op("ReduceMean", [squared], path, axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, self.number(self.shape.epsilon)], path)], path)
        return self.op("Mul", [scale, self.op("Div", [x, root], path)], path)

    def rotary(self) -> tuple[str, str]:
        """Cosine and sine of every position, [batch, 1, length, head size]."""
        half = self.shape.head_size // 2
        frequencies = self.shape.theta ** -(np.arange(half) / half)
        path = "/model/rotary_emb"
        places = self.op("Cast", ["position_ids"], path, to=FLOAT)
        places = self.op("Unsqueeze", [places, self.numbers(1, 3)], path)
        row = self.constant("inv_freq", frequencies.astype(np.float32).reshape(1, 1, 1, half))
        angles = self.op("Mul", [places, row], path)
        both = self.op("Concat", [angles, angles], path, axis=-1)
        return self.op("Cos", [both], path), self.op("Sin", [both], path)

    def turned(self, x: str, angles: tuple[str, str], path: str) -> str:
        half = self.shape.head_size // 2
        low = self.op("Slice", [x, self.numbers(0), self.numbers(half), self.numbers(3)], path)
        high = self.op("Slice", [x, self.numbers(half), self.numbers(2 * half), self.numbers(3)], path)
        crossed = self.op("Concat", [self.op("Neg", [high], path), low], path, axis=-1)
        straight = self.op("Mul", [x, angles[0]], path)
        return self.op("Add", [straight, self.op("Mul", [crossed, angles[1]], path)], path)

    def mask(self) -> str:
        """0 where a position may look, the least float elsewhere, [batch, 1, length, whole length]."""
        path = "/model"
        whole = self.op("Gather", [self.op("Shape", ["attention_mask"], path), self.zero()], path, axis=0)
        new = self.op("Gather", [self.op("Shape", ["input_ids"], path), self.one()], path, axis=0)
        start = self.op("Sub", [whole, new], path)
        rows = self.op("Range", [start, whole, self.one(path="step")], path)
        columns = self.op("Range", [self.zero(path="start"), whole, self.one(path="step")], path)
        rows = self.op("Unsqueeze", [rows, self.numbers(1)], path)
        later = self.op("Greater", [self.op("Unsqueeze", [columns, self.numbers(0)], path), rows], path)
        given = self.op("Unsqueeze", ["attention_mask", self.numbers(1, 2)], path)
        hidden = self.op("Equal", [given, self.zero(path="none")], path)
        both = self.op("Or", [self.op("Unsqueeze", [later, self.numbers(0, 1)], path), hidden], path)
        return self.op("Where", [both, self.number(-1e9), self.number(0.0)], path)

    def zero(self, path: str = "axis") -> str:
        if path == "axis":
            return self.constant("whole_axis", np.array(1, np.int64))
        return self.constant("zero", np.array(0, np.int64))

    def one(self, path: str = "axis") -> str:
        del path
        return self.constant("one", np.array(1, np.int64))

    def attention(self, x: str, index: int, mask: str, angles: tuple[str, str] | None) -> str:
        shape, path = self.shape, f"/model/layers.{index}/self_attn"

        def heads(part: str, count: int) -> str:
            made = self.linear(x, f"{path}/{part}")
            made = self.op("Reshape", [made, self.numbers(0, 0, count, shape.head_size)], path)
            return self.op("Transpose", [made], path, perm=[0, 2, 1, 3])

        query, key = heads("q_proj", shape.heads), heads("k_proj", shape.kv_heads)
        value = heads("v_proj", shape.kv_heads)
        if angles is not None:
            query, key = self.turned(query, angles, path), self.turned(key, angles, path)
        if shape.with_past:
            past, present = f"past_key_values.{index}", f"present.{index}"
            key = self.op("Concat", [f"{past}.key", key], path, f"{present}.key", axis=2)
            value = self.op("Concat", [f"{past}.value", value], path, f"{present}.value", axis=2)
        repeats = shape.heads // shape.kv_heads
        if repeats > 1:
            key, value = (self._repeated(one, repeats, path) for one in (key, value))
        turned = self.op("Transpose", [key], path, perm=[0, 1, 3, 2])
        scores = self.op("MatMul", [query, turned], path)
        scores = self.op("Mul", [scores, self.number(shape.head_size**-0.5)], path)
        shares = self.op("Softmax", [self.op("Add", [scores, mask], path)], path, axis=-1)
        mixed = self.op("Transpose", [self.op("MatMul", [shares, value], path)], path, perm=[0, 2, 1, 3])
        return self.linear(
            self.op("Reshape", [mixed, self.numbers(0, 0, shape.hidden)], path), f"{path}/o_proj"
        )

    def _repeated(self, x: str, count: int, path: str) -> str:
        wide = self.op("Unsqueeze", [x, self.numbers(2)], path)
        wide = self.op("Tile", [wide, self.numbers(1, 1, count, 1, 1)], path)
        return self.op("Reshape", [wide, self.numbers(0, self.shape.heads, -1, self.shape.head_size)], path)

    def block(self, x: str, index: int, mask: str, angles: tuple[str, str] | None) -> str:
        path = f"/model/layers.{index}"
        mixed = self.attention(self.norm(x, f"{path}/input_layernorm"), index, mask, angles)
        x = self.op("Add", [x, mixed], path)
        inner = self.norm(x, f"{path}/post_attention_layernorm")
        gate = self.linear(inner, f"{path}/mlp/gate_proj")
        opened = self.op(
            "Mul", [gate, self.op("Sigmoid", [gate], f"{path}/mlp/act_fn")], f"{path}/mlp/act_fn"
        )
        product = self.op("Mul", [opened, self.linear(inner, f"{path}/mlp/up_proj")], f"{path}/mlp")
        return self.op("Add", [x, self.linear(product, f"{path}/mlp/down_proj")], path)

    def write(self) -> None:
        table = self.constant("model.embed_tokens.weight", self.weights["model.embed_tokens.weight"])
        x = self.op("Gather", [table, "input_ids"], "/model/embed_tokens")
        if self.shape.positions:
            rows = self.constant("model.embed_positions.weight", self.weights["model.embed_positions.weight"])
            x = self.op(
                "Add", [x, self.op("Gather", [rows, "position_ids"], "/model/embed_positions")], "/model"
            )
        angles = None if self.shape.positions else self.rotary()
        mask = self.mask()
        for index in range(self.shape.layers):
            x = self.block(x, index, mask, angles)
        x = self.norm(x, "/model/norm")
        if self.shape.tied:
            head = self.op("Transpose", [table], "/lm_head", perm=[1, 0])
        else:
            head = self.constant("onnx::MatMul_head", self.weights["lm_head.weight"].T)
        self.op("MatMul", [x, head], "/lm_head", "logits")


def decoder(shape: DecoderShape | None = None, weights: Arrays | None = None) -> onnx.ModelProto:
    """A decoder with inputs and outputs named as exporters name them."""
    shape = shape or DecoderShape()
    writer = _Writer(shape, random_weights(shape) if weights is None else weights)
    writer.write()
    whole = "past_sequence_length + sequence_length" if shape.with_past else "sequence_length"
    pair = ["batch_size", "sequence_length"]
    info = helper.make_tensor_value_info
    inputs = [
        info("input_ids", INT64, pair),
        info("attention_mask", INT64, ["batch_size", whole]),
        info("position_ids", INT64, pair),
    ]
    outputs = [info("logits", FLOAT, [*pair, shape.vocabulary])]
    for index in range(shape.layers if shape.with_past else 0):
        for part in ("key", "value"):
            sizes: list[Any] = ["batch_size", shape.kv_heads, "past_sequence_length", shape.head_size]
            inputs.append(info(f"past_key_values.{index}.{part}", FLOAT, sizes))
            sizes = [*sizes[:2], whole, shape.head_size]
            outputs.append(info(f"present.{index}.{part}", FLOAT, sizes))
    graph = helper.make_graph(writer.nodes, "decoder", inputs, outputs, writer.tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


LETTERS = [chr(code) for code in range(32, 127)]


def tokenizer_json(path: Path, vocabulary: int = 96, **more: Any) -> Path:
    """A tokenizer whose tokens are printable characters; what it does not know is the last."""
    table = {letter: place for place, letter in enumerate(LETTERS[: vocabulary - 1])}
    table["[UNK]"] = len(table)
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "."},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": table, "unk_token": "[UNK]"},
    }
    path.write_text(json.dumps(content | more), encoding="utf-8")
    return path


TEXT = (
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. "
    "How vexingly quick daft zebras jump; sphinx of black quartz, judge my vow. "
)
