"""`quantstudio data`: the doctor's proposal as a table and as JSON, and a transform of one's own checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quantstudio.cli.data import plain
from quantstudio.cli.main import invoke
from quantstudio.core.samples import sample
from tests.engine.doctor_cases import brightness_net, pixels, stored
from tests.shared_data import MODELS, TEST, TRAIN, TRANSFORM, needs_shared

SAMPLE = sample("digits_mobilenet")
pytestmark = pytest.mark.usefixtures("one_cache")


def test_that_the_transform_of_the_sample_is_proposed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["data", str(SAMPLE.model), str(SAMPLE.train), "--test", str(SAMPLE.test)]) == 0
    told = capsys.readouterr().out
    assert f'--transform "{SAMPLE.transform}"' in told
    assert "600 of 600 samples of digits_test.npz" in told
    assert "10 classes" in told
    assert "warning" not in told


def test_that_the_json_holds_the_transform_as_text_and_no_pictures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["data", str(SAMPLE.model), str(SAMPLE.train), "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "quantstudio.data/1"
    assert document["proposed"]["transform"] == SAMPLE.transform
    assert document["figure"]["value"] > 0.95
    assert document["figure"]["is_calibration"]
    assert {"transform", "title", "score", "samples"} == set(document["trials"][0])
    assert "png" not in json.dumps(document)


@pytest.mark.parametrize("typed", ["", "scale=1/255 layout=NCHW"])
def test_that_a_wrong_transform_is_warned_about(capsys: pytest.CaptureFixture[str], typed: str) -> None:
    assert invoke(["data", str(SAMPLE.model), str(SAMPLE.train), "--transform", typed]) == 0
    told = capsys.readouterr().out
    assert f'Try --transform "{SAMPLE.transform}"' in told
    assert "warning" in told


def test_that_the_right_transform_is_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["data", str(SAMPLE.model), str(SAMPLE.train), "--transform", SAMPLE.transform]) == 0
    assert "nothing does better" in capsys.readouterr().out


def test_that_data_that_does_not_fit_is_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "flat.npz"
    np.savez(data, images=np.zeros((3, 7), np.float32))
    assert invoke(["data", str(SAMPLE.model), str(data)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_that_figures_are_printed_with_what_every_terminal_has() -> None:
    assert plain("\u22125\u202f000") == "-5 000"


@needs_shared
def test_that_fashion_mnist_gets_its_transform_and_its_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    model = str(MODELS / "fmnist_mobilenet.onnx")
    assert invoke(["data", model, str(TRAIN), "--test", str(TEST), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    proposed = found["proposed"]["transform"]
    assert proposed == TRANSFORM.replace("0.2860", "0.286").replace("0.3530", "0.353")
    assert found["figure"]["low"] < 0.9099 < found["figure"]["high"]
    assert found["cautions"] == []
    assert invoke(["data", model, str(TRAIN), "--transform", "scale=1/255 layout=NCHW", "--json", "-"]) == 0
    wrong = json.loads(capsys.readouterr().out)
    assert wrong["figure"]["value"] < 0.15
    assert wrong["cautions"][0]["trouble"] == "wrong transform"
    assert wrong["cautions"][0]["transform"] == proposed


def test_that_a_proposal_that_nothing_could_judge_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = brightness_net(tmp_path / "level.onnx", "scale=1/255 layout=NCHW", scores=False)
    data = stored(tmp_path / "images.npz", images=pixels(per_class=3)[0])
    assert invoke(["data", graph.summary.source_path, data]) == 0
    assert "Nothing was tried" in capsys.readouterr().out
