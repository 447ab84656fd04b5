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
from quantstudio.cli.language_table import LANGUAGE_COLUMNS, language_rows, language_title
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
from quantstudio.core.figures import decibels, significant
from quantstudio.core.quality import AGREEMENT, loss_of, quality_of
from quantstudio.core.results import Agreement, CompareResult, Interval, VariantResult


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
        _loss_title(result),
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
    language = language_title(result)
    if language:
        print_table(console, language, LANGUAGE_COLUMNS, language_rows(result), right=(5, 6, 7))
    judgement = result.judgement
    if judgement is not None:
        how = "chosen" if judgement.is_chosen else "inferred"
        console.print(f"judged as {judgement.task.value} ({how}): {judgement.reason}", highlight=False)


def _row(v: VariantResult, *, is_base: bool) -> tuple[str, ...]:
    loss = None if is_base else loss_of(v)
    lost = "—" if loss is None else _with_ends(loss.value, signed=True)
    speed = "—"
    if v.speedup is not None and not is_base:
        speed = f"{v.speedup.value:.2f}× [{v.speedup.low:.2f}, {v.speedup.high:.2f}]"
    return (
        v.name,
        format_bytes(v.size_bytes),
        _metrics(v, is_base=is_base),
        lost,
        "—" if v.agreement is None or is_base else nearness_text(v.agreement),
        "—" if v.latency_ms is None else f"{v.latency_ms.p50:.3f}",
        speed,
        format_bytes(v.peak_memory_bytes) if v.peak_memory_bytes else "—",
    )


def _metrics(v: VariantResult, *, is_base: bool) -> str:
    """The one figure of the task, then what else was measured against the labels."""
    found = quality_of(v, is_base=is_base)
    if v.language is not None:
        return f"perplexity {v.language.perplexity.value:.4g}"
    own = {} if found is None or found.key == AGREEMENT else {found.key: found.value.value}
    return "  ".join(f"{key} {value:.4f}" for key, value in (own | v.metrics).items()) or "no labels"


def _loss_title(result: CompareResult) -> str:
    """What is lost, of which metric."""
    loss = next((loss for v in result.variants[1:] if (loss := loss_of(v)) is not None), None)
    return "loss [95 %]" if loss is None else f"{loss.of}: loss, {loss.unit} [95 %]"


def _with_ends(found: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{found.value:{sign}.2f} [{found.low:{sign}.2f}, {found.high:{sign}.2f}]"


def nearness_text(agreement: Agreement) -> str:
    """How near the answers are: by KL where they are classes, whose scores may move together at no cost."""
    parts = [] if math.isnan(agreement.top1) else [f"{agreement.top1:.2%}"]
    if math.isnan(agreement.kl):
        exact = agreement.sqnr_db == math.inf
        parts.append("same values" if exact else f"output SQNR {decibels(agreement.sqnr_db)}")
    else:
        parts.append(f"KL {significant(agreement.kl)}")
    return ", ".join(parts)


def _threads(count: int) -> str:
    return f"{count} thread" + ("s" if count != 1 else "")
