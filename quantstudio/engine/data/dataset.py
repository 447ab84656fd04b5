"""Data sets as models eat them: opened by reference, checked against the inputs, read batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import DataSpec, is_text
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.axes import batch_symbols, input_axis, moved
from quantstudio.engine.data.factory import arrays_from_factory, is_factory
from quantstudio.engine.data.feeds import Column, ColumnFeeds, FeedReader, FileFeeds, list_feed_folder
from quantstudio.engine.data.labels import Labels, class_names_from, labels_from
from quantstudio.engine.data.npz import NpzFile, check_readable
from quantstudio.engine.data.sources import (
    ArraySource,
    ImageSource,
    Source,
    content_digest,
    list_image_folder,
)
from quantstudio.engine.data.text import TextFeeds, TextNetwork, open_text
from quantstudio.engine.data.transform import InputTransform, bind_transform, shape_text, shapes_agree

INPUT_NAMES = ("x", "images", "inputs", "input")
LABEL_NAMES = ("labels", "y")
CLASS_NAMES = "class_names"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some samples, ready to run.

    Attributes:
        feed: Arrays by input name.
        count: How many samples are valid; a fixed-batch model's last batch is filled up by repeating.
        start: Index of the first sample in the data set.
        held: How many samples the feed holds with those that fill it up.
    """

    feed: dict[str, NDArray[Any]]
    count: int
    start: int
    held: int


class Dataset:
    """Samples of a data set for one model.

    Attributes:
        labels: Class per sample, int64 [N]; or regression targets, float32 [N] or [N, K]; None without.
        class_names: Name of each class; empty when unknown.
        segments: Other columns by name, each of length N.
        digest: Stands for content, transform and sample count.
        fixed_batch: Samples every feed has, whatever is asked for: the batch size the model insists on, or 1
            where each sample is a feed of its own; None where any number is fine.
        sample_axes: Axis of the samples by input; inputs that are the same for all samples are not in it.
        given_axes: Axes the user named, by input or output.
        judging: What the user said of the outputs.
        trusted: Whether code of the user may run.
        next_tokens: Of text, the token that follows each, int64 [N, T]; None for other data.
    """

    def __init__(
        self,
        feeds: FeedReader,
        spec: DataSpec,
        *,
        labels: Labels | None,
        class_names: tuple[str, ...],
        segments: Mapping[str, NDArray[Any]],
        digest: str,
        fixed_batch: int | None,
        samples: int,
    ) -> None:
        self._feeds = feeds
        self._samples = samples
        self.labels = labels
        self.class_names = class_names
        self.segments = dict(segments)
        self.digest = digest
        self.fixed_batch = fixed_batch
        self.sample_axes = feeds.sample_axes
        self.given_axes = dict(spec.batch_axes)
        self.judging = spec.judging
        self.trusted = spec.trusted
        self.next_tokens: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return self._samples

    @property
    def stored(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Element type and shape of one sample of each input that has samples, as they are stored."""
        return self._feeds.stored

    def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Samples start to stop in order.

        Args:
            size: Samples per batch; a fixed-batch model's own size wins.
            start: First sample.
            stop: One past the last; None for all.

        Raises:
            DataError: a image does not decode, or a value is not finite or does not fit.
        """
        size = self.fixed_batch or max(size, 1)
        stop = len(self) if stop is None else min(stop, len(self))
        for first in range(start, stop, size):
            count = min(size, stop - first)
            feed = self._feeds.read(first, first + count, self.fixed_batch or count)
            yield Batch(feed, count, first, self.fixed_batch or count)

    def raw(self, index: int) -> NDArray[Any]:
        """Untouched sample of the first input that has images, else of the first input, for showing it.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._feeds.raw(index)

    def text(self, index: int) -> str:
        """A window of text in words; empty for other data."""
        return self._feeds.words(index) if isinstance(self._feeds, TextFeeds) else ""


def open_dataset(
    spec: DataSpec,
    inputs: tuple[TensorInfo, ...],
    *,
    classes: int | None = None,
    network: TextNetwork | None = None,
) -> Dataset:
    """A data set bound to a model's inputs.

    Args:
        spec: Where the data is and what is done to it. With several inputs the transform is for those with
            images (at least two axes per sample).
        inputs: The model's inputs.
        classes: Number of classes the model tells apart, where known: labels are then checked against it.
        network: What the model says of text, where that is the data.

    Raises:
        TrustRequiredError: the data is a program and `spec.trusted` is not set.
        DataError: the data cannot be read or does not fit; the message says what to do.
    """
    if is_factory(spec.path):
        arrays = arrays_from_factory(spec.path, trusted=spec.trusted)
        return _from_arrays(spec, inputs, _Arrays(arrays, spec.path), classes)
    if is_text(spec.path):
        return _from_text(spec, inputs, network or TextNetwork())
    if spec.transform.context:
        raise DataError(
            "context= is for text, and this data is none",
            where=spec.path,
            hint="Leave it out of the transform",
        )
    path = Path(spec.path)
    if path.is_dir():
        files = list_feed_folder(path)
        if files:
            return _from_files(spec, inputs, files, classes)
        return _from_folder(spec, inputs, path, classes)
    check_readable(path)
    return _from_arrays(spec, inputs, _Arrays(NpzFile(path), spec.path), classes)


class _Arrays:
    """Named arrays, in a file or in memory."""

    def __init__(self, origin: NpzFile | dict[str, NDArray[Any]], where: str) -> None:
        self._origin = origin
        self.where = where
        self.names = tuple(origin.members if isinstance(origin, NpzFile) else origin)

    def get(self, name: str) -> NDArray[Any]:
        return self._origin.read(name) if isinstance(self._origin, NpzFile) else self._origin[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return (
            self._origin.members[name].shape
            if isinstance(self._origin, NpzFile)
            else tuple(self._origin[name].shape)
        )

    def digest(self, names: list[str]) -> str:
        if isinstance(self._origin, NpzFile):
            return ";".join(self._origin.members[n].digest for n in names)
        return content_digest([self._origin[n] for n in names])

    def one_of(self, names: tuple[str, ...], what: str) -> str | None:
        found = [n for n in names if n in self.names]
        if len(found) > 1:
            raise DataError(
                f"the data holds both {found[0]!r} and {found[1]!r}, so {what} is ambiguous",
                where=self.where,
                hint="Keep one of them",
            )
        return found[0] if found else None


def _from_arrays(
    spec: DataSpec, inputs: tuple[TensorInfo, ...], arrays: _Arrays, classes: int | None
) -> Dataset:
    names = _array_names(inputs, arrays)
    constants = {
        info.name: _constant(arrays.get(names[info.name]), info, spec.path)
        for info in inputs
        if _is_constant(info, arrays.shape(names[info.name]), inputs, arrays, names)
    }
    fed = [info for info in inputs if info.name not in constants]
    if not fed:
        raise DataError(
            "no input of the model has a batch dimension, so there are no samples", where=spec.path
        )
    columns = _columns(spec, inputs, fed, arrays, names)
    total = _agreed_length({names[name]: len(column.source) for name, column in columns.items()}, spec.path)
    label_name = arrays.one_of(LABEL_NAMES, "what the labels are")
    class_names = (
        class_names_from(arrays.get(CLASS_NAMES), arrays.where) if CLASS_NAMES in arrays.names else ()
    )
    labels = None
    if label_name is not None and label_name not in names.values():
        labels = labels_from(
            arrays.get(label_name), total, class_names=class_names, classes=classes, where=arrays.where
        )
    taken = {*names.values(), label_name, CLASS_NAMES}
    segments = {
        name: arrays.get(name)
        for name in arrays.names
        if name not in taken and arrays.shape(name) == (total,)
    }
    used = sorted({*names.values(), *segments, *([label_name] if label_name else [])})
    feeds = ColumnFeeds(columns, constants)
    return _dataset(
        spec, feeds, labels, class_names, segments, arrays.digest(used), _fixed(columns, spec.path)
    )


def _columns(
    spec: DataSpec,
    inputs: tuple[TensorInfo, ...],
    fed: list[TensorInfo],
    arrays: _Arrays,
    names: dict[str, str],
) -> dict[str, Column]:
    """The samples of every input, wherever its sample axis is."""
    symbols, given = batch_symbols(fed), dict(spec.batch_axes)
    firsts = {info.name: _length(arrays, names[info.name]) for info in fed}
    columns = {}
    for info in fed:
        stored = arrays.shape(names[info.name])
        others = [length for name, length in firsts.items() if name != info.name]
        axis = input_axis(info, stored, others, symbols, given)
        first = moved(info, axis) if info.shape else info
        source = ArraySource(arrays.get(names[info.name]), _stored_axis(first, stored, axis, others))
        # A state is no picture, whatever its rank.
        with_transform = len(inputs) == 1 or (axis == 0 and len(source.sample_shape) >= 2)
        transform = spec.transform if with_transform else type(spec.transform)()
        columns[info.name] = Column(source, _bound(transform, source, first, spec.path), axis)
    return columns


def _stored_axis(first: TensorInfo, stored: tuple[int, ...], axis: int, lengths: list[int]) -> int:
    """Axis of the samples in the array: where the model has it, or first, one row a sample as elsewhere."""
    if axis == 0 or axis >= len(stored):
        return 0
    fits = shapes_agree(stored[:axis] + stored[axis + 1 :], first.shape[1:])
    fits_first = shapes_agree(stored[1:], first.shape[1:])
    if fits and fits_first:
        return 0 if lengths and stored[0] in lengths and stored[axis] not in lengths else axis
    return axis if fits or not fits_first else 0


def _from_folder(spec: DataSpec, inputs: tuple[TensorInfo, ...], path: Path, classes: int | None) -> Dataset:
    if len(inputs) != 1:
        raise DataError(
            f"the model has {len(inputs)} inputs, but a folder of images feeds only one",
            where=spec.path,
            hint="Use an .npz file with one array per input",
        )
    listing = list_image_folder(path)
    channels = _picture_channels(inputs[0], spec.transform.layout)
    source = ImageSource(listing, channels=channels, resize=spec.transform.resize)
    columns = {inputs[0].name: Column(source, _bound(spec.transform, source, inputs[0], spec.path))}
    labels: Labels | None = listing.labels
    if labels is not None:
        labels = labels_from(
            labels, len(source), class_names=listing.class_names, classes=classes, where=spec.path
        )
    digest = f"{listing.digest}:{channels}"
    fixed = _fixed(columns, spec.path)
    return _dataset(spec, ColumnFeeds(columns, {}), labels, listing.class_names, {}, digest, fixed)


def _from_files(
    spec: DataSpec, inputs: tuple[TensorInfo, ...], files: tuple[Path, ...], classes: int | None
) -> Dataset:
    """One feed a file."""
    feeds = FileFeeds(files, inputs, names=INPUT_NAMES, transform=spec.transform, given=dict(spec.batch_axes))
    column = feeds.column(LABEL_NAMES)
    labels = None if column is None else labels_from(column, len(feeds), classes=classes, where=spec.path)
    return _dataset(spec, feeds, labels, (), {}, feeds.digest, 1)


def _from_text(spec: DataSpec, inputs: tuple[TensorInfo, ...], network: TextNetwork) -> Dataset:
    text = open_text(spec, inputs, network)
    made = _dataset(spec, text.feeds, None, (), {}, text.digest, text.fixed_batch)
    made.next_tokens = text.next_tokens[: len(made)]
    return made


def _fixed(columns: Mapping[str, Column], where: str) -> int | None:
    """The batch size the model insists on, if it does."""
    fixed = {c.transform.target.name: c.transform.target.shape[0] for c in columns.values()}
    sizes = sorted({s for s in fixed.values() if isinstance(s, int)})
    if len(sizes) > 1:
        raise DataError(f"the model's inputs disagree about the batch size: {fixed}", where=where)
    return sizes[0] if sizes else None


def _dataset(
    spec: DataSpec,
    feeds: FeedReader,
    labels: Labels | None,
    class_names: tuple[str, ...],
    segments: dict[str, NDArray[Any]],
    content: str,
    fixed: int | None,
) -> Dataset:
    total = len(feeds)
    samples = min(spec.samples, total) if spec.samples > 0 else total
    if samples == 0:
        raise DataError("the data holds no samples", where=spec.path)
    text = f"{content}|{spec.transform.text}|{samples}|{','.join(feeds.sample_axes)}"
    if spec.batch_axes:
        text += f"|{sorted(spec.batch_axes)}"
    return Dataset(
        feeds,
        spec,
        labels=None if labels is None else labels[:samples],
        class_names=class_names,
        segments={name: values[:samples] for name, values in segments.items()},
        digest=hashlib.sha256(text.encode()).hexdigest(),
        fixed_batch=fixed,
        samples=samples,
    )


def _array_names(inputs: tuple[TensorInfo, ...], arrays: _Arrays) -> dict[str, str]:
    """Array of each input."""
    if len(inputs) == 1 and inputs[0].name not in arrays.names:
        name = arrays.one_of(INPUT_NAMES, "what the model reads")
        if name is not None:
            return {inputs[0].name: name}
    missing = [info.name for info in inputs if info.name not in arrays.names]
    if missing:
        others = [name for name in INPUT_NAMES if name != missing[0]]
        wanted = f"{missing[0]!r}" + (f" (or {', '.join(others)})" if len(inputs) == 1 else "")
        raise DataError(
            f"no array named {wanted} for the model's input; the data holds {', '.join(arrays.names)}",
            where=arrays.where,
            hint="Name one array after each input of the model",
        )
    return {info.name: info.name for info in inputs}


def _is_constant(
    info: TensorInfo,
    shape: tuple[int, ...],
    inputs: tuple[TensorInfo, ...],
    arrays: _Arrays,
    names: dict[str, str],
) -> bool:
    """Whether an input is the same for every sample: a scalar, or a whole tensor beside longer columns."""
    if not info.shape:
        return True
    if shape != info.shape:
        return False
    others = [arrays.shape(names[o.name]) for o in inputs if o is not info and o.shape]
    return any(o and o[0] != shape[0] for o in others)


def _constant(array: NDArray[Any], info: TensorInfo, where: str) -> NDArray[Any]:
    if array.size != int(np.prod([d for d in info.shape if isinstance(d, int)], dtype=np.int64)):
        raise DataError(
            f"the model's input {info.name!r} takes one tensor {shape_text(info.shape)} for all samples, "
            f"but the array is {shape_text(array.shape)}",
            where=where,
        )
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise DataError(f"array {info.name!r} must hold finite numbers", where=where)
    return array.reshape([d for d in info.shape if isinstance(d, int)]).astype(info.dtype)


def _length(arrays: _Arrays, name: str) -> int:
    shape = arrays.shape(name)
    if not shape:
        raise DataError(
            f"array {name!r} is a single number, not samples",
            where=arrays.where,
            hint="Store one row per sample",
        )
    return shape[0]


def _agreed_length(lengths: dict[str, int], where: str) -> int:
    if len(set(lengths.values())) > 1:
        (first, a), (second, b) = sorted(lengths.items(), key=lambda item: item[1])[:: len(lengths) - 1][:2]
        raise DataError(
            f"array {first!r} has {a} samples, but {second!r} has {b}",
            where=where,
            hint="Every input needs one row per sample",
        )
    return next(iter(lengths.values()))


def _bound(transform: Any, source: Source, info: TensorInfo, where: str) -> InputTransform:  # noqa: ANN401
    try:
        return bind_transform(transform, source.sample_shape, source.dtype, info)
    except DataError as error:
        raise DataError(error.what, where=error.where or where, hint=error.hint) from error


def _picture_channels(info: TensorInfo, layout: str) -> int:
    """1 or 3: what the model's input asks for; colour when it does not say."""
    if len(info.shape) == 3:
        return 1
    sizes = [
        info.shape[axis]
        for axis in {"NCHW": (1,), "NHWC": (-1,), "keep": (-1, 1)}[layout]
        if len(info.shape) == 4
    ]
    return 1 if 1 in sizes and 3 not in sizes else 3
