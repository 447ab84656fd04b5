"""Settings of the steps that train, for the steps and for their training; no torch is loaded for them."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.engine.pipeline.registry import setting


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """How long to train each block."""

    iterations: int = setting(
        200, "Iterations", "Steps of training for every block.", low=1, high=100_000, unit="iterations"
    )
    samples: int = setting(
        512,
        "Samples",
        "Samples of the calibration data; an eighth of them only judges.",
        low=2,
        unit="samples",
    )


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """How long and how fast to train."""

    steps: int = setting(
        300,
        "Steps",
        "Steps of training, on 32 samples each, or fewer where one takes much work or memory.",
        low=1,
        high=100_000,
        unit="steps",
    )
    samples: int = setting(
        512,
        "Samples",
        "Samples of the calibration data; a fifth of them only judges.",
        low=2,
        unit="samples",
    )
    rate: float = setting(
        0.001,
        "Learning rate",
        "How far a step goes: scales as a part of themselves, biases of the spread of a layer's output.",
        low=1e-7,
        high=1.0,
    )
