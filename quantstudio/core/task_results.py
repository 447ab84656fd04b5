"""What small tasks answer: where statistics lie, what the machine computes on."""

from __future__ import annotations

from dataclasses import dataclass


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
