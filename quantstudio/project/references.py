"""Models and data a project points to: by path, and by a digest that tells them from look-alikes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import ProjectError
from quantstudio.core.files import file_digest
from quantstudio.core.findings import PATH_INSTEAD
from quantstudio.core.layers import ModelSummary

# Two letters at least, so that C:\data is a path.
_CALLABLE = re.compile(r"[A-Za-z_]\w+(\.\w+)*:[A-Za-z_]\w*")


class ReferenceKind(StrEnum):
    """What a project points to."""

    MODEL = "model"
    CALIBRATION = "calibration"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """The model of a project.

    Attributes:
        path: The file the user opened, or module:factory.
        digest: SHA-256 of that file when it was opened.
        summary: Layers, inputs, outputs, and where the normalised graph was cached.
        factory: module:factory a state file goes onto; empty otherwise. Running it is asked for again: the
            answer to the trust question is never stored.
        state: Weights file for the factory; empty otherwise.
    """

    path: str
    digest: str
    summary: ModelSummary
    factory: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class DataReference:
    """A data set of a project; `spec.trusted` is always False here.

    Attributes:
        spec: Path, transform, number of samples.
        digest: What tells it from other data: `content_digest` of the path when it was chosen, or the path
            itself (after `PATH_INSTEAD`) where a project of the first format never knew it; empty for a
            function.
    """

    spec: DataSpec
    digest: str


@dataclass(frozen=True, slots=True)
class MissingFile:
    """Something the project points to that is not there.

    Attributes:
        kind: Which reference.
        path: Where it should be.
        candidate: A file of that name beside the project, probably the same; empty if there is none.
    """

    kind: ReferenceKind
    path: str
    candidate: str = ""


def is_callable_name(path: str) -> bool:
    """Whether a path is module:callable and not a file."""
    return bool(_CALLABLE.fullmatch(path)) and not Path(path).exists()


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and sizes in a folder (its images may be many gigabytes).

    Reads the whole file, without holding Python's lock: call it from a background thread.

    Raises:
        ProjectError: it cannot be read.
    """
    try:
        if path.is_dir():
            entries = sorted(
                (item.relative_to(path).as_posix(), item.stat().st_size)
                for item in path.rglob("*")
                if item.is_file()
            )
            return hashlib.sha256(repr(entries).encode()).hexdigest()
        return file_digest(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ProjectError(f"it cannot be read ({reason})", where=str(path)) from error


def find_missing(kind: ReferenceKind, path: str, project_folder: Path) -> MissingFile | None:
    """What is missing about a reference, or None if it is there or is not a file."""
    if is_callable_name(path) or Path(path).exists():
        return None
    # A path written on another system: its last part is its name under either separator.
    beside = project_folder / re.split(r"[/\\]", path)[-1]
    return MissingFile(kind, path, str(beside) if beside.exists() else "")


def check_same(path: Path, digest: str, expected: str) -> None:
    """Refuse a file that is not the one the project means.

    Raises:
        ProjectError: the digests differ.
    """
    if expected and not expected.startswith(PATH_INSTEAD) and digest != expected:
        raise ProjectError(
            "this is not the same file: its contents differ from what the project was made with",
            where=str(path),
            hint="Choose the original file, or open this one as new",
        )
