"""Frozen values to JSON and back, with the path of whatever does not fit.

JSON has no infinities: a float that is not finite is written as null and read back as NaN. A field that is
unknown is an error, but for those a class names as `RETIRED`: older files hold them, and nothing reads them.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")
_Read = Callable[[Any], Any]
_Write = Callable[[Any], Any]

_PLAIN = frozenset({str, int, bool, type(None)})


class CodecError(ValueError):
    """A JSON value does not fit the type; the message starts with its path."""


class _MisfitError(Exception):
    """What does not fit; the path grows on the way out, so that reading what fits builds none."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = ""

    def inside(self, part: str) -> _MisfitError:
        """The same, seen from one level further out."""
        self.path = part + self.path
        return self


def to_json(value: Any) -> Any:  # noqa: ANN401  any value of core, any JSON
    """Plain JSON values for a frozen dataclass, enum, path, numpy scalar or nest of them."""
    return _WRITERS[type(value)](value)


def from_json(kind: type[T], value: Any, where: str = "$") -> T:  # noqa: ANN401
    """An instance of `kind` from plain JSON values.

    Raises:
        CodecError: a field is missing, unknown or of the wrong type; the message names its path.
    """
    try:
        return cast("T", _reader(cast("Hashable", kind))(value))
    except _MisfitError as misfit:
        raise CodecError(f"{where}{misfit.path}: {misfit.message}") from None


# Writing. What a type needs is found out once: hundreds of layers pass through while a window waits.


class _Writers(dict[type, _Write]):
    """How each type is written, found out the first time it is met."""

    def __missing__(self, kind: type) -> _Write:
        self[kind] = write = _writer(kind)
        return write


_WRITERS = _Writers()


def _writer(kind: type) -> _Write:  # noqa: C901  one line for each kind of value
    if issubclass(kind, Enum):
        return lambda value: value.value
    if kind is type(None) or issubclass(kind, str | int):
        return lambda value: value
    if issubclass(kind, float):
        return lambda value: value if math.isfinite(value) else None
    if hasattr(kind, "to_text"):
        return lambda value: value.to_text()
    if is_dataclass(kind):
        return _dataclass_writer(kind)
    if issubclass(kind, Mapping):
        return lambda value: {
            str(key): item if type(item) in _PLAIN else _WRITERS[type(item)](item)
            for key, item in value.items()
        }
    if issubclass(kind, Path):
        return str
    if issubclass(kind, np.ndarray):
        return lambda value: to_json(value.tolist())
    if issubclass(kind, np.generic):
        return lambda value: to_json(value.item())
    if issubclass(kind, set | frozenset):
        # The order of a set differs from process to process.
        return lambda value: sorted((to_json(item) for item in value), key=repr)
    if issubclass(kind, Sequence) and not issubclass(kind, bytes | bytearray | memoryview):
        return _write_sequence
    raise CodecError(f"cannot write a {kind.__name__} as JSON")


def _write_sequence(value: Sequence[Any]) -> list[Any]:
    if _PLAIN.issuperset(map(type, value)):  # hundreds of names
        return list(value)
    return [item if type(item) in _PLAIN else _WRITERS[type(item)](item) for item in value]


def _dataclass_writer(kind: type[Any]) -> _Write:
    names = tuple(f.name for f in fields(kind))
    return lambda value: {name: _WRITERS[type(item := getattr(value, name))](item) for name in names}


# Reading.


@lru_cache(maxsize=1024)
def _reader(kind: Any) -> _Read:  # noqa: ANN401, C901  types of typing; one line for each
    origin = get_origin(kind)
    if kind is Any:
        return lambda value: value
    if origin in (Union, types.UnionType):
        return _union_reader(get_args(kind))
    if kind is type(None):
        return _read_null
    if hasattr(kind, "from_text"):
        read_text = _text_reader(kind.from_text)
        return read_text if hasattr(kind, "to_text") else _text_or_object_reader(kind, read_text)
    if is_dataclass(kind):
        return _dataclass_reader(cast("type[Any]", kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum_reader(kind)
    if origin in (tuple, list):
        args = get_args(kind)
        is_fixed = origin is tuple and args and args[-1] is not Ellipsis
        return _fixed_reader(args) if is_fixed else _sequence_reader(origin, args[0])
    if origin in (dict, Mapping):
        return _mapping_reader(get_args(kind)[1])
    if kind is float:
        return _read_float
    if kind in (int, str, bool):
        return _plain_reader(kind)
    raise _MisfitError(f"no rule to read {kind}")


def _read_null(value: Any) -> None:  # noqa: ANN401
    if value is not None:
        raise _MisfitError("expected null")


def _read_float(value: Any) -> float:  # noqa: ANN401
    if type(value) is float:
        return value
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _MisfitError("the number is too large") from None
    raise _MisfitError(f"expected a number, found {_name(value)}")


def _plain_reader(kind: type) -> _Read:
    def read(value: Any) -> Any:  # noqa: ANN401
        if type(value) is kind or (isinstance(value, kind) and not isinstance(value, bool)):
            return value
        raise _MisfitError(f"expected {kind.__name__}, found {_name(value)}")

    return read


def _enum_reader(kind: type[Enum]) -> _Read:
    def read(value: Any) -> Enum:  # noqa: ANN401
        try:
            return kind(value)
        except ValueError:
            legal = ", ".join(str(member.value) for member in kind)
            raise _MisfitError(f"{value!r} is not one of {legal}") from None

    return read


def _text_reader(from_text: Callable[[str], Any]) -> _Read:
    """For values that JSON holds as a name, such as the rows of a catalogue that anyone may extend."""

    def read(value: Any) -> Any:  # noqa: ANN401
        try:
            return from_text(value)
        except ValueError as error:
            raise _MisfitError(str(error)) from None

    return read


def _text_or_object_reader(kind: type[Any], read_text: _Read) -> _Read:
    """For values that were text once and hold more today."""
    read_object = _dataclass_reader(kind)
    return lambda value: read_text(value) if isinstance(value, str) else read_object(value)


def _union_reader(options: tuple[Any, ...]) -> _Read:
    readers = [_reader(option) for option in options if option is not type(None)]
    has_null = type(None) in options

    def read(value: Any) -> Any:  # noqa: ANN401
        if value is None and has_null:
            return None
        first: _MisfitError | None = None
        for read_option in readers:
            try:
                return read_option(value)
            except _MisfitError as misfit:
                first = first or misfit
        raise first or _MisfitError(f"no option fits {_name(value)}")

    return read


def _fixed_reader(kinds: tuple[Any, ...]) -> _Read:
    readers = [_reader(kind) for kind in kinds]

    def read(value: Any) -> tuple[Any, ...]:  # noqa: ANN401
        _check_list(value)
        if len(readers) != len(value):
            raise _MisfitError(f"expected {len(readers)} items, found {len(value)}")
        made: list[Any] = []
        try:
            for read_item, item in zip(readers, value, strict=True):
                made.append(read_item(item))
        except _MisfitError as misfit:
            raise misfit.inside(f"[{len(made)}]") from None
        return tuple(made)

    return read


def _sequence_reader(origin: Any, kind: Any) -> _Read:  # noqa: ANN401
    read_item = _reader(kind)

    def read(value: Any) -> Any:  # noqa: ANN401
        _check_list(value)
        made: list[Any] = []
        try:
            for item in value:
                made.append(read_item(item))  # noqa: PERF401  its length is where the fault lies
        except _MisfitError as misfit:
            raise misfit.inside(f"[{len(made)}]") from None
        return origin(made)

    return read


def _check_list(value: Any) -> None:  # noqa: ANN401
    if type(value) is not list and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise _MisfitError(f"expected a list, found {_name(value)}")


def _mapping_reader(kind: Any) -> _Read:  # noqa: ANN401
    read_item = _reader(kind)

    def read(value: Any) -> dict[str, Any]:  # noqa: ANN401
        if type(value) is not dict and not isinstance(value, Mapping):
            raise _MisfitError(f"expected an object, found {_name(value)}")
        made: dict[str, Any] = {}
        key = ""
        try:
            for key, item in value.items():
                made[str(key)] = read_item(item)
        except _MisfitError as misfit:
            raise misfit.inside(f".{key}") from None
        return made

    return read


def _dataclass_reader(kind: type[Any]) -> _Read:
    hints = get_type_hints(kind)
    listed = {f.name: _reader(hints[f.name]) for f in fields(kind)}
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    retired: frozenset[str] = getattr(kind, "RETIRED", frozenset())

    def read(value: Any) -> Any:  # noqa: ANN401
        if type(value) is not dict and not isinstance(value, Mapping):
            raise _MisfitError(f"expected an object, found {_name(value)}")
        if retired and not retired.isdisjoint(value):
            value = {name: item for name, item in value.items() if name not in retired}
        if not listed.keys() >= value.keys():
            unknown = min(set(value) - set(listed))
            raise _MisfitError(f"unknown field {unknown!r}; known are {', '.join(sorted(listed))}")
        made: dict[str, Any] = {}
        name = ""
        try:
            for name, item in value.items():
                made[name] = listed[name](item)
        except _MisfitError as misfit:
            raise misfit.inside(f".{name}") from None
        for name in needed:
            if name not in made:
                raise _MisfitError(f"field {name!r} is missing")
        try:
            return kind(**made)
        except ValueError as error:
            raise _MisfitError(str(error)) from error

    return read


def _name(value: Any) -> str:  # noqa: ANN401
    return "null" if value is None else type(value).__name__
