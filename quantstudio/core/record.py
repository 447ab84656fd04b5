"""Results as plain values: dictionaries of JSON values, and tables where pandas is installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from quantstudio.core.codec import to_json
from quantstudio.core.errors import QuantStudioError


class Record:
    """A frozen value that can be handed on as a dictionary or as a table."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The value as JSON values; numbers that are not finite become None."""
        values: dict[str, Any] = to_json(self)
        return values

    def to_frame(self) -> Any:  # noqa: ANN401  pandas is not a dependency
        """A pandas DataFrame: a row for each part (layer, variant, plan), a column for each figure.

        Raises:
            QuantStudioError: pandas is not installed.
        """
        return frame(self._parts())

    def _parts(self) -> Sequence[Any]:
        """What becomes a row of its own."""
        return (self,)


R = TypeVar("R", covariant=True)


class Records(tuple[R, ...]):
    """Several results of one sort."""

    __slots__ = ()

    def to_dict(self) -> list[dict[str, Any]]:
        """Each as JSON values."""
        return [to_json(one) for one in self]

    def to_frame(self) -> Any:  # noqa: ANN401  pandas is not a dependency
        """A pandas DataFrame with a row for each.

        Raises:
            QuantStudioError: pandas is not installed.
        """
        return frame(self)


def frame(records: Iterable[Any]) -> Any:  # noqa: ANN401  pandas is not a dependency
    """A pandas DataFrame with a row for each record; figures inside others get names like "latency_ms.p50".

    Raises:
        QuantStudioError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise QuantStudioError(
            "tables need pandas, which is not installed", hint="Install pandas, or use to_dict()"
        ) from error
    return pandas.DataFrame([_flat(to_json(one)) for one in records])


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """One level of names; lists of dictionaries are tables of their own and left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        elif not (isinstance(value, list) and value and isinstance(value[0], dict)):
            found[before + name] = value
    return found
