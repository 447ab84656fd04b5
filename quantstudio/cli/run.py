"""`quantstudio run`: reproduce a variant from its recipe file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quantstudio.cli.execution import run_task
from quantstudio.cli.options import JsonOption, TrustOption, checked_output
from quantstudio.cli.output import write_json
from quantstudio.cli.quantize import print_build, quantize_json
from quantstudio.core.codec import to_json
from quantstudio.core.errors import BuildError, ModelLoadError, RecipeError
from quantstudio.core.files import file_digest
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
    trust: TrustOption = False,
    json: JsonOption = "",
) -> None:
    """Build the same variant again, byte for byte, and say so if it is not."""
    from quantstudio.engine import tasks

    path = Path(recipe)
    file = read_recipe_file(path)
    destination = checked_output(output or str(_own_output(path, file)))
    model = _model_path(file, path)
    summary = run_task(tasks.open_model, path=model, trust=trust)
    spec = replace(file.data.spec, trusted=trust, samples=0) if file.data else None
    result = run_task(
        tasks.quantize,
        graph_path=summary.graph_path,
        recipe=to_json(file.recipe),
        data=to_json(spec) if spec else None,
        data_digest=file.data.digest if file.data else "",
        output=str(destination),
    )
    if file.output and file.output.digest and file.output.digest != result.build.digest:
        raise BuildError(
            "the variant differs from the one the recipe recorded",
            where=str(destination),
            hint="Another version of QuantStudio or ONNX Runtime gives other bytes; compare the two files",
        )
    made = replace(file, output=OutputSource(destination.name, result.build.digest))
    if json:
        write_json("run", quantize_json(result.build, to_json(made), path), json)
    if json != "-":
        print_build(result.build, path)


def _own_output(path: Path, file: RecipeFile) -> Path:
    if file.output is None or not file.output.name:
        raise RecipeError("the recipe names no output", where=str(path), hint="Give -o OUT.onnx")
    # A name, not a path: a recipe from someone else must not choose where to write.
    return path.parent / Path(file.output.name).name


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
