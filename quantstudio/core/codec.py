"""Frozen values to JSON and back, with the path of whatever does not fit.

JSON has no infinities: a float that is not finite is written as null and read back as NaN.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")


class CodecError(ValueError):
    """A JSON value does not fit the type; the message starts with its path."""


def to_json(value: Any) -> Any:  # noqa: ANN401, C901  any value of core, any JSON
    """Plain JSON values for a frozen dataclass, enum, path, numpy scalar or nest of them."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, set | frozenset):
        # The order of a set differs from process to process.
        return sorted((to_json(item) for item in value), key=repr)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [to_json(item) for item in value]
    raise CodecError(f"cannot write a {type(value).__name__} as JSON")


def from_json(kind: type[T], value: Any, where: str = "$") -> T:  # noqa: ANN401
    """An instance of `kind` from plain JSON values.

    Raises:
        CodecError: a field is missing, unknown or of the wrong type; the message names its path.
    """
    return cast("T", _read(kind, value, where))


def _read(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401, C901, PLR0912
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), value, where)
    if kind is type(None):
        if value is None:
            return None
        raise CodecError(f"{where}: expected null")
    if is_dataclass(kind):
        return _read_dataclass(cast("type[Any]", kind), value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            legal = ", ".join(str(member.value) for member in kind)
            raise CodecError(f"{where}: {value!r} is not one of {legal}") from None
    if origin in (tuple, list):
        return _read_sequence(origin, get_args(kind), value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise CodecError(f"{where}: expected an object, found {_name(value)}")
        item_kind = get_args(kind)[1]
        return {str(key): _read(item_kind, item, f"{where}.{key}") for key, item in value.items()}
    if kind is float:
        if value is None:
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise CodecError(f"{where}: the number is too large") from None
        raise CodecError(f"{where}: expected a number, found {_name(value)}")
    if kind in (int, str, bool):
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        raise CodecError(f"{where}: expected {kind.__name__}, found {_name(value)}")
    raise CodecError(f"{where}: no rule to read {kind}")


def _read_union(options: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _read(option, value, where)
        except CodecError as error:
            errors.append(str(error))
    raise CodecError(errors[0] if errors else f"{where}: no option fits {_name(value)}")


def _read_sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:  # noqa: ANN401
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise CodecError(f"{where}: expected a list, found {_name(value)}")
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise CodecError(f"{where}: expected {len(args)} items, found {len(value)}")
        pairs = zip(args, value, strict=True)
        return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))
    return origin(_read(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))


def _read_dataclass(kind: type[Any], value: Any, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise CodecError(f"{where}: expected an object, found {_name(value)}")
    hints: dict[str, Any] = _hints(cast("Any", kind))
    names = {f.name for f in fields(kind)}
    unknown = sorted(set(value) - names)
    if unknown:
        raise CodecError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(names))}")
    made: dict[str, Any] = {}
    for f in fields(kind):
        if f.name in value:
            made[f.name] = _read(hints[f.name], value[f.name], f"{where}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise CodecError(f"{where}: field {f.name!r} is missing")
    try:
        return kind(**made)
    except ValueError as error:
        raise CodecError(f"{where}: {error}") from error


@lru_cache(maxsize=256)
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _name(value: Any) -> str:  # noqa: ANN401
    return "null" if value is None else type(value).__name__
