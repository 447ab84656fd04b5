"""A report as tables for a spreadsheet: variants, classes and layers, one file each."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from quantstudio.core.files import write_text
from quantstudio.core.results import Interval, VariantResult
from quantstudio.report.data import ReportData
from quantstudio.report.rows import layer_rows, step_rows

Cell = str | int | float | bool | None

_VARIANT_COLUMNS = (
    "name",
    "contents",
    "path",
    "size_bytes",
    "samples",
    "on_calibration_data",
    "top1",
    "top5",
    "rmse",
    "mae",
    "r2",
    "drop",
    "drop_low",
    "drop_high",
    "drop_method",
    "p_value",
    "agreement_top1",
    "output_kl",
    "output_sqnr_db",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "mean_ms",
    "speedup",
    "speedup_low",
    "speedup_high",
    "batch",
    "threads",
    "provider",
    "peak_memory_bytes",
    "load_ms",
    "provenance",
)
_CLASS_COLUMNS = ("variant", "group", "label", "support", "base", "accuracy", "low", "high")
_LAYER_COLUMNS = (
    "index",
    "layer",
    "op_type",
    "weight_shape",
    "parameters",
    "weight_bytes",
    "precision",
    "kernel",
    "integer_kernel",
    "kl",
    "kl_low",
    "kl_high",
    "weight_sqnr_db",
    "note",
)


_STEP_COLUMNS = ("index", "step", "settings", "summary", "seconds")


def write_csv(data: ReportData, folder: Path) -> tuple[Path, ...]:
    """Write variants.csv, classes.csv, layers.csv and steps.csv; those without rows are left out.

    Args:
        data: What to tell.
        folder: An existing folder.

    Returns:
        The files written.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    tables: tuple[tuple[str, Sequence[str], Iterable[Sequence[Cell]]], ...] = (
        ("variants.csv", _VARIANT_COLUMNS, _variant_rows(data)),
        ("classes.csv", _CLASS_COLUMNS, _class_rows(data)),
        ("layers.csv", _LAYER_COLUMNS, _layer_cells(data)),
        ("steps.csv", _STEP_COLUMNS, _step_cells(data)),
    )
    written = []
    for name, columns, rows in tables:
        listed = list(rows)
        if listed:
            write_text(folder / name, table_text(columns, listed))
            written.append(folder / name)
    return tuple(written)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """One table with a header line; decimals have a point, and what is not known is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Cell) -> str | int | float:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A spreadsheet would run text that starts like a formula; layer and file names are other people's.
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _variant_rows(data: ReportData) -> Iterable[Sequence[Cell]]:
    return [_variant_row(v, data) for v in data.comparison.variants] if data.comparison else []


def _variant_row(v: VariantResult, data: ReportData) -> Sequence[Cell]:
    times, close = v.latency_ms, v.agreement
    return (
        v.name,
        data.contents.get(v.path, ""),
        v.path,
        v.size_bytes,
        v.samples,
        data.is_measured_on_calibration,
        *(v.metrics.get(name) for name in ("top1", "top5", "rmse", "mae", "r2")),
        *_ends(v.drop),
        v.drop_method,
        v.p_value,
        *((close.top1, close.kl, close.sqnr_db) if close else (None,) * 3),
        *((times.p50, times.p90, times.p99, times.mean) if times else (None,) * 4),
        *_ends(v.speedup),
        *((times.batch, times.threads) if times else (None,) * 2),
        v.provider,
        v.peak_memory_bytes or None,
        v.footprint.load_ms if v.footprint else None,
        v.provenance.value,
    )


def _ends(value: Interval | None) -> tuple[Cell, Cell, Cell]:
    return (value.value, value.low, value.high) if value else (None, None, None)


def _class_rows(data: ReportData) -> Iterable[Sequence[Cell]]:
    for variant in data.comparison.variants[1:] if data.comparison else ():
        for group, rows in (("class", variant.per_class), ("segment", variant.segments)):
            for r in rows:
                yield (variant.name, group, r.label, r.support, r.base, r.variant, r.low, r.high)


def _step_cells(data: ReportData) -> Iterable[Sequence[Cell]]:
    for row in step_rows(data):
        yield (row.index, row.label, row.settings, row.summary, row.seconds)


def _layer_cells(data: ReportData) -> Iterable[Sequence[Cell]]:
    for r in layer_rows(data):
        yield (
            r.index,
            r.name,
            r.op_type,
            r.shape,
            r.parameters,
            r.weight_bytes,
            r.precision,
            r.kernel,
            r.is_integer if r.kernel else None,
            r.kl,
            r.kl_low,
            r.kl_high,
            r.weight_sqnr_db,
            r.note,
        )
