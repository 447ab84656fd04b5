import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from quantstudio.core.codec import from_json
from quantstudio.core.errors import OutputError
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import AppliedStep, BuiltLayer
from quantstudio.core.steps import Step
from quantstudio.report.csv import table_text, write_csv
from quantstudio.report.data import ReportData
from quantstudio.report.html import render_html
from quantstudio.report.json import report_json
from quantstudio.report.rows import layer_rows, precision_label, step_rows
from tests.report.report_data import EVIL, full_report


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_that_csv_holds_variants_classes_and_layers(tmp_path: Path) -> None:
    written = write_csv(full_report(), tmp_path)
    assert [p.name for p in written] == ["variants.csv", "classes.csv", "layers.csv"]
    variants = _read(tmp_path / "variants.csv")
    assert [float(v["top1"]) for v in variants] == [0.91, 0.9]
    assert (variants[1]["drop"], variants[1]["drop_low"], variants[1]["drop_high"]) == ("1.0", "0.2", "1.8")
    assert variants[0]["output_sqnr_db"] == ""  # infinite: not a number a spreadsheet knows
    assert variants[1]["provider"] == "CPUExecutionProvider"
    classes = _read(tmp_path / "classes.csv")
    assert [(c["group"], c["support"]) for c in classes] == [
        ("class", "100"),
        ("class", "100"),
        ("segment", "50"),
    ]
    layers = _read(tmp_path / "layers.csv")
    assert [(r["layer"], r["precision"], r["integer_kernel"]) for r in layers] == [
        ("conv<1>", "INT8", "yes"),
        ("fc", "FP32", "no"),
    ]


def test_that_a_name_is_never_a_formula(tmp_path: Path) -> None:
    write_csv(full_report(), tmp_path)
    assert _read(tmp_path / "classes.csv")[1]["label"] == f"'{EVIL}"
    assert table_text(("a",), [("@x",), (-1.5,), ("plain",)]) == "a\n'@x\n-1.5\nplain\n"


def test_that_csv_of_a_model_alone_is_its_layers(tmp_path: Path) -> None:
    bare = ReportData("Net", "today", full_report().model)
    assert [p.name for p in write_csv(bare, tmp_path)] == ["layers.csv"]
    with pytest.raises(OutputError):
        write_csv(bare, tmp_path / "nowhere")


def test_that_json_reads_back_into_the_same_report() -> None:
    document = json.loads(json.dumps(report_json(full_report()), allow_nan=False))
    assert document.pop("schema") == "quantstudio.report/1"
    again = from_json(ReportData, document)
    assert report_json(again) == report_json(full_report())
    assert again.recipe == full_report().recipe


def test_that_a_layer_row_joins_model_build_and_sensitivity() -> None:
    first, second = layer_rows(full_report())
    assert (first.shape, first.precision, first.kernel, first.weight_bytes) == (
        "8×1×3×3",
        "INT8",
        "QLinearConv",
        90,
    )
    assert (first.kl, first.kl_low, first.kl_high, first.weight_sqnr_db) == (0.02, 0.01, 0.03, 41.3)
    assert second.note == "kept by the recipe"


def test_that_a_chip_has_the_colour_the_catalogue_gives_its_weights() -> None:
    data = full_report()
    for weights, role in (("fp32", "faint"), ("fp16", "ok"), ("int8", "fp"), ("int4", "q"), ("gone", "q")):
        builds = tuple(
            replace(build, layers=tuple(replace(one, weights=weights) for one in build.layers))
            for build in data.builds
        )
        assert {row.role for row in layer_rows(replace(data, builds=builds))} == {role}


def test_that_a_precision_has_its_short_name() -> None:
    def label(weights: str, activations: str) -> str:
        return precision_label(BuiltLayer("l", weights, activations, "k"))

    assert label("int8", "int8") == "INT8"
    assert label("int4", "fp32") == "W4"
    assert label("int8", "int8-dynamic") == "INT8 dyn"
    assert label("odd", "fp32") == "ODD"


def with_steps() -> ReportData:
    report = full_report()
    step = AppliedStep("bias", "Correct biases", {"samples": 64, "exact": True}, "Corrected <3>.", 1.26, "ab")
    return replace(report, builds=tuple(replace(build, steps=(step,)) for build in report.builds))


def test_that_a_report_tells_what_each_step_did(tmp_path: Path) -> None:
    assert "steps.csv" in [path.name for path in write_csv(with_steps(), tmp_path)]
    (row,) = _read(tmp_path / "steps.csv")
    assert row == {
        "index": "1",
        "step": "Correct biases",
        "settings": "samples 64, exact on",
        "summary": "Corrected <3>.",
        "seconds": "1.26",
    }
    page = render_html(with_steps())
    assert '<h2 id="steps">Steps</h2>' in page
    assert "<td>Corrected &lt;3&gt;.</td>" in page
    assert '<h2 id="steps">' not in render_html(full_report())


def test_that_a_report_without_a_build_lists_the_steps_of_the_recipe() -> None:
    recipe = replace(full_report().recipe or Recipe(), steps=(Step("equalize"), Step("bias", is_on=False)))
    bare = replace(full_report(), builds=(), comparison=None, recipe=recipe)
    assert [(row.label, row.summary) for row in step_rows(bare)] == [("equalize", "")]
