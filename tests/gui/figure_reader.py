"""Every figure a session shows, read off its screens, its report, its files and its Python interface.

What a reading is, and when two of them agree: `readings`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PySide6.QtCore import QAbstractItemModel, Qt
from PySide6.QtWidgets import QStatusBar

from quantstudio.cli.compare import _row
from quantstudio.cli.inspect import inspect_json
from quantstudio.core.predict.table import Prediction
from quantstudio.core.quality import quality_of
from quantstudio.core.variants import Variant
from quantstudio.gui.features.compare.compare_table import CompareTableModel
from quantstudio.gui.features.improve.step_gains import levels_of, plan_line
from quantstudio.gui.features.inspect.inspect_panel import InspectPanel
from quantstudio.gui.features.layers.layer_table import LayerColumn, LayerTableModel
from quantstudio.gui.features.plans.key_figures_panel import KeyFiguresPanel
from quantstudio.gui.features.plans.plans_panel import QUALITY, PlansPanel
from quantstudio.gui.features.tradeoff.plan_table import PLAN_ROLE, PlanColumn, PlanTableModel
from quantstudio.gui.features.tradeoff.tradeoff_points import PLAN_KEY, PREDICTED_KEY, Cost, TradeoffPoints
from quantstudio.gui.features.tradeoff.variant_table import VARIANT_ROLE, VariantColumn, VariantTableModel
from quantstudio.gui.session import Session
from quantstudio.gui.shell.status_line import StatusLine
from quantstudio.report.csv import write_csv
from quantstudio.report.html import cards, render_html
from quantstudio.report.json import report_json
from quantstudio.workspace.names import base_name
from quantstudio.workspace.report_data import comparison, report_of
from quantstudio.workspace.summaries import summary_of
from tests.gui.readings import Reading, Readings, numbers


def read(session: Session, *, with_layers: bool = True) -> Readings:
    """Look at everything, layer by layer where asked."""
    found = Readings()
    _cards(found, session)
    _variant_table(found, session)
    _compare_table(found, session)
    _plans(found, session)
    _trade_off(found, session)
    _search(found, session)
    _improve(found, session)
    if with_layers:
        _layers(found, session)
    _python(found, session)
    _command_line(found, session)
    _opened(found, session)
    if session.workspace.base is not None:
        _report(found, session)
    return found


def active(session: Session) -> str:
    """The plan on the screen, under the name of its variant once that was measured."""
    current = session.workspace.current_variant
    if current is not None and current.result is not None:
        return current.name
    return f"plan {session.workspace.active_plan}"


def _cards(found: Readings, session: Session) -> None:
    panel = KeyFiguresPanel(session)
    panel.resize(1400, 120)
    of, known = active(session), session.workspace
    is_fresh = known.prediction is not None or known.current_variant is not None
    if known.model is None or not is_fresh:
        return
    card = panel.quality_card
    if card.tag.text in ("measured", "predicted") and card.delta.text() != "FP32":
        found.text(of, "quality", card.value.text(), "card")
        found.text(of, "change", card._deltas[0], "card")
        tip = card.toolTip()
        interval = re.search(r"interval ([^;]*) to ([^;]*)", tip)
        if interval is not None:
            found.text(of, "quality low", interval[1], "tip of the card")
            found.text(of, "quality high", interval[2], "tip of the card")
        base = re.search(r"FP32 has ([^;]*)", tip)
        if base is not None:
            found.text("FP32", "quality", base[1], "tip of the card")
        short = re.match(r"([\d.]+)–([\d.]+)", card.more.text())
        if short is not None:
            found.text(of, "quality low", short[1], "card")
            found.text(of, "quality high", short[2], "card")
    if known.base is not None and known.base.result is not None:
        found.word("metric", card.caption.text(), "card")
    size_card, opened = panel.size_card, base_name(known.layers)
    is_opened = size_card.tag.text not in ("measured", "predicted")
    found.text(opened if is_opened else of, "size", size_card.value.text(), "card")
    takes = re.search(r"takes ([^;]*)", size_card.toolTip())
    found.text(opened, "size", takes[1] if takes is not None else "", "tip of the card")
    if panel.latency_card.tag.text in ("measured", "predicted") and panel.latency_card.delta.text() != "FP32":
        found.text(of, "latency", panel.latency_card.value.text(), "card")
        ratio = numbers(panel.latency_card._deltas[0])
        if ratio and "slower" in panel.latency_card._deltas[0]:
            value, half = ratio[0]
            found.figures.append(Reading(of, "speed-up", 1 / value, 1 / (value - half) - 1 / value, "card"))
        elif ratio and panel.latency_card.tag.text == "measured":
            found.text(of, "speed-up", panel.latency_card._deltas[0], "card")
    panel.deleteLater()


def _cell(model: QAbstractItemModel, row: int, column: int, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
    return model.index(row, column).data(role)


def _variant_table(found: Readings, session: Session) -> None:
    model, known = VariantTableModel(session), session.workspace
    for row in range(model.rowCount()):
        variant: Variant = _cell(model, row, 0, VARIANT_ROLE)
        of, where = variant.name, "table of variants"
        found.text(of, "size", _cell(model, row, VariantColumn.SIZE), where)
        if variant.is_base or variant.build is not None:  # byte for byte what lies on the disk
            path = known.model.source_path if known.model and variant.is_base else variant.path
            found.exact(of, "size", Path(path).stat().st_size, "file on disk")
        if variant.result is None:
            continue
        found.text(of, "quality", _cell(model, row, VariantColumn.QUALITY), where)
        found.text(of, "latency", _cell(model, row, VariantColumn.LATENCY), where)
        if not variant.is_base:
            change = _cell(model, row, VariantColumn.CHANGE)
            found.text(of, "change", change, where)
            found.text(of, "change low", change, where, at=1)
            found.text(of, "change high", change, where, at=2)
            _with_ends(found, of, "speed-up", _cell(model, row, VariantColumn.SPEEDUP), where)
        header = model.headerData(
            VariantColumn.QUALITY, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole
        )
        if header:
            found.word("metric", str(header), where)


def _with_ends(found: Readings, of: str, figure: str, text: str, where: str) -> None:
    for at, end in enumerate(("", " low", " high")):
        found.text(of, figure + end, text, where, at=at)


def _compare_table(found: Readings, session: Session) -> None:
    model = CompareTableModel()
    measured = [v for v in session.workspace.variants if v.result is not None]
    model.set_variants(measured, session.workspace.layers)
    figures = {
        "Change": "change",
        "Model size": "size",
        "Latency p50": "latency",
        "Speed-up": "speed-up",
        "Output SQNR": "output sqnr",
    }
    names = [_cell(model, row, 0) for row in range(model.rowCount())]
    if names:
        # A narrow column names it in short; the whole name is in the tip.
        whole = str(model.data(model.index(0, 0), Qt.ItemDataRole.ToolTipRole))
        found.word("metric", whole.split("\n")[0], "table of the comparison")
    for row, name in enumerate(names):
        figure = "quality" if row == 0 else figures.get(name)
        for column, variant in enumerate(measured, start=1):
            text = _cell(model, row, column)
            where = "table of the comparison"
            if figure is not None and not (variant.is_base and figure == "speed-up"):
                found.text(variant.name, figure, text, where)
            elif name.startswith("95 % CI"):
                of_what = "speed-up" if "×" in name else "change"
                found.text(variant.name, f"{of_what} low", text, where, at=0)
                found.text(variant.name, f"{of_what} high", text, where, at=1)


def _plans(found: Readings, session: Session) -> None:
    panel = PlansPanel(session)
    known = session.workspace
    for row, plan in enumerate(known.plans):
        variant = known.variant_of(plan.recipe)
        is_measured = variant is not None and variant.result is not None
        of = variant.name if variant is not None and is_measured else f"plan {plan.name}"
        items = [panel.table.item(row, column) for column in range(panel.table.columnCount())]
        texts = [item.text() if item is not None else "" for item in items]
        for figure, heading in (("size", "Size"), ("latency", "Latency p50")):
            found.text(of, figure, texts[_heading(panel, heading)], "list of plans")
        found.text(of, "quality", texts[QUALITY], "list of plans")
        if plan.name == known.active_plan:
            found.text(
                f"layers of {of}", "quantized", texts[_heading(panel, "Layers quantized")], "list of plans"
            )
    panel.deleteLater()


def _heading(panel: PlansPanel, text: str) -> int:
    items = [panel.table.horizontalHeaderItem(column) for column in range(panel.table.columnCount())]
    return next(i for i, item in enumerate(items) if item is not None and item.text() == text)


def _trade_off(found: Readings, session: Session) -> None:
    names = {v.key: v.name for v in session.workspace.variants}
    for cost, figure in ((Cost.SIZE, "size"), (Cost.LATENCY, "latency")):
        points = TradeoffPoints(session, cost, {})
        factor = points._unit[1] if cost is Cost.SIZE else 1.0
        for point in points.all():
            if point.key in names:
                of = names[point.key]
            elif point.key == PREDICTED_KEY:
                of = active(session)
            else:
                of = point.key
            where = f"trade-off against {figure}"
            found.exact(of, figure, point.cost.value * factor, where)
            if not points.is_sqnr:
                found.exact(of, "quality", point.quality.value, where)
                if not point.key.startswith(PLAN_KEY):  # the tip of a plan tells what it loses, as its row
                    first = point.detail.split("\n")[0].removeprefix(_metric(session))
                    found.text(of, "quality", first, f"tip, {where}")
                if point.quality.low != point.quality.high:
                    found.exact(of, "quality low", point.quality.low, where)
                    found.exact(of, "quality high", point.quality.high, where)


def _metric(session: Session) -> str:
    base = session.workspace.base
    quality = quality_of(base.result, is_base=True) if base is not None else None
    return quality.name if quality is not None else ""


def _search(found: Readings, session: Session) -> None:
    model = PlanTableModel(session)
    known = session.workspace
    level = TradeoffPoints(session, Cost.SIZE, {})._level
    for row in range(model.rowCount()):
        point = _cell(model, row, 0, PLAN_ROLE)
        of = PLAN_KEY + known.searches.key_of(point)
        found.text(of, "size", _cell(model, row, PlanColumn.FILE), "search plans")
        variant, time = known.variant_of(point.recipe), numbers(_cell(model, row, PlanColumn.LATENCY))
        if variant is not None and variant.result is not None and time:
            value, half = time[0]
            speed = Reading(
                variant.name, "speed-up", 1 / value, 1 / (value - half) - 1 / value, "search plans"
            )
            found.figures.append(speed)
        change = numbers(_cell(model, row, PlanColumn.CHANGE))
        if level is not None and change:
            value, half = change[0]
            found.figures.append(Reading(of, "quality", max(0.0, 100 * level + value), half, "search plans"))


def _improve(found: Readings, session: Session) -> None:
    """The waterfall and the line about the plan on the page of steps."""
    known = session.workspace
    stages = known.improvement.stages
    for stage, level in zip(stages, levels_of(known.base, stages)[1:], strict=True):
        if stage.variant is not None:
            found.exact(stage.variant.name, "change", level.value, "waterfall")
    current = known.current_variant
    if current is not None and current.build is not None and current.result is not None:
        size, _, change = plan_line(known)[0].partition(", ")
        found.text(current.name, "size", size, "line of the plan")
        found.text(current.name, "change", change, "line of the plan")


def _layers(found: Readings, session: Session) -> None:
    known = session.workspace
    table, inspector = LayerTableModel(session), InspectPanel(session)
    for row, layer in enumerate(known.layers):
        text = _cell(table, row, LayerColumn.SQNR)
        found.text(layer.name, "weight sqnr", text, "table of layers")
        label = _cell(table, row, LayerColumn.PRECISION)
        found.word(f"precision of {layer.name}", label, "table of layers")
        session.select([layer.name])
        inspector.show_kind("weights")
        inspector._show_bits()
        shown = re.search(r"SQNR (?!≥)([^·]*dB)", inspector.histogram.readout.text())
        # Where channels share no levels one of them is drawn, and the figure below is of that one.
        levels = known.levels.of(layer, inspector.channel.channel)
        of = layer.name if levels is None else f"{layer.name}, channel {levels.channel}"
        if shown is not None and layer.weight_name:
            found.text(of, "weight sqnr", shown[1], "inspector")
        if levels is not None:
            found.exact(of, "weight sqnr", levels.sqnr_db, "levels of the channel")
            found.exact(of, "levels", len(levels.levels), "levels of the channel")
            found.text(of, "levels", inspector.histogram.readout.text(), "inspector")
        for cost in inspector.bits.costs if layer.weight_name else ():
            if cost.name == inspector.bits._current and numbers(text):
                found.exact(layer.name, "weight sqnr", cost.sqnr_db, "error against bits")
    inspector.deleteLater()


def _prediction(found: Readings, of: str, prediction: Prediction | None, where: str) -> None:
    if prediction is None:
        return
    found.exact(of, "size", prediction.size_bytes, where)
    found.exact(of, "latency", prediction.latency_ms, where)
    if prediction.accuracy is not None:
        found.exact(of, "quality", 100 * prediction.accuracy.value, where)
        found.exact(of, "quality low", 100 * prediction.accuracy.low, where)
        found.exact(of, "quality high", 100 * prediction.accuracy.high, where)


def _python(found: Readings, session: Session) -> None:
    known = session.workspace
    for plan in known.plans:
        variant = known.variant_of(plan.recipe)
        if variant is None:
            _prediction(found, f"plan {plan.name}", known.predicted(plan.recipe), "predict()")
    measured = comparison(known.variants)
    for row in measured.to_dict()["variants"] if measured is not None else ():
        _values(found, row, "measure().to_dict()")


def _values(found: Readings, row: dict[str, Any], where: str) -> None:
    of = row["name"]
    found.exact(of, "size", row["size_bytes"], where)
    headline = row.get("headline")
    if headline is not None:
        found.exact(of, "quality", 100 * headline["value"], where)
    elif "top1" in row["metrics"]:
        found.exact(of, "quality", 100 * row["metrics"]["top1"], where)
    if row["latency_ms"] is not None:
        found.exact(of, "latency", row["latency_ms"]["p50"], where)
    if row["agreement"] is not None and row["agreement"]["sqnr_db"] is not None:
        found.exact(of, "output sqnr", row["agreement"]["sqnr_db"], where)
    if row["speedup"] is not None:
        found.exact(of, "speed-up", row["speedup"]["value"], where)


def _command_line(found: Readings, session: Session) -> None:
    measured = comparison(session.workspace.variants)
    for index, one in enumerate(measured.variants if measured is not None else ()):
        cells, where = _row(one, is_base=index == 0), "command line"
        found.text(one.name, "size", cells[1], where)
        share = re.search(r"top1 ([\d.]+)", cells[2])
        if share is not None:
            found.figures.append(Reading(one.name, "quality", 100 * float(share[1]), 0.005, where))
        if index:
            found.text(one.name, "change", cells[3], where, sign=-1.0)
            _with_ends(found, one.name, "speed-up", cells[6], where)
        found.text(one.name, "latency", f"{cells[5]} ms", where)


def _opened(found: Readings, session: Session) -> None:
    """What is said of the model that is open, before and beside everything measured."""
    model, bar = session.workspace.model, QStatusBar()
    if model is None:
        return
    of = base_name(model.layers)
    found.exact(of, "size", inspect_json(model)["file_bytes"], "inspect --json")  # type: ignore[arg-type]
    found.exact(of, "size", summary_of(session.workspace).model_bytes, "list of sessions")
    line = StatusLine(bar, session).engine.text()
    found.text(of, "size", line.rpartition(", ")[2], "status line")
    bar.deleteLater()


class _Tables(HTMLParser):
    """Cells of every table, small print apart, and cards."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.small: list[list[str]] = []
        self._in: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._in.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.small.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.small[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "td" in self._in or "th" in self._in:
            rows = self.small if "small" in self._in else self.rows
            rows[-1][-1] += data


def _report(found: Readings, session: Session) -> None:
    data, layers = report_of(session.workspace), {one.name: one for one in session.workspace.layers}
    base = base_name(session.workspace.layers)
    for card in cards(data):
        if card.title == "Model size":
            headline = data.headline_variant
            found.text(headline.name if headline else base, "size", card.value, "card of the report")
            if headline:
                found.text(base, "size", card.detail.removeprefix(base), "card of the report")
    reader = _Tables()
    reader.feed(render_html(data))
    headings: list[str] = []
    for row, small in zip(reader.rows, reader.small, strict=True):
        if row and row[0] in ("Model", "#"):
            headings = row
            if row[0] == "Model":
                found.word("metric", row[2], "report")
        elif headings and headings[0] == "Model" and len(row) == len(headings):
            _report_variant(found, dict(zip(headings, row, strict=True)), small, headings)
        elif headings and headings[0] == "#" and len(row) == len(headings) and row[1] in layers:
            cells = dict(zip(headings, row, strict=True))
            found.text(row[1], "weight sqnr", cells.get("Weight SQNR", ""), "report")
            # A layer that did not become what was asked has the reason below its name.
            is_as_asked = session.workspace.current_variant is not None and not small[1]
            if cells.get("Precision") and is_as_asked:
                found.word(f"precision of {row[1]}", cells["Precision"], "report")
                asked = data.recipe.scheme_for(layers[row[1]]).label if data.recipe is not None else ""
                found.word(f"precision of {row[1]}", asked, "recipe in the report")
    with TemporaryDirectory() as folder:
        for path in write_csv(data, Path(folder)):
            _csv(found, path.name, list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))))
    document = report_json(data)
    for one in (document.get("comparison") or {}).get("variants", ()):
        _values(found, one, "report.json")
    for name, value in document["weight_sqnr_db"].items():
        found.exact(name, "weight sqnr", value, "report.json")


def _report_variant(found: Readings, cells: dict[str, str], small: list[str], headings: list[str]) -> None:
    of, where = cells["Model"], "report"
    found.text(of, "size", cells["Size"], where)
    found.text(of, "quality", cells[headings[2]], where)
    found.text(of, "change", cells[headings[3]], where, sign=-1.0)
    found.text(of, "change high", small[3], where, at=0, sign=-1.0)
    found.text(of, "change low", small[3], where, at=1, sign=-1.0)
    found.text(of, "latency", cells["p50"], where)
    found.text(of, "output sqnr", cells["Output SQNR"], where)
    if numbers(cells["Speed-up"]):
        found.text(of, "speed-up", cells["Speed-up"], where)
        found.text(of, "speed-up low", small[headings.index("Speed-up")], where, at=0)
        found.text(of, "speed-up high", small[headings.index("Speed-up")], where, at=1)


def _csv(found: Readings, name: str, rows: Sequence[dict[str, str]]) -> None:
    for row in rows:
        if name == "variants.csv":
            of = row["name"]
            for figure, column, factor in (
                ("size", "size_bytes", 1.0),
                ("quality", "top1", 100.0),
                ("latency", "p50_ms", 1.0),
                ("output sqnr", "output_sqnr_db", 1.0),
                ("speed-up", "speedup", 1.0),
            ):
                if row[column]:
                    found.exact(of, figure, factor * float(row[column]), name)
        elif name == "layers.csv" and row["weight_sqnr_db"]:
            found.exact(row["layer"], "weight sqnr", float(row["weight_sqnr_db"]), name)
