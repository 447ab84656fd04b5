"""A report as one self-contained HTML file: no script, no network, light and dark, ready to print."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from quantstudio.core import figures
from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import ON_CALIBRATION, DataSpec
from quantstudio.core.files import write_text
from quantstudio.core.precision import Precision, weight_format
from quantstudio.core.quality import AGREEMENT, Quality, loss_of, quality_of
from quantstudio.core.results import Interval, SensitivityResult, VariantResult
from quantstudio.report import charts
from quantstudio.report.data import ReportData
from quantstudio.report.language import language_table
from quantstudio.report.rows import LayerRow, layer_rows, step_rows

# Style of a chip by the colour role of the weights.
_CHIPS = {Precision.FP32.role: "full", Precision.FP16.role: "half", Precision.INT8.role: "int8"}


@dataclass(frozen=True, slots=True)
class Card:
    """A key figure with what changed against FP32.

    Attributes:
        title: What it is.
        value: The figure.
        change: What changed; empty where nothing is compared.
        tone: "ok", "warn", "bad" or "plain".
        tag: Provenance and backend: "measured · CPU".
        detail: Interval or conditions, small.
    """

    title: str
    value: str
    change: str = ""
    tone: str = "plain"
    tag: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its heading.

    Attributes:
        title: Heading.
        text: What is drawn, one line.
        tag: Provenance and backend.
        chart: SVG.
        is_wide: Whether it takes the whole width.
        is_compared: Whether it shows FP32 beside a variant, and so needs the key to the two colours.
    """

    title: str
    text: str
    tag: str
    chart: Markup
    is_wide: bool = False
    is_compared: bool = True


def write_html(data: ReportData, path: Path) -> None:
    """Write the report.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    write_text(path, render_html(data))


def render_html(data: ReportData) -> str:
    """The report as text; the same data give the same bytes."""
    rows = layer_rows(data)
    return _template().render(
        data=data,
        cards=cards(data),
        verdict=verdict(data),
        figures=figures_of(data),
        variants=_variants(data),
        headings=_headings(data),
        language=language_table(data.comparison),
        headline=data.headline_variant,
        layers=rows,
        steps=step_rows(data),
        largest_kl=max((r.kl for r in rows if r.kl is not None), default=0.0),
        sensitivity_tag=_sensitivity_tag(data),
        origin=_origin(data),
        recipe=_recipe_text(data),
        notes=_notes(data),
        number=figures.number,
    )


def cards(data: ReportData) -> list[Card]:
    """Size, accuracy, latency and layers of the headline variant."""
    variant, base = data.headline_variant, data.base
    if variant is None or base is None:
        return [
            Card("Model size", figures.size(data.model.file_bytes), tag="measured"),
            Card("Parameters", figures.count(data.model.parameters)),
            Card("Layers", str(len(data.model.layers))),
        ]
    where = f" {ON_CALIBRATION}" if data.is_measured_on_calibration else ""
    found = [_size_card(variant, base), _quality_card(variant, base, where), _latency_card(variant)]
    build = data.headline_build
    if build is not None:
        integer = sum(layer.is_integer_kernel for layer in build.layers)
        found.append(
            Card(
                "Integer layers",
                f"{integer} / {len(build.layers)}",
                tag="read off the optimized graph",
                detail="layers whose kernel multiplies integers",
            )
        )
    return [card for card in found if card is not None]


def verdict(data: ReportData) -> str:
    """The result in two or three plain sentences; empty where nothing was compared."""
    variant, base = data.headline_variant, data.base
    if variant is None or base is None:
        return ""
    parts = []
    if variant.size_bytes and base.size_bytes:
        parts.append(f"{variant.name} is {_times(base.size_bytes / variant.size_bytes, 'smaller', 'larger')}")
    if variant.speedup is not None:
        speed = variant.speedup
        if speed.low <= 1 <= speed.high:
            parts.append("as fast as FP32 within the uncertainty of the measurement")
        else:
            parts.append(_times(speed.value, "faster", "slower"))
    sentences = [" and ".join(parts) + "."] if parts else []
    lost, judged = _loss_sentence(variant), quality_of(variant, is_base=False)
    if lost:
        sentences.append(lost)
    elif judged is not None and judged.key == AGREEMENT:
        sentences.append(
            f"Without labels, it decides as FP32 does on {judged.text} of {variant.samples} samples."
        )
    if data.is_measured_on_calibration:
        sentences.append(
            "This was measured on the samples that also set the ranges, which biases it upwards: measure on "
            "test data before relying on it."
        )
    return " ".join(sentences)


def figures_of(data: ReportData) -> list[Figure]:
    """Every chart there is data for."""
    found: list[Figure] = []
    comparison, variant = data.comparison, data.headline_variant
    if comparison is not None and variant is not None:
        tag = _tag(variant)
        where = f" {ON_CALIBRATION}" if data.is_measured_on_calibration else ""
        timed = variant.latency_ms
        how = f"{timed.threads} thread{'s'[: timed.threads != 1]}, batch {timed.batch}" if timed else ""
        if timed and timed.load_text:
            how += f", {timed.load_text}"
        offered = (
            (
                "Loss",
                f"against FP32, paired on the same {variant.samples} samples{where}, 95 % intervals",
                charts.loss_chart(comparison),
            ),
            ("File size", "with external data", charts.size_chart(comparison)),
            (
                "Latency",
                f"interleaved rounds, line from median to 99th percentile, {how}",
                charts.latency_chart(comparison),
            ),
            (
                "Trade-off",
                f"accuracy{where}; up and left is better" if where else "up and left is better",
                charts.tradeoff_chart(comparison),
            ),
        )
        found += [Figure(title, text, tag, svg) for title, text, svg in offered if svg is not None]
        # The classes fill the half that is left over, or a row of their own.
        is_wide = len(found) % 2 == 0
        classes = charts.class_chart(variant, charts.FULL_WIDTH if is_wide else charts.HALF_WIDTH)
        if classes is not None:
            text = f"{variant.name}{where}, largest loss first, 95 % intervals"
            found.append(Figure("Accuracy by class", text, tag, classes, is_wide))
    if data.sensitivity is not None:
        svg = charts.sensitivity_chart(data.sensitivity, data.model.titles)
        if svg is not None:
            text = (
                f"KL divergence from FP32 when one layer alone is {_reference(data.sensitivity)}, "
                f"{data.sensitivity.samples} samples{_steps_text(data.sensitivity)}"
            )
            found.append(Figure("Layer sensitivity", text, _sensitivity_tag(data), svg, True, False))
    return found


def _size_card(variant: VariantResult, base: VariantResult) -> Card:
    ratio = base.size_bytes / max(variant.size_bytes, 1)
    return Card(
        "Model size",
        figures.size(variant.size_bytes),
        _times(ratio, "smaller", "larger"),
        "ok" if ratio >= 1 else "bad",
        "measured",
        f"FP32 {figures.size(base.size_bytes)}",
    )


def _quality_card(variant: VariantResult, base: VariantResult, where: str) -> Card | None:
    found = quality_of(variant, is_base=False)
    if found is None:
        return None
    before = quality_of(base, is_base=True)
    detail = f"FP32 {before.text if before is not None else found.base_text}"
    change, tone, loss = "", "plain", loss_of(variant)
    if found.loss is not None and loss is not None:
        change, tone = found.delta_text, _loss_tone(found)
        detail += f" · change, 95 % {found.change_ends_text}"
    elif loss is not None:
        change = f"{loss.of} {figures.number(loss.value.value, 1, signed=True)} %"
        detail += f" · 95 % {figures.interval(loss.value, signed=True)}"
    elif variant.agreement is not None:
        detail = f"output SQNR {figures.decibels(variant.agreement.sqnr_db)}, no labels"
    if found.caveat:
        detail += f" · {found.caveat}"
    return Card(f"{found.shown_name}{where}", found.text, change, tone, _tag(variant), detail)


def _latency_card(variant: VariantResult) -> Card | None:
    if variant.latency_ms is None:
        return None
    speed = variant.speedup
    tone = "plain" if speed is None else "ok" if speed.low > 1 else "bad" if speed.high < 1 else "warn"
    return Card(
        "Latency p50",
        figures.milliseconds(variant.latency_ms.p50),
        "" if speed is None else _times(speed.value, "faster", "slower"),
        tone,
        f"measured · {figures.provider(variant.latency_ms.provider)}, {variant.latency_ms.threads} thr.",
        "" if speed is None else f"speed-up 95 % {figures.interval(speed)}",
    )


def _loss_tone(found: Quality) -> str:
    if found.loss is None or found.is_noise or found.loss.value <= 0:
        return "ok"
    return "bad" if found.is_below_floor else "warn"


def _loss_sentence(variant: VariantResult) -> str:
    found = loss_of(variant)
    if found is None:
        return ""
    loss, unit = found.value, "points" if found.unit == "pp" else found.unit
    what = f"{unit} of {found.of}"
    amount = figures.number(abs(loss.value), 2)
    ends = f"95 % interval {figures.interval(loss, signed=True)}"
    if loss.low <= 0 <= loss.high:
        return (
            f"A loss cannot be told from zero on {variant.samples} samples: measured "
            f"{figures.number(loss.value, 2, signed=True)} {what}, {ends}."
        )
    verb = "loses" if loss.value > 0 else "gains"
    return f"It {verb} {amount} {what} on {variant.samples} samples ({ends})."


def _times(ratio: float, more: str, less: str) -> str:
    if 0.995 <= ratio < 1.005:
        return f"not {more}"
    return f"{figures.ratio(ratio)} {more}" if ratio > 1 else f"{figures.ratio(1 / ratio)} {less}"


def _tag(variant: VariantResult) -> str:
    return f"{variant.provenance.value} · {figures.provider(variant.provider)}"


def _steps_text(found: SensitivityResult) -> str:
    """The steps the network had behind it, and those that depend on the precisions and are not in it."""
    behind = f", after {', '.join(found.steps)}" if found.steps else ""
    return f"{behind}, without {', '.join(found.left_out)}" if found.left_out else behind


def _reference(found: SensitivityResult) -> str:
    """The precision of its headline figures as the window calls it: "INT4"."""
    try:
        return weight_format(found.reference).label
    except ValueError:
        return found.reference


def _sensitivity_tag(data: ReportData) -> str:
    if data.sensitivity is None:
        return ""
    return f"{data.sensitivity.provenance.value} · {data.sensitivity.method}"


def _variants(data: ReportData) -> list[dict[str, Any]]:
    """Cells of the table of variants, as text."""
    if data.comparison is None:
        return []
    rows = []
    for index, v in enumerate(data.comparison.variants):
        times, close, found = v.latency_ms, v.agreement, quality_of(v, is_base=index == 0)
        has_answers = close is not None and not math.isnan(close.top1)
        rows.append(
            {
                "name": v.name,
                "contents": _contents(v, data),
                "size": figures.size(v.size_bytes),
                "quality": figures.NOTHING if found is None else found.text,
                "drop": _loss_cell(v) if index else (figures.NOTHING, ""),
                "agreement": figures.percent(close.top1)
                if close and index and has_answers
                else figures.NOTHING,
                "sqnr": figures.decibels(close.sqnr_db) if close and index else figures.NOTHING,
                "p50": figures.milliseconds(times.p50) if times else figures.NOTHING,
                "p99": figures.milliseconds(times.p99) if times else figures.NOTHING,
                "speedup": _with_ends(v.speedup if index else None, suffix="×"),
                "memory": figures.size(v.peak_memory_bytes) if v.peak_memory_bytes else figures.NOTHING,
                "load": figures.milliseconds(v.footprint.load_ms) if v.footprint else figures.NOTHING,
                "provider": figures.provider(v.provider),
                "tag": v.provenance.value,
            }
        )
    return rows


def _contents(variant: VariantResult, data: ReportData) -> str:
    """What a variant contains, where its name does not say it."""
    found = data.contents.get(variant.path, "")
    return "" if found == variant.name else found


def _headings(data: ReportData) -> tuple[str, str]:
    """What the columns of quality and loss are called."""
    variant = data.headline_variant
    found = quality_of(variant, is_base=False) if variant is not None else None
    loss = loss_of(variant) if variant is not None else None
    if found is None or loss is None:
        return "Quality" if found is None else found.shown_name, "Loss"
    return found.shown_name, f"Loss, {loss.unit}" if loss.of == found.name else f"{loss.of}, {loss.unit}"


def _loss_cell(variant: VariantResult) -> tuple[str, str]:
    loss = loss_of(variant)
    return _with_ends(loss.value if loss is not None else None, signed=True)


def _with_ends(value: Interval | None, *, signed: bool = False, suffix: str = "") -> tuple[str, str]:
    if value is None:
        return figures.NOTHING, ""
    shown = figures.number(value.value, 2, signed=signed) + suffix
    return shown, figures.interval(value, signed=signed)


def _origin(data: ReportData) -> list[tuple[str, str]]:
    """How the figures came about: pairs of a name and a text."""
    model = data.model
    found = [
        ("Model", model.source_path),
        ("Network", f"{len(model.layers)} layers, {model.parameters:,} parameters, opset {model.opset}"),
        ("Normalised graph", f"SHA-256 {model.digest}"),
    ]
    found += [("Measured on", _data_text(data.data))] if data.data else []
    found += [("Calibrated on", _data_text(data.calibration))] if data.calibration else []
    if data.recipe is not None:
        settings = data.recipe.calibration
        found.append(("Calibration", f"{settings.method.value}, {settings.samples} samples"))
        found.append(("Target", data.recipe.target))
    build = data.headline_build
    if build is not None:
        found.append(("Variant", build.variant))
        difference = figures.significant(build.unoptimized_difference, 2)
        found.append(("Optimized against unoptimized run", f"largest relative difference {difference}"))
        if build.preset:
            found.append(("Choice", build.preset))
    found += list(data.machine)
    if data.version:
        found.append(("QuantStudio", data.version))
    return found


def _notes(data: ReportData) -> list[str]:
    """Every note once: the report's, the model's, the warnings of the build."""
    build = data.headline_build
    return list(dict.fromkeys((*data.notes, *data.model.notes, *(build.warnings if build else ()))))


def _data_text(spec: DataSpec) -> str:
    parts = [spec.path, spec.transform.text, f"first {spec.samples} samples" if spec.samples else ""]
    return " · ".join(part for part in parts if part)


def _recipe_text(data: ReportData) -> str:
    return json.dumps(to_json(data.recipe), indent=2, ensure_ascii=False) if data.recipe else ""


def _chip(row: LayerRow) -> str:
    """Style of a precision chip, by the colour role the catalogue gives its weights in the window, too."""
    return _CHIPS.get(row.role, "low")


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("quantstudio.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=figures.size,
        percent=figures.percent,
        significant=figures.significant,
        count=figures.count,
        decibels=figures.decibels,
        chip=_chip,
    )
    return environment.get_template("template.html")
