"""The data doctor in the workspace: asked in the quick lane, and transforms are remembered by input shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.diagnosis import Diagnosis
from quantstudio.core.events import ErrorInfo, JobEnded, JobState
from quantstudio.core.folders import config_folder
from quantstudio.workspace.doctor import beside
from tests.workspace.conftest import Desk


def test_that_a_first_answer_comes_before_the_last(desk: Desk, data: DataSpec) -> None:
    found: list[Diagnosis] = []
    desk.known.doctor.ask(data, None, is_asked=False, on_found=found.append)
    desk.settle()
    assert [one.is_final for one in found] == [False, True]
    assert desk.runner.submitted[-1].params["is_asked"] is False
    assert "test" not in desk.runner.submitted[-1].params
    assert "92.00" in desk.known.jobs.rows[-1].outcome


def test_that_who_hears_of_a_failure_is_not_notified_too(desk: Desk, data: DataSpec) -> None:
    error = ErrorInfo("DataError", "cut off")
    desk.runner.answers["examine_data"] = lambda _: [JobEnded(JobState.FAILED, error=error)]
    heard: list[ErrorInfo] = []
    told: list[object] = []
    desk.known.notified.connect(told.append)
    desk.known.doctor.ask(data, None, is_asked=False, on_found=print, on_failed=heard.append)
    desk.settle()
    assert [one.what for one in heard] == ["cut off"]
    assert told == []
    desk.known.doctor.ask(data, None, is_asked=True, on_found=print)
    desk.settle()
    assert len(told) == 1


class TestRemembered:
    def test_that_the_transform_of_such_inputs_is_known_again(self, desk: Desk, data: DataSpec) -> None:
        assert desk.known.doctor.remembered == ""
        used = DataSpec(data.path, parse_transform("scale=1/16 layout=NCHW"))
        desk.known.opening.set_data(used, None)
        desk.known.opening.set_data(None, None)
        assert desk.known.doctor.remembered == "scale=1/16 layout=NCHW"

    @pytest.mark.parametrize("content", ["", "[]", '{"float32 [?, 3, 32, 32]": "scael=1"}', "\x00"])
    def test_that_a_damaged_file_is_no_obstacle(self, desk: Desk, data: DataSpec, content: str) -> None:
        (config_folder() / "transforms.json").write_text(content)
        assert desk.known.doctor.remembered == ""
        desk.known.opening.set_data(data, None)
        assert desk.known.doctor.remembered == data.transform.text

    def test_that_a_folder_nobody_can_write_to_is_no_obstacle(
        self, desk: Desk, data: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "a file"
        file.touch()
        monkeypatch.setenv("QUANTSTUDIO_CONFIG", str(file))
        desk.known.opening.set_data(data, None)
        assert desk.known.calibration_data == data
        assert desk.known.doctor.remembered == ""


@pytest.mark.parametrize(
    ("training", "test"),
    [
        ("shoes_train.npz", "shoes_test.npz"),
        ("train.npz", "val.npz"),
        ("Training", "Validation"),
        ("shoes.npz", ""),
        ("train_only.npz", ""),
    ],
)
def test_that_test_data_beside_training_data_is_found(tmp_path: Path, training: str, test: str) -> None:
    (tmp_path / training).touch()
    if test:
        (tmp_path / test).touch()
    found = Path(beside(str(tmp_path / training)))
    if test:
        assert found.samefile(tmp_path / test)
    else:
        assert beside(str(tmp_path / training)) == ""
