"""The user's transform, bound to one model input: from raw samples to what the model eats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import LAYOUTS, Transform
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo

Array = NDArray[np.generic]
Shape = tuple[int | str | None, ...]

# A trailing axis this short is read as colour channels (gray, gray + alpha, RGB, RGBA).
MAX_COLOUR_CHANNELS = 4
FED_TYPES = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


@dataclass(frozen=True, slots=True, eq=False)
class InputTransform:
    """A transform with everything decided that depends on the data and the model's input.

    Attributes:
        transform: What the user asked for.
        target: The model input.
        source_dtype: Element type of the raw samples.
        is_picture: Whether the raw samples have height and width.
        source_channel: Channel axis of a raw batch: None (no such axis), 1 or -1.
        result_channel: Channel axis of the result: None, 1 or -1.
        shape: Shape of one transformed sample.
        factor: Multiplier for every value, broadcast against a batch; None leaves values as they are.
        offset: Added after that.
    """

    transform: Transform
    target: TensorInfo
    source_dtype: np.dtype[np.generic]
    is_picture: bool
    source_channel: int | None
    result_channel: int | None
    shape: tuple[int, ...]
    factor: NDArray[np.float32] | None
    offset: NDArray[np.float32] | None

    def apply(self, raw: Array, start: int = 0) -> Array:
        """Model-ready batch of raw samples.

        Args:
            raw: Raw samples, first axis the batch.
            start: Index of the first one, for error messages.

        Returns:
            Contiguous array of the input's element type, shape [N, *shape].

        Raises:
            DataError: a value is not finite or does not fit the element type; the message names the sample.
        """
        x = raw
        if self.is_picture:
            x = _to_nhwc(x, self.source_channel)
            if self.transform.resize is not None and self.transform.resize != x.shape[1:3]:
                x = resize_bilinear(x, *self.transform.resize)
            if self.transform.crop is not None:
                x = _centre_crop(x, *self.transform.crop)
            if self.transform.channels == "BGR":
                x = x[..., ::-1]
            x = _from_nhwc(x, self.result_channel)
        dtype = np.dtype(self.target.dtype)
        if dtype.kind != "f":
            return self._integers(x, dtype, start)
        if self.factor is not None and self.offset is not None:
            with np.errstate(over="ignore"):  # what becomes infinite is named below
                values: NDArray[np.float32] = np.multiply(x, self.factor, dtype=np.float32, order="C")
                values += self.offset
            x = values
        with np.errstate(over="ignore"):
            result = np.ascontiguousarray(x, dtype=dtype)
        if self.source_dtype.kind == "f" and not np.isfinite(result).all():
            bad = start + int(np.flatnonzero(~np.isfinite(result).reshape(len(result), -1).all(1))[0])
            raise DataError(
                f"sample {bad} of input {self.target.name!r} holds NaN or infinity",
                hint="Clean the data; every value must be finite",
            )
        return result

    def _integers(self, x: Array, dtype: np.dtype[np.generic], start: int) -> Array:
        if x.dtype.kind == "f":  # only resizing makes floats here
            x = np.rint(x)
        if x.dtype != dtype and x.size:
            low, high = (0, 1) if dtype.kind == "b" else _integer_limits(dtype)
            least, most = int(x.min()), int(x.max())
            if least < low or most > high:
                raise DataError(
                    f"input {self.target.name!r} is {dtype}, but samples from {start} on hold "
                    f"{least if least < low else most}",
                    hint=f"Values must lie in [{low}, {high}]",
                )
        return np.ascontiguousarray(x.astype(dtype, copy=False))


def bind_transform(
    transform: Transform, sample_shape: tuple[int, ...], dtype: np.dtype[np.generic], target: TensorInfo
) -> InputTransform:
    """The transform for samples of this shape, checked against the model's input.

    Args:
        transform: What the user asked for.
        sample_shape: Shape of one raw sample.
        dtype: Element type of the raw samples.
        target: Model input; its first dimension is the batch.

    Raises:
        DataError: shapes or element types disagree; the message says both and what to do.
    """
    _check_dtypes(transform, dtype, target)
    options = list(_bound_forms(transform, sample_shape, dtype, target))
    bound = next((o for o in options if shapes_agree(o.shape, target.shape[1:])), None)
    if bound is None:
        raise _shape_error(transform, sample_shape, options[0].shape, dtype, target)
    if transform.channels == "BGR" and not (bound.is_picture and _channels(bound) == 3):
        raise DataError(
            f"channels=BGR turns three channels round, but the data of input {target.name!r} has "
            f"{_channels(bound)}",
            hint="Leave channels out of the transform",
        )
    if np.dtype(target.dtype).kind != "f" or _is_identity(transform):
        return bound
    factor, offset = _affine(transform, bound)
    return replace(bound, factor=factor, offset=offset)


def shapes_agree(actual: tuple[int, ...], wanted: Shape) -> bool:
    """Whether a shape fits one that may hold symbolic or unknown dimensions."""
    return len(actual) == len(wanted) and all(
        not isinstance(w, int) or a == w for a, w in zip(actual, wanted, strict=True)
    )


def shape_text(shape: Shape, batch: str | None = None) -> str:
    """[N, 28, 28] for a person; unknown dimensions are question marks."""
    parts = [] if batch is None else [batch]
    return "[" + ", ".join([*parts, *("?" if d is None else str(d) for d in shape)]) + "]"


def resize_bilinear(x: Array, height: int, width: int) -> NDArray[np.float32]:
    """Images resized with a triangle filter, widened when shrinking so that nothing aliases.

    Args:
        x: Shape [N, H, W, C].
        height: New height, pixels.
        width: New width, pixels.

    Returns:
        Shape [N, height, width, C], float32. Same filter as Pillow's BILINEAR and antialiased torch.
    """
    rows, columns = resize_matrix(x.shape[1], height), resize_matrix(x.shape[2], width)
    samples, old_height, old_width, channels = x.shape
    flat = np.ascontiguousarray(x, dtype=np.float32).reshape(samples, old_height, old_width * channels)
    tall = (rows @ flat).reshape(samples * height, old_width, channels)
    return (columns @ tall).reshape(samples, height, width, channels)


@lru_cache(maxsize=32)
def resize_matrix(old: int, new: int) -> NDArray[np.float32]:
    """Weights of each old pixel in each new one, shape [new, old]; rows add up to 1."""
    ratio = old / new
    support = max(ratio, 1.0)
    centres = (np.arange(new) + 0.5) * ratio
    distance = np.abs((np.arange(old) + 0.5)[None, :] - centres[:, None]) / support
    weights = np.clip(1.0 - distance, 0.0, None)
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float32)


def _integer_limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _check_dtypes(transform: Transform, dtype: np.dtype[np.generic], target: TensorInfo) -> None:
    # By name: numpy knows bfloat16 and its like only once another package has taught it.
    if target.dtype not in FED_TYPES:
        raise DataError(
            f"input {target.name!r} is {target.dtype}, which no array file can hold as numbers",
            hint="A form of it with a float32 or integer input is needed",
        )
    wanted = np.dtype(target.dtype)
    if dtype.kind not in "fiub":
        raise DataError(f"the data for input {target.name!r} is {dtype}, not numbers")
    if wanted.kind == "f":
        return
    if dtype.kind == "f":
        raise DataError(
            f"input {target.name!r} is {target.dtype}, but its data is {dtype}",
            hint=f"Store the array as {target.dtype}",
        )
    if not _is_identity(transform):
        raise DataError(
            f"input {target.name!r} is {target.dtype} and takes raw values",
            hint="Leave scale, mean and std out of the transform",
        )


def _is_identity(transform: Transform) -> bool:
    return transform.scale == 1.0 and not any(transform.mean) and all(v == 1.0 for v in transform.std)


def _bound_forms(
    transform: Transform, sample_shape: tuple[int, ...], dtype: np.dtype[np.generic], target: TensorInfo
) -> Iterator[InputTransform]:
    """Every reading of the sample's axes, the likeliest first: which axis is the channel is a guess."""
    rank = len(sample_shape)
    if rank not in (2, 3):
        yield InputTransform(
            transform, target, dtype, False, None, -1 if rank else None, sample_shape, None, None
        )
        return
    if rank == 2:
        readings: tuple[int | None, ...] = (None,)
    else:
        first_is_short = sample_shape[0] <= MAX_COLOUR_CHANNELS < sample_shape[-1]
        readings = (1, -1) if first_is_short else (-1, 1)
    for channel in readings:
        if channel is None:
            (height, width), channels = sample_shape, 1
        elif channel == 1:
            channels, height, width = sample_shape
        else:
            height, width, channels = sample_shape
        height, width = transform.resize or (height, width)
        if transform.crop is not None:
            if transform.crop[0] > height or transform.crop[1] > width:
                raise DataError(
                    f"crop={transform.crop[0]}x{transform.crop[1]} is larger than the "
                    f"{height}x{width} images",
                    hint="Crop less, or resize first",
                )
            height, width = transform.crop
        result = {"NCHW": 1, "NHWC": -1, "keep": channel}[transform.layout]
        shape = {1: (channels, height, width), -1: (height, width, channels), None: (height, width)}[result]
        yield InputTransform(transform, target, dtype, True, channel, result, shape, None, None)


def _affine(transform: Transform, bound: InputTransform) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factor and offset with (x * scale - mean) / std = x * factor + offset, shaped for broadcasting."""
    channels = _channels(bound)
    for key, values in (("mean", transform.mean), ("std", transform.std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"transform {key} has {len(values)} values, but the data of input {bound.target.name!r} has "
                f"{channels} channel{'s' if channels != 1 else ''}",
                hint=f"Give one {key}, or one per channel",
            )
    std = np.asarray(transform.std, dtype=np.float64)
    factor = np.asarray(transform.scale / std, dtype=np.float32)
    offset = np.asarray(-np.asarray(transform.mean, dtype=np.float64) / std, dtype=np.float32)
    if bound.result_channel == 1:
        return factor.reshape(-1, 1, 1), offset.reshape(-1, 1, 1)
    return factor, offset


def _channels(bound: InputTransform) -> int:
    return 1 if bound.result_channel is None else bound.shape[0 if bound.result_channel == 1 else -1]


def _shape_error(
    transform: Transform,
    sample_shape: tuple[int, ...],
    result: tuple[int, ...],
    dtype: np.dtype[np.generic],
    target: TensorInfo,
) -> DataError:
    made = shape_text(sample_shape, "N")
    if result != sample_shape:
        made += f", {shape_text(result, 'N')} after the transform,"
    fixed = [d for d in target.shape[1:] if isinstance(d, int)]
    wanted = shape_text(target.shape)
    hint = _shape_hint(transform, sample_shape, dtype, target)
    if not hint:
        hint = _open_size_hint(target) or "Store the array in the shape the model takes"
        if len(fixed) == len(target.shape) - 1 and int(np.prod(fixed)) == int(np.prod(sample_shape)):
            hint = f"Reshape the array to {shape_text(target.shape[1:], 'N')} before saving it"
    return DataError(f"the data is {made} but the model's input {target.name!r} takes {wanted}", hint=hint)


def _open_size_hint(target: TensorInfo) -> str:
    """For pictures of which one side only is fixed: no size is right for all of them."""
    if len(target.shape) != 4 or not isinstance(target.shape[1], int):
        return ""
    match target.shape[2:]:
        case (int(height), _) if target.shape[1] <= MAX_COLOUR_CHANNELS and not isinstance(
            target.shape[3], int
        ):
            return f"Store pictures {height} high, of any width"
        case (_, int(width)) if target.shape[1] <= MAX_COLOUR_CHANNELS and not isinstance(
            target.shape[2], int
        ):
            return f"Store pictures {width} wide, of any height"
        case _:
            return ""


def _shape_hint(
    transform: Transform, sample_shape: tuple[int, ...], dtype: np.dtype[np.generic], target: TensorInfo
) -> str:
    """The smallest change of the transform that makes the data fit, or nothing."""
    for with_size in (False, True):
        for layout in LAYOUTS:
            changed = replace(transform, layout=layout)
            if with_size:
                size = target.shape[2:4] if layout == "NCHW" else target.shape[1:3]
                if len(size) != 2 or not all(isinstance(d, int) for d in size):
                    continue
                # An open width read as channels would make the channels a height.
                channels = target.shape[1 if layout == "NCHW" else 3]
                if not isinstance(channels, int) or channels > MAX_COLOUR_CHANNELS:
                    continue
                changed = replace(changed, resize=(int(size[0] or 0), int(size[1] or 0)), crop=None)
            forms = list(_bound_forms(changed, sample_shape, dtype, target))
            # A new size makes any reading of the axes fit somehow: only the likeliest counts.
            if any(shapes_agree(o.shape, target.shape[1:]) for o in forms[: 1 if with_size else None]):
                parts = (
                    [f"resize={changed.resize[0]}x{changed.resize[1]}"]
                    if with_size and changed.resize
                    else []
                )
                parts += [f"layout={layout}"] if layout != transform.layout else []
                return f"Add {' '.join(parts)} to the transform" if parts else ""
    return ""


def _to_nhwc(x: Array, channel: int | None) -> Array:
    if channel is None:
        return x[..., None]
    return np.moveaxis(x, 1, -1) if channel == 1 else x


def _from_nhwc(x: Array, channel: int | None) -> Array:
    if channel is None:
        return x[..., 0]
    return np.moveaxis(x, -1, 1) if channel == 1 else x


def _centre_crop(x: Array, height: int, width: int) -> Array:
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]
