"""Settings of the step that factors layers; no torch is loaded for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from quantstudio.engine.pipeline.registry import setting


class RankBy(StrEnum):
    """What ranks are chosen by."""

    PARAMETERS = "parameters"
    MACS = "macs"
    ENERGY = "energy"
    RANK = "rank"


class Metric(StrEnum):
    """What an error at a layer's output counts."""

    ANSWERS = "answers"
    OUTPUTS = "outputs"


@dataclass(frozen=True, slots=True)
class LowRankSettings:
    """How layers are factored."""

    by: RankBy = setting(
        RankBy.PARAMETERS,
        "Ranks by",
        """parameters, macs: a budget over all layers, spent where the answers would suffer most. energy: what
        every layer keeps of its output by itself. rank: the same rank for all, or for those named.""",
    )
    share: float = setting(
        0.6,
        "Budget",
        """Part of the weights, or of the operations, of the layers that can be factored which is kept.""",
        low=0.0,
        high=1.0,
    )
    energy: float = setting(
        0.99, "Energy kept", "Part of the power of a layer's output that its factors keep.", low=0.0, high=1.0
    )
    rank: int = setting(16, "Rank", "Channels between two factors, where they are given by hand.", low=1)
    layers: str = setting(
        "",
        "Layers",
        """Names of layers that may be factored, with commas between them; * and ? stand for any characters.
        Empty: every layer that can be.""",
    )
    keep: str = setting("", "Layers kept", "Names of layers that stay as they are, written alike.")
    metric: Metric = setting(
        Metric.ANSWERS,
        "Errors by",
        """answers: what errors of all channels do to the answers, by the gradients of 128 samples. outputs:
        their power, as part of that of the layer's output; networks of very wide layers take these, too.""",
    )
    round_to: int = setting(
        8,
        "Ranks are multiples of",
        "Kernels run channels in blocks. Layers narrower than two of them take any rank.",
        low=1,
        high=64,
        unit="channels",
    )
    samples: int = setting(
        512, "Samples", "Samples of the calibration data that go through the network.", low=2, unit="samples"
    )
