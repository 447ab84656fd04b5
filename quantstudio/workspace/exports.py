"""Built files that leave the cache: only what was built and measured is given away under its name."""

from __future__ import annotations

import shutil
from pathlib import Path

from quantstudio.core.errors import BuildError
from quantstudio.core.files import file_digest, written_beside, written_together
from quantstudio.project.recipe_file import RecipeFile, write_recipe_file


class ChangedBuildError(BuildError):
    """A file of the cache is not the one that was built."""


def write_export(source: Path, digest: str, target: Path, recipe: RecipeFile | None) -> None:
    """Copy a built file out of the cache, with its recipe beside it where one is given.

    Args:
        source: The built file.
        digest: SHA-256 it had when it was built; empty where nobody noted it.
        target: Where to.
        recipe: What reproduces it.

    Raises:
        ChangedBuildError: the file is no longer what was built; nothing is written.
        BuildError: the folder does not exist.
        OutputError: the files cannot be written.
    """
    if not target.parent.is_dir():
        raise BuildError("the folder does not exist", where=str(target.parent), hint="Make it first")
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
