"""JSON lines between a window and its worker: one message per line, versioned, read strictly.

To the worker: run, cancel, pause, resume, allow timing, ping, shutdown. From it: hello, started, event, beat,
pong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.diagnosis import Diagnosis
from quantstudio.core.events import Event, JobEnded, Message, PartFound, Progress, Timing
from quantstudio.core.recovered import LayerRecovered, StepBegun, StepTried
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.search_results import SearchFront
from quantstudio.core.trained import TrainingPoint
from quantstudio.jobs.spec import JobSpec

PROTOCOL_VERSION = 2


class ProtocolError(ValueError):
    """A line is not a message of this protocol."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run this job after those already sent; one that waits paused begins paused."""

    spec: JobSpec
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Set the token of this job."""

    job: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Let this job wait at its next batch or layer."""

    job: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Let this job end early with what it has, if it can."""

    job: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Let this job go on."""

    job: str


@dataclass(frozen=True, slots=True)
class AllowTiming:
    """Let this job, which waits for it, time runs: nothing else of ours runs now."""

    job: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Set every token, finish, and exit."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a worker."""

    pid: int


@dataclass(frozen=True, slots=True)
class Started:
    """The task is about to be called."""

    job: str


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something a job said."""

    job: str
    event: Event


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker lives.

    Attributes:
        job: Running job, or empty.
        quiet_s: Seconds since the job last said anything.
        cpu_s: Processor seconds the worker has used: a job that is quiet and uses none waits or hangs.
    """

    job: str
    quiet_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a Ping."""

    number: int


WorkerMessage = Hello | Started | JobEvent | Beat | Pong
Command = Run | Cancel | Finish | Pause | Resume | AllowTiming | Ping | Shutdown

_COMMANDS: dict[str, type[Any]] = {
    "run": Run,
    "cancel": Cancel,
    "finish": Finish,
    "pause": Pause,
    "resume": Resume,
    "allow_timing": AllowTiming,
    "ping": Ping,
    "shutdown": Shutdown,
}
_MESSAGES: dict[str, type[Any]] = {
    "hello": Hello,
    "started": Started,
    "event": JobEvent,
    "beat": Beat,
    "pong": Pong,
}
_EVENTS: dict[str, type[Any]] = {
    "progress": Progress,
    "found": PartFound,
    "message": Message,
    "timing": Timing,
    "ended": JobEnded,
}
_PARTS: dict[str, type[Any]] = {
    "sensitivity": LayerSensitivity,
    "front": SearchFront,
    "diagnosis": Diagnosis,
    "begun": StepBegun,
    "recovered": LayerRecovered,
    "tried": StepTried,
    "trained": TrainingPoint,
}
_NAMES = {kind: name for table in (_COMMANDS, _MESSAGES, _EVENTS, _PARTS) for name, kind in table.items()}


def event_to_json(event: Event) -> dict[str, Any]:
    """Plain JSON values of an event, with its kind under "event", a part's own kind under "kind"."""
    values: dict[str, Any] = to_json(event)
    if isinstance(event, PartFound):
        values["kind"] = _NAMES[type(event.part)]
    return {"event": _NAMES[type(event)], **values}


def event_from_json(value: Any) -> Event:  # noqa: ANN401
    """The event of these JSON values.

    Raises:
        ProtocolError: an unknown kind, or a field that is missing, unknown or of the wrong type.
    """
    kind, rest = _take(value, "event", _EVENTS)
    if kind is PartFound:
        part, values = _take(rest, "kind", _PARTS)
        if set(values) != {f.name for f in fields(PartFound)}:
            raise ProtocolError("an event of a part found holds kind and part")
        return PartFound(_read(part, values["part"]))
    event: Event = _read(kind, rest)
    return event


def encode(message: WorkerMessage | Command) -> bytes:
    """One line, with its line feed."""
    if isinstance(message, JobEvent):
        values: dict[str, Any] = {"job": message.job, "event": event_to_json(message.event)}
    else:
        values = to_json(message)
    # NaN cannot appear: to_json writes it as null.
    line = json.dumps(
        {"v": PROTOCOL_VERSION, "type": _NAMES[type(message)], **values},
        ensure_ascii=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return line.encode("ascii") + b"\n"


def decode_command(line: bytes) -> Command:
    """The command on a line.

    Raises:
        ProtocolError: the line is not one.
    """
    kind, values = _take(_load(line), "type", _COMMANDS)
    command: Command = _read(kind, values)
    return command


def decode_message(line: bytes) -> WorkerMessage:
    """The worker's message on a line.

    Raises:
        ProtocolError: the line is not one.
    """
    kind, values = _take(_load(line), "type", _MESSAGES)
    if kind is JobEvent:
        if set(values) != {f.name for f in fields(JobEvent)} or not isinstance(values["job"], str):
            raise ProtocolError("an event message holds job and event")
        return JobEvent(values["job"], event_from_json(values["event"]))
    message: WorkerMessage = _read(kind, values)
    return message


def _load(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"not an object: {line[:80]!r}")
    version = value.pop("v", None)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {version!r}, expected {PROTOCOL_VERSION}")
    return value


def _take(value: Any, key: str, table: Mapping[str, type[Any]]) -> tuple[type[Any], dict[str, Any]]:  # noqa: ANN401
    if not isinstance(value, Mapping):
        raise ProtocolError(f"expected an object with {key!r}")
    name = value.get(key)
    kind = table.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"unknown {key} {name!r}; known are {', '.join(table)}")
    return kind, {k: v for k, v in value.items() if k != key}


def _read(kind: type[Any], values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    try:
        return from_json(kind, values)
    except CodecError as error:
        raise ProtocolError(f"{_NAMES[kind]}: {error}") from error
