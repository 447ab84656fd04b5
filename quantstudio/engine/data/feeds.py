"""What a model is fed: columns of samples, or a folder with one whole feed a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import Transform
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.axes import declared_axis, given_axis, is_batch_symbol, moved
from quantstudio.engine.data.npz import NpzFile
from quantstudio.engine.data.sources import Source
from quantstudio.engine.data.transform import InputTransform, bind_transform, shape_text

Feed = dict[str, NDArray[Any]]


class FeedReader(Protocol):
    """Where feeds come from."""

    @property
    def sample_axes(self) -> dict[str, int]:
        """Axis of the samples by input; inputs that are the same for all are not in it."""

    @property
    def stored(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Element type and shape of the first sample of each such input, as they are stored."""

    def __len__(self) -> int:
        """Samples there are."""

    def read(self, start: int, stop: int, size: int) -> Feed:
        """Samples start to stop as the model reads them, the last repeated up to `size`."""

    def raw(self, index: int) -> NDArray[Any]:
        """Untouched sample for showing it."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Samples of one model input with what is done to them, and the axis they lie on in the input."""

    source: Source
    transform: InputTransform
    axis: int = 0


class ColumnFeeds:
    """Feeds of columns that hold every sample of an input.

    Args:
        columns: By input.
        constants: Inputs that are the same for every sample.
    """

    def __init__(self, columns: Mapping[str, Column], constants: Mapping[str, NDArray[Any]]) -> None:
        self._columns = dict(columns)
        self._constants = dict(constants)
        self.sample_axes = {name: column.axis for name, column in self._columns.items()}

    @property
    def stored(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Element type and shape of one sample of each input, as they are stored."""
        return {name: (one.source.dtype, one.source.sample_shape) for name, one in self._columns.items()}

    def __len__(self) -> int:
        """Samples there are."""
        return min((len(column.source) for column in self._columns.values()), default=0)

    def read(self, start: int, stop: int, size: int) -> Feed:
        """Samples start to stop, the last repeated up to `size`.

        Raises:
            DataError: an image does not decode, or a value is not finite or does not fit.
        """
        feed = {}
        for name, column in self._columns.items():
            samples = column.transform.apply(column.source.read(start, stop), start)
            if len(samples) < size:
                filling = np.repeat(samples[-1:], size - len(samples), axis=0)
                samples = np.concatenate([samples, filling])
            feed[name] = (
                np.ascontiguousarray(np.moveaxis(samples, 0, column.axis)) if column.axis else samples
            )
        return {**feed, **self._constants}

    def raw(self, index: int) -> NDArray[Any]:
        """Untouched sample of the first input that has images, else of the first input."""
        columns = list(self._columns.values())
        shown = next((c for c in columns if c.transform.is_picture), columns[0])
        return np.array(shown.source.read(index, index + 1)[0])


def list_feed_folder(folder: Path) -> tuple[Path, ...]:
    """The npz files of a folder, 2 before 10; empty where it holds none."""
    files = [f for f in folder.iterdir() if f.suffix == ".npz" and not f.name.startswith(".") and f.is_file()]
    return tuple(sorted(files, key=_natural))


class FileFeeds:
    """One whole feed a file: for networks whose inputs differ in size from sample to sample.

    An array is what the model reads, or that without its sample axis.

    Args:
        files: The npz files.
        inputs: Inputs of the model.
        names: Names under which the array of a one-input model is found, beside the input's own.
        transform: What is done to arrays of at least three axes.
        given: Axes the user named, by input.

    Raises:
        DataError: the first file cannot be read, or lacks an input.
    """

    def __init__(
        self,
        files: Sequence[Path],
        inputs: Sequence[TensorInfo],
        *,
        names: Sequence[str],
        transform: Transform,
        given: Mapping[str, int],
    ) -> None:
        self._files = tuple(files)
        self._inputs = tuple(inputs)
        self._names = tuple(names)
        self._transform = transform
        self._given = dict(given)
        self.sample_axes = {
            info.name: axis for info in self._inputs if (axis := self._axis(info)) is not None
        }
        self.read(0, 1, 1)

    def __len__(self) -> int:
        """Files."""
        return len(self._files)

    @property
    def stored(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Element type and shape of each input in the first file."""
        first = NpzFile(self._files[0])
        arrays = {one.name: self._array(one, first) for one in self._inputs if one.name in self.sample_axes}
        return {name: (array.dtype, tuple(array.shape)) for name, array in arrays.items()}

    @property
    def digest(self) -> str:
        """Stands for the content: names of files and the checksums of their arrays."""
        total = hashlib.blake2b(digest_size=16)
        for file in self._files:
            members = NpzFile(file).members
            total.update(f"{file.name}:{';'.join(m.digest for m in members.values())}\n".encode())
        return total.hexdigest()

    def read(self, start: int, stop: int, size: int) -> Feed:
        """The feed of one file.

        Raises:
            DataError: the file cannot be read, lacks an input, or an array does not fit it.
        """
        del stop, size  # every feed is one sample
        file = self._files[start]
        stored = NpzFile(file)
        return {info.name: self._input(info, self._array(info, stored), start) for info in self._inputs}

    def raw(self, index: int) -> NDArray[Any]:
        """The first input as it is stored."""
        return self._array(self._inputs[0], NpzFile(self._files[index]))

    def column(self, names: Sequence[str]) -> NDArray[Any] | None:
        """One value a file, or one row of values, under any of some names; None where a file has none.

        Files whose values are of different sizes have none together.
        """
        values = []
        for file in self._files:
            stored = NpzFile(file)
            name = next((n for n in names if n in stored.members), None)
            if name is None:
                return None
            values.append(np.atleast_1d(np.squeeze(stored.read(name))))
        if len({v.shape for v in values}) > 1 or values[0].ndim > 1:
            return None
        column = np.stack(values)
        return column[:, 0] if column.shape[1] == 1 else column

    def _array(self, info: TensorInfo, stored: NpzFile) -> NDArray[Any]:
        names = [info.name] if len(self._inputs) > 1 else [info.name, *self._names]
        found = [name for name in names if name in stored.members]
        if not found:
            raise DataError(
                f"no array named {info.name!r} for the model's input; the file holds "
                f"{', '.join(stored.members)}",
                where=str(stored.path),
                hint="Name one array after each input of the model",
            )
        return stored.read(found[0])

    def _axis(self, info: TensorInfo) -> int | None:
        named = given_axis(info.name, len(info.shape), self._given)
        if named is not None:
            return named
        called = [size for size in info.shape if is_batch_symbol(size)]
        return declared_axis(info, [size for size in called if isinstance(size, str)])

    def _input(self, info: TensorInfo, array: NDArray[Any], index: int) -> NDArray[Any]:
        where = str(self._files[index])
        axis = self.sample_axes.get(info.name, 0)
        if array.ndim == len(info.shape) - 1:
            array = np.expand_dims(array, axis)
        if array.ndim != len(info.shape):
            raise DataError(
                f"array {info.name!r} is {shape_text(array.shape)}, the model takes {shape_text(info.shape)}",
                where=where,
            )
        if not info.shape:
            return array.astype(info.dtype)
        rows = np.moveaxis(array, axis, 0)
        with_transform = len(self._inputs) == 1 or rows.ndim > 2
        transform = self._transform if with_transform else Transform()
        try:
            bound = bind_transform(transform, rows.shape[1:], rows.dtype, moved(info, axis))
            return np.ascontiguousarray(np.moveaxis(bound.apply(rows, index), 0, axis))
        except DataError as error:
            raise DataError(error.what, where=error.where or where, hint=error.hint) from error


def _natural(path: Path) -> list[tuple[int, str]]:
    """Key that sorts part2 before part10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]
