"""What the command line says of outputs and axes."""

import json
import math

import onnx
import pytest

from quantstudio.cli.compare import nearness_text
from quantstudio.cli.judged import batch_axes_of, judging_of
from quantstudio.cli.main import invoke
from quantstudio.core.errors import DataError
from quantstudio.core.judgement import Judging, Task
from quantstudio.core.results import Agreement
from tests.engine.network_kinds import disturbed, encoder, graph_network, stateful


def test_that_options_become_values() -> None:
    assert judging_of("detect", "boxes", "own.py:metric") == Judging(Task.DETECT, "boxes", "own.py:metric")
    assert judging_of("", "") == Judging()
    assert batch_axes_of(["state=1", "a=b=-1"]) == (("state", 1), ("a=b", -1))


@pytest.mark.parametrize("text", ["state", "state=", "=1", "state=one", "state=1.5"])
def test_that_an_axis_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="NAME=K"):
        batch_axes_of([text])


def test_that_an_unknown_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(DataError) as raised:
        judging_of("guess", "")
    assert "segment" in str(raised.value.hint)


def test_that_compare_says_what_it_judged_and_why(tmp_path, capsys) -> None:
    path, data = encoder().saved(tmp_path)
    variant = tmp_path / "variant.onnx"
    onnx.save(disturbed(onnx.load(path), 0.1), str(variant))
    arguments = ["compare", str(path), str(variant), "--data", str(data), "--no-latency"]
    assert invoke([*arguments, "--judged-output", "last_hidden_state", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["judged_as"]["outputs"] == ["last_hidden_state"]
    assert document["variants"][1]["headline"]["metric"] == "cosine"
    assert invoke([*arguments, "--task", "unknown"]) == 0
    assert "judged as unknown (chosen): no meaning is asked for" in capsys.readouterr().out


def test_that_a_state_calibrates_and_quantizes_from_the_command_line(tmp_path) -> None:
    path, data = stateful().saved(tmp_path)
    out = tmp_path / "int8.onnx"
    arguments = ["quantize", str(path), "--data", str(data), "--preset", "static-int8", "-o", str(out)]
    assert invoke([*arguments, "--batch-axis", "state=1"]) == 0
    recipe = json.loads((tmp_path / "int8.recipe.json").read_text())
    assert recipe["data"]["batch_axes"] == [["state", 1]]
    assert invoke(["run", str(tmp_path / "int8.recipe.json"), "-o", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()


def test_that_an_axis_of_what_the_model_does_not_have_is_refused(tmp_path, capsys) -> None:
    path, data = stateful().saved(tmp_path)
    arguments = ["calibrate", str(path), "--data", str(data), "-o", str(tmp_path / "stats.npz")]
    assert invoke([*arguments, "--batch-axis", "stat=1"]) == 2
    assert "'stat', which is no input or output" in capsys.readouterr().err


def test_that_the_data_of_graphs_of_any_size_are_examined(tmp_path, capsys) -> None:
    path, data = graph_network().saved(tmp_path)
    assert invoke(["data", str(path), str(data)]) == 0
    assert "12 samples" in capsys.readouterr().out


def test_that_the_nearness_of_classes_is_no_noise_of_their_scores() -> None:
    assert nearness_text(Agreement(0.98, 0.0312, -2.4)) == "98.00%, KL 0.0312"
    assert nearness_text(Agreement(math.nan, math.nan, 33.31)) == "output SQNR 33.3\u202fdB"
    assert nearness_text(Agreement(0.98, math.nan, math.inf)) == "98.00%, same values"
