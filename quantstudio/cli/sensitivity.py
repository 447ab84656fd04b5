"""`quantstudio sensitivity`: which layer matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from quantstudio.cli.execution import run_task
from quantstudio.cli.judged import (
    BatchAxisOption,
    JudgedOutputOption,
    TaskOption,
    batch_axes_of,
    judging_of,
)
from quantstudio.cli.options import (
    DataOption,
    FactoryOption,
    JsonOption,
    ModelArgument,
    SamplesOption,
    StatisticsOption,
    TransformOption,
    TrustOption,
    check_json,
    data_json,
    split_model,
)
from quantstudio.cli.output import console_for, print_table, write_json
from quantstudio.core.codec import to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import (
    DEFAULT_PRECISIONS,
    DEFAULT_REFERENCE,
    Precision,
    activation_formats,
    weight_formats,
)
from quantstudio.core.results import LayerSensitivity, SensitivityResult
from quantstudio.project.recipe_file import read_recipe_file

_WEIGHTS = [row.name for row in weight_formats() if row != Precision.FP32]
_INPUTS = [row.sensitivity_name for row in activation_formats() if row.is_static]


MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="fisher (one pass, predicted), exact (one layer at a time, measured) or auto (fisher).",
    ),
]
_DEFAULT = ",".join(DEFAULT_PRECISIONS)

ReferenceOption = Annotated[
    str,
    typer.Option(
        "--reference",
        help="Precision to rank by, such as int8, int4, int2 or int8-activations.",
    ),
]
PrecisionsOption = Annotated[
    str,
    typer.Option(
        "--precisions",
        metavar="P,P,...",
        help=f"Weights: {', '.join(_WEIGHTS)}; after integers /tensor or /group32 for another "
        f"granularity. Inputs: {', '.join(_INPUTS)}. Both: int4+int8-activations, or the scheme, such as "
        "static-int4.",
    ),
]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layers", metavar="L,L,...", help="Measure these layers only (see `inspect`); implies exact."
    ),
]
TopOption = Annotated[
    int | None,
    typer.Option("--top", min=1, help="Measure only the layers an estimate ranks highest; implies exact."),
]
AllButOption = Annotated[
    bool,
    typer.Option("--all-but", help="Measure also every layer but this one quantized; implies exact."),
]
AccumulatedOption = Annotated[
    bool,
    typer.Option(
        "--accumulated",
        help="Measure also the error of each layer's output with all layers quantized; implies exact.",
    ),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Compute everything again instead of what is missing.")
]
KeptOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="R.json",
        help="Recipe file: its steps that come before the precisions, such as equalize, are run first.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="torch device of the estimate (cpu, cuda, cuda:1, mps) or, with --method exact, execution "
        "provider (see `devices`).",
    ),
]


def command(
    model: ModelArgument,
    data: DataOption,
    samples: SamplesOption = 512,
    method: MethodOption = "auto",
    reference: ReferenceOption = DEFAULT_REFERENCE,
    precisions: PrecisionsOption = _DEFAULT,
    layers: LayersOption = None,
    top: TopOption = None,
    all_but: AllButOption = False,
    accumulated: AccumulatedOption = False,
    fresh: FreshOption = False,
    statistics: StatisticsOption = "",
    recipe: KeptOption = "",
    device: DeviceOption = "cpu",
    transform: TransformOption = "",
    task: TaskOption = "",
    output: JudgedOutputOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Rank the layers by how much the output changes when each alone is quantized.

    What is found is kept in the cache folder: stopped with Ctrl-C, the same command goes on where it was.
    """
    from quantstudio.engine.tasks.models import open_model
    from quantstudio.engine.tasks.sensitivity import sensitivity

    check_json(json, inputs=(model, data, statistics, recipe))
    kept = read_recipe_file(Path(recipe)).recipe.bare if recipe else None
    axes, judging = batch_axes_of(batch_axis), judging_of(task, output)
    spec = data_json(data, transform, trust=trust, judging=judging, batch_axes=axes)
    summary = run_task(open_model, trust=trust, **split_model(model, factory))
    chosen = _listed("--layers", ",".join(layers)) if layers else None
    asked = _listed("--precisions", precisions)
    if chosen or top or all_but or accumulated:
        method = "exact" if method == "auto" else method
    result = run_task(
        sensitivity,
        graph_path=summary.graph_path,
        data=spec,
        samples=samples,
        method=method,
        precisions=asked,
        reference=reference,
        layers=chosen,
        top=top,
        all_but=all_but,
        accumulated=accumulated,
        statistics=statistics,
        recipe=to_json(kept) if kept is not None else None,
        device=device,
        fresh=fresh,
    )
    if json:
        write_json("sensitivity", to_json(result), json)
    if json != "-":
        _print(result, summary.titles)


def _listed(option: str, text: str) -> list[str]:
    """What an option names, with commas between."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise RecipeError(f"{option} {text!r} names nothing", hint="Give names with commas between")
    return names


def _print(result: SensitivityResult, titles: Mapping[str, str]) -> None:
    layers = result.layers
    precisions = list(dict.fromkeys(name for row in layers for name in row.by_precision))
    extra: dict[str, Callable[[LayerSensitivity], str]] = {}
    if any(row.accuracy_drop is not None for row in layers):
        extra["drop, points"] = lambda row: _figure(row.accuracy_drop, "+.2f")
    if any(row.kl_all_but is not None for row in layers):
        extra["KL all but"] = lambda row: _figure(row.kl_all_but, ".3g")
    if any(row.accumulated_sqnr_db is not None for row in layers):
        extra["accumulated, dB"] = lambda row: _figure(row.accumulated_sqnr_db, ".1f")
    if result.classes:
        extra["worst class"] = lambda row: _worst_class(row, result.classes)
    columns = ["layer", "KL, nats", "95 %", "SQNR, dB", *extra, *(f"KL {name}" for name in precisions)]
    rows = [
        (
            titles.get(row.name, row.name),
            f"{row.kl:.3g}",
            f"{row.kl_low:.2g} – {row.kl_high:.2g}",
            f"{row.sqnr_db:.1f}",
            *(cell(row) for cell in extra.values()),
            *(_figure(row.by_precision.get(name), ".2g") for name in precisions),
        )
        for row in sorted(layers, key=lambda row: -row.kl)
    ]
    title = (
        f"KL divergence of the output with one layer alone at {result.reference}: {result.method}, "
        f"{result.samples} samples, {result.seconds:.2f} s ({result.provenance.value}, {result.device})"
    )
    if result.steps:
        title += f"; after {', '.join(result.steps)}"
    if result.left_out:
        title += f"; without {', '.join(result.left_out)}, which depends on the precisions"
    if result.kl_all is not None:
        title += f"; all layers together {result.kl_all:.3g}"
    print_table(console_for(""), title, columns, rows, right=range(1, len(columns)))


def _figure(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def _worst_class(row: LayerSensitivity, classes: Sequence[str]) -> str:
    """The class with the highest mean KL."""
    known = [
        (value, name) for value, name in zip(row.by_class, classes, strict=False) if not math.isnan(value)
    ]
    return max(known)[1] if known else "—"
