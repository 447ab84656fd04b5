"""Rows of the report's tables, shared by every format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme, Precision, activation_format, weight_format
from quantstudio.core.results import BuiltLayer
from quantstudio.report.data import ReportData


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer with what became of it and how much it matters.

    Attributes:
        index: Position in execution order, from 1.
        name: Layer.
        op_type: Operator.
        shape: Weight shape, "48×48×3×3"; empty without weights.
        parameters: Number of parameters.
        weight_bytes: Bytes in the built file, or in the model where nothing was built.
        precision: "INT8", "W4", ..., "FP32"; empty where nothing was built.
        role: Colour role of its weights in the catalogue; that of FP32 where nothing was built.
        kernel: Kernel it runs on; empty where nothing was built.
        is_integer: Whether that kernel multiplies integers.
        kl: KL divergence the layer causes alone; None where not analyzed.
        kl_low: Lower end of its interval.
        kl_high: Upper end.
        weight_sqnr_db: SQNR of its weights in that precision; None where not analyzed or nothing is lost.
        note: Why the layer is not what was asked, or cannot be quantized.
    """

    index: int
    name: str
    op_type: str
    shape: str
    parameters: int
    weight_bytes: int
    precision: str = ""
    role: str = Precision.FP32.role
    kernel: str = ""
    is_integer: bool = False
    kl: float | None = None
    kl_low: float | None = None
    kl_high: float | None = None
    weight_sqnr_db: float | None = None
    note: str = ""


def layer_rows(data: ReportData) -> list[LayerRow]:
    """Every layer of the model, in execution order, as the headline variant has it."""
    build = data.headline_build
    built = {layer.name: layer for layer in build.layers} if build else {}
    scores = {layer.name: layer for layer in data.sensitivity.layers} if data.sensitivity else {}
    rows = []
    for index, layer in enumerate(data.model.layers, start=1):
        became, score = built.get(layer.name), scores.get(layer.name)
        rows.append(
            LayerRow(
                index=index,
                name=layer.title,
                op_type=layer.op_type,
                shape="×".join(str(n) for n in layer.weight_shape),
                parameters=layer.parameters,
                weight_bytes=became.weight_bytes if became else layer.weight_bytes,
                precision=_label(layer, became) if became else "",
                role=_role(became) if became else Precision.FP32.role,
                kernel=became.kernel if became else "",
                is_integer=became.is_integer_kernel if became else False,
                kl=score.kl if score else None,
                kl_low=score.kl_low if score else None,
                kl_high=score.kl_high if score else None,
                weight_sqnr_db=data.weight_sqnr_db.get(layer.name),
                note=(became.note if became and became.note else layer.reason),
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of the recipe with what it did.

    Attributes:
        index: Position in the order they were run, from 1.
        label: Name for a person.
        settings: All settings, "samples 512, inputs quantized"; empty where it has none.
        summary: What it did to the graph; empty where nothing was built.
        seconds: Time it took; None where nothing was built.
    """

    index: int
    label: str
    settings: str
    summary: str = ""
    seconds: float | None = None


def step_rows(data: ReportData) -> list[StepRow]:
    """The steps behind the headline variant; those of the recipe where nothing was built."""
    build = data.headline_build
    if build is not None:
        return [
            StepRow(index, step.label or step.name, settings_text(step.settings), step.summary, step.seconds)
            for index, step in enumerate(build.steps, start=1)
        ]
    steps = [step for step in data.recipe.steps if step.is_on] if data.recipe else []
    return [StepRow(i, step.name, settings_text(step.settings)) for i, step in enumerate(steps, start=1)]


def settings_text(settings: Mapping[str, object]) -> str:
    """Settings of a step in one line."""
    shown = {True: "on", False: "off"}
    return ", ".join(
        f"{name.replace('_', ' ')} {shown[value] if isinstance(value, bool) else value}"
        for name, value in settings.items()
    )


def _label(layer: LayerInfo, became: BuiltLayer) -> str:
    """What the table of layers calls it, too: of weights the file held quantized before, "INT8 stored"."""
    return layer.stored_label or precision_label(became)


def _role(layer: BuiltLayer) -> str:
    """Colour role of what a layer became; that of INT4 where its format is not installed here."""
    try:
        return weight_format(layer.weights).role
    except ValueError:
        return Precision.INT4.role


def precision_label(layer: BuiltLayer) -> str:
    """Short name of what a layer became: "INT8", "W4A8", "FP32"."""
    try:
        return LayerScheme(weight_format(layer.weights), activation_format(layer.activations)).label
    except ValueError:
        return layer.weights.upper()
