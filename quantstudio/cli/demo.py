"""`quantstudio demo`: the whole job on a bundled model, without a window."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from quantstudio import __version__
from quantstudio.cli.compare import print_comparison
from quantstudio.cli.execution import run_task
from quantstudio.cli.options import JsonOption, check_json, checked_output, data_json
from quantstudio.cli.output import console_for, write_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import OutputError
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, CompareResult, SensitivityResult
from quantstudio.core.samples import DEFAULT_SAMPLE, Sample, sample, sample_names
from quantstudio.gui.report_data import machine
from quantstudio.project.recipe_file import (
    DataSource,
    ModelSource,
    OutputSource,
    RecipeFile,
    write_recipe_file,
)
from quantstudio.report.data import ReportData
from quantstudio.report.html import write_html


def command(
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder for the model, recipe and report.")
    ] = "quantstudio-demo",
    name: Annotated[
        str, typer.Option("--sample", metavar="NAME", help=f"Bundled sample: {', '.join(sample_names())}.")
    ] = DEFAULT_SAMPLE,
    json: JsonOption = "",
) -> None:
    """Open, calibrate, analyze, quantize, measure and report a bundled model."""
    from quantstudio.engine import tasks
    from quantstudio.engine.evaluation.compare import compare_json

    chosen = sample(name)
    check_json(json)
    folder = _made(Path(out))
    variant = checked_output(str(folder / f"{chosen.name}.int8.onnx"))
    page = checked_output(str(folder / "report.html"))
    train = data_json(str(chosen.train), chosen.transform)
    test = data_json(str(chosen.test), chosen.transform)
    summary = run_task(tasks.open_model, path=str(chosen.model))
    graph = summary.graph_path
    statistics = run_task(tasks.calibrate, graph_path=graph, data=train)
    ranked = run_task(tasks.sensitivity, graph_path=graph, data=train, statistics=statistics.path)
    quantized = run_task(
        tasks.quantize,
        graph_path=graph,
        preset="auto",
        statistics=statistics.path,
        data=train,
        output=str(variant),
    )
    result = run_task(
        tasks.compare,
        base=graph,
        variants=[str(variant)],
        names=["FP32", "INT8"],
        data=test,
        graph_path=graph,
    )
    write_html(_report(chosen, summary, quantized.recipe, quantized.build, result, ranked), page)
    write_recipe_file(
        variant.with_suffix(".recipe.json"),
        RecipeFile(
            recipe=quantized.recipe,
            model=ModelSource(str(chosen.model), summary.source_digest),
            data=DataSource(str(chosen.train), chosen.transform, digest=quantized.data_digest),
            output=OutputSource(variant.name, quantized.build.digest),
        ),
    )
    if json:
        write_json("demo", compare_json(result), json)
    if json != "-":
        print_comparison(result)
        console = console_for(json)
        most = max(ranked.layers, key=lambda row: row.kl)
        console.print(
            f"most sensitive layer: {most.name}, KL {most.kl:.2g} at {ranked.reference} "
            f"({ranked.provenance.value}, {ranked.samples} samples)",
            markup=False,
        )
        console.print(quantized.build.preset, markup=False)
        console.print(f"wrote {variant}, its recipe and {page}", markup=False)


def _report(
    chosen: Sample,
    summary: ModelSummary,
    recipe: Recipe,
    build: BuildResult,
    result: CompareResult,
    ranked: SensitivityResult,
) -> ReportData:
    return ReportData(
        title=chosen.title,
        created=time.strftime("%Y-%m-%d %H:%M"),
        model=summary,
        version=__version__,
        data=DataSpec(str(chosen.test), parse_transform(chosen.transform)),
        calibration=DataSpec(str(chosen.train), parse_transform(chosen.transform)),
        recipe=recipe,
        builds=(build,),
        comparison=result,
        sensitivity=ranked,
        machine=machine(result.variants[0]),
        headline=build.output,
        notes=(*summary.notes, build.preset) if build.preset else summary.notes,
    )


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder ({(error.strerror or str(error)).lower()})",
            where=str(folder),
            hint="Choose another with --out",
        ) from error
    return folder
