"""What tasks give back besides the values of core: where files lie, what data and this machine hold."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult


@dataclass(frozen=True, slots=True)
class WeightFile:
    """Where the weight statistics of a graph lie."""

    path: str
    layers: int


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """Where the activation statistics of a graph lie.

    Attributes:
        path: The npz file.
        digest: Digest of the statistics.
        samples: Samples seen.
        tensors: Tensors observed.
        seconds: Time it took.
        provider: Execution provider they were observed on.
    """

    path: str
    digest: str
    samples: int
    tensors: int
    seconds: float
    provider: str = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Devices:
    """What this machine can compute on; nothing that is not listed may be offered.

    Attributes:
        providers: Execution providers of ONNX Runtime, for calibration, exact sensitivity and measuring.
        torch_devices: torch devices, for the sensitivity estimate.
    """

    providers: tuple[str, ...]
    torch_devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What a data set holds, for the dialog that chooses it."""

    samples: int
    labelled: bool
    class_names: tuple[str, ...]
    segments: tuple[str, ...]
    digest: str
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """A build with the recipe that made it (a preset chooses its own) and the digest of the data used."""

    build: BuildResult
    recipe: Recipe
    data_digest: str = ""
