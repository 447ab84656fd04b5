"""The layout and size that make a data set fit a network, found by opening it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.data_spec import LAYOUTS, DataSpec, Transform
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.data.labels import Labels

# Where a network takes any size and the images have several.
USUAL_SIZE = (224, 224)
_SIZES_LOOKED_AT = 12
_PICTURE_RANK = 4


@dataclass(frozen=True, slots=True, eq=False)
class Fitting:
    """A data set that fits, with nothing done to its values.

    Attributes:
        geometry: Layout and size that make it fit.
        dataset: The data set; without its labels where they name no classes of the network.
        labels: Its labels, whatever they are.
        classes: Classes the network tells apart, where known.
        labels_fault: What is wrong with its labels; empty if nothing is.
    """

    geometry: Transform
    dataset: Dataset
    labels: Labels | None
    classes: int | None
    labels_fault: str = ""


def fitting_of(spec: DataSpec, inputs: tuple[TensorInfo, ...], classes: int | None) -> Fitting:
    """A data set opened with its transform, and what is wrong with its labels.

    Raises:
        DataError: it cannot be read, or does not fit.
    """
    try:
        dataset = open_dataset(spec, inputs, classes=classes)
    except DataError as error:
        if classes is None or not error.what.startswith("label"):
            raise
        dataset = open_dataset(spec, inputs)
        labels, dataset.labels = dataset.labels, None
        return Fitting(spec.transform, dataset, labels, classes, error.one_line)
    return Fitting(spec.transform, dataset, dataset.labels, classes)


def fittings(
    spec: DataSpec, inputs: tuple[TensorInfo, ...], classes: int | None, asked: Transform | None
) -> tuple[Fitting, ...]:
    """Every layout in which the data fits the network's inputs; with another size only where none does.

    Args:
        spec: The data; its transform is not looked at.
        inputs: The network's inputs.
        classes: Classes the network tells apart, where known.
        asked: What the user wants; its size is kept where it fits.

    Raises:
        DataError: it fits in none; the error is that of the likeliest.
    """
    first: DataError | None = None
    for group in _groups(inputs, asked):
        found: dict[str, Fitting] = {}
        for geometry in group:
            try:
                fitting = fitting_of(replace(spec, transform=geometry), inputs, classes)
                if Path(spec.path).is_dir():
                    _check_sizes(fitting.dataset)
            except DataError as error:
                first = first or error
                continue
            # Layouts that leave the samples in the same form are one; the plainest stands for them.
            form = ";".join(
                f"{name}{array.shape}{array.tobytes()[:4096]!r}"
                for name, array in _sample(fitting.dataset).items()
            )
            found.setdefault(form, fitting)
        if found:
            return tuple(found.values())
    raise first or DataError("the data does not fit the network", where=spec.path)


def spread(total: int, count: int, block: int = 16) -> list[tuple[int, int]]:
    """Ranges that cover a data set evenly: files are often sorted by class.

    Args:
        total: Samples there are.
        count: Samples wanted; all where there are fewer.
        block: Samples in a row.
    """
    if count >= total:
        return [(start, min(start + block, total)) for start in range(0, total, block)]
    ranges = max(1, count // block)
    starts = np.linspace(0, total - block, ranges).astype(int) if total > block else np.zeros(1, int)
    return [(int(start), min(int(start) + block, total)) for start in dict.fromkeys(starts.tolist())]


def _check_sizes(dataset: Dataset) -> None:
    """Read some images: nothing else tells whether all have one size.

    Raises:
        DataError: they have not.
    """
    for place in range(0, len(dataset), max(1, len(dataset) // _SIZES_LOOKED_AT)):
        next(iter(dataset.batches(1, start=place, stop=place + 1)))


def _sample(dataset: Dataset) -> Mapping[str, NDArray[Any]]:
    return next(iter(dataset.batches(1, stop=1))).feed


def _groups(inputs: tuple[TensorInfo, ...], asked: Transform | None) -> Iterator[list[Transform]]:
    plain = [Transform(layout=layout) for layout in ("keep", *(x for x in LAYOUTS if x != "keep"))]
    if asked is not None and (asked.resize or asked.crop):
        yield [replace(one, resize=asked.resize, crop=asked.crop) for one in plain]
    yield plain
    sizes = list(dict.fromkeys(size for info in inputs for size in _sizes(info)))
    yield [replace(one, resize=size) for size in sizes for one in plain]


def _sizes(info: TensorInfo) -> Iterator[tuple[int, int]]:
    """Height and width a picture input asks for, in either layout."""
    if len(info.shape) != _PICTURE_RANK:
        if len(info.shape) == _PICTURE_RANK - 1 and all(isinstance(d, int) for d in info.shape[1:]):
            yield int(info.shape[1] or 0), int(info.shape[2] or 0)
        return
    for height, width in (info.shape[2:4], info.shape[1:3]):
        if isinstance(height, int) and isinstance(width, int) and min(height, width) > _PICTURE_RANK:
            yield height, width
    if not any(isinstance(size, int) for size in info.shape[2:]):
        yield USUAL_SIZE
