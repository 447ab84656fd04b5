"""What a script gives to a workspace, made what it works with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import MeasureError, RecipeError
from quantstudio.core.search_results import is_number
from quantstudio.project.store import Project

T = TypeVar("T")

MB = 1_000_000


def opened_project(project: str | Path | Project | None) -> Project:
    """The project of a file, made if it is not there; an unsaved one for None."""
    if project is None:
        return Project.temporary(restore=False)
    if isinstance(project, Project):
        return project
    path = Path(project)
    return Project.open(path) if path.exists() else Project.create(path)


def given_data(data: str | Path | DataSpec | None, said: DataSpec) -> DataSpec | None:
    """The data with all that is said of it; a whole `DataSpec` says it itself."""
    if data is None or isinstance(data, DataSpec):
        return data
    return replace(said, path=str(data))


def bytes_of(megabytes: float | None) -> int | None:
    """A bound in MB as bytes; None for no bound.

    Raises:
        RecipeError: it is not a finite number.
    """
    if megabytes is not None and not is_number(megabytes):
        raise RecipeError(
            f"a bound in MB is not a finite number: {megabytes!r}", hint="Leave it out for no bound"
        )
    return None if megabytes is None else round(megabytes * MB)


def there(found: T | None) -> T:
    """What work that succeeded leaves behind.

    Raises:
        MeasureError: it left nothing.
    """
    if found is None:
        raise MeasureError("the work ended without a result", hint="See the list of jobs")
    return found
