"""Values in the columns of a project: canonical JSON text, read strictly."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.errors import ProjectError

T = TypeVar("T")

# Made once: `json.dumps` makes an encoder a call, which takes longer than writing one layer's result.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def dump(value: Any) -> str:  # noqa: ANN401  any value of core
    """Compact JSON text; equal values give equal text."""
    return _ENCODER.encode(to_json(value))


def load(text: str, where: str) -> Any:  # noqa: ANN401
    """JSON values of a column.

    Raises:
        ProjectError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError) as error:
        raise _unreadable(where, str(error)) from error


def read(kind: type[T], text: str, where: str) -> T:
    """A frozen value of a column.

    Raises:
        ProjectError: the text is not JSON, or does not fit the type.
    """
    try:
        return from_json(kind, load(text, where))
    except CodecError as error:
        raise _unreadable(where, str(error)) from error


def _unreadable(where: str, detail: str) -> ProjectError:
    return ProjectError(
        f"the project holds a value that cannot be read ({detail})",
        where=where,
        hint="It may come from a newer version; update QuantStudio or restore a backup",
    )
