"""`quantstudio sensitivity`: which layer matters."""

from __future__ import annotations

from typing import Annotated

import typer

from quantstudio.cli.execution import run_task
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
from quantstudio.core.results import SensitivityResult


def command(
    model: ModelArgument,
    data: DataOption,
    samples: SamplesOption = 512,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="fisher (one pass, predicted), exact (one layer at a time, measured) or auto (fisher).",
        ),
    ] = "auto",
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            help="Precision to rank by, such as int8, int4, int2 or int8-activations.",
        ),
    ] = "int4",
    statistics: StatisticsOption = "",
    device: Annotated[
        str,
        typer.Option(
            "--device",
            help="torch device of the estimate (cpu, cuda, cuda:1, mps) or, with --method exact, execution "
            "provider (see `devices`).",
        ),
    ] = "cpu",
    transform: TransformOption = "",
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Rank the layers by how much the output changes when each alone is quantized."""
    from quantstudio.engine import tasks

    check_json(json, inputs=(model, data, statistics))
    spec = data_json(data, transform, trust=trust)
    summary = run_task(tasks.open_model, trust=trust, **split_model(model, factory))
    result = run_task(
        tasks.sensitivity,
        graph_path=summary.graph_path,
        data=spec,
        samples=samples,
        method=method,
        reference=reference,
        statistics=statistics,
        device=device,
    )
    if json:
        write_json("sensitivity", to_json(result), json)
    if json != "-":
        _print(result)


def _print(result: SensitivityResult) -> None:
    precisions = list(dict.fromkeys(name for row in result.layers for name in row.by_precision))
    has_drop = any(row.accuracy_drop is not None for row in result.layers)
    columns = ["layer", "KL, nats", "95 %", "SQNR, dB", *(["drop, points"] if has_drop else [])]
    columns += [f"KL {name}" for name in precisions]
    rows = []
    for row in sorted(result.layers, key=lambda row: -row.kl):
        drop = "—" if row.accuracy_drop is None else f"{row.accuracy_drop:+.2f}"
        rows.append(
            (
                row.name,
                f"{row.kl:.3g}",
                f"{row.kl_low:.2g} – {row.kl_high:.2g}",
                f"{row.sqnr_db:.1f}",
                *([drop] if has_drop else []),
                *(f"{row.by_precision[n]:.2g}" if n in row.by_precision else "—" for n in precisions),
            )
        )
    title = (
        f"KL divergence of the output with one layer alone at {result.reference}: {result.method}, "
        f"{result.samples} samples, {result.seconds:.2f} s ({result.provenance.value}, {result.device})"
    )
    print_table(console_for(""), title, columns, rows, right=range(1, len(columns)))
