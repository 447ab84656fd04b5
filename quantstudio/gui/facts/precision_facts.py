"""What a menu says of each precision some layers can have: bytes, what it costs, how it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantstudio.core import figures
from quantstudio.core.costs import CostTable, FileForm
from quantstudio.core.figures import counted
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import LayerScheme
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.schemes import NAMED_SCHEMES, schemes_by_bits

COLUMNS = ("Precision", "In the file", "KL", "Runs as")


@dataclass(frozen=True, slots=True)
class PrecisionLine:
    """One precision.

    Attributes:
        name: The scheme's one-word name.
        text: What it is.
        bits: Of its weights.
        size: Bytes of the layers in the file; a dash where nobody priced it.
        loss: What it costs, as the sum of the layers' KL; a dash where that was not estimated.
        runs: "integer", "float", or "simulated".
        tip: What its number format is.
    """

    name: str
    text: str
    bits: int
    size: str
    loss: str
    runs: str
    tip: str = ""

    @property
    def spoken(self) -> str:
        """The whole line in words."""
        return f"{self.text}, {self.size} in the file, KL {self.loss}, runs as {self.runs}"


def precision_lines(
    names: Iterable[str],
    layers: Sequence[LayerInfo],
    costs: CostTable | None,
    sensitivity: Mapping[str, LayerSensitivity],
) -> tuple[PrecisionLine, ...]:
    """A line for each scheme, most bits first; of one width what runs on integers first, grids before tables.

    Args:
        names: Schemes the layers can have.
        layers: The layers that would get it.
        costs: Bytes, or None before they are known.
        sensitivity: What is known of each layer.
    """
    ordered = [(name, NAMED_SCHEMES[name]) for group in schemes_by_bits(names).values() for name in group]
    return tuple(
        PrecisionLine(
            name,
            scheme.text,
            scheme.weights.bits,
            _size(scheme, layers, costs),
            _loss(scheme, layers, sensitivity),
            runs_text(scheme),
            f"{scheme.weights.label}: {scheme.weights.text}",
        )
        for name, scheme in ordered
    )


def precision_places(names: Iterable[str]) -> list[tuple[tuple[str, ...], str]]:
    """In which submenu each scheme stands, and its name: one for every width that has several."""
    return [
        ((counted(bits, "bit"),) if len(group) > 1 else (), name)
        for bits, group in schemes_by_bits(names).items()
        for name in group
    ]


def runs_text(scheme: LayerScheme) -> str:
    """How a kernel computes: "integer", "float", or "simulated" where none multiplies so few bits."""
    if scheme.is_simulated:
        return "simulated"
    return "integer" if scheme.weights.is_integer and not scheme.is_weight_only else "float"


def _size(scheme: LayerScheme, layers: Sequence[LayerInfo], costs: CostTable | None) -> str:
    if costs is None:
        return figures.NOTHING
    total = sum(costs.file_bytes_of(layer.name, scheme, form=FileForm.PACKED) for layer in layers)
    return figures.NOTHING if math.isnan(total) else figures.size(total)


def _loss(
    scheme: LayerScheme, layers: Sequence[LayerInfo], sensitivity: Mapping[str, LayerSensitivity]
) -> str:
    from quantstudio.core.predict.kl_model import layer_kl  # loaded for the first model

    total = 0.0
    for layer in layers:
        one = 0.0 if scheme.weights.name == "fp32" else layer_kl(scheme, sensitivity.get(layer.name))
        if one is None:
            return figures.NOTHING
        total += one
    return figures.significant(total, 2) if total else "0"
