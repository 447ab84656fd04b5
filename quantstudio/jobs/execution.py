"""The boundary around a task: whatever it does becomes one outcome, and every error is told in one way.

A worker calls tasks by name (`run_task`). The command line calls the function itself (`call_task`): a back
end inside its own process would only turn results and errors into JSON and back.
"""

from __future__ import annotations

import errno
import importlib
import platform
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from quantstudio.core.cached_names import in_names_of_the_user
from quantstudio.core.codec import to_json
from quantstudio.core.errors import JobCancelled, OutputError, QuantStudioError
from quantstudio.core.events import CancelToken, ErrorInfo, JobEnded, JobState, Reporter
from quantstudio.core.files import write_text
from quantstudio.core.folders import config_folder
from quantstudio.core.hints import Hint
from quantstudio.core.version import VERSION
from quantstudio.jobs.spec import TASK_PREFIXES, JobSpec

T = TypeVar("T")

REPORTS_KEPT = 50

# How native libraries say that memory is short; none of them raises MemoryError.
_MEMORY_TEXTS = ("can't allocate memory", "bad_alloc", "bad allocation", "failed to allocate memory")
_REFUSED_WRITES = {errno.ENOSPC, errno.EROFS, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a task gave, or the error it ended with."""

    result: T | None = None
    error: BaseException | None = None


def resolve_task(name: str, prefixes: Sequence[str] = TASK_PREFIXES) -> Callable[..., Any]:
    """The function a job names.

    Args:
        name: "package.module:function".
        prefixes: Modules must start with one of these.

    Raises:
        QuantStudioError: the module is outside the allowed ones.
        ImportError: the module cannot be imported.
        AttributeError: it has no such name.
        TypeError: the name is not a function's.
    """
    module, _, function = name.partition(":")
    if not any(module.startswith(prefix) for prefix in prefixes) or function.startswith("_"):
        raise QuantStudioError(
            f"{name!r} is not a task", hint=f"Tasks live under {', '.join(p.rstrip('.') for p in prefixes)}"
        )
    found = getattr(importlib.import_module(module), function)
    if not callable(found):
        raise TypeError(f"{name!r} is not a function")
    task: Callable[..., Any] = found
    return task


def call_task(
    task: Callable[..., T], params: Mapping[str, Any], reporter: Reporter, cancel: CancelToken
) -> Outcome[T]:
    """Call a task in this thread; never raises, whatever the task does."""
    try:
        cancel.raise_if_set()
        return Outcome(task(**params, reporter=reporter, cancel=cancel))
    except BaseException as error:  # noqa: BLE001  the task boundary: nothing may pass, SystemExit neither
        return Outcome(error=error)


def run_task(
    spec: JobSpec, reporter: Reporter, cancel: CancelToken, *, prefixes: Sequence[str] = TASK_PREFIXES
) -> JobEnded:
    """Call the task a job names; never raises.

    Args:
        spec: The job.
        reporter: Passed to the task.
        cancel: Passed to the task.
        prefixes: Where tasks may live.

    Returns:
        Succeeded with the result as JSON, cancelled, or failed with an ErrorInfo; a fault of ours has its
        traceback saved in the reports folder.
    """

    def named(**params: Any) -> Mapping[str, Any] | None:  # noqa: ANN401  tasks have their own signatures
        return _as_object(resolve_task(spec.task, prefixes)(**params))

    outcome = call_task(named, spec.params, reporter, cancel)
    if outcome.error is not None:
        return ended_by(outcome.error, spec)
    return JobEnded(JobState.SUCCEEDED, result=outcome.result)


def ended_by(error: BaseException, spec: JobSpec | None = None) -> JobEnded:
    """What an error means: the user stopped the work, or it failed and this is why.

    The only place that says so, for workers and for the command line. A fault of ours has its traceback saved
    in the reports folder.
    """
    if isinstance(error, JobCancelled | KeyboardInterrupt):
        return JobEnded(JobState.CANCELLED)
    return JobEnded(JobState.FAILED, error=_error_info(error, spec))


def _error_info(error: BaseException, spec: JobSpec | None) -> ErrorInfo:
    kind = type(error).__name__
    if isinstance(error, QuantStudioError):
        what, where = error.what, error.where
        if not isinstance(error, OutputError):  # what cannot be written is meant as it is
            what, where = in_names_of_the_user(what), in_names_of_the_user(where)
        return ErrorInfo(kind, what, where, error.hint, error.exit_code, details=dict(error.details))
    if _is_out_of_memory(error):
        return ErrorInfo(
            "MemoryError",
            "there is not enough memory for this job",
            hint=Hint("Close other programs, use fewer samples or a smaller batch"),
        )
    if isinstance(error, OSError) and error.errno in _REFUSED_WRITES:
        return ErrorInfo(
            OutputError.__name__,
            f"cannot write the file ({(error.strerror or kind).lower()})",
            where=str(error.filename or ""),
            hint=Hint("Free space on that disk or choose another folder"),
        )
    text = "".join(traceback.format_exception(error))
    return ErrorInfo(
        kind,
        f"something failed inside QuantStudio ({kind}: {_first_line(error)})",
        hint=Hint("The report says where; please send it"),
        exit_code=1,
        report_path=save_report(kind, text, spec),
    )


def save_report(kind: str, text: str, spec: JobSpec | None = None) -> str:
    """Write a report into config_folder()/reports, the newest fifty kept.

    Args:
        kind: Word for the file's name.
        text: Traceback or log.
        spec: The job it happened in.

    Returns:
        The path, or "" where it cannot be written (the text then goes to standard error).
    """
    head = [
        f"QuantStudio {VERSION}, Python {platform.python_version()}, {platform.platform()}",
        time.strftime("%Y-%m-%d %H:%M:%S %z"),
    ]
    if spec is not None:
        head += [f"job {spec.id}: {spec.title}", f"task {spec.task}", f"params {to_json(spec.params)}"]
    word = "".join(c for c in kind if c.isalnum()) or "error"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{word}-{secrets.token_hex(3)}.txt"
    try:
        folder = config_folder() / "reports"
        folder.mkdir(exist_ok=True)
        write_text(folder / name, "\n".join([*head, "", text]))
        _drop_oldest(folder)
    except (OSError, OutputError):
        sys.stderr.write(text)
        return ""
    return str(folder / name)


def _drop_oldest(folder: Path) -> None:
    for old in sorted(folder.glob("*.txt"))[:-REPORTS_KEPT]:
        old.unlink(missing_ok=True)


def _as_object(result: Any) -> Mapping[str, Any] | None:  # noqa: ANN401
    values = to_json(result)
    if values is not None and not isinstance(values, dict):
        raise TypeError(f"a task returned {type(result).__name__}; it must be a dataclass, a dict or None")
    return values


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"
