"""Make the bundled samples: digits as npz, and three small networks trained on them, exported to ONNX.

    python resources/samples/train_samples.py [--only NAME ...] [--out FOLDER]

Needs torch, onnxscript and scikit-learn. One thread, fixed seeds, five to ten minutes in all. The test images
are looked at once, for the figure this script prints; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SEED = 20
TEST_PER_CLASS = 60
GAIN_SPREAD = 0.9
RANGE_SPREAD = 1.5
ATTRIBUTION = (
    "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, 1998), UCI Machine Learning "
    "Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0. This file holds a part of the 1,797 "
    "images that scikit-learn bundles (load_digits), as uint8, split by train_samples.py; pixels are "
    "unchanged. The column 'ink' is computed from them: sum of the pixels, cut at the training terciles."
)


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitsResNet(nn.Module):
    """Stem, four residual blocks, average pool, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 48, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.blocks = nn.Sequential(
            Residual(48, 48, 1), Residual(48, 48, 1), Residual(48, 64, 2), Residual(64, 64, 1)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class DigitsUneven(nn.Module):
    """Three residual blocks; between the two convolutions of one, channels differ hundredfold in range.

    Long training brings networks there (Nagel et al. 2019, arXiv:1906.04721, figure 2). Here `unbalance`
    does it after a short one: what leaves the first convolution is scaled channel by channel, what enters
    the second is scaled back. ReLU lets scales through, so the function is the same; with one scale for the
    whole activation, and one for all inputs of an output channel, small channels drown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(Residual(32, 32, 1), Residual(32, 48, 2), Residual(48, 48, 1))
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits

    def unbalance(self) -> None:
        """Spread the ranges of the channels inside one block; the outputs stay what they are."""
        block = self.blocks[1]
        assert isinstance(block, Residual)
        with torch.no_grad():
            scales = torch.exp(RANGE_SPREAD * torch.randn(block.norm1.num_features))
            block.norm1.weight.mul_(scales)
            block.norm1.bias.mul_(scales)
            block.conv2.weight.div_(scales[None, :, None, None])


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a shortcut where shapes allow."""

    def __init__(self, width_in: int, width: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        inner = width_in * expand
        self.has_shortcut = stride == 1 and width_in == width
        self.expand = nn.Conv2d(width_in, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.project = nn.Conv2d(inner, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu6(self.norm1(self.expand(x)))
        inner = functional.relu6(self.norm2(self.depthwise(inner)))
        y: Tensor = self.norm3(self.project(inner))
        return x + y if self.has_shortcut else y


class DigitsMobileNet(nn.Module):
    """Depthwise network whose channels differ widely in range once BatchNorm is folded.

    Long training on large data brings MobileNets there. Here the normalisation gains start log-normally
    spread instead, so that a net trained in a minute shows the same: per-channel INT8 is harmless,
    per-tensor is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        blocks = [
            InvertedResidual(24, 24, 1),
            InvertedResidual(24, 24, 1),
            InvertedResidual(24, 32, 2),
            InvertedResidual(32, 32, 1),
            InvertedResidual(32, 48, 2),
            InvertedResidual(48, 48, 1),
        ]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv2d(48, 96, 1, bias=False)
        self.norm_last = nn.BatchNorm2d(96)
        self.head = nn.Linear(96, 10)
        with torch.no_grad():
            for block in blocks:
                for norm in (block.norm1, block.norm2):
                    norm.weight.mul_(torch.exp(GAIN_SPREAD * torch.randn_like(norm.weight)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm(self.stem(x)))
        x = functional.relu6(self.norm_last(self.last(self.blocks(x))))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class Encoder(nn.Module):
    """Pre-norm attention and MLP, written out so that the export shows MatMul and Softmax."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        _, tokens, width = x.shape
        y = self.norm1(x)
        size = width // self.heads
        q, k, v = (
            project(y).reshape(-1, tokens, self.heads, size).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(size), dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(-1, tokens, width))
        mixed: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return mixed


class DigitsTransformer(nn.Module):
    """Sixteen overlapping patches, four encoder blocks, mean over tokens."""

    def __init__(self, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 2, 1)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(width, 4, 3 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


@dataclass(frozen=True)
class Training:
    """How a network is trained."""

    network: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    epochs: int
    label_smoothing: float = 0.05


def adamw(rate: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda network: torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    """Gains and biases decay half as much, so that the spread of the gains outlives training."""
    vectors = [p for p in network.parameters() if p.ndim == 1]
    weights = [p for p in network.parameters() if p.ndim > 1]
    groups = [{"params": weights, "weight_decay": 1e-3}, {"params": vectors, "weight_decay": 5e-4}]
    return torch.optim.SGD(groups, lr=0.2, momentum=0.9)


NETWORKS = {
    "digits_uneven": Training(DigitsUneven, adamw(2e-3), 25),
    "digits_resnet": Training(DigitsResNet, adamw(2e-3), 40),
    "digits_mobilenet": Training(DigitsMobileNet, sgd, 25, label_smoothing=0.0),
    "digits_transformer": Training(DigitsTransformer, adamw(1e-3), 120),
}


def split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and the test images: the same number of test images from every class."""
    rng = np.random.default_rng(SEED)
    test = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == digit))[:TEST_PER_CLASS] for digit in range(10)]
    )
    test = rng.permutation(test)
    train = rng.permutation(np.setdiff1d(np.arange(len(labels)), test))
    return train, test


def save_npz(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """A compressed npz without time stamps, so that the same arrays make the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def write_data(out: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Write both npz files; images and labels of each part as tensors."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.int64)
    train, test = split(labels)
    ink = images.sum(axis=(1, 2))
    low, high = np.percentile(ink[train], (100 / 3, 200 / 3))
    column = np.where(ink <= low, "thin", np.where(ink <= high, "medium", "bold"))
    parts = {}
    for name, index in (("train", train), ("test", test)):
        arrays = {
            "images": images[index],
            "labels": labels[index].astype(np.uint8),
            "ink": column[index],
            "attribution": np.asarray(ATTRIBUTION),
        }
        save_npz(out / f"digits_{name}.npz", arrays)
        x = torch.from_numpy(images[index].astype(np.float32) / 16)[:, None]
        parts[name] = (x, torch.from_numpy(labels[index]))
    return parts


def augment(x: Tensor) -> Tensor:
    """Small turns, shifts and changes of size, each image its own."""
    count = len(x)
    angle = (torch.rand(count) - 0.5) * 0.5
    size = 1 + (torch.rand(count) - 0.5) * 0.25
    shift = (torch.rand(count, 2) - 0.5) * 0.35
    cosine, sine = torch.cos(angle) * size, torch.sin(angle) * size
    rows = (torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def train(network: nn.Module, x: Tensor, labels: Tensor, plan: Training) -> None:
    """One cosine cycle with a short warm-up; the last epoch is kept."""
    batch = 64
    steps = plan.epochs * (len(x) // batch)
    optimizer = plan.optimizer(network)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 100) * 0.5 * (1 + math.cos(math.pi * i / steps))
    )
    network.train()
    for _ in range(plan.epochs):
        order = torch.randperm(len(x))
        for first in range(0, len(x) - batch + 1, batch):
            pick = order[first : first + batch]
            guess = network(augment(x[pick]))
            loss = functional.cross_entropy(guess, labels[pick], label_smoothing=plan.label_smoothing)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.eval()


def name_by_module(model: onnx.ModelProto) -> None:
    """Call what holds weights as its module is called: "blocks.1.conv2"."""
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            node.name = node.input[1].partition(".weight")[0]


def export(network: nn.Module, example: Tensor, path: Path, *, named: bool = False) -> None:
    """ONNX with a dynamic batch, weights inside, and none of the exporter's notes about this machine.

    `named` calls layers as the module does.
    """
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=18,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    if named:
        name_by_module(model)
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for entry in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    model.graph.name = path.stem
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def main() -> None:
    """Make what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    parts = write_data(options.out)
    for name in options.only:
        plan = NETWORKS[name]
        torch.manual_seed(SEED)
        network = plan.network()
        train(network, *parts["train"], plan)
        if isinstance(network, DigitsUneven):
            network.unbalance()
        path = options.out / f"{name}.onnx"
        export(network, parts["test"][0][:2], path, named=isinstance(network, DigitsUneven))
        with torch.no_grad():
            x, labels = parts["test"]
            accuracy = float((network(x).argmax(1) == labels).float().mean())
        print(f"{name}: {path.stat().st_size:,} bytes, top-1 {accuracy:.4f} on {len(labels)} test images")


if __name__ == "__main__":
    main()
