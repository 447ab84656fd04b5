"""Networks that tell brightnesses apart, each trained, as it were, with one transform; and data for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from quantstudio.core.data_spec import DataSpec, Transform, parse_transform
from quantstudio.core.diagnosis import Diagnosis
from quantstudio.core.events import NULL_REPORTER, CancelToken, Reporter, never_cancelled
from quantstudio.engine.doctor.examine import Question, examine
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model
from tests.engine.builders import model, node, value

CLASSES = 6
LEVELS = np.linspace(30, 225, CLASSES)
EDGE = 8


def pixels(
    per_class: int = 20, channels: int = 0, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images of a class's brightness with noise, sorted by class: [N, H, W], or [N, H, W, C].

    With channels the first carries the class, and the last its opposite.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), per_class)
    shape = (len(labels), EDGE, EDGE, max(channels, 1))
    images = LEVELS[labels][:, None, None, None] + rng.normal(0, 20, shape)
    if channels:
        images[..., -1] = 255 - images[..., -1]
    found = np.clip(images, 0, 255).round().astype(np.uint8)
    return (found if channels else found[..., 0]), labels


def brightness_net(
    path: Path,
    trained_with: str,
    *,
    channels: int = 1,
    nhwc: bool = False,
    dtype: int = TensorProto.FLOAT,
    remembers: bool = False,
    scores: bool = True,
    any_size: bool = False,
) -> Graph:
    """A network that tells the levels apart when its input went through `trained_with`.

    With `remembers` a batch normalization holds what its training data looked like; without `scores` it gives
    one number, the level; `any_size` lets height and width open.
    """
    transform = parse_transform(trained_with)
    means, spread = _normalized(transform, channels)
    weights = {"w": np.zeros((channels, CLASSES), np.float32), "b": np.zeros(CLASSES, np.float32)}
    gap = abs(means[1] - means[0])
    weights["w"][0 if transform.channels == "RGB" else channels - 1] = means * 12 / gap**2
    weights["b"][:] = -(means**2) / 2 * 12 / gap**2
    if not scores:
        slope = 1 / (means[1] - means[0])
        weights = {
            "w": np.zeros((channels, 1), np.float32),
            "b": np.array([-means[0] * slope], np.float32),
        }
        weights["w"][0] = slope
    edges: list[int | str | None] = ["H", "W"] if any_size else [EDGE, EDGE]
    shape: list[int | str | None] = ["N", *edges, channels] if nhwc else ["N", channels, *edges]
    nodes, here = [], "x"
    if dtype != TensorProto.FLOAT:
        nodes.append(node("Cast", [here], ["f"], to=TensorProto.FLOAT))
        here = "f"
    if nhwc:
        nodes.append(node("Transpose", [here], ["t"], perm=[0, 3, 1, 2]))
        here = "t"
    if remembers:
        weights |= {"k": np.eye(channels, dtype=np.float32)[:, :, None, None]}
        weights |= {"m": spread[0].astype(np.float32), "v": (spread[1] ** 2).astype(np.float32)}
        weights |= {"s": spread[1].astype(np.float32)}
        nodes.append(node("Conv", [here, "k"], ["c"]))
        nodes.append(node("BatchNormalization", ["c", "s", "m", "m", "v"], ["n"]))
        here = "n"
    nodes += [
        node("GlobalAveragePool", [here], ["p"]),
        node("Flatten", ["p"], ["r"]),
        node("Gemm", ["r", "w", "b"], ["logits"]),
    ]
    made = model(nodes, [value("x", shape, dtype)], [value("logits", ["N", weights["b"].size])], weights)
    onnx.save(made, path)
    return open_model(path)


def _normalized(
    transform: Transform, channels: int
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Levels as the transform gives them, and mean and deviation of each channel of the data."""
    images, _ = pixels(channels=channels)
    given = images.astype(np.float64).reshape(len(images), -1, max(channels, 1)) * transform.scale
    if transform.channels == "BGR":
        given = given[..., ::-1]
    given = (given - np.array(transform.mean)) / np.array(transform.std)
    carrying = 0 if transform.channels == "RGB" else -1
    means = (LEVELS * transform.scale - transform.mean[carrying]) / transform.std[carrying]
    return means, (given.mean(axis=(0, 1)), given.std(axis=(0, 1)))


def stored(path: Path, **arrays: NDArray[np.generic]) -> str:
    """An npz file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def asked(
    graph: Graph,
    data: str,
    transform: str | None = None,
    *,
    test: str = "",
    test_transform: str | None = None,
    classes: int | None = CLASSES,
    reporter: Reporter = NULL_REPORTER,
    cancel: CancelToken | None = None,
) -> Diagnosis:
    """The doctor's answer."""
    given = parse_transform(transform or "")
    judged = parse_transform(test_transform) if test_transform is not None else given
    question = Question(
        graph,
        DataSpec(data, given),
        DataSpec(test, judged) if test else None,
        transform is not None,
        classes,
    )
    return examine(question, reporter=reporter, cancel=cancel or never_cancelled())
