"""What a step is given besides the graph and its settings, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quantstudio.core.effective_plan import EffectivePlan
from quantstudio.core.errors import DataError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.statistics import Statistics
from quantstudio.core.steps import SettingValue
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step may use.

    Attributes:
        plan: What the layers of the graph become afterwards.
        seed: For every random number.
        device: torch device to compute on.
        data: Samples, or None.
        collect: Statistics of a graph over those samples, collected once and kept.
        original: The graph before the first step of the recipe: what the network is to answer. None where
            the step is run by itself. A step that reads it, or `unrounded`, needs `Need.FLOAT`.
        unrounded: The graph before the first step that is not a preparation: its tensors are those of the
            step's graph without rounding. None where the step is run by itself.
        key: Stands for all that decides what the step makes: what it keeps on the way lies under it. Empty
            where the step is run by itself.
    """

    plan: EffectivePlan
    seed: int = 0
    device: str = "cpu"
    data: Dataset | None = None
    collect: Callable[[Graph], Statistics] | None = None
    original: Graph | None = None
    unrounded: Graph | None = None
    key: str = ""

    @property
    def target(self) -> str:
        """Hardware the variant is for."""
        return self.plan.target

    @property
    def dataset(self) -> Dataset:
        """The samples.

        Raises:
            DataError: there are none; a step whose needs name them is never run without.
        """
        if self.data is None:
            raise DataError("the step needs data", hint=Hint("Choose data", HintAction.CHOOSE_DATA))
        return self.data

    def statistics(self, graph: Graph) -> Statistics:
        """Distribution of every activation of a graph over the samples.

        Raises:
            DataError: there are no samples.
            CalibrationError: a tensor holds NaN or infinity.
            JobCancelled: the run was cancelled.
        """
        if self.collect is None:
            raise DataError(
                "the step needs calibration data",
                hint=Hint("Choose calibration data", HintAction.CHOOSE_DATA),
            )
        return self.collect(graph)


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step did.

    Attributes:
        graph: The graph afterwards; the one before where nothing changed.
        summary: What was done to it, one line for a person.
        details: The same in figures, as JSON values.
        settings: Settings that give this outcome, where they are others than were asked: a training that was
            ended by hand.
    """

    graph: Graph
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
