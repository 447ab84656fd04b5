"""`quantstudio compress prune`: take channels away until a budget is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from quantstudio.cli.compressing import (
    Asked,
    Compressed,
    EpochsOption,
    PresetOption,
    SeedOption,
    again_with,
    compressed,
    tell,
    trained,
)
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

_STEP = "prune"

MacsOption = Annotated[
    float | None,
    typer.Option("--macs", help="Part of the multiply-accumulates that is left: 0.5 for half."),
]
BytesOption = Annotated[
    float | None, typer.Option("--bytes", help="Part of the bytes of the float weights that is left.")
]
LatencyOption = Annotated[
    float | None,
    typer.Option(
        "--latency",
        help="Part of the time of a run of the float network that is left, measured here; the recipe says "
        "how many multiply-accumulates that came to.",
    ),
]
CriterionOption = Annotated[
    str,
    typer.Option(
        "--criterion", help="What makes a channel matter: fisher (the default), taylor or magnitude."
    ),
]
RoundsOption = Annotated[
    int | None, typer.Option("--rounds", help="How often what matters is measured again; default: 8.")
]
MultipleOption = Annotated[
    int | None,
    typer.Option("--round-to", help="Layers keep a multiple of so many channels; default: 8."),
]
LeastOption = Annotated[
    float | None, typer.Option("--least", help="Part of each group that stays; default: 0.125.")
]
PassesOption = Annotated[
    int,
    typer.Option(
        "--passes",
        min=1,
        max=20,
        help="Prune a part and train a part of the epochs, so many times in turn; default: 1, all at once.",
    ),
]
KeepOption = Annotated[
    str, typer.Option("--keep", metavar="PATTERN,...", help="Layers that keep all their channels.")
]


def command(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    macs: MacsOption = None,
    bytes_: BytesOption = None,
    latency: LatencyOption = None,
    criterion: CriterionOption = "",
    rounds: RoundsOption = None,
    round_to: MultipleOption = None,
    least: LeastOption = None,
    keep: KeepOption = "",
    epochs: EpochsOption = 0.0,
    passes: PassesOption = 1,
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
    """Take away the channels, heads and hidden units that matter least; the recipe is written beside it."""
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
        epochs=epochs / passes,
        task=task,
        judged_output=judged_output,
        metric=metric,
        batch_axis=tuple(batch_axis or ()),
        trust=trust,
        factory=factory,
        json=json,
    )
    settings: dict[str, SettingValue | None] = {
        "criterion": criterion or None,
        "rounds": rounds,
        "round_to": round_to,
        "least": least,
        "keep": keep or None,
        "samples": samples,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    step = Step(_STEP, {**_budget(macs, bytes_, latency, passes), **given})
    steps = [step, *(one for _pass in range(1, passes) for one in (*trained(asked.epochs), step))]
    tell(asked, _reproducible(compressed(asked, steps)))


def _budget(
    macs: float | None, size: float | None, latency: float | None, passes: int
) -> dict[str, SettingValue]:
    """The one budget that is given; of several passes, the part that each leaves of what it gets.

    Raises:
        RecipeError: none is, or several are, or a time is for several passes.
    """
    if latency is not None and passes > 1:
        raise RecipeError("a budget of time is found in one pass", hint="Leave --passes out, or give --macs")
    asked = (("macs", macs), ("bytes", size), ("latency", latency))
    given = [(name, amount) for name, amount in asked if amount is not None]
    if len(given) != 1:
        names = ", ".join(f"--{name}" for name, _amount in given)
        raise RecipeError(
            f"{names} are given, and only one budget can be kept" if given else "there is no budget to keep",
            hint="Give one of --macs, --bytes and --latency, such as --macs 0.5",
        )
    name, amount = given[0]
    return {"budget": name, "amount": amount ** (1 / passes) if amount > 0 else amount}


def _reproducible(done: Compressed) -> Compressed:
    """The same file from a recipe that names no time, which would be another on every run."""
    first = done.build.steps[0]
    share = first.details.get("macs_asked")
    if not isinstance(share, float):
        return done
    return again_with(done, [Step(_STEP, {**first.settings, "budget": "macs", "amount": share})])
