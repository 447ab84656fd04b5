"""`quantstudio calibrate`: activation histograms in one pass."""

from __future__ import annotations

from typing import Annotated

import typer

from quantstudio.cli.execution import run_task
from quantstudio.cli.judged import BatchAxisOption, batch_axes_of
from quantstudio.cli.options import (
    DataOption,
    FactoryOption,
    JsonOption,
    ModelArgument,
    ProviderOption,
    SamplesOption,
    TransformOption,
    TrustOption,
    check_json,
    checked_output,
    data_json,
    split_model,
)
from quantstudio.cli.output import console_for, write_json
from quantstudio.core.codec import to_json


def command(
    model: ModelArgument,
    data: DataOption,
    output: Annotated[str, typer.Option("-o", "--output", metavar="STATS.npz", help="File to write.")],
    samples: SamplesOption = 512,
    transform: TransformOption = "",
    provider: ProviderOption = "cpu",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Collect activation histograms and write them to a file that every range method reads."""
    from quantstudio.engine.tasks.calibration import calibrate
    from quantstudio.engine.tasks.models import open_model

    target = checked_output(output, inputs=(model, data))
    check_json(json, inputs=(model, data, output))
    spec = data_json(data, transform, trust=trust, batch_axes=batch_axes_of(batch_axis))
    summary = run_task(open_model, trust=trust, **split_model(model, factory))
    result = run_task(
        calibrate,
        graph_path=summary.graph_path,
        data=spec,
        samples=samples,
        output=str(target),
        provider=provider,
    )
    if json:
        write_json("calibrate", to_json(result), json)
    if json != "-":
        console_for(json).print(
            f"{result.tensors} tensors, {result.samples} samples, {result.seconds:.2f} s on "
            f"{result.provider}: {result.path}",
        )
