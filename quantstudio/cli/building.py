"""Building a variant and the recipe that reproduces it, as several commands do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantstudio.cli.execution import run_task
from quantstudio.cli.options import absolute, checked_output, data_json, model_source, split_model
from quantstudio.core.codec import to_json
from quantstudio.core.files import file_digest, written_together
from quantstudio.core.judgement import INFERRED, Judging
from quantstudio.core.layers import ModelSummary
from quantstudio.core.results import BuildResult
from quantstudio.project.recipe_file import (
    DataSource,
    OutputSource,
    RecipeFile,
    StatisticsSource,
    write_recipe_file,
)


@dataclass(frozen=True, slots=True)
class BuildPaths:
    """What a command reads and writes, as the options name it.

    Attributes:
        model: Model, or file of weights for `factory`.
        factory: Makes the network where the file holds weights alone; else empty.
        data: Calibration data; empty without.
        transform: What is done to the data.
        statistics: Statistics file; empty without.
        trust: Whether programs may be run.
        output: File to write.
        beside: Recipe file to write.
        judging: What is said of the outputs.
        batch_axes: Axes of the samples by input or output.
    """

    model: str
    factory: str
    data: str
    transform: str
    statistics: str
    trust: bool
    output: Path
    beside: Path
    judging: Judging = INFERRED
    batch_axes: tuple[tuple[str, int], ...] = ()

    def open_model(self) -> ModelSummary:
        """Open the model."""
        from quantstudio.engine.tasks.models import open_model

        return run_task(open_model, trust=self.trust, **split_model(self.model, self.factory))

    @property
    def data_spec(self) -> dict[str, Any] | None:
        """The data as tasks take it, or None."""
        if not self.data:
            return None
        return data_json(
            self.data,
            self.transform,
            trust=self.trust,
            judging=self.judging,
            batch_axes=self.batch_axes,
        )


def checked_paths(
    model: str,
    output: str,
    *,
    data: str = "",
    transform: str = "",
    statistics: str = "",
    factory: str = "",
    trust: bool = False,
    judging: Judging = INFERRED,
    batch_axes: tuple[tuple[str, int], ...] = (),
    reads: tuple[str, ...] = (),
) -> BuildPaths:
    """The paths of a command, refused before any work is done if one cannot be written.

    Args:
        model: See `BuildPaths`.
        output: File to write; the recipe goes beside it.
        data: See `BuildPaths`.
        transform: See `BuildPaths`.
        statistics: See `BuildPaths`.
        factory: See `BuildPaths`.
        trust: See `BuildPaths`.
        judging: See `BuildPaths`.
        batch_axes: See `BuildPaths`.
        reads: Files that are read besides; the output must not replace them, the recipe may.

    Raises:
        OutputError: see `checked_output`.
    """
    destination = checked_output(output, inputs=(model, data, statistics, *reads))
    beside = checked_output(
        str(destination.with_suffix(".recipe.json")), inputs=(model, data, statistics, output)
    )
    return BuildPaths(
        model, factory, data, transform, statistics, trust, destination, beside, judging, batch_axes
    )


def build_beside(paths: BuildPaths, summary: ModelSummary, **asked: Any) -> tuple[BuildResult, RecipeFile]:  # noqa: ANN401
    """Build a variant and write its recipe beside it, both or none.

    Args:
        paths: What is read and written.
        summary: The opened model.
        asked: Parameters of the task `quantize`: a recipe or a preset, and what goes with it.

    Returns:
        What was built, and the recipe file.
    """
    from quantstudio.engine.tasks.quantize import quantize

    # Both or none: a new model beside an old recipe could not be told from what the recipe made.
    with written_together(paths.beside, paths.output) as (new_recipe, new_model):
        result = run_task(
            quantize,
            graph_path=summary.graph_path,
            statistics=paths.statistics,
            data=paths.data_spec,
            output=str(new_model),
            **asked,
        )
        digest = result.data_digest
        file = RecipeFile(
            recipe=result.recipe,
            model=model_source(paths.model, paths.factory),
            data=_data_source(paths, digest),
            output=OutputSource(paths.output.name, result.build.digest),
            statistics=_statistics(paths.statistics),
        )
        write_recipe_file(new_recipe, file)
    return replace(result.build, output=str(paths.output)), file


def build_json(build: BuildResult, file: RecipeFile, recipe_path: Path) -> dict[str, Any]:
    """The document that commands which build write; `recipe` can be saved and run as it is."""
    return {**to_json(build), "recipe": to_json(file), "recipe_path": str(recipe_path)}


def _data_source(paths: BuildPaths, digest: str) -> DataSource | None:
    if not paths.data:
        return None
    return DataSource(absolute(paths.data), paths.transform, digest=digest, batch_axes=paths.batch_axes)


def _statistics(path: str) -> StatisticsSource | None:
    return StatisticsSource(absolute(path), file_digest(Path(path))) if path else None
