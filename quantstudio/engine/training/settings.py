"""Settings of the steps that train, for the steps and for their training; no torch is loaded for them."""

from __future__ import annotations

from dataclasses import dataclass

from quantstudio.engine.pipeline.registry import setting

_EPOCHS = "How often every sample is trained on; parts of an epoch are allowed."
_RATE = "How far a step goes at most: of the spread of a channel's weights. It rises, then falls to zero."


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long, how fast and on what a network is trained."""

    epochs: float = setting(1.0, "Epochs", _EPOCHS, low=0.001, high=10_000, unit="epochs")
    rate: float = setting(0.002, "Learning rate", _RATE, low=1e-7, high=1.0)
    batch: int = setting(128, "Batch", "Samples of one step.", low=1, high=65_536, unit="samples")
    samples: int = setting(
        0, "Samples", "Samples of the data, from its beginning; 0 takes all of them.", low=0, unit="samples"
    )
    teacher: float = setting(
        0.5,
        "Part of the teacher",
        "How much the answers of the original network count beside the labels: 0 for labels alone, 1 for a "
        "training without labels. Where the data has none, it is 1.",
        low=0.0,
        high=1.0,
    )
    temperature: float = setting(
        1.0, "Temperature", "Above 1, the teacher's small scores count for more.", low=0.1, high=100.0
    )
    patience: float = setting(
        0.0,
        "Patience",
        "Epochs without a better state after which training ends; 0 trains to the end.",
        low=0.0,
        unit="epochs",
    )
    flip: bool = setting(
        False, "Mirror pictures", "Mirrors every other picture left to right: where that means the same."
    )
    crop: int = setting(
        0, "Move pictures", "Moves every picture by up to so many pixels.", low=0, high=1000, unit="pixels"
    )
    loss: str = setting(
        "",
        "Own loss",
        "module:callable, given a batch's outputs by name and its labels as tensors; it returns one number. "
        "It is a program, and run only for data that is trusted.",
    )
    stop: int = setting(
        0,
        "Stop behind",
        "Steps behind which training ends, although the rate falls as if it went on; 0 goes on to the end.",
        low=0,
        unit="steps",
    )


@dataclass(frozen=True, slots=True)
class DistillSettings:
    """The same for training without labels."""

    epochs: float = setting(3.0, "Epochs", _EPOCHS, low=0.001, high=10_000, unit="epochs")
    rate: float = setting(0.002, "Learning rate", _RATE, low=1e-7, high=1.0)
    batch: int = setting(64, "Batch", "Samples of one step.", low=1, high=65_536, unit="samples")
    samples: int = setting(
        0, "Samples", "Samples of the data, from its beginning; 0 takes all of them.", low=0, unit="samples"
    )
    temperature: float = setting(
        1.0, "Temperature", "Above 1, the teacher's small scores count for more.", low=0.1, high=100.0
    )
    original: str = setting(
        "",
        "Another teacher",
        "Path of a network with the same inputs and outputs to learn from; empty for the one the recipe "
        "began with.",
    )
    original_digest: str = setting(
        "", "Its digest", "SHA-256 of that network as it was opened: another one is refused. Empty takes any."
    )
    features: str = setting(
        "",
        "Features",
        "Names of nodes, with commas between, whose outputs are compared as well: they must be in the "
        "original network and in this one, with the same shape.",
    )
    patience: float = setting(
        0.0,
        "Patience",
        "Epochs without a better state after which training ends; 0 trains to the end.",
        low=0.0,
        unit="epochs",
    )
    mix: bool = setting(
        True,
        "Mix samples",
        "Mixes samples in pairs, so that few of them do for many steps. Tokens cannot be mixed.",
    )
    flip: bool = setting(
        False, "Mirror pictures", "Mirrors every other picture left to right: where that means the same."
    )
    crop: int = setting(
        0, "Move pictures", "Moves every picture by up to so many pixels.", low=0, high=1000, unit="pixels"
    )
    stop: int = setting(
        0,
        "Stop behind",
        "Steps behind which training ends, although the rate falls as if it went on; 0 goes on to the end.",
        low=0,
        unit="steps",
    )
