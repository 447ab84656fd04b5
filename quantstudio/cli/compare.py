"""`quantstudio compare`: what each variant costs against the base."""

from __future__ import annotations

import math
import os
from typing import Annotated

import typer

from quantstudio.cli.execution import run_task
from quantstudio.cli.judged import (
    BatchAxisOption,
    JudgedOutputOption,
    MetricOption,
    TaskOption,
    batch_axes_of,
    judging_of,
)
from quantstudio.cli.options import (
    DataOption,
    JsonOption,
    ProviderOption,
    TransformOption,
    TrustOption,
    check_json,
    data_json,
)
from quantstudio.cli.output import console_for, format_bytes, print_table, write_json
from quantstudio.core.errors import MeasureError
from quantstudio.core.results import Agreement, CompareResult, Headline, VariantResult


def command(
    base: Annotated[str, typer.Argument(metavar="BASE.onnx", help="The model to compare against.")],
    variants: Annotated[list[str], typer.Argument(metavar="VARIANT.onnx...", help="Models to compare.")],
    data: DataOption,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Samples to use; 0 means all.")] = 0,
    transform: TransformOption = "",
    provider: ProviderOption = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads; 0 leaves one core free.")] = 0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Batch size of the latency runs.")] = 1,
    latency: Annotated[bool, typer.Option(help="Time the models.")] = True,
    task: TaskOption = "",
    output: JudgedOutputOption = "",
    metric: MetricOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    json: JsonOption = "",
) -> None:
    """Accuracy, per class, agreement, latency, size and memory, on the same samples."""
    from quantstudio.engine.evaluation.compare import compare_json
    from quantstudio.engine.tasks.compare import compare

    check_json(json, inputs=(base, *variants, data))
    if threads > (os.cpu_count() or 1):
        raise MeasureError(
            f"--threads {threads} is more than this machine's {os.cpu_count()} processors",
            hint="Give fewer, or 0 to leave one core free",
        )
    result = run_task(
        compare,
        base=base,
        variants=variants,
        data=data_json(
            data,
            transform,
            samples=samples,
            trust=trust,
            judging=judging_of(task, output, metric),
            batch_axes=batch_axes_of(batch_axis),
        ),
        provider=provider,
        threads=threads or None,
        batch=batch,
        trust=trust,
        latency=latency,
    )
    if json:
        write_json("compare", compare_json(result), json)
    if json != "-":
        print_comparison(result)


def print_comparison(result: CompareResult) -> None:
    """The table of a comparison on standard output."""
    rows = [_row(v, is_base=index == 0) for index, v in enumerate(result.variants)]
    columns = (
        "model",
        "size",
        "metrics",
        _drop_title(result),
        "agreement with the first",
        "p50 ms",
        "speed-up [95 %]",
        "peak memory",
    )
    base = result.variants[0]
    title = f"measured on {result.samples} samples, {base.provider}"
    if base.latency_ms is not None:
        title += f"; latency of batch {base.latency_ms.batch} on {_threads(base.latency_ms.threads)}"
        title += f"; {base.latency_ms.load_text}" if base.latency_ms.load_text else ""
    console = console_for("")
    print_table(console, title, columns, rows, right=(1, 5, 7))
    judgement = result.judgement
    if judgement is not None:
        how = "chosen" if judgement.is_chosen else "inferred"
        console.print(f"judged as {judgement.task.value} ({how}): {judgement.reason}", highlight=False)


def _row(v: VariantResult, *, is_base: bool) -> tuple[str, ...]:
    drop = "—"
    if v.drop is not None and not is_base:
        drop = f"{v.drop.value:+.2f} [{v.drop.low:+.2f}, {v.drop.high:+.2f}]"
    speed = "—"
    if v.speedup is not None and not is_base:
        speed = f"{v.speedup.value:.2f}× [{v.speedup.low:.2f}, {v.speedup.high:.2f}]"
    return (
        v.name,
        format_bytes(v.size_bytes),
        "  ".join(f"{name} {value:.4f}" for name, value in v.metrics.items()) or "no labels",
        drop if v.headline is None or is_base or v.drop is not None else _loss(v.headline),
        "—" if v.agreement is None or is_base else _agreement(v.agreement),
        "—" if v.latency_ms is None else f"{v.latency_ms.p50:.3f}",
        speed,
        format_bytes(v.peak_memory_bytes) if v.peak_memory_bytes else "—",
    )


def _loss(headline: Headline) -> str:
    loss = headline.loss
    return f"{loss.value:+.2f} [{loss.low:+.2f}, {loss.high:+.2f}]"


def _drop_title(result: CompareResult) -> str:
    """Points of the task's figure, or percent of error where there are targets."""
    if any(v.drop_method == "bootstrap" for v in result.variants):
        return "more error, % [95 %]"
    figure = result.variants[0].headline
    if figure is None or figure.metric == "top1":
        return "drop, points [95 %]"
    return f"{figure.label}: loss, {figure.unit} [95 %]"


def _agreement(agreement: Agreement) -> str:
    share = "" if math.isnan(agreement.top1) else f"{agreement.top1:.2%}, "
    return f"{share}{agreement.sqnr_db:.1f} dB"


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count != 1 else "")
