"""`quantstudio run`: reproduce a variant from its recipe file, or do the same to another network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quantstudio.cli.building import build_beside, build_json, checked_paths
from quantstudio.cli.execution import run_task
from quantstudio.cli.options import (
    FactoryOption,
    JsonOption,
    TransformOption,
    TrustOption,
    check_json,
    checked_output,
    split_model,
)
from quantstudio.cli.output import console_for, write_json
from quantstudio.cli.quantize import print_build
from quantstudio.core.codec import to_json
from quantstudio.core.errors import BuildError, CalibrationError, DataError, ModelLoadError, RecipeError
from quantstudio.core.files import file_digest, written_beside
from quantstudio.project.recipe_file import OutputSource, RecipeFile, read_recipe_file


def command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE.json", help="Recipe file that names its model and data.")
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="OUT.onnx", help="File to write; default: the recipe's own, beside it."
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Another network: the same steps and rules, in their order, are applied to it.",
        ),
    ] = "",
    data: Annotated[
        str, typer.Option("--data", metavar="D", help="Other calibration data; default: the recipe's own.")
    ] = "",
    transform: TransformOption = "",
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Build the same variant again, byte for byte, and say so if it is not.

    With --model or --data the steps and rules of the recipe are applied to another network or other data.
    """
    path = Path(recipe)
    file = read_recipe_file(path)
    if model or data:
        _run_elsewhere(path, file, output, model, data, transform, factory, json, trust=trust)
        return
    if transform or factory:
        raise RecipeError(
            "--transform and --factory go with other data and another model",
            hint="Give --data or --model, too, or leave them out: the recipe has its own",
        )
    _run_again(path, file, output, json, trust=trust)


def _run_again(path: Path, file: RecipeFile, output: str, json: str, *, trust: bool) -> None:
    from quantstudio.engine.tasks.models import open_model
    from quantstudio.engine.tasks.quantize import quantize

    reads = (str(path), _model_path(file, path), *([file.data.path] if file.data else []), _statistics(file))
    destination = checked_output(output or str(_own_output(path, file)), inputs=reads)
    check_json(json, inputs=(*reads, str(destination)))
    model, factory = (file.model.path, file.model.factory) if file.model else ("", "")
    summary = run_task(open_model, trust=trust, **split_model(model, factory))
    spec = replace(file.data.spec, trusted=trust) if file.data else None
    # Beside it first: a variant that is not the one recorded must not replace the one that is.
    with written_beside(destination) as temporary:
        result = run_task(
            quantize,
            graph_path=summary.graph_path,
            recipe=to_json(file.recipe),
            data=to_json(spec) if spec else None,
            data_digest=file.data.digest if file.data else "",
            statistics=_statistics(file),
            output=str(temporary),
        )
        if file.output and file.output.digest and file.output.digest != result.build.digest:
            raise BuildError(
                "the variant differs from the one the recipe recorded, and was not written",
                where=str(destination),
                hint="Another version of QuantStudio or ONNX Runtime gives different bytes; "
                "`quantstudio quantize MODEL --recipe` builds it anyway",
            )
    build = replace(result.build, output=str(destination))
    made = replace(file, output=OutputSource(destination.name, build.digest))
    if json:
        write_json("run", build_json(build, made, path), json)
    if json != "-":
        print_build(build, path, summary=summary)
        if file.output and file.output.digest:
            console_for(json).print("The same bytes as the recipe recorded.")


def _run_elsewhere(
    path: Path,
    file: RecipeFile,
    output: str,
    model: str,
    data: str,
    transform: str,
    factory: str,
    json: str,
    *,
    trust: bool,
) -> None:
    """Apply the recipe to another network or with other data; the result gets a recipe of its own."""
    if not output:
        raise RecipeError("another network or other data makes another file", hint="Give -o OUT.onnx")
    if factory and not model:
        raise RecipeError("--factory makes the network of another model", hint="Give --model, too")
    if transform and not data:
        raise DataError("--transform goes with other data", hint="Give --data, too")
    own = file.data
    paths = checked_paths(
        model or _model_path(file, path),
        output,
        data=data or (own.path if own else ""),
        transform=transform if data else (own.transform if own else ""),
        factory=factory if model else (file.model.factory if file.model else ""),
        trust=trust,
        reads=(str(path),),
    )
    check_json(json, inputs=(str(path), paths.model, paths.data, output, str(paths.beside)))
    summary = paths.open_model()
    build, made = build_beside(paths, summary, recipe=to_json(file.recipe))
    if json:
        write_json("run", build_json(build, made, paths.beside), json)
    if json != "-":
        print_build(build, paths.beside, summary=summary)


def _own_output(path: Path, file: RecipeFile) -> Path:
    if file.output is None or not file.output.name:
        raise RecipeError("the recipe names no output", where=str(path), hint="Give -o OUT.onnx")
    # A name, not a path: a recipe from someone else must not choose where to write.
    return path.parent / Path(file.output.name).name


def _statistics(file: RecipeFile) -> str:
    if file.statistics is None:
        return ""
    path = Path(file.statistics.path)
    if file.statistics.digest and path.is_file() and file_digest(path) != file.statistics.digest:
        raise CalibrationError(
            "the statistics are not those the recipe was made with",
            where=str(path),
            hint="Put the original file back, or quantize again",
        )
    return file.statistics.path


def _model_path(file: RecipeFile, path: Path) -> str:
    if file.model is None:
        raise RecipeError(
            "the recipe names no model", where=str(path), hint="Use `quantstudio quantize MODEL --recipe ...`"
        )
    source = Path(file.model.path)
    if file.model.digest and source.is_file() and file_digest(source) != file.model.digest:
        raise ModelLoadError(
            "the model is not the one the recipe was made for",
            where=str(source),
            hint="Put the original file back, or quantize this one with --recipe",
        )
    return file.model.path
