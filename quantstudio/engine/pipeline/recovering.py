"""What a step says of the layers it works on: passed on with the place of the step, kept with what it did."""

from __future__ import annotations

from dataclasses import replace

from quantstudio.core.codec import to_json
from quantstudio.core.events import Part, Reporter, Severity
from quantstudio.core.recovered import RECOVERED, LayerRecovered, recovered_layers
from quantstudio.core.trained import CURVE, TrainingPoint, training_curve
from quantstudio.engine.pipeline.context import StepOutcome


class Recovering:
    """The reporter of one step.

    Args:
        reporter: Who is told.
        step: Which of the steps that are run, from 0.
    """

    def __init__(self, reporter: Reporter, step: int) -> None:
        self._reporter = reporter
        self._step = step
        self._layers: dict[str, LayerRecovered] = {}
        self._curve: list[TrainingPoint] = []

    def progress(self, done: int, total: int, unit: str, label: str) -> None:
        """Pass it on."""
        self._reporter.progress(done, total, unit, label)

    def found(self, part: Part) -> None:
        """Pass it on; a layer that is told again replaces what was said of it, a training's curve grows."""
        if isinstance(part, LayerRecovered):
            part = replace(part, step=self._step)
            self._layers[part.layer] = part
        elif isinstance(part, TrainingPoint):
            part = replace(part, step=self._step)
            self._curve.append(part)
        self._reporter.found(part)

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Pass it on."""
        self._reporter.message(text, severity)

    def with_layers(self, outcome: StepOutcome) -> StepOutcome:
        """What the step did, with the layers and the curve it told of among the details."""
        details = dict(outcome.details)
        if self._layers:
            details[RECOVERED] = [to_json(row) for row in self._layers.values()]
        if self._curve:
            details[CURVE] = [to_json(point) for point in self._curve]
        return replace(outcome, details=details)

    def repeat(self, outcome: StepOutcome) -> None:
        """Tell of the layers and the curve of a step that was done before."""
        for row in recovered_layers(outcome.details):
            self.found(row)
        for point in training_curve(outcome.details):
            self.found(point)
