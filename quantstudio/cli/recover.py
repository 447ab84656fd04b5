"""`quantstudio recover`: win back accuracy with steps before quantizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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
)
from quantstudio.cli.output import write_json
from quantstudio.cli.quantize import calibration_of, check_rules, print_build, recipe_of, with_best_forms
from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.recipe import Recipe, uniform_recipe
from quantstudio.core.schemes import AUTO, NAMED_SCHEMES, listed_schemes, preset_scheme
from quantstudio.core.steps import SettingInfo, Step, StepInfo, completed_steps, info_of
from quantstudio.core.target import DEFAULT_TARGET

DEFAULT_PRESET = "static-int8"


class RecoverCommand(TyperCommand):
    """A command whose help lists the steps there are, looked up only when it is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  types of a vendored library
        """Write the help."""
        self.epilog = "Steps:\n\n" + "\n\n".join(steps_help(_infos()))
        super().format_help(ctx, formatter)


MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME,...",
        help="Steps in their order, or auto, which measures which of them help. Default: auto, or the "
        "steps of the recipe.",
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set-step",
        metavar="NAME.SETTING=VALUE",
        help="A setting of a step, such as bias.samples=256; may be given again.",
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help=f"Scheme of every layer that can have it; default: {DEFAULT_PRESET}. "
        f"{listed_schemes(NAMED_SCHEMES)}.",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of the random numbers a step draws; default: 0.")
]


def command(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    method: MethodOption = "",
    settings: SettingsOption = None,
    preset: PresetOption = "",
    recipe: RecipeOption = "",
    rules: RulesOption = None,
    unpacked: UnpackedOption = False,
    target: TargetOption = "",
    range_method: RangeMethodOption = "",
    statistics: StatisticsOption = "",
    samples: CalibrationSamplesOption = None,
    seed: SeedOption = None,
    transform: TransformOption = "",
    task: TaskOption = "",
    judged_output: OtherOutputOption = "",
    metric: MetricOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Win back accuracy: apply steps to the network, then quantize it; the recipe is written beside it."""
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
    preset = preset if preset or recipe else DEFAULT_PRESET
    start = _start(recipe, preset, rules or [], target)
    start = replace(
        start,
        unpacked=unpacked or start.unpacked,
        calibration=calibration_of(range_method, samples, start.calibration),
        seed=start.seed if seed is None else seed,
    )
    infos = _infos()
    is_auto = method == AUTO or not (method or start.steps)
    if is_auto:
        start = replace(
            start, steps=tuple(Step(info.name) for info in infos if info.is_quick and info.group.recovers)
        )
    elif method:
        start = replace(start, steps=_named(method))
    chosen = replace(start, steps=with_settings(start.steps, settings or [], infos))
    summary = paths.open_model()
    check_rules(rules or [], summary.layers, chosen.target)
    chosen = chosen.by_node(summary.layers)
    chosen = with_best_forms(chosen, preset, summary.layers)
    build, file = build_beside(paths, summary, recipe=to_json(chosen), choose_steps=is_auto)
    if json:
        write_json("recover", build_json(build, file, paths.beside), json)
    if json != "-":
        print_build(build, paths.beside, summary=summary)


def _named(method: str) -> tuple[Step, ...]:
    """Steps by their names, as --method gives them."""
    steps = tuple(Step(name.strip()) for name in method.split(",") if name.strip())
    if not steps:
        raise RecipeError(f"--method {method!r} names no step", hint=f"Give names of steps, or {AUTO}")
    return steps


def _start(path: str, preset: str, rules: list[str], target: str) -> Recipe:
    """The recipe the steps are put in front of."""
    if preset == AUTO:
        raise RecipeError(
            "preset auto measures networks as they are, and steps change them",
            hint=f"Give one precision, such as --preset {DEFAULT_PRESET}",
        )
    found = recipe_of(path, preset, rules, target)
    if found is not None:
        return found
    return replace(uniform_recipe(preset_scheme(preset)), target=target or DEFAULT_TARGET.name)


def with_settings(steps: Sequence[Step], texts: Sequence[str], infos: Sequence[StepInfo]) -> tuple[Step, ...]:
    """Steps with the settings that options such as "bias.samples=256" give, all others filled in.

    Raises:
        RecipeError: a step or setting is unknown, a value does not fit, or the step is not among those given.
    """
    known = {info.name: info for info in infos}
    found = list(completed_steps(steps, infos))
    for text in texts:
        target, equals, value = text.partition("=")
        name, dot, setting = target.partition(".")
        if not (equals and dot):
            raise RecipeError(
                f"--set-step {text!r} is not NAME.SETTING=VALUE", hint="Such as bias.samples=256"
            )
        info = info_of(name, known)
        if all(step.name != name for step in found):
            raise RecipeError(
                f"--set-step {text!r}: the step is not among those that are run",
                hint=f"Add it to --method: {','.join([*(step.name for step in found), name])}",
            )
        value_of = info.setting(setting)
        try:
            parsed = value_of.parsed(value)
        except ValueError as error:
            raise RecipeError(f"--set-step {text!r}: {error}", hint=f"Give {value_of.legal}") from error
        found = [
            replace(step, settings={**step.settings, setting: parsed}) if step.name == name else step
            for step in found
        ]
    return tuple(found)


def steps_help(infos: Sequence[StepInfo]) -> list[str]:
    """A paragraph per step and one per setting, as the help shows them."""
    paragraphs = []
    for info in infos:
        source = f" ({info.source})" if info.source else ""
        paragraphs.append(f"{info.name}: {info.explanation}{source}")
        paragraphs += [_setting_help(info.name, one) for one in info.settings]
    return paragraphs


def _setting_help(step: str, setting: SettingInfo) -> str:
    unit = f" {setting.unit}" if setting.unit else ""
    default = str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
    return f"  {step}.{setting.name} = {default}{unit}, {setting.legal}. {setting.explanation}"


def _infos() -> tuple[StepInfo, ...]:
    from quantstudio.engine.pipeline.discovery import step_infos

    return step_infos()
