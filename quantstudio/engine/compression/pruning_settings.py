"""Settings of the steps that prune; no torch is loaded for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quantstudio.engine.pipeline.registry import setting


class Budget(StrEnum):
    """What is to be saved."""

    MACS = "macs"
    BYTES = "bytes"
    LATENCY = "latency"


class Criterion(StrEnum):
    """What makes a unit matter."""

    FISHER = "fisher"
    TAYLOR = "taylor"
    MAGNITUDE = "magnitude"


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """How much is taken away, and what."""

    budget: Budget = setting(
        Budget.MACS,
        "Budget",
        """What is to be saved: multiply-accumulates, bytes of the float weights, or the time of a run of the
        float network, measured on this machine. What is measured differs from run to run: a recipe that
        names macs gives the same network everywhere.""",
    )
    amount: float = setting(
        0.5, "What is left", "Part of the budget that is left, 0.5 for half.", low=0.01, high=1.0
    )
    criterion: Criterion = setting(
        Criterion.FISHER,
        "What matters",
        """fisher: what the answers lose without a unit, no labels are needed. taylor: what the loss on labels
        loses; without labels of classes the same as fisher. magnitude: the energy of its weights.""",
    )
    samples: int = setting(512, "Samples", "Samples that what matters is measured on.", low=1, unit="samples")
    rounds: int = setting(
        8, "Rounds", "What matters is measured again after each of them.", low=1, high=100, unit="rounds"
    )
    round_to: int = setting(
        8,
        "Multiple of channels",
        "Layers keep a multiple of so many channels, which kernels like; small layers half as coarse.",
        low=1,
        high=128,
        unit="channels",
    )
    least: float = setting(0.125, "Least of a group", "Part of each group that stays.", low=0.0, high=1.0)
    keep: str = setting(
        "", "Layers to leave whole", "Names of layers, with * for any text, separated by commas."
    )


class Pattern(StrEnum):
    """Where weights may become zero."""

    ANYWHERE = "anywhere"
    TWO_OF_FOUR = "2:4"
    FOUR_OF_EIGHT = "4:8"
    ONE_OF_FOUR = "1:4"

    @property
    def block(self) -> tuple[int, int] | None:
        """Of how many neighbours how many are left; None where they lie anywhere."""
        if self is Pattern.ANYWHERE:
            return None
        left, of = self.value.split(":")
        return int(left), int(of)


class Score(StrEnum):
    """What makes a weight matter."""

    MOMENTS = "moments"
    MAGNITUDE = "magnitude"


@dataclass(frozen=True, slots=True)
class SparsifySettings:
    """How many weights become zero, and which."""

    share: float = setting(
        0.5,
        "Zeros",
        "Part of each layer's weights; a pattern such as 2:4 says it itself.",
        low=0.01,
        high=0.99,
    )
    pattern: Pattern = setting(
        Pattern.ANYWHERE,
        "Pattern",
        """anywhere: the share of each output channel's weights that matter least. 2:4: two of four weights of
        neighbouring inputs are left, as tensor cores multiply them; 4:8 and 1:4 alike.""",
    )
    score: Score = setting(
        Score.MOMENTS,
        "What matters",
        "moments: its size times that of what it multiplies, on the samples. magnitude: its size alone.",
    )
    samples: int = setting(128, "Samples", "Samples that inputs are measured on.", low=1, unit="samples")
    keep: str = setting(
        "", "Layers to leave whole", "Names of layers, with * for any text, separated by commas."
    )
