"""Steps that compress or train, put before or behind those of a recipe on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from quantstudio.cli.building import BuildPaths, build_beside, build_json, checked_paths
from quantstudio.cli.judged import batch_axes_of, judging_of
from quantstudio.cli.options import check_json
from quantstudio.cli.output import write_json
from quantstudio.cli.quantize import calibration_of, check_rules, print_build, recipe_of, with_best_forms
from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.results import BuildResult
from quantstudio.core.schemes import AUTO, NAMED_SCHEMES, listed_schemes, preset_scheme
from quantstudio.core.steps import Step, StepInfo, completed_steps
from quantstudio.core.target import DEFAULT_TARGET
from quantstudio.project.recipe_file import RecipeFile

# Nothing is quantized unless that is asked for.
_PRESET = "fp32"

EpochsOption = Annotated[
    float,
    typer.Option(
        "--epochs",
        min=0.0,
        help="Train so many epochs behind it: on labels where the data has some, else towards the answers of "
        "the network as it was. Default: 0, no training.",
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help=f"Scheme of every layer that can have it; default: {_PRESET}, nothing is quantized. "
        f"{listed_schemes(NAMED_SCHEMES)}.",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of the random numbers a step draws; default: 0.")
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options of a command that compresses have in common, as they were given."""

    model: str
    output: str
    data: str = ""
    transform: str = ""
    preset: str = ""
    recipe: str = ""
    rules: tuple[str, ...] = ()
    target: str = ""
    samples: int | None = None
    seed: int | None = None
    epochs: float = 0.0
    task: str = ""
    judged_output: str = ""
    metric: str = ""
    batch_axis: tuple[str, ...] = ()
    trust: bool = False
    factory: str = ""
    json: str = ""
    default_preset: str = _PRESET


@dataclass(frozen=True, slots=True)
class Compressed:
    """What was written.

    Attributes:
        build: The file.
        file: Its recipe.
        paths: Where both are.
        summary: The model it was made from.
        recipe: The recipe that was asked for.
    """

    build: BuildResult
    file: RecipeFile
    paths: BuildPaths
    summary: ModelSummary
    recipe: Recipe


def compressed(
    asked: Asked, steps: Sequence[Step], *, behind: bool = False, reads: Sequence[str] = ()
) -> Compressed:
    """Build with more steps than the recipe has; file and recipe are written beside each other.

    Args:
        asked: The options.
        steps: What is done besides.
        behind: Whether it comes behind the steps of the recipe, and not before.
        reads: Files that are read besides, which the output must not replace.

    Raises:
        RecipeError: options contradict each other, or a step is unknown or a setting wrong.
        OutputError: the output cannot be written.
    """
    paths = checked_paths(
        asked.model,
        asked.output,
        data=asked.data,
        transform=asked.transform,
        factory=asked.factory,
        trust=asked.trust,
        judging=judging_of(asked.task, asked.judged_output, asked.metric),
        batch_axes=batch_axes_of(list(asked.batch_axis)),
        reads=(asked.recipe, *reads),
    )
    check_json(asked.json, inputs=(asked.model, asked.data, asked.recipe, asked.output, str(paths.beside)))
    preset = asked.preset if asked.preset or asked.recipe else asked.default_preset
    start = _start(asked, preset)
    first = completed_steps([*steps, *trained(asked.epochs)], _infos())
    start = replace(
        start,
        steps=(*start.steps, *first) if behind else (*first, *start.steps),
        calibration=calibration_of("", asked.samples, start.calibration),
        seed=start.seed if asked.seed is None else asked.seed,
    )
    summary = paths.open_model()
    check_rules(list(asked.rules), summary.layers, start.target)
    chosen = with_best_forms(start.by_node(summary.layers), preset, summary.layers)
    return _built(paths, summary, chosen)


def trained(epochs: float) -> tuple[Step, ...]:
    """The training that wins back what compressing costs; none of no epochs."""
    return (Step("finetune", {"epochs": epochs}),) if epochs > 0 else ()


def again_with(done: Compressed, steps: Sequence[Step]) -> Compressed:
    """The same file from a recipe whose first steps are written otherwise."""
    recipe = replace(done.recipe, steps=(*steps, *done.recipe.steps[len(steps) :]))
    return _built(done.paths, done.summary, recipe)


def tell(asked: Asked, done: Compressed, schema: str = "compress") -> None:
    """Print what was built, or write it as JSON."""
    if asked.json:
        write_json(schema, build_json(done.build, done.file, done.paths.beside), asked.json)
    if asked.json != "-":
        print_build(done.build, done.paths.beside, summary=done.summary)


def _built(paths: BuildPaths, summary: ModelSummary, recipe: Recipe) -> Compressed:
    build, file = build_beside(paths, summary, recipe=to_json(recipe))
    return Compressed(build, file, paths, summary, recipe)


def _start(asked: Asked, preset: str) -> Recipe:
    """The recipe the steps are put in front of."""
    if preset == AUTO:
        raise RecipeError(
            "preset auto measures networks as they are, and steps change them",
            hint="Give one precision, such as --preset static-int8",
        )
    found = recipe_of(asked.recipe, preset, list(asked.rules), asked.target)
    if found is not None:
        return found
    return replace(uniform_recipe(preset_scheme(preset)), target=asked.target or DEFAULT_TARGET.name)


def _infos() -> tuple[StepInfo, ...]:
    from quantstudio.engine.pipeline.discovery import step_infos

    return step_infos()
