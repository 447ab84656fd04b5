"""`quantstudio demo`: the whole job on a bundled model, without a window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantstudio.cli.compare import print_comparison
from quantstudio.cli.execution import run_task
from quantstudio.cli.options import JsonOption, data_json
from quantstudio.cli.output import console_for, write_json
from quantstudio.core.errors import OutputError
from quantstudio.core.samples import DEFAULT_SAMPLE, sample


def command(
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder for the model, recipe and report.")
    ] = "quantstudio-demo",
    name: Annotated[str, typer.Option("--sample", metavar="NAME", help="Bundled sample.")] = DEFAULT_SAMPLE,
    json: JsonOption = "",
) -> None:
    """Open, calibrate, analyze, quantize, measure and report a bundled model."""
    from quantstudio.engine import tasks
    from quantstudio.engine.evaluation.compare import compare_json

    chosen = sample(name)
    folder = _made(Path(out))
    train = data_json(str(chosen.train), chosen.transform)
    test = data_json(str(chosen.test), chosen.transform)
    summary = run_task(tasks.open_model, path=str(chosen.model))
    graph = summary.graph_path
    statistics = run_task(tasks.calibrate, graph_path=graph, data=train)
    ranked = run_task(tasks.sensitivity, graph_path=graph, data=train, statistics=statistics.path)
    variant = folder / f"{chosen.name}.int8.onnx"
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
        names=[f"{chosen.name} FP32", f"{chosen.name} INT8"],
        data=test,
        graph_path=graph,
    )
    if json:
        write_json("demo", compare_json(result), json)
    if json != "-":
        print_comparison(result)
        console = console_for(json)
        most = max(ranked.layers, key=lambda row: row.kl)
        console.print(
            f"most sensitive layer: {most.name} (KL {most.kl:.2g} at {ranked.reference})", markup=False
        )
        console.print(quantized.build.preset, markup=False)
        console.print(f"wrote {variant}", markup=False)


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
