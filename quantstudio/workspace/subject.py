"""What findings are about, and the keys they have: a model with its data, never edited, only replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import LayerList
from quantstudio.core.findings import (
    FindingKind,
    calibration_key,
    costs_key,
    data_identity,
    graph_key,
    measurement_key,
    search_key,
    sensitivity_key,
    weights_key,
)
from quantstudio.core.judgement import INFERRED, Judging
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.recipe import Recipe
from quantstudio.core.record import Records
from quantstudio.core.steps import Step, StepInfo

SENSITIVITY_SAMPLES = 512


@dataclass(frozen=True)
class Source:
    """A data set and what tells it from others wherever it lies.

    Attributes:
        spec: Path, transform, number of samples.
        content: Digest of the file or folder; empty where its path stands for it.
    """

    spec: DataSpec
    content: str = ""

    @cached_property
    def identity(self) -> str:
        """Stands for the data in keys."""
        return data_identity(self.spec, self.content)


@dataclass(frozen=True)
class Subject:
    """A model with its data.

    Attributes:
        model: The model.
        is_trusted: Whether the user agreed to run the source file.
        factory: What makes the network of a state_dict; empty otherwise.
        state_path: The state_dict that was put onto it; empty otherwise.
        calibration: Where activation statistics come from.
        test: What accuracy is measured on.
    """

    model: ModelSummary
    is_trusted: bool = False
    factory: str = ""
    state_path: str = ""
    calibration: Source | None = None
    test: Source | None = None

    @cached_property
    def layers(self) -> Records[LayerInfo]:
        """Layers of the model."""
        return Records(self.model.layers)

    @cached_property
    def listed(self) -> LayerList:
        """The same, with what decides what they can have."""
        return LayerList(self.model.layers)

    @property
    def measured_on(self) -> Source | None:
        """What accuracy is measured on: the calibration data where there is no test data."""
        return self.test or self.calibration

    @cached_property
    def weights_key(self) -> str:
        """Of weight statistics."""
        return weights_key(self.model.digest)

    def graph_key(self, steps: Sequence[Step], infos: Sequence[StepInfo], recipe: Recipe) -> str:
        """Stands for the graph after some steps of a recipe in the keys below."""
        return graph_key(
            self.model.digest,
            steps,
            infos,
            data=_identity(self.calibration),
            samples=recipe.calibration.samples,
            seed=recipe.seed,
        )

    def costs_key(self, graph: str) -> str:
        """Of bytes and times."""
        return costs_key(graph, has_data=self.calibration is not None)

    @cached_property
    def calibration_key(self) -> str:
        """Of activation statistics."""
        return calibration_key(self.model.digest, _identity(self.calibration))

    def sensitivity_key(self, kind: FindingKind[Any], graph: str) -> str:
        """Of sensitivity, its run or its curve."""
        data, judging = _identity(self.calibration), _judging(self.calibration)
        return sensitivity_key(kind, graph, data, SENSITIVITY_SAMPLES, judging)

    def search_key(self, steps: Sequence[Step], kept: Recipe | None, *, judged_on_test: bool) -> str:
        """Of searches with some steps, whose plans the test data judged, or the calibration data alone.

        Their plans have target and range settings of `kept`; None is the key of older projects, which held
        neither.
        """
        test = _identity(self.test) if judged_on_test else ""
        judging = _judging(self.calibration)
        return search_key(self.model.digest, _identity(self.calibration), test, steps, kept, judging)

    def measurement_key(self, variant: str) -> str:
        """Of what was measured of a variant, by its key."""
        return measurement_key(variant, _identity(self.measured_on), _judging(self.measured_on))


def _identity(source: Source | None) -> str:
    return source.identity if source is not None else ""


def _judging(source: Source | None) -> Judging:
    return source.spec.judging if source is not None else INFERRED
