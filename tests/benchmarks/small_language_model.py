"""A language model trained here, and few bits: `python -m tests.benchmarks.small_language_model`.

A decoder of a few million weights learns the standard library's own documentation, nine modules in ten; the
rest is what perplexity is measured on. It is written as exporters write one, with a cache, and every plan is
built, measured and timed token by token; a "+" behind its name means that `gptq` chose the weights, from the
text that was learnt. Targets: 4 bits at most 1.02 times FP32's perplexity, and faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.schemes import named_scheme
from quantstudio.core.steps import Step
from quantstudio.engine.tasks.compare import compare
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.quantize import quantize
from tests.benchmarks.library_text import documentation
from tests.engine.decoders import DecoderShape, decoder, random_weights

SHAPE = DecoderShape(layers=2, hidden=256, heads=8, kv_heads=4, inner=704, vocabulary=1024)
CONTEXT, BATCH, RATE = 64, 8, 3e-3
PLANS = (
    "weight-int8",
    "weight-int4/32",
    "weight-int4/64",
    "weight-int4/64+",
    "weight-int3/32",
    "weight-int3/32+",
    "weight-codebook3",
    "weight-codebook3+",
    "dynamic-int8",
)
# One module in so many is kept for measuring.
HELD_OUT = 10


def write_tokenizer(texts: list[str], path: Path) -> None:
    """Byte pairs of the training text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=SHAPE.vocabulary, initial_alphabet=alphabet, show_progress=False),
    )
    made.save(str(path))


def scores(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits of the decoder, as `tests.engine.decoders` writes it in ONNX."""
    size, length = SHAPE.head_size, tokens.shape[1]
    half = size // 2
    angles = torch.arange(length)[:, None] * SHAPE.theta ** -(torch.arange(half) / half)
    turn = torch.cat([angles, angles], dim=-1)

    def normed(x: Tensor, name: str) -> Tensor:
        root = torch.rsqrt(x.square().mean(-1, keepdim=True) + SHAPE.epsilon)
        scaled: Tensor = x * root * weights[f"{name}.weight"]
        return scaled

    def heads(x: Tensor, name: str, count: int) -> Tensor:
        parts: Tensor = (x @ weights[f"{name}.weight"].T).unflatten(-1, (count, size))
        return parts.transpose(1, 2)

    def turned(x: Tensor) -> Tensor:
        crossed = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        return torch.add(x * turn.cos(), crossed * turn.sin())

    x = weights["model.embed_tokens.weight"][tokens]
    for i in range(SHAPE.layers):
        name = f"model.layers.{i}"
        y = normed(x, f"{name}.input_layernorm")
        attention = functional.scaled_dot_product_attention(
            turned(heads(y, f"{name}.self_attn.q_proj", SHAPE.heads)),
            turned(heads(y, f"{name}.self_attn.k_proj", SHAPE.kv_heads)),
            heads(y, f"{name}.self_attn.v_proj", SHAPE.kv_heads),
            is_causal=True,
            enable_gqa=True,
        )
        x = x + attention.transpose(1, 2).flatten(2) @ weights[f"{name}.self_attn.o_proj.weight"].T
        y = normed(x, f"{name}.post_attention_layernorm")
        gate = functional.silu(y @ weights[f"{name}.mlp.gate_proj.weight"].T)
        up = y @ weights[f"{name}.mlp.up_proj.weight"].T
        x = x + (gate * up) @ weights[f"{name}.mlp.down_proj.weight"].T
    return torch.matmul(normed(x, "model.norm"), weights["model.embed_tokens.weight"].T)


def trained(tokens: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Weights after some steps of AdamW on windows of the text."""
    torch.manual_seed(0)
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in random_weights(SHAPE).items()}
    with torch.no_grad():
        weights["model.embed_tokens.weight"] *= 0.5
    optimizer = torch.optim.AdamW(weights.values(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    text, draw = torch.from_numpy(tokens), torch.Generator().manual_seed(0)
    for step in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,), generator=draw)
        windows = torch.stack([text[s : s + CONTEXT + 1] for s in starts.tolist()])
        logits = scores(weights, windows[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return {name: value.detach().numpy() for name, value in weights.items()}


def make(folder: Path, steps: int) -> tuple[Path, Path]:
    """The trained decoder and the text it is measured on."""
    from tokenizers import Tokenizer

    texts = list(documentation())
    train = [text for i, text in enumerate(texts) if i % HELD_OUT]
    write_tokenizer(train, folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = np.concatenate([np.array(one.ids, np.int64) for one in tokenizer.encode_batch(train)])
    print(f"{len(tokens):,} tokens to learn from", flush=True)
    onnx.save(decoder(SHAPE, trained(tokens, steps)), folder / "model.onnx")
    (folder / "test.txt").write_text("".join(texts[::HELD_OUT]), encoding="utf-8")
    (folder / "train.txt").write_text("".join(train), encoding="utf-8")
    return folder / "model.onnx", folder / "test.txt"


def main() -> None:
    """Train, build each plan, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder of the files; a temporary one without")
    parser.add_argument("--steps", type=int, default=1200, help="training steps")
    parser.add_argument("--windows", type=int, default=200, help=f"windows of {CONTEXT} tokens")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        made = folder / "model.onnx", folder / "test.txt"
        model, text = made if made[0].is_file() else make(folder, options.steps)
        print(f"made in {time.perf_counter() - started:.0f} s", flush=True)
        measure(model, text, folder, options.windows)


def measure(model: Path, text: Path, folder: Path, windows: int) -> None:
    """Perplexity, file and speed of every plan against FP32."""
    summary = open_model(path=str(model))
    files = []
    calibration = to_json(DataSpec(str(folder / "train.txt"), parse_transform(f"context={CONTEXT}")))
    for name in PLANS:
        files.append(folder / f"{name.replace('/', '_')}.onnx")
        steps = (Step("gptq"),) if name.endswith("+") else ()
        recipe = Recipe(rules=(LayerRule(named_scheme(name.rstrip("+"))),), steps=steps)
        quantize(
            graph_path=summary.graph_path, output=str(files[-1]), recipe=to_json(recipe), data=calibration
        )
    data = to_json(DataSpec(str(text), parse_transform(f"context={CONTEXT}"), windows))
    found = compare(
        base=str(model), variants=[str(file) for file in files], data=data, graph_path=summary.graph_path
    )
    print(
        "plan                perplexity  / FP32                 file / FP32  first token ms  token ms, "
        "speed-up"
    )
    for name, variant in zip(("FP32", *PLANS), found.variants, strict=True):
        figures = variant.language
        assert figures is not None
        assert figures.speed is not None
        growth, speed = figures.growth, figures.speed
        print(
            f"{name:19} {figures.perplexity.value:10.3f}  {growth.value:.4f} [{growth.low:.4f}, "
            f"{growth.high:.4f}]  {variant.size_bytes / found.variants[0].size_bytes:.3f}        "
            f"{speed.first_token_ms:8.2f}  {speed.token_ms:8.3f}, {speed.token_speedup.value:.2f}"
        )


if __name__ == "__main__":
    main()
