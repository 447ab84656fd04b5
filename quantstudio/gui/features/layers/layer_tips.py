"""Tool tips of the cells of the layer table."""

from __future__ import annotations

from quantstudio.core import figures
from quantstudio.core.precision import LayerScheme, keyed_formats
from quantstudio.core.results import BuiltLayer, LayerSensitivity
from quantstudio.core.sensitivity_rows import EXACT, measured_precisions
from quantstudio.gui.plots.sensitivity_scale import direction_words, precision_text


def precision_tip(scheme: LayerScheme, *, is_by_hand: bool) -> str:
    """How a layer is stored and run, and how to change it; `is_by_hand`: its range was set by hand."""
    lines = [
        f"weights {scheme.weights.name}, activations {scheme.activations.name}, "
        f"{scheme.granularity.value} scales"
    ]
    if is_by_hand:
        lines.append("weight range set by hand")
    keys = [row.key for row in keyed_formats()]
    return "\n".join(
        [*lines, f"Click to change; keys {', '.join(keys[:-1])} and {keys[-1]} set the selection"]
    )


def sensitivity_tip(found: LayerSensitivity | None, kl_all: float | None) -> str:
    """What quantizing a layer costs; `kl_all` is the KL with every layer quantized, where known."""
    if found is None:
        return "Not analyzed yet"
    how = "measured, one layer at a time" if found.method == EXACT else "predicted from output Fisher"
    lines = [
        f"KL {figures.significant(found.kl)} nats "
        f"[{figures.significant(found.kl_low)}, {figures.significant(found.kl_high)}]",
        how,
        "bar: square root of the share of the most sensitive layer",
    ]
    if found.accuracy_drop is not None:
        lines.append(f"accuracy {figures.points(-found.accuracy_drop)}")
    both = direction_words(found, kl_all)
    lines += [both] if both else []
    measured = measured_precisions(found)
    lines += [
        f"{precision_text(name)}: {figures.significant(kl)}{'  measured' if name in measured else ''}"
        for name, kl in found.by_precision.items()
    ]
    return "\n".join(lines)


def kernel_tip(built: BuiltLayer | None, *, is_stale: bool) -> str:
    """What runs the layer in the last build; `is_stale`: the recipe has changed since."""
    if built is None:
        return "Quantize to see which kernel runs"
    lines = [built.kernel, "multiplies integers" if built.is_integer_kernel else "multiplies floats"]
    lines += [built.note] if built.note else []
    lines += ["out of date: the recipe has changed since"] if is_stale else []
    return "\n".join(lines)
