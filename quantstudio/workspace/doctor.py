"""Asking the data doctor, and the transform that networks with such inputs got last."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import OutputError, QuantStudioError
from quantstudio.core.events import ErrorInfo, Part
from quantstudio.core.figures import percent
from quantstudio.core.files import write_text
from quantstudio.core.folders import config_folder
from quantstudio.core.layers import TensorInfo
from quantstudio.jobs.queue import JobQueue
from quantstudio.workspace.known import Known
from quantstudio.workspace.questions import ask
from quantstudio.workspace.runs.job_specs import examine_data_job

if TYPE_CHECKING:
    from quantstudio.core.diagnosis import Diagnosis

logger = logging.getLogger(__name__)

_KEPT = 100
_TRAINING_WORDS = ("training", "train", "calibration", "calib")
_TEST_WORDS = ("test", "testing", "val", "valid", "validation", "eval")


class Doctor:
    """Finds out how data becomes what the open network wants.

    Args:
        known: What is open.
        jobs: The queue.
    """

    def __init__(self, known: Known, jobs: JobQueue) -> None:
        self._known = known
        self._jobs = jobs
        known.data_changed.connect(self._on_data_changed)

    def ask(
        self,
        data: DataSpec,
        test: DataSpec | None,
        *,
        is_asked: bool,
        on_found: Callable[[Diagnosis], None],
        on_failed: Callable[[ErrorInfo], None] | None = None,
    ) -> str:
        """Look at a data set; returns the id of the job.

        Args:
            data: Calibration data.
            test: Test data.
            is_asked: Whether their transforms are asked about; else they are not looked at.
            on_found: Takes the diagnosis, a first one and then a better one.
            on_failed: Takes the error where there is none; without it the user is notified.
        """
        from quantstudio.core.diagnosis import Diagnosis

        def on_part(part: Part) -> None:
            if isinstance(part, Diagnosis):
                on_found(part)

        def finished(found: Diagnosis) -> str:
            on_found(found)
            return _outcome(found)

        return ask(
            self._known,
            self._jobs,
            f"examine {data} {test} {is_asked}",
            f"Look at {Path(data.path).name}",
            Diagnosis,
            lambda model: examine_data_job(model, data, test, is_asked=is_asked),
            finished,
            on_part=on_part,
            on_failed=on_failed,
        )

    def drop(self, job_id: str) -> None:
        """Stop looking; nobody waits for the answer any more."""
        self._jobs.cancel(job_id)

    @property
    def remembered(self) -> str:
        """The transform data of a network with such inputs got last; empty where none is known."""
        model = self._known.model
        if model is None:
            return ""
        text = _stored().get(_shape(model.inputs), "")
        try:
            parse_transform(text)
        except QuantStudioError:
            return ""
        return text

    def _on_data_changed(self) -> None:
        model, data = self._known.model, self._known.calibration_data
        if model is None or data is None:
            return
        stored, key, text = _stored(), _shape(model.inputs), data.transform.text
        if stored.get(key) == text:
            return
        stored.pop(key, None)  # the newest last
        kept = dict([*stored.items(), (key, text)][-_KEPT:])
        try:
            write_text(_file(), json.dumps(kept, indent=1) + "\n")
        except OutputError as error:
            logger.warning("the transform is not remembered: %s", error)


def beside(path: str) -> str:
    """Test data that lies beside training data under the same name; empty where there is none.

    "fashion_train.npz" has "fashion_test.npz", a folder "train" has a folder "val".
    """
    given = Path(path)
    if not given.exists():
        return ""
    for training in _TRAINING_WORDS:
        if training in given.name.lower():
            at = given.name.lower().index(training)
            is_capital = given.name[at].isupper()
            words = [word.capitalize() if is_capital else word for word in _TEST_WORDS]
            names = (given.name[:at] + word + given.name[at + len(training) :] for word in words)
            found = next((name for name in names if given.with_name(name).exists()), "")
            if found:
                return str(given.with_name(found))
    return ""


def _outcome(found: Diagnosis) -> str:
    figure = found.figure
    if figure is None:
        return f"{found.samples} samples"
    value = percent(figure.value) if figure.is_share else f"{figure.value:.3f}"
    return f"{figure.label} of FP32 {value} on {figure.samples} samples"


def _shape(inputs: Sequence[TensorInfo]) -> str:
    return "; ".join(
        f"{one.dtype} [{', '.join(str(size) if isinstance(size, int) else '?' for size in one.shape)}]"
        for one in inputs
    )


def _file() -> Path:
    return config_folder() / "transforms.json"


def _stored() -> dict[str, str]:
    try:
        found: Any = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, OutputError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
