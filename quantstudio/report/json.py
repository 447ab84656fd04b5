"""A report as JSON that reads back into the same values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.errors import DataError
from quantstudio.core.files import write_text
from quantstudio.report.data import ReportData

REPORT_SCHEMA = "quantstudio.report/1"


def report_json(data: ReportData) -> dict[str, Any]:
    """The report as plain JSON values, with a `schema` field."""
    values: dict[str, Any] = to_json(data)
    return {"schema": REPORT_SCHEMA, **values}


def write_json(data: ReportData, path: Path) -> None:
    """Write the report.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    write_text(path, json.dumps(report_json(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> ReportData:
    """A report that `write_json` wrote.

    Raises:
        DataError: the file cannot be read, or is not such a report.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("not a readable JSON file", where=str(path)) from error
    if not isinstance(document, dict) or document.pop("schema", None) != REPORT_SCHEMA:
        raise DataError("not a QuantStudio report", where=str(path), hint=f"Expected schema {REPORT_SCHEMA}")
    try:
        return from_json(ReportData, document)
    except CodecError as error:
        raise DataError(str(error), where=str(path)) from error
