"""Any network is judged by what its outputs mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import MeasureError, TrustRequiredError
from quantstudio.core.events import CancelToken
from quantstudio.core.judgement import Judging, Task
from quantstudio.core.results import CompareResult
from quantstudio.engine.analysis.sensitivity import exact_sensitivity, fisher_sensitivity
from quantstudio.engine.calibration.observer import calibrate
from quantstudio.engine.data.dataset import open_dataset
from quantstudio.engine.evaluation.compare import compare, compare_json
from quantstudio.engine.evaluation.inference import RAW_MAPS
from quantstudio.engine.model.open import open_model
from quantstudio.engine.search.measure import Judge
from tests.engine.network_kinds import (
    KINDS,
    SAMPLES,
    Kind,
    disturbed,
    multi_label,
    raw_maps,
    stateful,
    time_major,
)

QUICK: dict[str, Any] = {"latency": False, "footprint": False}
EXPECTED = {
    "time-major": (Task.TOKENS, "scores", 1, "agreement"),
    "stateful": (Task.CLASSIFY, "probs", 0, "agreement"),
    "detector": (Task.DETECT, "output0", 0, "f1"),
    "with integers": (Task.CLASSIFY, "logits", 0, "agreement"),
    "variable length": (Task.TOKENS, "chars", 0, "agreement"),
    "graph network": (Task.TOKENS, "kinds", -1, "agreement"),
    "channels last": (Task.CLASSIFY, "out", 0, "agreement"),
    "encoder": (Task.EMBED, "sentence_embedding", 0, "cosine"),
    "multi-label": (Task.CLASSIFY, "tags", 0, "f1"),
    "several targets": (Task.REGRESS, "out", 0, "r2"),
    "segmenter": (Task.SEGMENT, "map", 0, "miou"),
    "denoiser": (Task.SIGNAL, "clean", 0, "kept"),
    "nameless": (Task.UNKNOWN, "out", 0, "kept"),
}


def judged(
    kind: Kind, folder: Path, share: float = 0.1, variant: onnx.ModelProto | None = None, **spec: Any
) -> CompareResult:
    """A network against itself with noise on its weights, or against another."""
    path, data = kind.saved(folder)
    other = folder / "other.onnx"
    onnx.save(variant or disturbed(kind.model, share), str(other))
    dataset = open_dataset(DataSpec(str(data), **spec), open_model(path).summary.inputs)
    return compare(path, [other], dataset, **QUICK)


@pytest.mark.parametrize("name", KINDS)
def test_that_each_kind_of_network_is_judged_as_what_it_is(tmp_path: Path, name: str) -> None:
    result = judged(KINDS[name](), tmp_path)
    task, output, axis, metric = EXPECTED[name]
    judgement = result.judgement
    assert judgement is not None
    assert (judgement.task, judgement.outputs, judgement.axes) == (task, (output,), (axis,))
    assert judgement.reason
    base, variant = result.variants
    assert base.headline is not None
    assert variant.headline is not None
    assert (base.headline.metric, variant.headline.metric) == (metric, metric)
    assert (base.headline.loss.value, base.headline.loss.low, base.headline.loss.high) == (0, 0, 0)
    loss = variant.headline.loss
    assert loss.low <= loss.value <= loss.high
    assert loss.value == pytest.approx(100 * (variant.headline.base - variant.headline.value))
    assert loss.value > 0
    assert all(np.isfinite(one.sqnr_db) for one in variant.outputs)


@pytest.mark.parametrize("name", KINDS)
def test_that_a_ruined_network_of_each_kind_is_below_its_floor(tmp_path: Path, name: str) -> None:
    headline = judged(KINDS[name](), tmp_path, share=3.0).variants[1].headline
    assert headline is not None
    assert headline.is_below_floor


@pytest.mark.parametrize("name", KINDS)
def test_that_each_kind_of_network_can_be_calibrated(tmp_path: Path, name: str) -> None:
    path, data = KINDS[name]().saved(tmp_path)
    graph = open_model(path)
    statistics = calibrate(graph, open_dataset(DataSpec(str(data)), graph.summary.inputs))
    assert statistics.samples == SAMPLES
    assert statistics.tensors


def test_that_negating_the_late_steps_of_a_time_major_output_lowers_agreement(tmp_path: Path) -> None:
    kind = time_major()
    model = onnx.ModelProto()
    model.CopyFrom(kind.model)
    sign = np.ones((20, 1, 1), np.float32)
    sign[SAMPLES:] = -1
    model.graph.initializer.append(numpy_helper.from_array(sign, "sign"))
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Mul", ["before", "sign"], ["scores"], "late"))
    result = judged(kind, tmp_path, variant=model)
    agreement = result.variants[1].agreement
    assert agreement is not None
    assert agreement.top1 < 0.75
    assert agreement.sqnr_db < 10


def test_that_a_state_may_be_stored_with_samples_first(tmp_path: Path) -> None:
    kind = stateful()
    assert isinstance(kind.arrays, dict)
    found = []
    for name, state in (("own", kind.arrays["state"]), ("first", np.moveaxis(kind.arrays["state"], 1, 0))):
        same = Kind(kind.model, {**kind.arrays, "state": state})
        path, data = same.saved(tmp_path / name)
        dataset = open_dataset(DataSpec(str(data)), open_model(path).summary.inputs)
        found.append([batch.feed["state"] for batch in dataset.batches(5)])
    assert [part.shape for part in found[0]] == [(2, 5, 16), (2, 5, 16), (2, 2, 16)]
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_that_the_axis_the_user_names_wins(tmp_path: Path) -> None:
    kind = time_major()
    model = onnx.ModelProto()
    model.CopyFrom(kind.model)
    for value in (*model.graph.input, *model.graph.output):
        for position, name in enumerate(("a", "b")):
            value.type.tensor_type.shape.dim[position].dim_param = name
    silent = Kind(model, kind.arrays)
    axes = (("x", 1), ("scores", 1))
    result = judged(silent, tmp_path, batch_axes=axes)
    assert result.samples == SAMPLES
    assert result.judgement is not None
    assert result.judgement.axes == (1,)


def test_that_the_user_says_what_is_judged(tmp_path: Path) -> None:
    result = judged(KINDS["encoder"](), tmp_path, judging=Judging(output="last_hidden_state"))
    assert result.judgement is not None
    assert result.judgement.outputs == ("last_hidden_state",)
    other = judged(KINDS["nameless"](), tmp_path / "b", judging=Judging(task=Task.CLASSIFY))
    assert other.judgement is not None
    assert (other.judgement.task, other.judgement.is_chosen) == (Task.CLASSIFY, True)
    with pytest.raises(MeasureError, match="cannot be read as detect"):
        judged(KINDS["multi-label"](), tmp_path / "c", judging=Judging(task=Task.DETECT))
    with pytest.raises(MeasureError, match="no output named 'nothing'"):
        judged(KINDS["nameless"](), tmp_path / "d", judging=Judging(output="nothing"))


def test_that_yes_or_no_labels_judge_value_by_value(tmp_path: Path) -> None:
    kind = multi_label()
    assert isinstance(kind.arrays, dict)
    labels = (np.random.default_rng(0).random((SAMPLES, 5)) > 0.5).astype(np.float32)
    result = judged(Kind(kind.model, {**kind.arrays, "labels": labels}), tmp_path)
    assert result.labelled
    headline = result.variants[1].headline
    assert headline is not None
    assert (headline.metric, headline.floor) == ("f1", 1.0)
    assert 0 < headline.base < 1


def test_that_labels_of_several_tags_may_be_whole_numbers(tmp_path: Path) -> None:
    kind = multi_label()
    assert isinstance(kind.arrays, dict)
    labels = np.random.default_rng(0).integers(0, 2, (SAMPLES, 5))
    forms: tuple[np.ndarray, ...] = (labels, labels.astype(np.uint8), labels.astype(bool))
    for number, stored in enumerate(forms):
        result = judged(Kind(kind.model, {**kind.arrays, "labels": stored}), tmp_path / str(number))
        assert result.labelled
        assert result.judgement is not None
        assert "yes or no for each of 5 values" in result.judgement.reason


@pytest.mark.parametrize("are_split", [False, True])
def test_that_maps_whose_anchors_nobody_knows_are_said_to_be_that(tmp_path: Path, are_split: bool) -> None:
    found = judged(raw_maps(are_split=are_split), tmp_path)
    judgement = found.judgement
    assert judgement is not None
    # At the figure, too: nobody may take it for one of boxes.
    assert [one.headline and one.headline.caveat for one in found.variants] == [RAW_MAPS] * 2
    assert (judgement.task, len(judgement.outputs)) == (Task.UNKNOWN, 3)
    assert "3 maps of 21 numbers a cell" in judgement.reason
    with pytest.raises(MeasureError, match="cannot be read as detect"):
        judged(raw_maps(are_split=are_split), tmp_path / "b", judging=Judging(task=Task.DETECT))


def test_that_a_metric_of_ones_own_needs_trust_and_judges(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def share(outputs, label):\n    return float((outputs['out'] > 0).mean())\n")
    judging = Judging(metric=f"{own}:share")
    with pytest.raises(TrustRequiredError):
        judged(KINDS["nameless"](), tmp_path / "a", judging=judging)
    headline = judged(KINDS["nameless"](), tmp_path / "b", judging=judging, trusted=True).variants[1].headline
    assert headline is not None
    assert headline.metric == "own"
    assert 0 < headline.base < 1


def test_that_the_json_names_the_task_the_figure_and_every_output(tmp_path: Path) -> None:
    document = compare_json(judged(KINDS["stateful"](), tmp_path))
    assert document["judged_as"]["task"] == "classify"
    row = document["variants"][1]
    assert row["headline"]["is_below_floor"] in (True, False)
    assert [(one["name"], one["is_judged"]) for one in row["outputs"]] == [
        ("probs", True),
        ("new_state", False),
    ]


@pytest.mark.parametrize("name", KINDS)
def test_that_the_estimate_of_each_kind_is_near_what_is_measured(tmp_path: Path, name: str) -> None:
    path, data = KINDS[name]().saved(tmp_path)
    graph = open_model(path)
    dataset = open_dataset(DataSpec(str(data)), graph.summary.inputs)
    estimate = fisher_sensitivity(graph, dataset, precisions=("int4",))
    exact = exact_sensitivity(graph, dataset, precisions=("int4",))
    assert estimate.method == "fisher"
    assert [row.name for row in estimate.layers] == [row.name for row in exact.layers]
    for one, other in zip(estimate.layers, exact.layers, strict=True):
        assert 1 / 5 < one.by_precision["int4"] / other.by_precision["int4"] < 5
    assert (exact.curve is not None) == (name in ("stateful", "with integers", "channels last"))
    judge = Judge(graph, dataset, samples=SAMPLES, cancel=CancelToken())
    assert judge.base.kl == 0
    assert judge.measure(disturbed(graph.proto, 0.5)).kl > 0
