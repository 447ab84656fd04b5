"""`quantstudio compress low-rank`: write layers as two with few channels in between."""

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
from quantstudio.core.errors import RecipeError
from quantstudio.core.steps import SettingValue, Step

_STEP = "low-rank"

ParametersOption = Annotated[
    float | None,
    typer.Option(
        "--parameters", help="Part of the weights of layers that can be factored which is left: 0.6."
    ),
]
MacsOption = Annotated[
    float | None,
    typer.Option("--macs", help="Part of the multiply-accumulates of those layers that is left."),
]
EnergyOption = Annotated[
    float | None,
    typer.Option("--energy", help="Part of the power of its output that each layer keeps: 0.99."),
]
RankOption = Annotated[
    int | None, typer.Option("--rank", help="Channels between the two factors of every layer, by hand.")
]
LayersOption = Annotated[
    str, typer.Option("--layers", metavar="PATTERN,...", help="Layers that may be factored; default: all.")
]
KeepOption = Annotated[
    str, typer.Option("--keep", metavar="PATTERN,...", help="Layers that stay as they are.")
]
ErrorsOption = Annotated[
    str,
    typer.Option(
        "--errors",
        help="What errors of layers are weighed by: answers (the default), by gradients, or outputs.",
    ),
]
MultipleOption = Annotated[
    int | None, typer.Option("--round-to", help="Ranks are multiples of so many channels; default: 8.")
]


def command(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    parameters: ParametersOption = None,
    macs: MacsOption = None,
    energy: EnergyOption = None,
    rank: RankOption = None,
    layers: LayersOption = "",
    keep: KeepOption = "",
    errors: ErrorsOption = "",
    round_to: MultipleOption = None,
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
    """Write layers as two with few channels in between, where that is smaller; the recipe lies beside it."""
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
        "layers": layers or None,
        "keep": keep or None,
        "metric": errors or None,
        "round_to": round_to,
        "samples": samples,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    tell(asked, compressed(asked, [Step(_STEP, {**_ranks(parameters, macs, energy, rank), **given})]))


def _ranks(
    parameters: float | None, macs: float | None, energy: float | None, rank: int | None
) -> dict[str, SettingValue]:
    """What ranks are chosen by.

    Raises:
        RecipeError: nothing is given, or several things are.
    """
    asked: tuple[tuple[str, str, SettingValue | None], ...] = (
        ("parameters", "share", parameters),
        ("macs", "share", macs),
        ("energy", "energy", energy),
        ("rank", "rank", rank),
    )
    given = [(by, {"by": by, name: value}) for by, name, value in asked if value is not None]
    if len(given) != 1:
        names = ", ".join(f"--{by}" for by, _ in given)
        raise RecipeError(
            f"{names} are given, and ranks are chosen by one"
            if given
            else "nothing says how ranks are chosen",
            hint="Give one of --parameters, --macs, --energy and --rank, such as --parameters 0.6",
        )
    return dict(given[0][1])
