"""Built files that leave the cache: only what was built and measured is given away under its name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from quantstudio.core.errors import BuildError
from quantstudio.core.files import file_digest, written_beside, written_together
from quantstudio.core.variants import Variant
from quantstudio.jobs.rows import NoticeLevel
from quantstudio.project.recipe_file import (
    DataSource,
    ModelSource,
    OutputSource,
    RecipeFile,
    write_recipe_file,
)
from quantstudio.workspace.known import Known
from quantstudio.workspace.runs.runs import Runs


class ChangedBuildError(BuildError):
    """A file of the cache is not the one that was built."""


def write_export(
    source: Path, digest: str, target: Path, recipe: RecipeFile | None, weights_file: str = ""
) -> None:
    """Copy a built file out of the cache, with its recipe beside it where one is given.

    Args:
        source: The built file.
        digest: SHA-256 it had when it was built; empty where nobody noted it.
        target: Where to.
        recipe: What reproduces it.
        weights_file: Name of the file of weights beside it, which keeps that name; empty for none.

    Raises:
        ChangedBuildError: the file is no longer what was built; nothing is written.
        BuildError: the folder does not exist.
        OutputError: the files cannot be written.
    """
    if not target.parent.is_dir():
        raise BuildError("the folder does not exist", where=str(target.parent), hint="Make it first")
    if weights_file:
        with written_beside(target.parent / weights_file) as new_weights:
            _copy_weights(source.parent / weights_file, new_weights)
    if recipe is None:
        with written_beside(target) as new_model:
            _copy(source, digest, new_model)
        return
    with written_together(target.with_suffix(".recipe.json"), target) as (new_recipe, new_model):
        _copy(source, digest, new_model)
        write_recipe_file(new_recipe, recipe)


def _copy(source: Path, digest: str, target: Path) -> None:
    shutil.copyfile(source, target)
    if digest and file_digest(target) != digest:
        raise ChangedBuildError("the built file was changed in the cache", where=str(source))


def _copy_weights(source: Path, target: Path) -> None:
    """Copy a file whose name ends with the first digits of what its content hashes to."""
    if not source.is_file():
        raise ChangedBuildError("the weights of the built file are gone from the cache", where=str(source))
    _copy(source, "", target)
    if not file_digest(target).startswith(source.stem.rpartition("-")[2]):
        raise ChangedBuildError("the weights of the built file were changed in the cache", where=str(source))


class Export:
    """The variant of the recipe as it is, on its way out of the cache; built first where needed.

    Args:
        known: What is open.
        runs: What builds it.
        target: Where to.
        with_recipe: Whether the recipe is written beside it.
    """

    def __init__(self, known: Known, runs: Runs, target: Path, *, with_recipe: bool) -> None:
        self._known = known
        self._runs = runs
        self._target = target
        self._with_recipe = with_recipe
        self._is_rebuilt = False

    def start(self) -> None:
        """Write it; the user is told how that went."""
        variant = self._known.current_variant
        if variant is None or not Path(variant.path).is_file():
            self._runs.quantize(on_built=self.start)
            return
        source, digest = Path(variant.path), variant.build.digest if variant.build else ""
        weights = variant.build.weights_file if variant.build else ""
        output = OutputSource(self._target.name, digest)
        recipe = replace(recipe_file_of(self._known, variant), output=output) if self._with_recipe else None

        def write() -> None:
            write_export(source, digest, self._target, recipe, weights)

        def failed(error: Exception) -> None:
            if self._is_rebuilt or not isinstance(error, ChangedBuildError):
                self._known.notify_of(error)
                return
            source.unlink(missing_ok=True)  # and build what the name says
            self._known.notify(NoticeLevel.WARNING, f"{error.what}: it is built again", "", error.where)
            self._is_rebuilt = True
            self.start()

        def done(_nothing: None) -> None:
            also = f" and {self._target.with_suffix('.recipe.json').name}" if self._with_recipe else ""
            self._known.notify(NoticeLevel.SUCCESS, f"Exported {self._target.name}{also}")

        self._known.background.run(write, done, failed)


def recipe_file_of(known: Known, variant: Variant | None) -> RecipeFile:
    """The recipe of a variant, or of the plan, with everything that reproduces it."""
    model, data = known.model, known.calibration_data
    activations = known.activations
    source = (
        DataSource(
            path=data.path,
            transform=data.transform.text,
            samples=data.samples,
            digest=activations.data_digest if activations is not None else "",
            batch_axes=data.batch_axes,
        )
        if data is not None
        else None
    )
    return RecipeFile(
        recipe=variant.recipe if variant is not None else known.recipe,
        model=ModelSource(model.source_path, model.source_digest) if model is not None else None,
        data=source,
    )
