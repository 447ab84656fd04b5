"""`quantstudio demo`: the whole job on a bundled model, without a window."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quantstudio.cli.compare import print_comparison
from quantstudio.cli.execution import run_task
from quantstudio.cli.options import JsonOption, check_json, checked_output, data_json
from quantstudio.cli.output import console_for, write_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import OutputError
from quantstudio.core.files import written_together
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, CompareResult, SensitivityResult
from quantstudio.core.samples import EASY_SAMPLE, Sample, sample, sample_names
from quantstudio.core.version import VERSION
from quantstudio.project.recipe_file import (
    DataSource,
    ModelSource,
    OutputSource,
    RecipeFile,
    write_recipe_file,
)
from quantstudio.report.data import ReportData
from quantstudio.report.html import write_html
from quantstudio.workspace.report_data import machine


def command(
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder for the model, recipe and report.")
    ] = "quantstudio-demo",
    name: Annotated[
        str, typer.Option("--sample", metavar="NAME", help=f"Bundled sample: {', '.join(sample_names())}.")
    ] = EASY_SAMPLE,
    json: JsonOption = "",
) -> None:
    """Open, calibrate, analyze, quantize, measure and report a bundled model."""
    from quantstudio.engine.evaluation.compare import compare_json
    from quantstudio.engine.tasks.calibration import calibrate
    from quantstudio.engine.tasks.compare import compare
    from quantstudio.engine.tasks.models import open_model
    from quantstudio.engine.tasks.quantize import quantize
    from quantstudio.engine.tasks.sensitivity import sensitivity

    chosen = sample(name)
    check_json(json)
    with _made(Path(out)) as folder:
        variant = checked_output(str(folder / f"{chosen.name}.int8.onnx"))
        page = checked_output(str(folder / "report.html"))
        recipe = variant.with_suffix(".recipe.json")
        train = data_json(str(chosen.train), chosen.transform)
        test = data_json(str(chosen.test), chosen.transform)
        summary = run_task(open_model, path=str(chosen.model))
        graph = summary.graph_path
        statistics = run_task(calibrate, graph_path=graph, data=train)
        ranked = run_task(sensitivity, graph_path=graph, data=train, statistics=statistics.path)
        with written_together(page, recipe, variant) as (new_page, new_recipe, new_variant):
            quantized = run_task(
                quantize,
                graph_path=graph,
                preset="auto",
                statistics=statistics.path,
                data=train,
                output=str(new_variant),
            )
            build = replace(quantized.build, output=str(variant))
            result = run_task(
                compare,
                base=graph,
                variants=[str(new_variant)],
                names=["FP32", "INT8"],
                data=test,
                graph_path=graph,
            )
            base, measured = result.variants
            result = replace(result, variants=(base, replace(measured, path=str(variant))))
            write_html(_report(chosen, summary, quantized.recipe, build, result, ranked), new_page)
            write_recipe_file(
                new_recipe,
                RecipeFile(
                    recipe=quantized.recipe,
                    model=ModelSource(str(chosen.model), summary.source_digest),
                    data=DataSource(str(chosen.train), chosen.transform, digest=quantized.data_digest),
                    output=OutputSource(variant.name, build.digest),
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
        )
        console.print(build.preset)
        console.print(f"wrote {variant}, its recipe and {page}")


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
        version=VERSION,
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


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """The folder, made if missing; what was made is removed again when the block fails and left nothing."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise OutputError(
            f"cannot make the folder ({(error.strerror or str(error)).lower()})",
            where=str(folder),
            hint="Choose another with --out",
        ) from error
    try:
        yield folder
    except BaseException:
        _remove_empty(missing)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # one that holds something stays, and so do those above it
        for folder in folders:
            folder.rmdir()
