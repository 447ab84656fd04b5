"""Levels of the weights of a channel: asked for once, then known."""

from __future__ import annotations

from quantstudio.core.codec import to_json
from quantstudio.core.errors import QuantStudioError
from quantstudio.core.events import ErrorInfo
from quantstudio.core.figures import counted
from quantstudio.core.findings import LEVELS
from quantstudio.core.layers import LayerInfo, ModelSummary
from quantstudio.core.levels import ChannelLevels
from quantstudio.core.precision import Granularity
from quantstudio.core.recipe import PACKED_FILES, Recipe
from quantstudio.core.signals import Signal
from quantstudio.jobs.queue import JobQueue
from quantstudio.jobs.spec import JobSpec
from quantstudio.workspace.known import Known
from quantstudio.workspace.questions import ask
from quantstudio.workspace.runs.job_specs import levels_job

INT8_BITS = 8


class Levels:
    """Finds out which values the weights of a channel take in the plan.

    Of a plan that is built these are what its file holds, behind its steps; before, they are those of the
    network as it was opened.

    Attributes:
        changed: An answer came.
    """

    def __init__(self, known: Known, jobs: JobQueue) -> None:
        self.changed: Signal[[]] = Signal()
        self._known = known
        self._jobs = jobs
        self._refused: set[str] = set()

    def channels(self, layer: LayerInfo) -> int:
        """How many channels have levels of their own in the plan; 0 where none has."""
        scheme = self._known.recipe.scheme_for(layer)
        has_levels = scheme.weights.is_integer and scheme.granularity is not Granularity.PER_GROUP
        if not has_levels or layer.channel_axis is None or not layer.weight_shape or layer.stored_as:
            return 0
        return layer.weight_shape[layer.channel_axis]

    def of(self, layer: LayerInfo, channel: int) -> ChannelLevels | None:
        """The levels of a channel; None while they are found out, which this sets off."""
        known = self._known
        subject = known.subject
        if subject is None or not 0 <= channel < self.channels(layer):
            return None
        inputs = self._inputs(layer, channel)
        key = LEVELS.key(graph=subject.model.digest, **inputs)
        found = known.findings.get(LEVELS, key)
        if found is None and key not in self._refused:
            self._ask(layer, channel, key, inputs)
        return found

    def are_written(self, layer: LayerInfo, channel: int) -> bool:
        """Whether these levels are behind the steps of the plan, as its file holds them."""
        return "written" in self._inputs(layer, channel)

    def _inputs(self, layer: LayerInfo, channel: int) -> dict[str, object]:
        """All that decides the answer, as the task takes it."""
        plain = _inputs(self._known.recipe, layer, channel)
        behind = {**plain, **self._behind_steps()}
        subject = self._known.subject
        key = LEVELS.key(graph=subject.model.digest if subject is not None else "", **behind)
        # A layer that steps gave another shape, or a graph that is gone from the cache: as it was opened.
        return plain if key in self._refused else behind

    def _behind_steps(self) -> dict[str, object]:
        """The graphs of a built plan: behind its last step, and before the first that rounds."""
        variant = self._known.current_variant
        steps = variant.build.steps if variant is not None and variant.build is not None else ()
        if not steps:
            return {}
        prepares = {info.name for info in self._known.steps if info.group.keeps_floats}
        rounded = ""
        for step in steps:
            if step.name not in prepares:
                break
            rounded = step.graph_digest
        return {"rounded": rounded, "written": steps[-1].graph_digest}

    def _ask(self, layer: LayerInfo, channel: int, key: str, inputs: dict[str, object]) -> None:
        is_written = "written" in inputs

        def job(model: ModelSummary) -> JobSpec:
            return levels_job(model, inputs)

        def finished(levels: ChannelLevels) -> str:
            self._known.findings.put(LEVELS, key, levels)
            self.changed.emit()
            return counted(len(levels.levels), "level")

        def failed(error: ErrorInfo) -> None:
            self._refused.add(key)
            if is_written:
                self.changed.emit()
                return
            self._known.notify_of(QuantStudioError(error.what, where=error.where, hint=error.hint))

        title = f"Levels of {layer.title}, channel {channel}"
        ask(self._known, self._jobs, f"levels {key}", title, ChannelLevels, job, finished, on_failed=failed)


def _inputs(recipe: Recipe, layer: LayerInfo, channel: int) -> dict[str, object]:
    """All that decides the answer, as the task takes it."""
    scheme = recipe.scheme_for(layer)
    clip = next((one for one in recipe.weight_ranges if one.tensor == layer.name), None)
    return {
        "layer": layer.name,
        "scheme": to_json(scheme),
        "channel": channel,
        "max_bits": INT8_BITS if scheme.is_weight_only else recipe.on_target.weight_bits,
        "clip": [] if clip is None else [clip.low, clip.high],
        "is_narrow": recipe.emission < PACKED_FILES,
    }
