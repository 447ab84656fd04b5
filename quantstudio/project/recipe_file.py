"""A recipe on disk: what `quantstudio run` needs to make the same bytes again. JSON, one line a rule."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import DataError, RecipeError
from quantstudio.core.files import write_text
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.recipe import EMISSION, FIRST_EMISSION, RECIPE_SCHEMA, Recipe
from quantstudio.core.version import VERSION
from quantstudio.project.references import is_callable_name

# Lists of which every entry gets a line of its own.
_LINE_LISTS = frozenset({"steps", "rules", "activation_ranges", "weight_ranges"})
_SCHEMA_1 = "quantstudio.recipe/1"
# What version 1 did not know of.
_TARGET_1 = "cpu-x86-vnni"
_SINCE_2 = ("steps", "seed", "emission")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The model a recipe was made for.

    Attributes:
        path: File, or module:callable.
        digest: SHA-256 of the file; empty: not checked.
        factory: Makes the network where the file holds weights alone; else empty.
    """

    path: str
    digest: str = ""
    factory: str = ""


@dataclass(frozen=True, slots=True)
class DataSource:
    """The calibration data.

    Attributes:
        path: npz file, folder of images, or module:callable.
        transform: As the command line takes it.
        samples: Samples used; 0 means all.
        digest: Digest of what was read; empty: not checked.
        batch_axes: Axes of the samples the user named, by input or output.
    """

    path: str
    transform: str = ""
    samples: int = 0
    digest: str = ""
    batch_axes: tuple[tuple[str, int], ...] = ()

    @property
    def spec(self) -> DataSpec:
        """The data set, never trusted by itself.

        Raises:
            DataError: the transform cannot be read.
        """
        transform = parse_transform(self.transform)
        return DataSpec(self.path, transform, self.samples, batch_axes=self.batch_axes)


@dataclass(frozen=True, slots=True)
class StatisticsSource:
    """Activation statistics given instead of data: path, and their digest (empty: not checked)."""

    path: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class OutputSource:
    """The variant that was built: file name, and SHA-256 of the file (empty: not checked)."""

    name: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe with all that reproduces its variant.

    Attributes:
        recipe: The recipe.
        model: Model; None in a recipe written by hand for any model.
        data: Calibration data; None where nothing is static, or written by hand.
        output: What it gave.
        statistics: Statistics file the ranges come from; None where the data is calibrated with.
        quantstudio: Version that wrote it.
        schema: Always "quantstudio.recipe/2"; files of version 1 are brought up to it when they are read.
    """

    recipe: Recipe
    model: ModelSource | None = None
    data: DataSource | None = None
    output: OutputSource | None = None
    statistics: StatisticsSource | None = None
    quantstudio: str = field(default_factory=lambda: VERSION)
    schema: str = RECIPE_SCHEMA


def write_recipe_file(path: Path, file: RecipeFile) -> None:
    """Write a recipe file; paths of files in its folder or below are written relative to it.

    Equal values give equal bytes.

    Raises:
        OutputError: it cannot be written.
    """
    folder = Path(path).resolve().parent
    model = file.model and replace(file.model, path=_relative(file.model.path, folder))
    data = file.data and replace(file.data, path=_relative(file.data.path, folder))
    given = file.statistics and replace(file.statistics, path=_relative(file.statistics.path, folder))
    write_text(Path(path), recipe_text(replace(file, model=model, data=data, statistics=given)))


def recipe_text(file: RecipeFile) -> str:
    """The JSON of a recipe file, paths as they are."""
    values = to_json(file)
    order = ["schema", "quantstudio", "model", "data", "statistics", "output", "recipe"]
    if file.statistics is None:
        order.remove("statistics")  # rare: only where a statistics file was named
    if file.data is not None and not file.data.batch_axes:
        del values["data"]["batch_axes"]  # rare too, and unknown to older versions
    if file.recipe.emission == FIRST_EMISSION and file.output is not None:
        del values["recipe"]["emission"]
    return _pretty({key: values[key] for key in order}) + "\n"


def read_recipe_file(path: Path) -> RecipeFile:
    """A recipe file, its relative paths resolved against its folder.

    Raises:
        RecipeError: it cannot be read; the message names the file and the field.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RecipeError(
            f"the recipe cannot be read ({reason})", where=str(path), hint="Check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise _not_a_recipe(path, "it is not text") from error
    file = parse_recipe(text, str(path))
    folder = path.resolve().parent
    model = file.model and replace(file.model, path=_resolved(file.model.path, folder))
    data = file.data and replace(file.data, path=_resolved(file.data.path, folder))
    given = file.statistics and replace(file.statistics, path=_resolved(file.statistics.path, folder))
    return replace(file, model=model, data=data, statistics=given)


def parse_recipe(text: str, where: str) -> RecipeFile:
    """A recipe file from its text, paths as they are.

    Args:
        text: JSON.
        where: What errors name: the file.

    Raises:
        RecipeError: not a recipe, of a newer version, or with a field that is wrong.
    """
    try:
        values = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise _not_a_recipe(where, "it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise _not_a_recipe(where, f"line {error.lineno}: {error.msg.lower()}") from error
    except ValueError as error:
        raise _not_a_recipe(where, str(error)) from error
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema == _SCHEMA_1:
        values = _from_version_1(values, where)
    elif schema != RECIPE_SCHEMA:
        name, _, _ = RECIPE_SCHEMA.partition("/")
        if isinstance(schema, str) and schema.startswith(f"{name}/"):
            raise RecipeError(f"the recipe is of version {schema!r}", where=where, hint="Update QuantStudio")
        raise _not_a_recipe(where, f'its "schema" is {schema!r}, not "{RECIPE_SCHEMA}"')
    if isinstance(values.get("recipe"), dict) and values.get("output"):
        # A file that says what was built and names no form was written when there was only one.
        values = {**values, "recipe": {"emission": FIRST_EMISSION, **values["recipe"]}}
    try:
        file = from_json(RecipeFile, values)
    except CodecError as error:
        raise RecipeError(
            f"the recipe has a wrong field: {str(error).removeprefix('$.')}",
            where=where,
            hint="Correct that field, or export the recipe again",
        ) from error
    _check(file, where)
    return file


def _from_version_1(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A file of version 1 as version 2 says the same."""
    recipe = values.get("recipe")
    unknown = [name for name in _SINCE_2 if isinstance(recipe, dict) and name in recipe]
    if unknown:
        raise RecipeError(
            f"the recipe has a wrong field: recipe.{unknown[0]}: version 1 of recipes does not have it",
            where=where,
            hint=f'Set "schema" to "{RECIPE_SCHEMA}"',
        )
    if isinstance(recipe, dict):
        # Version 1 knew one target and one form of files; what is made today is made for the machine it is
        # made on.
        recipe = {"target": _TARGET_1, **recipe, "emission": FIRST_EMISSION}
    return {**values, "schema": RECIPE_SCHEMA, **({} if recipe is None else {"recipe": recipe})}


def _check(file: RecipeFile, where: str) -> None:
    samples = file.recipe.calibration.samples
    if samples < 0:
        raise RecipeError(f"recipe.calibration.samples: {samples} is negative", where=where)
    if not FIRST_EMISSION <= file.recipe.emission <= EMISSION:
        raise RecipeError(
            f"recipe.emission: {file.recipe.emission} is not known here",
            where=where,
            hint="Update QuantStudio",
        )
    if file.data is None:
        return
    try:
        parse_transform(file.data.transform)
    except DataError as error:
        raise RecipeError(f"data.transform: {error.what}", where=where, hint=error.hint) from error
    if file.data.samples < 0:
        raise RecipeError(f"data.samples: {file.data.samples} is negative", where=where)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the field {twice!r} is there twice")
    return values


def _not_a_recipe(where: str | Path, why: str) -> RecipeError:
    return RecipeError(
        f"the file is not a QuantStudio recipe ({why})",
        where=str(where),
        hint=Hint(
            "Recipes are the JSON files that are written beside a model built here", HintAction.CHOOSE_RECIPE
        ),
    )


def _relative(path: str, folder: Path) -> str:
    if is_callable_name(path):
        return path
    # As the user named it: what lies behind a link is found on this machine only.
    named = Path(os.path.abspath(path))  # noqa: PTH100  Path.resolve would follow the link
    for candidate in (named, named.resolve()):
        if candidate.is_relative_to(folder):
            return candidate.relative_to(folder).as_posix()
    return str(named)


def _resolved(path: str, folder: Path) -> str:
    """The path on this system; one written elsewhere and absolute there stays as it is."""
    if is_callable_name(path) or PureWindowsPath(path).is_absolute() or PurePosixPath(path).is_absolute():
        return path
    return str(folder / path)


def _pretty(value: Any, indent: int = 0, key: str = "") -> str:  # noqa: ANN401
    """JSON a person can read and compare line by line: short objects stay on one line."""
    inner = " " * (indent + 2)
    if isinstance(value, dict) and value and indent < 4:
        lines = [f"{inner}{json.dumps(k)}: {_pretty(v, indent + 2, k)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    if isinstance(value, list) and value and key in _LINE_LISTS:
        lines = [f"{inner}{_line(item)}" for item in value]
        return "[\n" + ",\n".join(lines) + "\n" + " " * indent + "]"
    return _line(value)


def _line(value: Any) -> str:  # noqa: ANN401
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # A file name that is not valid Unicode can only be written escaped.
    return text if text.isprintable() else json.dumps(value, allow_nan=False)
