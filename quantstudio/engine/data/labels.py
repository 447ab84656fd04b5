"""Labels and class names: read, checked, one line of error where they are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import DataError

Labels = NDArray[np.int64] | NDArray[np.float32]


def labels_from(
    array: NDArray[Any],
    samples: int,
    *,
    class_names: tuple[str, ...] = (),
    classes: int | None = None,
    where: str = "",
) -> Labels:
    """Labels in the form everything downstream takes.

    Args:
        array: Labels as stored: whole numbers are classes, fractions are regression targets, text is looked
            up in `class_names`; rows of several numbers are targets, or yes and no for several labels.
        samples: Number of samples.
        class_names: Names of the classes, in order.
        classes: Number of classes the model tells apart (more than one), where known.
        where: File, for error messages.

    Returns:
        int64 [N] classes; or float32 [N] or [N, K] targets.

    Raises:
        DataError: another length, not finite, negative or too large for the classes, fractional where the
            model classifies.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 0 or len(array) != samples:
        count = "one label" if array.ndim == 0 else f"{len(array)} labels"
        raise DataError(f"{count} for {samples} samples", where=where, hint="Give one label per sample")
    if array.dtype.kind in "US":
        array = _looked_up(array, class_names, where)
    if array.dtype.kind == "f":
        return _float_labels(array, classes, where)
    if array.dtype.kind not in "iub":
        raise DataError(f"labels are {array.dtype}, not numbers", where=where)
    if array.ndim == 2:  # yes or no for each of several labels, or several targets
        return _float_labels(array.astype(np.float64), classes, where)
    if array.ndim != 1:
        raise DataError(
            f"labels have shape {list(array.shape)}", where=where, hint="Give one class number per sample"
        )
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError(
            f"label {int(array.max())} is out of range", where=where, hint="Give one class number per sample"
        )
    return _named(check_classes(array.astype(np.int64), classes, where=where), class_names, where)


def _named(labels: NDArray[np.int64], class_names: tuple[str, ...], where: str) -> NDArray[np.int64]:
    if class_names and len(labels) and int(labels.max()) >= len(class_names):
        raise DataError(
            f"label {int(labels.max())} has no name: class_names holds {len(class_names)}",
            where=where,
            hint="Store one name per class, in the model's order",
        )
    return labels


def check_classes(labels: NDArray[np.int64], classes: int | None, *, where: str = "") -> NDArray[np.int64]:
    """The same labels, if each names a class.

    Args:
        labels: Classes, shape [N].
        classes: Number of classes; None when unknown.
        where: File, for error messages.

    Raises:
        DataError: a label is negative or too large; the message names the first such sample.
    """
    wrong = labels < 0
    if classes is not None and classes > 1:
        wrong |= labels >= classes
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        legal = f"0 to {classes - 1}" if classes is not None and classes > 1 else "0 or more"
        raise DataError(
            f"label {int(labels[first])} of sample {first} is out of range",
            where=where,
            hint=f"Labels must be {legal}",
        )
    return labels


def class_names_from(array: NDArray[Any], where: str = "") -> tuple[str, ...]:
    """Class names from a one-dimensional text array.

    Raises:
        DataError: it is not text, or a name comes twice.
    """
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(
            "class_names is not a list of text", where=where, hint="Store numpy.array([...]) of str"
        )
    names = tuple(str(n) for n in (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array))
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise DataError(f"class_names holds {twice!r} twice", where=where)
    return names


def _float_labels(array: NDArray[Any], classes: int | None, where: str) -> Labels:
    if not np.isfinite(array).all():
        raise DataError("labels hold NaN or infinity", where=where, hint="Remove those samples")
    # As many columns as the model has outputs are targets for each of them.
    if classes is None or classes <= 1 or (array.ndim == 2 and array.shape[1] == classes):
        return array.astype(np.float32)
    fractional = array != np.rint(array)
    if array.ndim != 1 or fractional.any():
        what = (
            f"label {array[fractional][0]:g} is a fraction"
            if array.ndim == 1
            else "labels are not one number each"
        )
        raise DataError(
            f"{what}, but the model tells {classes} classes apart",
            where=where,
            hint=f"Labels must be whole numbers from 0 to {classes - 1}",
        )
    return check_classes(array.astype(np.int64), classes, where=where)


def _looked_up(array: NDArray[Any], class_names: tuple[str, ...], where: str) -> NDArray[np.int64]:
    if not class_names:
        raise DataError(
            "labels are text, and nothing says which class number each name has",
            where=where,
            hint="Store class numbers, or add an array class_names in the model's order",
        )
    number = {name: i for i, name in enumerate(class_names)}
    text = [str(t) for t in (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).ravel()]
    unknown = next((t for t in text if t not in number), None)
    if unknown is not None:
        raise DataError(f"label {unknown!r} is not among class_names", where=where)
    return np.array([number[t] for t in text], dtype=np.int64)
