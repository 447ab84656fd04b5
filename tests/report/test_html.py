import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.errors import OutputError
from quantstudio.core.results import CompareResult, Interval, VariantResult
from quantstudio.report.data import ReportData
from quantstudio.report.html import cards, figures_of, render_html, verdict, write_html
from tests.report.report_data import EVIL, full_report, variant

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Outline(HTMLParser):
    """Elements in order, with a check that every one is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _outline(data: ReportData) -> Outline:
    outline = Outline()
    outline.feed(render_html(data))
    outline.close()
    assert outline.open == []
    return outline


def _with_variant(changed: VariantResult, **of_result: Any) -> ReportData:
    data = full_report()
    assert data.comparison is not None
    comparison = replace(data.comparison, variants=(data.comparison.variants[0], changed), **of_result)
    return replace(data, comparison=comparison)


def _int8() -> VariantResult:
    comparison = full_report().comparison
    assert comparison is not None
    return comparison.variants[1]


def test_that_the_report_is_one_file_without_script_or_network() -> None:
    outline = _outline(full_report())
    assert not [tag for tag, _ in outline.seen if tag in ("script", "link", "img", "iframe")]
    assert not [
        value for _, attrs in outline.seen for name, value in attrs.items() if name in ("src", "href")
    ]
    assert "@import" not in render_html(full_report())
    assert "url(" not in render_html(full_report())


def test_that_names_are_text_never_markup() -> None:
    html = render_html(full_report())
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert EVIL in _outline(full_report()).text
    assert "conv<1>" in _outline(full_report()).text


def test_that_every_picture_says_what_it_shows() -> None:
    outline = _outline(full_report())
    labels = [attrs["aria-label"] for tag, attrs in outline.seen if tag == "svg"]
    assert len(labels) == len(figures_of(full_report())) == 6
    assert all(attrs["role"] == "img" for tag, attrs in outline.seen if tag == "svg")
    spoken = " ".join(label or "" for label in labels)
    assert "+1.00, 95 % interval +0.20 to +1.80" in spoken
    assert "median 2.00" in spoken
    assert "conv<1> 0.020" in spoken


def test_that_every_figure_names_how_it_came_about_and_on_what() -> None:
    for figure in figures_of(full_report()):
        assert figure.tag in ("measured · CPU", "predicted · fisher")
    by_title = {figure.title: figure.tag for figure in figures_of(full_report())}
    assert by_title["Layer sensitivity"] == "predicted · fisher"
    assert all(card.tag for card in cards(full_report()))


def test_that_times_of_a_busy_machine_say_so() -> None:
    (quiet,) = [one for one in figures_of(full_report()) if one.title == "Latency"]
    assert "other programs" not in quiet.text
    timed = _int8().latency_ms
    assert timed is not None
    busy = _with_variant(replace(_int8(), latency_ms=replace(timed, other_load=0.31)))
    (figure,) = [one for one in figures_of(busy) if one.title == "Latency"]
    assert figure.text.endswith("other programs used 31 % of the processors meanwhile")


def test_that_sensitivity_says_which_steps_it_is_behind_and_which_it_does_not_know() -> None:
    data = full_report()
    assert data.sensitivity is not None
    found = replace(data.sensitivity, steps=("equalize",), left_out=("bias",))
    (figure,) = [
        one for one in figures_of(replace(data, sensitivity=found)) if one.title == "Layer sensitivity"
    ]
    assert figure.text.endswith("samples, after equalize, without bias")


def test_that_the_key_figures_are_those_of_the_variant() -> None:
    size, accuracy, latency, layers = cards(full_report())
    assert (size.value.replace("\u202f", " "), size.change) == ("250 B", "4.0× smaller")
    assert (accuracy.value, accuracy.change) == ("90.00\u202f%", "−1.00\u202fpp")
    assert accuracy.tone == "warn"
    more = replace(_int8(), drop=Interval(1.5, 0.7, 2.3))
    assert cards(_with_variant(more))[1].tone == "bad"
    assert "−1.80 to −0.20" in accuracy.detail
    assert (latency.value.replace("\u202f", " "), latency.change) == ("2.00 ms", "2.0× faster")
    assert layers.value == "1 / 2"


def test_that_the_verdict_tells_a_loss_from_noise() -> None:
    assert "4.0× smaller and 2.0× faster. It loses 1.00 points" in verdict(full_report())
    unsure = replace(_int8(), drop=Interval(0.1, -0.3, 0.5))
    assert "cannot be told from zero on 200 samples" in verdict(_with_variant(unsure))
    better = replace(_int8(), drop=Interval(-0.5, -0.9, -0.1))
    assert "It gains 0.50 points" in verdict(_with_variant(better))
    slow = replace(_int8(), speedup=Interval(0.5, 0.45, 0.55))
    assert "2.0× slower" in verdict(_with_variant(slow))
    equal = replace(_int8(), speedup=Interval(1.01, 0.9, 1.1))
    assert "as fast as FP32 within the uncertainty" in verdict(_with_variant(equal))


def test_that_without_labels_agreement_takes_the_place_of_accuracy() -> None:
    bare = replace(_int8(), metrics={}, drop=None, per_class=(), segments=())
    data = _with_variant(bare, labelled=False)
    assert "decides as FP32 does on 99.10" in verdict(data)
    assert [c.title for c in cards(data)][1] == "Same answers as the base"
    titles = [f.title for f in figures_of(data)]
    assert "Loss" not in titles
    assert "no labels" in _outline(data).text


def test_that_regression_speaks_of_error() -> None:
    data = full_report()
    assert data.comparison is not None
    base = replace(data.comparison.variants[0], metrics={"rmse": 0.5, "mae": 0.3, "r2": 0.9}, per_class=())
    worse = replace(
        _int8(), metrics={"rmse": 0.51, "mae": 0.3, "r2": 0.89}, per_class=(), drop=Interval(2.0, 1.0, 3.0)
    )
    data = replace(data, comparison=CompareResult((base, worse), 200, 1.0, labelled=True, task="regression"))
    card = cards(data)[1]
    assert (card.title, card.value, card.change) == ("R²", "89.00\u202f%", "RMS error +2.0 %")
    assert "It loses 2.00 % of RMS error" in verdict(data)
    _outline(data)


def test_that_a_model_alone_makes_a_report() -> None:
    bare = ReportData("Net", "today", full_report().model)
    outline = _outline(bare)
    assert "conv<1>" in outline.text
    assert not [tag for tag, _ in outline.seen if tag == "svg"]
    assert verdict(bare) == ""
    assert cards(bare)[0].title == "Model size"


def test_that_a_note_is_told_once_and_warnings_of_the_build_too() -> None:
    data = full_report()
    text = _outline(replace(data, notes=("a note", *data.model.notes))).text
    assert text.count("BatchNormalization folded") == 1
    assert text.count("a note") == 1
    assert text.count("one warning") == 1


def test_that_the_headline_is_the_one_asked_for() -> None:
    data = full_report()
    assert data.comparison is not None
    other = variant("other", "/out/other.onnx", 500, 0.9, Interval(0.5, 0.1, 0.9), 3.0)
    first = data.comparison.variants[1]
    data = replace(data, comparison=replace(data.comparison, variants=(*data.comparison.variants, other)))
    assert data.headline_variant is first
    assert replace(data, headline="/out/other.onnx").headline_variant is other
    assert replace(data, builds=()).headline_variant is first
    assert replace(data, headline="/out/other.onnx").headline_build is None


def test_that_the_same_data_give_the_same_bytes_and_both_themes() -> None:
    html = render_html(full_report())
    assert html == render_html(full_report())
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", html))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):#", html))


def test_that_a_thousand_layers_and_classes_stay_a_report() -> None:
    data = full_report()
    layers = tuple(replace(data.model.layers[0], name=f"layer{i}") for i in range(1000))
    rows = tuple(replace(_int8().per_class[0], label=f"class {i}") for i in range(1000))
    many = replace(_with_variant(replace(_int8(), per_class=rows)), model=replace(data.model, layers=layers))
    assert data.sensitivity is not None
    scores = tuple(replace(data.sensitivity.layers[0], name=layer.name) for layer in layers)
    many = replace(many, sensitivity=replace(data.sensitivity, layers=scores))
    html = render_html(many)
    assert len(html) < 1_500_000
    assert html.count('class="fp-ring"') == 30


def test_that_a_failed_write_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write_html(full_report(), tmp_path / "nowhere" / "report.html")
    write_html(full_report(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_html(full_report())


def test_that_writing_a_report_loads_no_runtime() -> None:
    code = (
        "import sys, quantstudio.report.html, quantstudio.report.csv, quantstudio.report.json;"
        "heavy = ('torch', 'onnx', 'onnxruntime', 'PySide6', 'quantstudio.engine');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
