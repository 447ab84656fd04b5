"""`quantstudio search`: the best mixed-precision plan within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from quantstudio.cli.execution import run_task
from quantstudio.cli.judged import (
    BatchAxisOption,
    MetricOption,
    OtherOutputOption,
    TaskOption,
    batch_axes_of,
    judging_of,
)
from quantstudio.cli.options import (
    DataOption,
    FactoryOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    SamplesOption,
    TargetOption,
    TransformOption,
    TrustOption,
    UnpackedOption,
    absolute,
    check_json,
    checked_output,
    data_json,
    layer_rule,
    model_source,
    split_model,
)
from quantstudio.cli.output import console_for, format_bytes, print_table, write_json
from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.files import written_together
from quantstudio.core.recipe import CalibrationSettings, Recipe
from quantstudio.core.search_results import (
    ActivationFamily,
    PlanPoint,
    Recover,
    SearchBudget,
    SearchResult,
    recover_named,
)
from quantstudio.core.target import target_named
from quantstudio.project.recipe_file import (
    DataSource,
    OutputSource,
    RecipeFile,
    read_recipe_file,
    write_recipe_file,
)

# Front points the table shows; the JSON document has all.
_SHOWN = 12


MaxDropOption = Annotated[
    float | None,
    typer.Option("--max-drop", help="Points of top-1 that may be lost; 0.5 if nothing is bounded."),
]
MaxClassDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-class-drop",
        help="Points any one class may lose, beyond chance; by default twice what may be lost in all. 100: "
        "no bound.",
    ),
]
MaxSizeMbOption = Annotated[
    float | None, typer.Option("--max-size-mb", help="Largest ONNX file, in MB of 1,000,000 bytes.")
]
MaxLatencyRatioOption = Annotated[
    float | None,
    typer.Option("--max-latency-ratio", help="Longest time, as a fraction of FP32's; at most 1."),
]
AverageBitsOption = Annotated[
    float | None, typer.Option("--average-bits", help="Most bits per weight, on average.")
]
ShareAbove8Option = Annotated[
    float | None,
    typer.Option(
        "--share-above-8",
        help="Share of the layers that may stay float, 0 to 1; by default only if needed.",
    ),
]
PinsOption = Annotated[
    list[str] | None,
    typer.Option("--pin", metavar="PATTERN=SCHEME", help="Fix the precision of matching layers."),
]
ActivationsOption = Annotated[
    str, typer.Option("--activations", help=f"One of {', '.join(ActivationFamily)}.")
]
RecoverOption = Annotated[
    str,
    typer.Option(
        "--recover",
        metavar="|".join(Recover),
        help="What wins back what few bits lose before a plan is measured: weights chosen together (gptq), "
        "nothing, or what fits the time.",
    ),
]
KeptOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="R.json",
        help="Recipe file of which every plan keeps the steps, range settings and target; precisions are "
        "searched.",
    ),
]
TestDataOption = Annotated[
    str, typer.Option("--test-data", metavar="D", help="Other data the chosen plan is judged on.")
]


def command(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption,
    max_drop: MaxDropOption = None,
    max_class_drop: MaxClassDropOption = None,
    max_size_mb: MaxSizeMbOption = None,
    max_latency_ratio: MaxLatencyRatioOption = None,
    average_bits: AverageBitsOption = None,
    share_above_8: ShareAbove8Option = None,
    pins: PinsOption = None,
    activations: ActivationsOption = "auto",
    recover: RecoverOption = Recover.AUTO.value,
    samples: SamplesOption = 512,
    test_data: TestDataOption = "",
    recipe: KeptOption = "",
    unpacked: UnpackedOption = False,
    target: TargetOption = "",
    transform: TransformOption = "",
    task: TaskOption = "",
    judged_output: OtherOutputOption = "",
    metric: MetricOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Find the best precision of every layer within a budget, and write that model with its recipe.

    Without bounds on size, bits or time: the smallest file that loses no more than --max-drop, of equally
    small ones the fastest; where nothing wins over INT8 everywhere, that, with the reason.

    With --recipe every plan is built and measured with the steps of that recipe. Weights below 8 bits are
    packed in the file, which runs at INT8 speed.
    """
    from quantstudio.engine.tasks.models import open_model
    from quantstudio.engine.tasks.search import search

    destination, beside = _destinations(output, recipe, json, (model, data, test_data))
    budget = _budget(
        {
            "--max-drop": max_drop,
            "--max-class-drop": max_class_drop,
            "--max-size-mb": max_size_mb,
            "--max-latency-ratio": max_latency_ratio,
            "--average-bits": average_bits,
            "--share-above-8": share_above_8,
        }
    )
    kept = _kept(recipe, target, samples)
    kept = replace(kept, unpacked=unpacked or kept.unpacked)
    rules = [to_json(layer_rule("--pin", text)) for text in pins or []]
    axes, judging = batch_axes_of(batch_axis), judging_of(task, judged_output, metric)
    said: dict[str, Any] = {"trust": trust, "judging": judging, "batch_axes": axes}
    spec, test_spec = (data_json(one, transform, **said) if one else None for one in (data, test_data))
    summary = run_task(open_model, trust=trust, **split_model(model, factory))
    with written_together(beside, destination) as (new_recipe, new_model):
        result = run_task(
            search,
            graph_path=summary.graph_path,
            data=spec,
            output=str(new_model),
            budget=to_json(budget),
            family=activations,
            pins=rules,
            samples=samples,
            test_data=test_spec,
            recipe=to_json(kept),
            recover=recover_named(recover).value,
        )
        file = RecipeFile(
            recipe=result.chosen.recipe,
            model=model_source(model, factory),
            data=DataSource(absolute(data), transform, digest=result.data_digest, batch_axes=axes),
            output=OutputSource(destination.name, result.build.digest),
        )
        write_recipe_file(new_recipe, file)
    _tell(replace(result, build=replace(result.build, output=str(destination))), file, beside, json)


def _tell(result: SearchResult, file: RecipeFile, beside: Path, json: str) -> None:
    if json:
        write_json("search", {**to_json(result), "recipe": to_json(file), "recipe_path": str(beside)}, json)
    if json != "-":
        _print(result, beside)


def _destinations(output: str, recipe: str, json: str, reads: tuple[str, ...]) -> tuple[Path, Path]:
    """The model and the recipe to write.

    Raises:
        OutputError: one of them, or the JSON, cannot be written.
    """
    destination = checked_output(output, inputs=(*reads, recipe))
    beside = checked_output(str(destination.with_suffix(".recipe.json")), inputs=(*reads, output))
    check_json(json, inputs=(*reads, recipe, output, str(beside)))
    return destination, beside


def _kept(path: str, target: str, samples: int) -> Recipe:
    """What every plan takes over: from a recipe file, or the defaults.

    Raises:
        RecipeError: the file cannot be read, or the target is unknown.
    """
    own = Recipe(calibration=CalibrationSettings(samples=samples))
    found = read_recipe_file(Path(path)).recipe.bare if path else own
    return replace(found, target=target_named(target or found.target).name)


def _budget(options: Mapping[str, float | None]) -> SearchBudget:
    """The budget of the options, each looked at under its own name.

    Raises:
        RecipeError: an option cannot be a bound.
    """
    _check_numbers(options)
    ratio = options["--max-latency-ratio"]
    if ratio is not None and not 0 < ratio <= 1:
        raise RecipeError(
            f"--max-latency-ratio {ratio:g} is no part of the FP32 time",
            hint="Give a number above 0, at most 1: nothing slower than FP32 is ever chosen",
        )
    return SearchBudget(
        max_drop=options["--max-drop"],
        max_size_bytes=_bytes(options["--max-size-mb"]),
        max_latency_ratio=ratio,
        average_bits=options["--average-bits"],
        max_share_above_8=options["--share-above-8"],
        max_class_drop=options["--max-class-drop"],
    )


def _check_numbers(options: Mapping[str, float | None]) -> None:
    """Refuse what `float` reads but a bound cannot be; as JSON it would not be a bound at all.

    Raises:
        RecipeError: an option is NaN or infinite.
    """
    for name, value in options.items():
        if value is not None and not math.isfinite(value):
            raise RecipeError(
                f"{name} {value} cannot be a bound", hint="Give a number, or leave the option out"
            )


def _bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else round(megabytes * 1e6)


def _print(result: SearchResult, recipe_path: Path) -> None:
    console = console_for("")
    named = [p for p in result.tried if p.name]
    front = [p for p in result.front if not p.name]  # the others are among the named
    step = max(1, -(-len(front) // _SHOWN))
    shown = [*front[::step], *(p for p in front[-1:] if (len(front) - 1) % step)]
    title = (
        f"{len(result.front)} plans, activations {result.family.value}; {result.builds} built and measured "
        f"on {result.samples} samples in {result.seconds:.1f} s and {result.timing_seconds:.1f} s of timing"
    )
    columns = ("plan", "bits", "file", "KL", result.metric_name or "metric", "x FP32", "figures")
    rows = [_row(p.name or "front", p, result.samples) for p in (*named, *shown)]
    rows.append(_row("chosen", result.chosen, result.samples))
    print_table(console, title, columns, rows, right=(1, 2, 3, 4, 5))
    for done in result.build.steps:
        console.print(f"{done.name}: {done.summary}")
    for line in result.notes:  # warnings of the build come at the end of the command
        console.print(line)
    console.print(f"{result.build.output}  recipe: {recipe_path}")


def _row(name: str, point: PlanPoint, samples: int) -> tuple[str, ...]:
    """One line of the table.

    Args:
        name: What the plan is called.
        point: The plan.
        samples: Those of the search: figures of other ones, the test data, cannot be compared with them.
    """
    figures = point.measured or point.predicted
    origin = "measured" if point.measured is not None else "predicted"
    if point.measured is not None and point.measured.samples != samples:
        origin = f"measured on {point.measured.samples} test samples"
    ratio = figures.latency_ratio
    return (
        name,
        f"{figures.average_bits:.2f}",
        format_bytes(figures.size_bytes) if figures.size_bytes is not None else "—",
        f"{figures.kl:.2g}",
        f"{figures.metric:.4f}" if figures.metric is not None else "—",
        f"{1 / ratio:.2f}" if ratio else "—",
        origin,
    )
