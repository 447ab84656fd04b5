"""`quantstudio.Workspace` in a script: everything is waited for, and faults are exceptions."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import quantstudio as qs
from quantstudio.cli.main import invoke
from quantstudio.core.codec import from_json
from quantstudio.core.errors import CalibrationError, DataError, QuantStudioError, RecipeError
from quantstudio.core.events import JobState
from quantstudio.core.precision import FP32
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.results import CompareResult
from quantstudio.core.samples import sample
from quantstudio.core.variants import Variant
from quantstudio.jobs.backends.inline import InlineBackend
from quantstudio.jobs.rows import JobRow
from quantstudio.project.recipe_file import read_recipe_file
from quantstudio.workspace.progress import NotebookProgress, progress_text
from quantstudio.workspace.workspace import Workspace

SAMPLE = sample()
# What a person writes into a notebook, and nothing else.
NOTEBOOK = """
import json
import quantstudio as qs

with qs.Workspace.sample("digits_resnet") as ws:
    ws.calibrate()
    ws.sensitivity()
    ws.quantize("auto")
    table = ws.measure()
    ws.report("report.html")
    ws.export("net.int8.onnx")
json.dump(table.to_dict(), open("table.json", "w"))
"""


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace on the bundled sample, quantized and measured."""
    home = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(home / "cache"))
        patch.setenv("QUANTSTUDIO_CONFIG", str(home / "config"))
        with qs.Workspace.sample(progress=False) as made:
            made.quantize("static-int8")
            made.measure()
            yield made


def test_that_importing_the_package_brings_nothing_along() -> None:
    code = "import sys, quantstudio; print([m for m in sys.modules if m.startswith('quantstudio.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "workspace" not in found.stdout
    code = "import sys, quantstudio; quantstudio.Workspace; print(*({'torch', 'PySide6'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
    with pytest.raises(AttributeError, match="nothing"):
        _ = qs.nothing


def test_that_demo_writes_all_that_fifteen_lines_do_and_a_recipe_that_reproduces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len([line for line in NOTEBOOK.splitlines() if line]) <= 15
    monkeypatch.chdir(tmp_path)
    assert invoke(["demo", "--out", "demo", "--json", "demo.json"]) == 0
    assert {"FP32", "INT8"} <= set(capsys.readouterr().out.split())
    assert (tmp_path / "demo/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    built, recipe = (
        tmp_path / "demo/digits_resnet.int8.onnx",
        tmp_path / "demo/digits_resnet.int8.recipe.json",
    )
    assert invoke(["run", str(recipe), "-o", "again.onnx"]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == built.read_bytes()
    # "auto" times its candidates: on a busy machine two runs may choose differently.
    script = NOTEBOOK.replace('"auto"', repr(str(recipe)))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=600)
    table = from_json(CompareResult, json.loads((tmp_path / "table.json").read_text(encoding="utf-8")))
    demo = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))["variants"]
    assert [one.size_bytes for one in table.variants] == [one["size_bytes"] for one in demo]
    assert [dict(one.metrics) for one in table.variants] == [one["metrics"] for one in demo]
    assert all(one.latency_ms is not None for one in table.variants)
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "net.int8.onnx").read_bytes() == built.read_bytes()


def without_times(variant: Variant | None) -> Variant | None:
    """The scale of all times moves where the base turns out faster than it was known to be."""
    if variant is None or variant.result is None:
        return variant
    return replace(variant, result=replace(variant.result, latency_ms=None))


def test_that_an_edit_is_undone_with_its_figures(ws: Workspace) -> None:
    before = ws.current_variant
    assert before is not None
    assert before.result is not None
    name = ws.layers[0].name
    ws.set(name, "fp32")
    assert ws.recipe.scheme_for(ws.layers[0]) == FP32
    assert ws.measure().variants[-1].name != before.name
    ws.undo()
    assert without_times(ws.current_variant) == without_times(before)
    ws.redo()
    assert ws.recipe.scheme_for(ws.layers[0]) == FP32
    ws.undo()
    ws.set(name[:2] + "*", "fp32", op_type=ws.layers[0].op_type)
    assert ws.recipe.rules[-1].names == (name[:2] + "*",)
    ws.undo()


def test_that_what_cannot_be_is_refused_with_its_reason(ws: Workspace) -> None:
    with pytest.raises(RecipeError, match="no layer matches"):
        ws.set("nowhere*", "fp32")
    with pytest.raises(RecipeError, match="unknown precision"):
        ws.set("*", "int17")
    with pytest.raises(RecipeError, match="17 bits"):
        ws.quantize("17 bits")
    with pytest.raises(QuantStudioError, match="folder"):
        ws.export("/nowhere/at/all/net.onnx")
    with pytest.raises(DataError):
        ws.use_data(SAMPLE.model.with_suffix(".npz"))
    assert ws.calibration_data is not None
    with pytest.raises(RecipeError):
        ws.search(average_bits=0.1)
    with pytest.raises(RecipeError, match="family"):
        ws.search(average_bits=5.0, family="static-int8")
    with pytest.raises(RecipeError, match="finite"):
        ws.search(max_drop=float("nan"))
    with pytest.raises(RecipeError, match="finite"):
        ws.search(max_size_mb=float("inf"))
    with pytest.raises(RecipeError, match="unknown precision"):
        ws.edits.set_scheme([ws.layers[0].name], "int17")
    with pytest.raises(RecipeError, match="cannot be read"):
        ws.quantize("nowhere.json")


def test_that_results_are_dictionaries(ws: Workspace) -> None:
    run = ws.sensitivity()
    assert len(run.layers) == sum(1 for layer in ws.layers if layer.name in ws.layer_sensitivity)
    assert run.to_dict()["layers"][0]["name"] == run.layers[0].name
    assert ws.layers.to_dict()[0]["op_type"] == ws.layers[0].op_type
    assert [one["name"] for one in ws.variants.to_dict()][:2] == ["FP32", "INT8"]
    assert ws.calibrate().to_dict()["samples"] == ws.recipe.calibration.samples
    assert ws.predict().to_dict()["quantized"] == ws.predict().quantized
    assert ws.predict(uniform_recipe("fp16")).to_dict()["size_bytes"] is not None


def test_that_tables_are_made_with_pandas_and_say_when_it_is_missing(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(QuantStudioError, match="pandas"):
        ws.layers.to_frame()
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=list))
    rows = ws.measure().to_frame()
    assert [row["name"] for row in rows] == ["FP32", "INT8"]
    assert rows[1]["metrics.top1"] > 0.9
    assert rows[1]["latency_ms.p50"] > 0
    assert "per_class" not in rows[1]
    assert ws.layers.to_frame()[0]["name"] == ws.layers[0].name
    assert len(ws.sensitivity().to_frame()) == len(ws.sensitivity().layers)


def test_that_a_search_gives_a_plan_that_is_built_and_measured(ws: Workspace) -> None:
    found = ws.search(average_bits=5.0)
    assert found.chosen.measured is not None
    assert found.chosen.measured.average_bits <= 5.0
    assert ws.current_variant is not None
    assert ws.current_variant.result is not None
    assert ws.active_plan.startswith("Search ")
    ws.undo()


def test_that_a_project_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "work.qstudio"
    with qs.Workspace(
        SAMPLE.model, SAMPLE.train, transform=SAMPLE.transform, project=path, progress=False
    ) as first:
        first.quantize("dynamic-int8")
        size = first.export(tmp_path / "net.onnx").stat().st_size
        assert read_recipe_file(tmp_path / "net.recipe.json").recipe == first.recipe
    with qs.Workspace(project=path, progress=False) as again:
        assert again.current_variant is not None
        assert again.current_variant.build is not None
        assert again.current_variant.build.size_bytes == size
        assert again.activations is not None
        assert again.calibration_data is not None
        assert again.save(tmp_path / "copy.qstudio") == tmp_path / "copy.qstudio"


def test_that_work_without_model_or_data_is_refused() -> None:
    with qs.Workspace(progress=False) as empty:
        assert empty.layers == ()
        with pytest.raises(DataError, match="no model"):
            empty.quantize()
        with pytest.raises(QuantStudioError, match="no model"):
            empty.predict()
        with pytest.raises(DataError, match="model"):
            empty.use_data(SAMPLE.train)
    with qs.Workspace(SAMPLE.model, progress=False) as bare, pytest.raises(CalibrationError):
        bare.calibrate()
    with pytest.raises(QuantStudioError, match="nowhere"):
        qs.Workspace("/nowhere/net.onnx", progress=False)


def test_that_progress_is_one_line() -> None:
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            shown.append(data["text/plain"])

    row = JobRow("1", "Sensitivity", JobState.RUNNING, 41, 100, "layers", seconds_left=12.0)
    with NotebookProgress(lambda *_, **__: Handle()) as progress:
        progress.show(row)
        progress.show(row)
    assert shown == ["Sensitivity: 41 of 100 layers, 12 s left", ""]
    assert progress_text(JobRow("1", "Quantize", JobState.RUNNING)) == "Quantize"


def test_that_an_owner_with_a_loop_is_told_not_to_wait(tmp_path: Path) -> None:
    made = Workspace(progress=False, call_soon=lambda function: function())
    try:
        with pytest.raises(RuntimeError, match="loop"):
            made.calibrate()
    finally:
        made.close()


def test_that_jobs_run_in_the_callers_own_process_where_that_is_asked() -> None:
    before = psutil.Process().children()
    with Workspace(SAMPLE.model, progress=False, backend=InlineBackend) as ws:
        assert ws.layers
        assert psutil.Process().children() == before
        with pytest.raises(CalibrationError):
            ws.calibrate()
    ws.close()
    for asked in (lambda: ws.quantize("weight-int8"), lambda: ws.set(ws.layers[0].name, "fp32")):
        with pytest.raises(QuantStudioError, match="the workspace is closed"):
            asked()
