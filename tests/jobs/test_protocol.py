"""Messages survive the pipe, and anything else is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstudio.core.events import (
    ErrorInfo,
    Event,
    JobEnded,
    JobState,
    Message,
    Part,
    PartFound,
    Progress,
    Severity,
)
from quantstudio.core.hints import Hint
from quantstudio.core.recovered import LayerRecovered, StepBegun, StepTried
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.search_results import SearchFront
from quantstudio.jobs import protocol
from quantstudio.jobs.protocol import (
    AllowTiming,
    Beat,
    Cancel,
    Command,
    Hello,
    JobEvent,
    Pause,
    Ping,
    Pong,
    ProtocolError,
    Resume,
    Run,
    Shutdown,
    Started,
    WorkerMessage,
    decode_command,
    decode_message,
    encode,
    event_from_json,
    event_to_json,
)
from quantstudio.jobs.spec import JobSpec
from tests.parts import layer_found, layers_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)
seconds = st.floats(0, 1e9)
figures = st.floats(0, 1e6)
layers = st.builds(
    LayerSensitivity,
    st.text(),
    figures,
    figures,
    figures,
    figures,
    by_precision=st.dictionaries(st.text(), figures, max_size=2),
)
fronts = st.builds(SearchFront, st.just(()), st.just(()), st.text(), st.none() | figures, st.integers())
begun = st.builds(StepBegun, st.integers(0, 9), st.text())
tried = st.builds(StepTried, st.text(), figures, st.none() | figures, st.text(), st.booleans())
recovered = st.builds(LayerRecovered, st.text(), figures, st.none() | figures, st.text(), st.integers(0, 9))
events = st.one_of(
    st.builds(Progress, st.integers(), st.integers(), st.text(), st.text(), st.none() | seconds),
    st.builds(PartFound, st.one_of(layers, fronts, recovered, begun, tried)),
    st.builds(Message, st.sampled_from(Severity), st.text()),
    st.builds(
        JobEnded,
        st.sampled_from(JobState),
        st.none() | objects,
        st.none()
        | st.builds(
            ErrorInfo, st.text(), st.text(), st.text(), st.builds(Hint, st.text()), st.integers(), st.text()
        ),
    ),
)


@given(events)
def test_that_an_event_survives_the_round_trip(event: Event) -> None:
    line = encode(JobEvent("job", event))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_message(line) == JobEvent("job", event)
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


@pytest.mark.parametrize(
    "message", [Hello(4), Started("a"), Beat("a", 0.5, 2.0), Pong(3)], ids=lambda m: type(m).__name__
)
def test_that_a_message_survives_the_round_trip(message: WorkerMessage) -> None:
    assert decode_message(encode(message)) == message


@pytest.mark.parametrize(
    "command",
    [
        Run(JobSpec("a", "b.c:d", {"x": [1, None]}, "ü\n")),
        Run(JobSpec("a", "b.c:d"), is_paused=True),
        Cancel("a"),
        Pause("a"),
        Resume("b"),
        AllowTiming("a"),
        Ping(1),
        Shutdown(),
    ],
    ids=lambda c: type(c).__name__,
)
def test_that_a_command_survives_the_round_trip(command: Command) -> None:
    assert decode_command(encode(command)) == command


def test_that_figures_that_are_not_finite_cross_as_null() -> None:
    line = encode(JobEvent("a", PartFound(replace(layer_found("conv"), sqnr_db=math.inf, kl=math.nan))))
    assert json.loads(line)["event"]["part"]["sqnr_db"] is None
    message = decode_message(line)
    assert isinstance(message, JobEvent)
    (found,) = layers_of([message.event])
    assert math.isnan(found.sqnr_db)
    assert math.isnan(found.kl)


def test_that_every_kind_of_part_crosses() -> None:
    named = set(str(Part).split(" | "))
    assert named == {kind.__name__ for kind in protocol._PARTS.values()}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"printed by a library\n", "not JSON", id="text"),
        pytest.param(b"\xff\xfe\n", "not JSON", id="bytes"),
        pytest.param(b"[" * 100_000, "not JSON", id="deep"),
        pytest.param(b"[1]", "not an object", id="list"),
        pytest.param(b'{"type":"pong","number":1}', "version None", id="no version"),
        pytest.param(b'{"v":3,"type":"pong","number":1}', "version 3", id="other version"),
        pytest.param(b'{"v":2,"type":"nothing"}', "unknown type", id="unknown"),
        pytest.param(b'{"v":2,"type":["pong"]}', "unknown type", id="type is a list"),
        pytest.param(b'{"v":2,"type":"pong"}', "'number' is missing", id="missing"),
        pytest.param(b'{"v":2,"type":"pong","number":"1"}', "expected int", id="wrong type"),
        pytest.param(b'{"v":2,"type":"pong","number":1,"more":1}', "unknown field", id="more"),
        pytest.param(b'{"v":2,"type":"event","job":"a"}', "holds job and event", id="no event"),
        pytest.param(b'{"v":2,"type":"event","job":"a","event":3}', "expected an object", id="event is 3"),
        pytest.param(
            b'{"v":2,"type":"event","job":"a","event":{"event":"ended","state":"fine"}}',
            "not one of",
            id="unknown state",
        ),
        pytest.param(
            b'{"v":2,"type":"event","job":"a","event":{"event":"found","kind":"colour","part":{}}}',
            "unknown kind",
            id="unknown part",
        ),
        pytest.param(
            b'{"v":2,"type":"event","job":"a","event":{"event":"found","kind":"front"}}',
            "holds kind and part",
            id="no part",
        ),
        pytest.param(
            b'{"v":2,"type":"event","job":"a","event":{"event":"found","kind":"front","part":{"kl":1}}}',
            "unknown field",
            id="part of another kind",
        ),
    ],
)
def test_that_anything_else_is_refused(line: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        decode_message(line)


def test_that_a_command_is_no_message_and_the_reverse() -> None:
    with pytest.raises(ProtocolError):
        decode_message(encode(Cancel("a")))
    with pytest.raises(ProtocolError):
        decode_command(encode(Pong(1)))
    with pytest.raises(ProtocolError, match="is not package"):
        decode_command(b'{"v":2,"type":"run","spec":{"id":"a","task":"rm -rf"}}')
