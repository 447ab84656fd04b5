"""A report as JSON values."""

from __future__ import annotations

from typing import Any

from quantstudio.core.codec import to_json
from quantstudio.report.data import ReportData

REPORT_SCHEMA = "quantstudio.report/1"


def report_json(data: ReportData) -> dict[str, Any]:
    """The report as plain JSON values, with a `schema` field."""
    values: dict[str, Any] = to_json(data)
    return {"schema": REPORT_SCHEMA, **values}
