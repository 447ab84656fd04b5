"""`quantstudio quantize`: build a variant from a preset or a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quantstudio.cli.building import build_beside, build_json, checked_paths
from quantstudio.cli.judged import (
    BatchAxisOption,
    MetricOption,
    OtherOutputOption,
    TaskOption,
    batch_axes_of,
    judging_of,
)
from quantstudio.cli.options import (
    CalibrationSamplesOption,
    DataOption,
    FactoryOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    RangeMethodOption,
    RecipeOption,
    RulesOption,
    StatisticsOption,
    TargetOption,
    TransformOption,
    TrustOption,
    UnpackedOption,
    check_json,
    layer_rule,
)
from quantstudio.cli.output import console_for, format_bytes, print_table, write_json
from quantstudio.core.aim import DEFAULT_AIM, Aim, aim_named
from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layer_parts import whole_name
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.precision import ActivationPrecision, activation_format, weight_format
from quantstudio.core.preset_recipes import preset_recipe
from quantstudio.core.recipe import (
    CalibrationSettings,
    RangeMethod,
    Recipe,
    uniform_recipe,
)
from quantstudio.core.results import BuildResult, BuiltLayer, PackedFile
from quantstudio.core.schemes import AUTO, NAMED_SCHEMES, listed_schemes, preset_scheme
from quantstudio.core.target import DEFAULT_TARGET, target_named
from quantstudio.project.recipe_file import (
    read_recipe_file,
)

PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help="auto, the default, measures candidates and keeps what --aim asks for; or a scheme for every "
        f"layer, the next best form where one cannot have it: {listed_schemes(NAMED_SCHEMES)}.",
    ),
]
AimOption = Annotated[
    str,
    typer.Option(
        "--aim",
        metavar="|".join(Aim),
        help=f"What the preset auto takes: {'; '.join(f'{aim}: {aim.text}' for aim in Aim)}. Default: "
        f"{DEFAULT_AIM}.",
    ),
]


def command(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    preset: PresetOption = "",
    aim: AimOption = "",
    recipe: RecipeOption = "",
    rules: RulesOption = None,
    unpacked: UnpackedOption = False,
    method: RangeMethodOption = "",
    target: TargetOption = "",
    statistics: StatisticsOption = "",
    samples: CalibrationSamplesOption = None,
    transform: TransformOption = "",
    task: TaskOption = "",
    judged_output: OtherOutputOption = "",
    metric: MetricOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Quantize a model; the recipe that reproduces it is written beside it."""
    paths = checked_paths(
        model,
        output,
        data=data,
        transform=transform,
        statistics=statistics,
        factory=factory,
        trust=trust,
        judging=judging_of(task, judged_output, metric),
        batch_axes=batch_axes_of(batch_axis),
        reads=(recipe,),
    )
    check_json(json, inputs=(model, data, recipe, statistics, output, str(paths.beside)))
    chosen = recipe_of(recipe, preset, rules or [], target)
    check_aim(aim, is_auto=chosen is None and preset in ("", AUTO))
    if chosen is not None and unpacked:
        chosen = replace(chosen, unpacked=True)
    settings = calibration_of(method, samples, chosen.calibration if chosen and recipe else None)
    summary = paths.open_model()
    check_rules(rules or [], summary.layers, chosen.target if chosen is not None else target)
    if chosen is not None:
        chosen = replace(chosen, calibration=settings).by_node(summary.layers)
        chosen = with_best_forms(chosen, preset, summary.layers)
    build, file = build_beside(
        paths,
        summary,
        recipe=to_json(
            chosen or Recipe(calibration=settings, target=target or DEFAULT_TARGET.name, unpacked=unpacked)
        ),
        preset="" if chosen is not None else preset or AUTO,
        aim=aim,
    )
    if json:
        write_json("quantize", build_json(build, file, paths.beside), json)
    if json != "-":
        print_build(build, paths.beside, summary=summary)


def recipe_of(path: str, preset: str, rules: list[str], target: str) -> Recipe | None:
    """The recipe the options describe, or None for a preset that must be measured first.

    Raises:
        RecipeError: options contradict each other or name what is not known.
    """
    if target:
        target_named(target)
    if path and preset:
        raise RecipeError("both a recipe and a preset", hint="Give --recipe or --preset, not both")
    uniform = preset_scheme(preset) if preset not in ("", AUTO) else None
    chosen = read_recipe_file(Path(path)).recipe if path else None
    if chosen is not None and target:
        chosen = replace(chosen, target=target)
    if not rules:
        return chosen
    if chosen is None:
        if uniform is None:
            raise RecipeError(
                "--set needs a recipe or a preset of one precision to start from",
                hint="Give --preset static-int8, or --recipe R.json",
            )
        chosen = replace(uniform_recipe(uniform), target=target or DEFAULT_TARGET.name)
    for text in rules:
        chosen = chosen.with_rule(layer_rule("--set", text))
    return chosen


def with_best_forms(recipe: Recipe, preset: str, layers: Sequence[LayerInfo]) -> Recipe:
    """A recipe that starts from a preset, with the next best form of layers that cannot have it.

    Args:
        recipe: The preset's rule first.
        preset: The preset; empty where the recipe came from a file.
        layers: Of the model.
    """
    if not preset:
        return recipe
    made = preset_recipe(preset_scheme(preset), layers, recipe)
    return replace(made, rules=(*made.rules, *recipe.rules[1:]))


def check_aim(aim: str, *, is_auto: bool) -> None:
    """Refuse an aim that is unknown, or that nothing looks at.

    Raises:
        RecipeError: it is one of the two.
    """
    aim_named(aim)
    if aim and not is_auto:
        raise RecipeError("--aim is of the preset auto alone", hint="Leave it out, or give --preset auto")


def check_rules(rules: list[str], layers: Sequence[LayerInfo], target: str) -> None:
    """A pattern given by hand that does nothing is a mistake: in a recipe for any model it is not."""
    for text in rules:
        rule = layer_rule("--set", text).by_node(layers)
        matched = [layer for layer in layers if rule.matches(layer)]
        if not matched and not rule.is_exact:
            raise RecipeError(
                f"--set {text!r} matches no layer",
                hint=Hint("The list of layers shows their names", HintAction.LIST_LAYERS),
            )
        on_target = target_named(target or DEFAULT_TARGET.name)
        if matched and not any(on_target.support(layer, rule.scheme).is_legal for layer in matched):
            can = [n for n in NAMED_SCHEMES if any(n in on_target.schemes(layer) for layer in matched)]
            raise RecipeError(
                f"--set {text!r}: no layer it matches can be {rule.scheme.label}",
                hint=f"They can be: {listed_schemes(can)}",
            )


def calibration_of(method: str, samples: int | None, own: CalibrationSettings | None) -> CalibrationSettings:
    """The recipe's own settings, or the defaults, with what the options say."""
    settings = own or CalibrationSettings()
    if samples is not None:
        settings = replace(settings, samples=samples)
    if not method:
        return settings
    try:
        return replace(settings, method=RangeMethod(method))
    except ValueError:
        raise RecipeError(
            f"unknown range method {method!r}", hint=f"Choose one of {', '.join(RangeMethod)}"
        ) from None


def print_build(build: BuildResult, recipe_path: Path, *, summary: ModelSummary) -> None:
    """The table of a build.

    Args:
        build: What was built.
        recipe_path: The recipe that reproduces it.
        summary: The model it was made from.
    """
    titles = summary.titles
    rows = [
        (
            _title(row.name, titles),
            row.weights,
            row.activations,
            row.kernel,
            "integer" if row.is_integer_kernel else "float",
            format_bytes(row.weight_bytes),
            row.note,
        )
        for row in build.layers
    ]
    console = console_for("")
    columns = ("layer", "weights", "activations", "kernel", "runs in", "bytes", "note")
    integer = sum(row.is_integer_kernel for row in build.layers)
    title = (
        f"{build.output}: {format_bytes(build.size_bytes)}, "
        f"{build.size_bytes / summary.file_bytes:.0%} of FP32; "
        f"{integer} of {len(build.layers)} layers compute on integers"
    )
    print_table(console, title, columns, rows, right=(5,))
    if build.packed is not None:
        console.print(packed_text(build.packed, build.layers))
    for step in build.steps:
        console.print(f"{step.name}: {step.summary}")
    if build.preset:  # its warnings come at the end of the command
        console.print(build.preset)
    console.print(f"recipe: {recipe_path}")


def _title(name: str, titles: Mapping[str, str]) -> str:
    """What a layer is called; a part that a step made of one is called after it."""
    whole = whole_name(name)
    return titles.get(name) or f"{titles.get(whole, whole)}{name[len(whole) :]}"


def packed_text(packed: PackedFile, layers: Sequence[BuiltLayer]) -> str:
    """What packing saves and costs, in a sentence or two."""
    integers = [row for row in layers if weight_format(row.weights).is_integer]
    # Weights stored alone run as floats, or in a kernel that unpacks blocks itself.
    is_int8 = all(activation_format(row.activations) != ActivationPrecision.FP32 for row in integers)
    whose = "INT8's" if is_int8 else "those of the kernels above"
    below, whose = ("INT8", whose) if integers else ("FP32", "FP32's")
    text = (
        f"packed: {format_bytes(packed.size_bytes)}, unpacked {format_bytes(packed.unpacked_bytes)}; file, "
        f"download and flash shrink below {below}, memory and time while it runs are {whose}."
    )
    if packed.load_ms is None or packed.unpacked_load_ms is None:
        return text
    text += f" Loads in {packed.load_ms:.0f} ms, unpacked {packed.unpacked_load_ms:.0f} ms"
    if packed.peak_memory_bytes is None or packed.unpacked_peak_memory_bytes is None:
        return f"{text}."
    peak, other = (format_bytes(n) for n in (packed.peak_memory_bytes, packed.unpacked_peak_memory_bytes))
    return f"{text}; peak memory of the process {peak}, unpacked {other}."
