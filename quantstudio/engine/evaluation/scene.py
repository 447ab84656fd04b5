"""Everything the meaning of outputs is inferred from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from quantstudio.core.errors import MeasureError
from quantstudio.core.judgement import Judgement, Judging, Task
from quantstudio.engine.evaluation.network_facts import NetworkFacts, OutputFacts
from quantstudio.engine.evaluation.outputs import PROBABILITY_TOLERANCE, Labels, OutputForm
from quantstudio.engine.evaluation.probe import Probe
from quantstudio.engine.evaluation.reading import Head, Kind, Reading
from quantstudio.engine.evaluation.sample_axis import Array, SampleAxis

VECTOR_NAMES = (
    "embeds?|embeddings?|pooler|pooled|pooling|sentence|features?|hidden|descriptors?|vector|latent"
)
NUMBER_NAMES = (
    "value|values|target|targets|regress|regression|coords?|coordinates|landmarks?|keypoints?|pose|age|depth"
)


class Details(TypedDict, total=False):
    """What a rule says of how outputs are read, besides the task; see `Reading`."""

    axes: Mapping[str, SampleAxis]
    floats: tuple[str, ...]
    form: OutputForm | None
    class_axis: int
    head: Head | None
    is_probability: bool
    has_blank: bool
    uses_labels: bool
    foretells: bool
    caveat: str


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A network, its data, and what it puts out for the first samples.

    Attributes:
        facts: What the network says of itself.
        probe: Runs of a few samples.
        labels: All labels of the data, or None.
        class_names: Names of the classes, or none.
        judging: What the user said.
        reads_text: Whether the data is text, cut into windows of tokens.
    """

    facts: NetworkFacts
    probe: Probe
    labels: Labels
    class_names: tuple[str, ...]
    judging: Judging
    reads_text: bool = False

    @property
    def rows(self) -> Mapping[str, Array]:
        """Outputs of the first samples, samples first."""
        return self.probe.rows

    @property
    def outputs(self) -> tuple[OutputFacts, ...]:
        """The outputs that may be judged: tensors the network computed, or the one the user names.

        Raises:
            MeasureError: the user names one that is not there.
        """
        found = tuple(one for one in self.facts.outputs if one.name in self.rows)
        if not self.judging.output:
            return tuple(one for one in found if one.last) or found
        named = tuple(one for one in found if one.name == self.judging.output)
        if not named:
            raise MeasureError(
                f"the model has no output named {self.judging.output!r}",
                hint=f"Its outputs: {', '.join(one.name for one in found)}",
            )
        return named

    @property
    def floats(self) -> tuple[OutputFacts, ...]:
        """Those that hold float numbers."""
        return tuple(one for one in self.outputs if self.rows[one.name].dtype.kind == "f")

    @property
    def has_classes(self) -> bool:
        """Whether labels are one class a sample."""
        return self.labels is not None and self.labels.dtype.kind == "i"

    @property
    def reads_tokens(self) -> bool:
        """Whether the network reads token numbers."""
        return any(info.dtype in ("int32", "int64") for info in self.facts.inputs)

    def shape(self, output: OutputFacts) -> tuple[int, ...]:
        """Of one sample of an output."""
        return tuple(self.rows[output.name].shape[1:])

    def is_called(self, output: OutputFacts, pattern: str) -> bool:
        """Whether the name of an output says so; only whole words count."""
        words = "_".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", output.name)).lower()
        return re.search(rf"(^|_)({pattern})(_|$)", words) is not None

    def pictures(self) -> list[tuple[int, int, int]]:
        """Height, width and channels of each input that may be a picture."""
        found = []
        for shape in self.probe.input_shapes().values():
            if len(shape) == 3:
                first = shape[0] <= 4 or shape[0] < min(shape[1:])
                found.append((shape[1], shape[2], shape[0]) if first else (shape[0], shape[1], shape[2]))
        return found

    def sums_to_one(self, output: OutputFacts, axis: int) -> bool:
        """Whether the first samples are probabilities along an axis."""
        values: NDArray[np.float64] = np.asarray(self.rows[output.name], dtype=np.float64)
        sums = values.sum(axis=axis)
        return bool((values >= 0).all() and np.allclose(sums, 1, atol=PROBABILITY_TOLERANCE, rtol=0))

    def is_inside_one(self, output: OutputFacts) -> bool:
        """Whether all values of the first samples lie between 0 and 1."""
        values: NDArray[np.float64] = np.asarray(self.rows[output.name], dtype=np.float64)
        return bool(values.size and (values >= 0).all() and (values <= 1).all())

    def reading(self, task: Task, kind: Kind, reason: str, *outputs: str, **more: Unpack[Details]) -> Reading:
        """A reading of some outputs; `more` as in `Reading`."""
        axes = self.probe.axes
        judged = outputs or tuple(one.name for one in self.floats)
        judgement = Judgement(
            task, reason, judged, tuple(axes[name].axis for name in judged), self.judging.task is not None
        )
        floats = tuple(n for n, rows in self.rows.items() if rows.dtype.kind == "f")
        used = {n: axes[n] for n in self.rows if n in judged or n in floats}
        details: Details = {"axes": used, "floats": floats, **more}
        return Reading(judgement, kind, **details)
