"""Everything that can go wrong for a person, with one root.

A message has three parts: what happened, where (file, layer, tensor), what to do. The command line prints
it in one line and exits with `exit_code`; the window shows it as a notification, with a button that does
what the hint says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantstudio.core.hints import Hint, as_hint


class QuantStudioError(Exception):
    """Root of all errors meant for the user.

    Attributes:
        what: What happened, one clause.
        where: File, layer or tensor concerned; empty when there is none.
        hint: What the user can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str | Hint = "") -> None:
        self.what = what
        self.where = where
        self.hint = as_hint(hint)
        super().__init__(self.one_line)

    @property
    def details(self) -> Mapping[str, Any]:
        """The same facts as JSON values, for whoever wants to act on them; usually none."""
        return {}

    @property
    def one_line(self) -> str:
        """What, where and what to do, without line breaks."""
        return in_one_line(self.what, self.where, self.hint.text)


def in_one_line(what: str, where: str = "", hint: str = "") -> str:
    """What happened, where and what to do, as sentences without line breaks."""
    parts = [f"{where}: {what}" if where else what, hint]
    return ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part) + "."


class ModelLoadError(QuantStudioError):
    """A model file cannot be read or is not valid."""


class UnsupportedOpError(QuantStudioError):
    """An operator the asked operation cannot handle; `where` names the node."""


class VerificationError(QuantStudioError):
    """A rewritten graph does not compute what the original does."""


class TrustRequiredError(QuantStudioError):
    """The file is a program: opening it runs code, and the user has not agreed to that."""


class DataError(QuantStudioError):
    """A data set cannot be read or does not fit the model."""


class RecipeError(QuantStudioError):
    """A recipe names a layer that is not there or a precision the layer cannot have."""


class CalibrationError(QuantStudioError):
    """Activation ranges cannot be determined."""


class BuildError(QuantStudioError):
    """A variant cannot be emitted or does not run."""


class MeasureError(QuantStudioError):
    """A measurement cannot be made."""


class ProjectError(QuantStudioError):
    """A project file cannot be opened or written."""


class OutputError(QuantStudioError):
    """An output file cannot be written."""


class WorkerDiedError(QuantStudioError):
    """The worker process ended in the middle of a job."""

    exit_code = 1


class JobCancelled(QuantStudioError):  # noqa: N818  a cancelled job is not an error, and is not named one
    """The user asked for the work to stop."""

    exit_code = 130

    def __init__(self, what: str = "cancelled") -> None:
        super().__init__(what)
