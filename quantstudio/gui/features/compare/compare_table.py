"""A few measured variants side by side: metrics as rows, models as columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont
from typing_extensions import override

from quantstudio.core import figures
from quantstudio.core.data_spec import ON_CALIBRATION
from quantstudio.core.language import GenerationSpeed, LanguageFigures, RoundedCache
from quantstudio.core.layers import LayerInfo
from quantstudio.core.quality import (
    AGREEMENT,
    METRIC_NAMES,
    PERPLEXITY,
    SHORT_NAMES,
    Quality,
    error_growth,
    loss_of,
    metric_text,
    quality_of,
)
from quantstudio.core.results import Interval, VariantResult
from quantstudio.core.variants import Variant
from quantstudio.gui.facts.variant_facts import contents_of
from quantstudio.gui.theme import current_theme, ui_font
from quantstudio.gui.widgets.row_table import side_of
from quantstudio.workspace.names import BETWEEN

Index = QModelIndex | QPersistentModelIndex

# Of a column that is no wider than its figures.
LETTERS_IN_LINE = 16
LETTERS_IN_NAME = 20
ALL_LINES = 99


@dataclass(frozen=True, slots=True)
class _Metric:
    """One row of the comparison: its name and how a variant's cell reads."""

    name: str
    read: Callable[[Variant, VariantResult], str]
    detail: str = ""


def _dash(value: str | None) -> str:
    return figures.NOTHING if value is None else value


def _metric_rows(results: Sequence[VariantResult]) -> list[_Metric]:
    """The headline first, then the other metrics, then what the headline loses."""
    judged = [quality_of(r, is_base=index == 0) for index, r in enumerate(results)]
    heads = {found.key: found for found in judged if found is not None}
    keys = dict.fromkeys([*heads, *(key for result in results for key in result.metrics)])
    if any(found.perplexity is not None for found in heads.values()):
        keys.pop(PERPLEXITY, None)  # what the headline shows already
    rows = [
        _Metric(
            _row_name(heads[key]) if key in heads else METRIC_NAMES.get(key, key),
            lambda v, r, key=key: _dash(_metric_text(v, r, key)),  # type: ignore[misc]
            _whole_name(heads[key]) if key in heads else "",
        )
        for key in keys
    ]
    losses = [loss for r in results[1:] if (loss := loss_of(r)) is not None]
    if losses and losses[0].of in {found.name for found in heads.values()}:
        unit = losses[0].unit
        is_likelihood = any(found.perplexity is not None for found in heads.values())
        name = "Likelihood, change" if is_likelihood else "Change"
        rows.append(_Metric(name, lambda v, r: _dash(_change(v, r))))
        rows.append(_Metric(f"95 % CI ({unit})", lambda v, r: _dash(_change_interval(v, r))))
    elif losses:
        rows.append(_Metric("RMS error, growth", _against_base(_growth)))
        rows.append(_Metric("95 % CI (%)", _against_base(_growth_interval)))
    methods = {r.drop_method for r in results if r.p_value is not None}
    if methods:
        name = "McNemar" if methods == {"mcnemar"} else ", ".join(sorted(methods))
        rows.append(_Metric(f"p, {name}", _against_base(_p_value)))
    return rows


def _row_name(found: Quality) -> str:
    """What a narrow column has room for."""
    return found.shown_name if len(found.shown_name) <= LETTERS_IN_NAME else found.short_name


def _whole_name(found: Quality) -> str:
    """For the tip: the whole name, and what the figure leaves out."""
    return "\n".join(part for part in (found.shown_name, found.caveat) if part)


def _metric_text(variant: Variant, result: VariantResult, key: str) -> str | None:
    found = quality_of(result, is_base=variant.is_base)
    if found is not None and found.key == key:
        return found.text
    return metric_text(key, result.metrics[key]) if key in result.metrics else None


def _against_base(read: Callable[[VariantResult], str]) -> Callable[[Variant, VariantResult], str]:
    """A cell that says nothing of the base itself."""
    return lambda variant, result: figures.NOTHING if variant.is_base else read(result)


def _change(variant: Variant, result: VariantResult) -> str | None:
    found = quality_of(result, is_base=variant.is_base)
    return None if found is None else found.change_text


def _change_interval(variant: Variant, result: VariantResult) -> str | None:
    found = quality_of(result, is_base=variant.is_base)
    return None if found is None or found.change is None else range_text(found.change)


def _growth(result: VariantResult) -> str:
    growth = error_growth(result)
    if growth is None:
        return figures.NOTHING
    return f"{figures.number(growth.value, 2, signed=True)}{figures.THIN_SPACE}%"


def _growth_interval(result: VariantResult) -> str:
    growth = error_growth(result)
    return figures.NOTHING if growth is None else range_text(growth)


def _p_value(result: VariantResult) -> str:
    return figures.NOTHING if result.p_value is None else figures.significant(result.p_value, 2)


def _speedup(result: VariantResult) -> str:
    return figures.NOTHING if result.speedup is None else figures.ratio(result.speedup.value)


def _speedup_interval(result: VariantResult) -> str:
    if result.speedup is None:
        return figures.NOTHING
    return f"{figures.number(result.speedup.low, 2)}…{figures.number(result.speedup.high, 2)}"


def range_text(found: Interval) -> str:
    """Two signed figures with an ellipsis between: "−0.43…−0.10"."""
    return f"{figures.number(found.low, 2, signed=True)}…{figures.number(found.high, 2, signed=True)}"


def _agreement_rows(results: Sequence[VariantResult]) -> list[_Metric]:
    if not any(r.agreement is not None for r in results):
        return []

    def cell(read: Callable[[VariantResult], str]) -> Callable[[Variant, VariantResult], str]:
        return lambda v, r: figures.NOTHING if v.is_base or r.agreement is None else read(r)

    # A model that gives numbers has no answers to compare, only how far they are off.
    sqnr = _Metric("Output SQNR", cell(lambda r: figures.decibels(r.agreement.sqnr_db if r.agreement else 0)))
    if all(math.isnan(r.agreement.top1) for r in results if r.agreement is not None):
        return [sqnr]
    is_shown = any(
        AGREEMENT in r.metrics or ((found := quality_of(r, is_base=False)) and found.key == AGREEMENT)
        for r in results
    )
    same = _Metric(
        SHORT_NAMES[AGREEMENT],
        cell(lambda r: figures.percent(r.agreement.top1 if r.agreement else 0)),
        METRIC_NAMES[AGREEMENT],
    )
    return [
        *(() if is_shown else (same,)),
        _Metric("KL from FP32", cell(lambda r: figures.significant(r.agreement.kl if r.agreement else 0))),
        sqnr,
    ]


def _language_rows(results: Sequence[VariantResult]) -> list[_Metric]:
    """What is measured of language models alone."""
    if not any(r.language is not None for r in results):
        return []

    def cell(read: Callable[[LanguageFigures], str]) -> Callable[[Variant, VariantResult], str]:
        return lambda _v, r: figures.NOTHING if r.language is None else read(r.language)

    def paced(read: Callable[[GenerationSpeed], str]) -> Callable[[Variant, VariantResult], str]:
        return cell(lambda found: figures.NOTHING if found.speed is None else read(found.speed))

    def rounded(read: Callable[[RoundedCache], str]) -> Callable[[Variant, VariantResult], str]:
        return cell(lambda found: figures.NOTHING if found.int8_cache is None else read(found.int8_cache))

    rows = [
        _Metric("Perplexity, 95 % CI", cell(lambda f: _ends(f.perplexity, 2))),
        _Metric("Over FP32's", cell(lambda f: figures.ratio(f.growth.value)), "Perplexity over FP32's"),
        _Metric(
            "Over FP32's, 95 % CI", cell(lambda f: _ends(f.growth, 3)), "Perplexity over FP32's, 95 % CI"
        ),
    ]
    if any(r.language is not None and r.language.speed is not None for r in results):
        rows += [
            _Metric(
                "First token",
                paced(lambda s: figures.milliseconds(s.first_token_ms)),
                "Time from a prompt to the first token",
            ),
            _Metric(
                "Tokens per second",
                paced(lambda s: figures.number(s.tokens_per_second, 1)),
                "Tokens per second with the cache, after the first",
            ),
            _Metric("Token, speed-up", paced(lambda s: figures.ratio(s.token_speedup.value))),
        ]
    if any(r.language is not None and r.language.cache_bytes_per_token for r in results):
        rows.append(
            _Metric(
                "Cache per token",
                cell(lambda f: figures.size(f.cache_bytes_per_token)),
                "Keys and values kept for each token read",
            )
        )
    if any(r.language is not None and r.language.int8_cache is not None for r in results):
        rows += [
            _Metric(
                "INT8 cache",
                rounded(lambda c: figures.size(c.bytes_per_token)),
                "Simulated: what a cache of INT8 keys and values takes for each token read",
            ),
            _Metric(
                "INT8 cache, 95 % CI",
                rounded(lambda c: _ends(c.growth, 3)),
                "Simulated: perplexity with an INT8 cache over that with the float one, of the same model",
            ),
        ]
    return rows


def _ends(found: Interval, digits: int) -> str:
    return f"{figures.number(found.low, digits)}…{figures.number(found.high, digits)}"


def _cost_rows(results: Sequence[VariantResult]) -> list[_Metric]:
    rows = [_Metric("Model size", lambda _v, r: figures.size(r.size_bytes))]
    if any(r.latency_ms is not None for r in results):
        for name, key in (("Latency p50", "p50"), ("Latency p90", "p90"), ("Latency p99", "p99")):
            rows.append(
                _Metric(
                    name,
                    lambda _v, r, key=key: (
                        figures.NOTHING  # type: ignore[misc]
                        if r.latency_ms is None
                        else figures.milliseconds(getattr(r.latency_ms, key))
                    ),
                )
            )
        rows.append(
            _Metric(
                "Samples per second",
                lambda _v, r: (
                    figures.NOTHING if r.latency_ms is None else figures.number(r.latency_ms.throughput, 0)
                ),
            )
        )
        rows.append(_Metric("Speed-up", _against_base(_speedup)))
        rows.append(_Metric("95 % CI (×)", _against_base(_speedup_interval)))
    if any(r.peak_memory_bytes for r in results):
        rows.append(
            _Metric(
                "Peak memory",
                lambda _v, r: figures.size(r.peak_memory_bytes) if r.peak_memory_bytes else figures.NOTHING,
            )
        )
    if any(r.footprint is not None for r in results):
        rows.append(
            _Metric(
                "Load time",
                lambda _v, r: (
                    figures.NOTHING if r.footprint is None else figures.milliseconds(r.footprint.load_ms)
                ),
            )
        )
    return rows


class CompareTableModel(QAbstractTableModel):
    """Metrics as rows, measured variants as columns, the FP32 model first."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._variants: tuple[Variant, ...] = ()
        self._contents: tuple[str, ...] = ()
        self._cells: list[tuple[str, ...]] = []
        self._details: list[str] = []
        self._where = ""
        self._accuracy_rows = 0
        self._lines_shown = ALL_LINES

    def set_variants(
        self, variants: Sequence[Variant], layers: Sequence[LayerInfo] = (), *, on_calibration: bool = False
    ) -> None:
        """Compare these, built of these layers; variants without a measurement are left out.

        With `on_calibration` every row of accuracy says so to who listens or hovers.
        """
        self.beginResetModel()
        self._variants = tuple(v for v in variants if v.result is not None)
        self._contents = tuple(contents_of(v, layers) if layers else v.name for v in self._variants)
        results = [v.result for v in self._variants if v.result is not None]
        self._where = f" {ON_CALIBRATION}" if on_calibration else ""
        accuracy = _metric_rows(results) if results else []
        self._accuracy_rows = len(accuracy)
        rows = (
            [*accuracy, *_agreement_rows(results), *_language_rows(results), *_cost_rows(results)]
            if results
            else []
        )
        self._details = [row.detail for row in rows]
        self._cells = [
            (row.name, *(row.read(v, v.result) for v in self._variants if v.result is not None))
            for row in rows
        ]
        if results:
            self._cells.append(("Integer kernels", *(_kernels(v) for v in self._variants)))
            self._cells.append(("Samples", *(figures.count(r.samples) for r in results)))
        self.endResetModel()

    def show_lines(self, most: int) -> None:
        """Head every column with so many lines at most; what does not fit is in the tip."""
        if most != self._lines_shown:
            self._lines_shown = most
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, len(self._variants))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the rows."""
        return tuple(cells[0] for cells in self._cells)

    @override
    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008  Qt's own default
        return 0 if parent.isValid() else len(self._cells)

    @override
    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._variants) + 1

    @override
    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation == Qt.Orientation.Vertical:
            return self._row_header(section, role)
        if not 0 <= section <= len(self._variants):
            return None
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            if section == 0:
                return "Metric"
            name, contents = self._variants[section - 1].name, self._contents[section - 1]
            if role == Qt.ItemDataRole.ToolTipRole:
                return name if contents == name else f"{name}: {contents}"
            parts = [] if contents == name else contents.split(BETWEEN)
            return "\n".join(_heading(name, parts, self._lines_shown))
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return side_of(is_right=section > 0)
        return None

    @override
    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        text = self._cells[index.row()][index.column()]
        where = self._where if index.row() < self._accuracy_rows else ""
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return text
            case Qt.ItemDataRole.ToolTipRole:
                whole = self._details[index.row()] if index.row() < len(self._details) else ""
                return f"{whole if whole and index.column() == 0 else text}{where}"
            case Qt.ItemDataRole.TextAlignmentRole:
                return side_of(is_right=index.column() > 0)
            case Qt.ItemDataRole.ForegroundRole if index.column() == 0:
                return current_theme().color("muted")
            case Qt.ItemDataRole.FontRole if index.column() > 0 and self._is_current(index.column()):
                return _semibold()
            case Qt.ItemDataRole.AccessibleTextRole:
                name = self.headerData(index.column(), Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole)
                return f"{self._cells[index.row()][0]}{where}, {name}: {text}"
            case _:
                return None

    def _row_header(self, row: int, role: int) -> object:
        """The metric again, where a view wants it to stay in sight beside scrolled columns."""
        if not 0 <= row < len(self._cells):
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return side_of(is_right=False)
        return self.data(self.index(row, 0), role)

    def _is_current(self, column: int) -> bool:
        return self._variants[column - 1].is_current


def _heading(name: str, contents: Sequence[str], most: int) -> list[str]:
    """A name and what it contains, in no more lines than that: contents share a line, then a name is cut."""
    named, held = _lines(name), [line for part in contents for line in _lines(part)]
    if len(named) > most:
        return [*named[: most - 1], _within_line(" ".join(named[most - 1 :]))]
    left = most - len(named)
    if len(held) <= left:
        return [*named, *held]
    if left == 0:
        return named
    last = BETWEEN.join(held[left - 1 :])
    cut = last if len(last) <= LETTERS_IN_LINE else f"{last[: LETTERS_IN_LINE - 1].rstrip(BETWEEN)}…"
    return [*named, *held[: left - 1], cut]


def _lines(text: str) -> list[str]:
    """What stands in a header, broken between words; a word too long for a line loses its middle."""
    lines = wrap(text, LETTERS_IN_LINE, break_long_words=False, break_on_hyphens=False)
    return [_within_line(line) for line in lines]


def _within_line(text: str) -> str:
    half = (LETTERS_IN_LINE - 1) // 2
    return text if len(text) <= LETTERS_IN_LINE else f"{text[:half]}…{text[-half:]}"


def _kernels(variant: Variant) -> str:
    if variant.build is None:
        return figures.NOTHING
    integer = sum(layer.is_integer_kernel for layer in variant.build.layers)
    return f"{integer} of {len(variant.build.layers)}"


def _semibold() -> QFont:
    return ui_font(semibold=True)
