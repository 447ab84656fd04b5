"""What leaves the cache is what was built."""

from __future__ import annotations

from pathlib import Path

from quantstudio.jobs.rows import NoticeLevel
from quantstudio.workspace.values import Notification
from tests.workspace.conftest import Desk


def test_that_a_built_file_that_was_changed_is_built_again_before_it_is_exported(
    measured: Desk, tmp_path: Path
) -> None:
    known = measured.known
    told: list[Notification] = []
    known.notified.connect(told.append)
    current = known.current_variant
    assert current is not None
    Path(current.path).write_bytes(b"another model")
    known.documents.export(str(tmp_path / "out.onnx"))
    measured.settle()
    assert (tmp_path / "out.onnx").read_bytes() == b"onnx"
    assert [one.severity for one in told] == [NoticeLevel.WARNING, NoticeLevel.SUCCESS]
    assert "changed in the cache" in told[0].text


def test_that_a_file_that_is_no_more_what_was_built_is_not_given_away(measured: Desk, tmp_path: Path) -> None:
    known = measured.known
    told: list[Notification] = []
    known.notified.connect(told.append)
    current = known.current_variant
    assert current is not None
    Path(current.path).write_bytes(b"another model")
    quantize = measured.runner.answers["quantize"]

    def spoiled(params):
        events = quantize(params)
        Path(params["output"]).write_bytes(b"another model")
        return events

    measured.runner.answers["quantize"] = spoiled
    known.documents.export(str(tmp_path / "out.onnx"))
    measured.settle()
    assert not (tmp_path / "out.onnx").exists()
    assert told[-1].severity is NoticeLevel.ERROR
