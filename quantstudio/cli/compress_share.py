"""`quantstudio compress share`: let weights take few values, which tables in the file hold."""

from __future__ import annotations

from typing import Annotated

import typer

from quantstudio.cli.compressing import Asked, EpochsOption, PresetOption, SeedOption, compressed, tell
from quantstudio.cli.judged import BatchAxisOption, MetricOption, OtherOutputOption, TaskOption
from quantstudio.cli.options import (
    CalibrationSamplesOption,
    DataOption,
    FactoryOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    RecipeOption,
    RulesOption,
    TargetOption,
    TransformOption,
    TrustOption,
)
from quantstudio.core.steps import SettingValue, Step

_STEP = "share"

EntriesOption = Annotated[
    int | None, typer.Option("--entries", help="Values in a table, 2 to 256; default: 16.")
]
PerOption = Annotated[
    str,
    typer.Option(
        "--per", help="What has a table of its own: tensor (the default), channel, group or network."
    ),
]
GroupOption = Annotated[
    int | None, typer.Option("--group", help="Channels that share a table with --per group; default: 8.")
]
LayersOption = Annotated[
    str,
    typer.Option("--layers", metavar="PATTERN,...", help="Layers whose weights are shared; default: all."),
]


def command(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    entries: EntriesOption = None,
    per: PerOption = "",
    group: GroupOption = None,
    layers: LayersOption = "",
    epochs: EpochsOption = 0.0,
    preset: PresetOption = "",
    recipe: RecipeOption = "",
    rules: RulesOption = None,
    target: TargetOption = "",
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
    """Let weights take few values, which tables in the file hold; the recipe is written beside it."""
    asked = Asked(
        model=model,
        output=output,
        data=data,
        transform=transform,
        preset=preset,
        recipe=recipe,
        rules=tuple(rules or ()),
        target=target,
        samples=samples,
        seed=seed,
        epochs=epochs,
        task=task,
        judged_output=judged_output,
        metric=metric,
        batch_axis=tuple(batch_axis or ()),
        trust=trust,
        factory=factory,
        json=json,
    )
    settings: dict[str, SettingValue | None] = {
        "entries": entries,
        "per": per or None,
        "group": group,
        "layers": layers or None,
        "samples": samples,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    tell(asked, compressed(asked, [Step(_STEP, given)]))
