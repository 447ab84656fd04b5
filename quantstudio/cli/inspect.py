"""`quantstudio inspect`: what a model is made of."""

from __future__ import annotations

import math

from quantstudio.cli.execution import run_task
from quantstudio.cli.options import (
    FactoryOption,
    JsonOption,
    ModelArgument,
    TrustOption,
    check_json,
    split_model,
)
from quantstudio.cli.output import console_for, format_bytes, format_shape, print_table, write_json
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.schemes import listed_schemes


def command(
    model: ModelArgument, trust: TrustOption = False, factory: FactoryOption = "", json: JsonOption = ""
) -> None:
    """List inputs, outputs and layers."""
    from quantstudio.engine.tasks.models import open_model

    check_json(json, inputs=(model,))
    summary = run_task(open_model, trust=trust, **split_model(model, factory))
    if json:
        write_json("inspect", inspect_json(summary), json)
    if json != "-":
        _print(summary)


def inspect_json(summary: ModelSummary) -> dict[str, object]:
    """The document `inspect --json` writes."""
    return {
        "path": summary.source_path,
        "digest": summary.digest,
        "opset": summary.opset,
        "inputs": summary.inputs,
        "outputs": summary.outputs,
        "parameters": summary.parameters,
        "weight_bytes": summary.weight_bytes,
        "file_bytes": summary.file_bytes,
        "verified_error": summary.verified_error,
        "notes": summary.notes,
        "warnings": summary.warnings,
        "layers": summary.layers,
    }


def _print(summary: ModelSummary) -> None:
    console = console_for("")
    tensors = [
        f"{kind} {t.name}: {t.dtype} [{', '.join('?' if d is None else str(d) for d in t.shape)}]"
        for kind, group in (("input", summary.inputs), ("output", summary.outputs))
        for t in group
    ]
    console.print(f"{summary.source_path}  (opset {summary.opset}, {summary.parameters:,} parameters)")
    if not math.isnan(summary.verified_error):
        console.print(
            "checked on random input: outputs equal the original's "
            f"(largest difference {summary.verified_error:.1g} of the largest output)",
        )
    for line in (*tensors, *summary.notes):
        console.print(line)
    rows = [_row(index, layer) for index, layer in enumerate(summary.layers)]
    columns = ("#", "layer", "type", "shape", "parameters", "bytes", "MACs", "share", "can be")
    print_table(console, f"{len(summary.layers)} layers", columns, rows, right=(0, 4, 5, 6, 7))


def _row(index: int, layer: LayerInfo) -> tuple[str, ...]:
    return (
        str(index),
        f"{layer.scope}/{layer.title}" if layer.scope else layer.title,
        layer.op_type,
        format_shape(layer.weight_shape),
        f"{layer.parameters:,}",
        format_bytes(layer.weight_bytes),
        "—" if layer.macs is None else f"{layer.macs:,}",
        f"{layer.share:.1%}",
        listed_schemes(layer.schemes) if layer.quantizable else _why_not(layer),
    )


def _why_not(layer: LayerInfo) -> str:
    return layer.reason if layer.stored_as else f"fp32 only: {layer.reason}"
