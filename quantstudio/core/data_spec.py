"""Where data comes from and what is done to it before the model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantstudio.core.errors import DataError
from quantstudio.core.judgement import INFERRED, Judging

LAYOUTS = ("NCHW", "NHWC", "keep")
CHANNEL_ORDERS = ("RGB", "BGR")
TEXT_SUFFIXES = (".txt", ".jsonl")
# Below the smallest normal float32 a factor is zero for the arithmetic that applies it.
_SMALLEST = 2.0**-126
BatchAxes = tuple[tuple[str, int], ...]
"""Sample axis of arrays by input or output."""
# Stands beside every accuracy that comes from the samples ranges were calibrated on.
ON_CALIBRATION = "on calibration data"


@dataclass(frozen=True, slots=True)
class Transform:
    """x -> layout((resize/crop/channels(x) * scale - mean) / std), per channel.

    Attributes:
        scale: Factor on the raw values, for example 1/255.
        mean: Subtracted after scaling; one number, or one per channel.
        std: Divisor after that; one number, or one per channel.
        layout: NCHW adds or moves the channel axis first, NHWC last; keep leaves arrays as they are.
        resize: Target (height, width), or None.
        crop: Centre crop (height, width) after resizing, or None.
        channels: BGR turns the order of three channels round: files hold RGB, and networks trained with
            OpenCV want BGR. `mean` and `std` are in the order the network gets.
        context: Tokens of text a sample has; 0 for as many as suit the network. Of text alone.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "keep"
    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    channels: str = "RGB"
    context: int = 0

    @property
    def text(self) -> str:
        """The form the command line takes; `parse_transform` reads it back."""
        parts = []
        if self.resize:
            parts.append(f"resize={self.resize[0]}x{self.resize[1]}")
        if self.crop:
            parts.append(f"crop={self.crop[0]}x{self.crop[1]}")
        if self.channels != "RGB":
            parts.append(f"channels={self.channels}")
        if self.scale != 1.0:
            # A fraction only where it reads back as the very same number; 1/255 does.
            inverse = round(1 / self.scale) if abs(self.scale) > 1e-9 else 0
            is_fraction = inverse != 0 and 1 / inverse == self.scale
            parts.append(f"scale=1/{inverse}" if is_fraction else f"scale={self.scale!r}")
        if self.mean != (0.0,):
            parts.append("mean=" + ",".join(repr(v) for v in self.mean))
        if self.std != (1.0,):
            parts.append("std=" + ",".join(repr(v) for v in self.std))
        if self.layout != "keep":
            parts.append(f"layout={self.layout}")
        if self.context:
            parts.append(f"context={self.context}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A data set by reference.

    Attributes:
        path: npz file, folder of images (one subfolder per class), text (.txt, .jsonl) or module:callable.
        transform: What is done to each sample.
        samples: Use only the first so many samples; 0 means all.
        trusted: Whether the user agreed to run `module:callable`.
        batch_axes: Sample axis of arrays that no symbol names, by input or output: `(("state", 1),)`.
        judging: What the user said of the outputs that the samples lead to.
    """

    path: str
    transform: Transform = Transform()
    samples: int = 0
    trusted: bool = False
    batch_axes: BatchAxes = ()
    judging: Judging = INFERRED


def is_text(path: str) -> bool:
    """Whether data is text that a tokenizer reads, by the name of its file."""
    return path.lower().endswith(TEXT_SUFFIXES)


def parse_batch_axes(texts: Sequence[str]) -> BatchAxes:
    """Read "state=1" and the like: the sample axis of arrays by input or output.

    Raises:
        DataError: one is not NAME=K, or a name comes twice.
    """
    found: dict[str, int] = {}
    for text in texts:
        name, equals, axis = text.rpartition("=")
        if not equals or not name or not axis.removeprefix("-").isdigit():
            raise DataError(f"sample axis {text!r} is not NAME=K", hint="Example: state=1")
        if name in found:
            raise DataError(f"the sample axis of {name!r} is given twice")
        found[name] = int(axis)
    return tuple(found.items())


def axes_text(axes: BatchAxes) -> str:
    """Axes as they are typed; `parse_batch_axes` reads their parts back."""
    return " ".join(f"{name}={axis}" for name, axis in axes)


def is_same_source(measured_on: DataSpec | None, calibration: DataSpec | None) -> bool:
    """Whether accuracy was measured on the samples that set the ranges: every variant looks too good."""
    return measured_on is not None and calibration is not None and measured_on.path == calibration.path


def parse_transform(text: str) -> Transform:
    """Read "scale=1/255 mean=0.2860 std=0.3530 layout=NCHW" (also resize=, crop=, channels=, context=).

    Raises:
        DataError: an unknown key, or a value that cannot be read; the message names it.
    """
    values: dict[str, str] = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise DataError(
                f"transform part {part!r} is not key=value", hint="Example: scale=1/255 layout=NCHW"
            )
        if key in values:
            raise DataError(f"transform gives {key!r} twice")
        values[key] = value
    known = {"scale", "mean", "std", "layout", "resize", "crop", "channels", "context"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise DataError(
            f"unknown transform key {unknown[0]!r}", hint=f"Known keys: {', '.join(sorted(known))}"
        )
    layout = values.get("layout", "keep")
    if layout not in LAYOUTS:
        raise DataError(f"unknown layout {layout!r}", hint=f"Known layouts: {', '.join(LAYOUTS)}")
    channels = values.get("channels", "RGB")
    if channels not in CHANNEL_ORDERS:
        raise DataError(
            f"unknown order of channels {channels!r}", hint=f"Known orders: {', '.join(CHANNEL_ORDERS)}"
        )
    std = _numbers("std", values.get("std", "1"))
    scale = _number("scale", values.get("scale", "1"))
    if any(abs(v) < _SMALLEST for v in std):
        raise DataError("transform std is zero", hint="std divides the data")
    if abs(scale) < _SMALLEST:
        raise DataError("transform scale is zero", hint="It would make all samples alike; write 1/255 or 1")
    return Transform(
        scale=scale,
        mean=_numbers("mean", values.get("mean", "0")),
        std=std,
        layout=layout,
        resize=_size("resize", values.get("resize")),
        crop=_size("crop", values.get("crop")),
        channels=channels,
        context=_context(values.get("context")),
    )


def _number(key: str, text: str) -> float:
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise DataError(f"transform {key}={text} is not a number", hint="Write 0.5 or 1/255") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise DataError(f"transform {key}={text} is not finite")
    return value


def _context(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise DataError(f"transform context={text} is no number of tokens", hint="Write context=256")
    return int(text)


def _numbers(key: str, text: str) -> tuple[float, ...]:
    return tuple(_number(key, part) for part in text.split(","))


def _size(key: str, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    try:
        size = (int(height), int(width or height))
    except ValueError:
        size = (0, 0)
    if min(size) < 1:
        raise DataError(f"transform {key}={text} is not a size", hint="Write 224 or 224x192 (height x width)")
    return size
