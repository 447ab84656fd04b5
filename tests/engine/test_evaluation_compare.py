import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.errors import JobCancelled, MeasureError, ModelLoadError
from quantstudio.core.events import CancelToken, NullReporter, Severity
from quantstudio.core.results import CompareResult
from quantstudio.engine.evaluation.compare import compare, compare_json
from quantstudio.engine.evaluation.latency import LatencyBudget
from tests.engine.evaluation_models import ArrayDataset, linear_model

QUICK: dict[str, Any] = {"threads": 1, "latency": False, "footprint": False}
CLASSES = 6


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The base passes its one-hot input through; the variant takes class 1 for class 0."""
    right = np.eye(CLASSES, dtype=np.float32)
    wrong = right.copy()
    wrong[0] = right[1]
    return linear_model(tmp_path / "base.onnx", right), linear_model(tmp_path / "variant.onnx", wrong)


def _data(repeats: int = 10, *, labelled: bool = True) -> ArrayDataset:
    labels = np.tile(np.arange(CLASSES), repeats)
    noise = np.random.default_rng(0).normal(scale=0.01, size=(len(labels), CLASSES))
    x = (np.eye(CLASSES)[labels] * 3 + noise).astype(np.float32)
    names = tuple("abcdef")
    half = np.where(np.arange(len(labels)) < len(labels) // 2, "early", "late")
    return ArrayDataset(x, labels if labelled else None, names, {"part": half})


def test_that_accuracy_drop_classes_segments_and_flips_are_those_of_the_data(pair: tuple[Path, Path]) -> None:
    base, variant = pair
    result = compare(base, [variant], _data(), **QUICK)
    first, second = result.variants
    assert (result.labelled, result.task, result.samples) == (True, "classification", 60)
    assert first.metrics["top1"] == 1.0
    assert second.metrics["top1"] == pytest.approx(5 / 6)
    assert first.drop is not None
    assert (first.drop.value, first.drop.low, first.drop.high, first.flipped) == (0, 0, 0, ())
    assert second.drop is not None
    assert second.drop.value == pytest.approx(100 / 6)
    assert second.drop.low > 0
    assert second.drop_method == "mcnemar"
    assert second.p_value is not None
    # Ten lost, none gained: exact 2 * (1/2)^10, mid-p takes off half of that.
    assert second.p_value == pytest.approx(2**-10)
    assert [(c.label, c.support, c.base, c.variant) for c in second.per_class[:2]] == [
        ("a", 10, 1.0, 0.0),
        ("b", 10, 1.0, 1.0),
    ]
    assert {s.label for s in second.segments} == {"part=early", "part=late"}
    assert second.flipped == tuple(range(0, 60, CLASSES))
    assert set(second.flipped_to) == {1}
    assert second.agreement is not None
    assert second.agreement.top1 == pytest.approx(5 / 6)
    assert first.agreement is not None
    assert math.isinf(first.agreement.sqnr_db)


def test_that_without_labels_only_agreement_is_measured(pair: tuple[Path, Path]) -> None:
    base, variant = pair
    result = compare(base, [variant], _data(labelled=False), **QUICK)
    second = result.variants[1]
    assert not result.labelled
    assert (second.metrics, second.drop, second.per_class) == ({}, None, ())
    assert second.agreement is not None
    assert second.agreement.top1 == pytest.approx(5 / 6)
    assert second.agreement.kl > 0
    assert second.flipped == tuple(range(0, 60, CLASSES))


def test_that_regression_reports_growth_of_the_error_in_percent(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    targets = (x[:, 0] + rng.normal(scale=0.5, size=400)).astype(np.float32)
    base = linear_model(tmp_path / "base.onnx", np.array([[1.0], [0.0]], dtype=np.float32))
    variant = linear_model(tmp_path / "variant.onnx", np.array([[1.0], [0.5]], dtype=np.float32))
    result = compare(base, [variant], ArrayDataset(x, targets), **QUICK)
    first, second = result.variants
    assert result.task == "regression"
    assert first.metrics["rmse"] == pytest.approx(float(np.sqrt(((x[:, 0] - targets) ** 2).mean())), rel=1e-5)
    assert second.drop is not None
    assert second.drop.value == pytest.approx(
        100 * (second.metrics["rmse"] / first.metrics["rmse"] - 1), rel=1e-6
    )
    assert 0 < second.drop.low < second.drop.value < second.drop.high
    assert second.drop_method == "bootstrap"
    assert second.per_class == ()


def test_that_a_base_without_error_has_no_relative_loss(tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.float32)[:, None]
    base = linear_model(tmp_path / "base.onnx", np.array([[1.0]], dtype=np.float32))
    variant = linear_model(tmp_path / "variant.onnx", np.array([[1.5]], dtype=np.float32))
    result = compare(base, [variant], ArrayDataset(x, x[:, 0].copy()), **QUICK)
    assert result.variants[1].drop is None
    assert result.variants[1].metrics["rmse"] > 0


def test_that_the_whole_result_has_the_promised_names(pair: tuple[Path, Path]) -> None:
    base, variant = pair
    budget = LatencyBudget(seconds=0.02, min_rounds=4, max_rounds=6)
    result = compare(
        base, [variant], _data(), names=["FP32", "INT8"], threads=1, batch=4, latency_budget=budget
    )
    text = json.dumps(compare_json(result), allow_nan=False)
    document = json.loads(text)
    assert document["schema"] == "quantstudio.compare/1"
    row = document["variants"][1]
    assert (row["path"], row["name"]) == (str(variant), "INT8")
    assert row["size_bytes"] == variant.stat().st_size
    assert set(row["metrics"]) == {"top1", "top5"}
    assert set(row["drop"]) == set(row["speedup"]) == {"value", "low", "high"}
    assert {"label", "support", "base", "variant"} <= set(row["per_class"][0])
    assert {"p50", "p90", "p99", "mean"} <= set(row["latency_ms"])
    assert row["latency_ms"]["batch"] == 4
    assert row["provider"] == row["latency_ms"]["provider"] == "CPUExecutionProvider"
    assert row["agreement"] == pytest.approx(5 / 6)
    assert row["peak_memory_bytes"] == row["footprint"]["peak_memory_bytes"] > 0
    assert document["variants"][0]["output_sqnr_db"] is None
    assert document["variants"][0]["speedup"]["value"] == 1.0
    assert from_json(CompareResult, to_json(result)).variants[1].name == "INT8"


def test_that_progress_names_every_stage(pair: tuple[Path, Path]) -> None:
    seen: list[tuple[str, int, int]] = []

    class Listener(NullReporter):
        def progress(self, done: int, total: int, unit: str, label: str) -> None:
            seen.append((label, done, total))

    budget = LatencyBudget(seconds=0, min_rounds=2, max_rounds=2)
    base, variant = pair
    compare(base, [variant], _data(), threads=1, footprint=False, latency_budget=budget, reporter=Listener())
    assert {label for label, _, _ in seen} == {"Measuring accuracy", "Timing"}
    assert ("Measuring accuracy", 60, 60) in seen


def test_that_cancel_stops_the_pass(pair: tuple[Path, Path]) -> None:
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        compare(pair[0], [pair[1]], _data(), cancel=token, **QUICK)


def test_that_nan_outputs_are_told_and_count_as_wrong(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    broken = linear_model(tmp_path / "nan.onnx", np.full((CLASSES, CLASSES), np.nan, dtype=np.float32))
    told: list[str] = []

    class Listener(NullReporter):
        def message(self, text: str, severity: Severity = Severity.INFO) -> None:
            told.append(text)

    result = compare(pair[0], [broken], _data(), reporter=Listener(), **QUICK)
    assert result.variants[1].metrics["top1"] == 0.0
    assert any("nan.onnx" in text for text in told)


def test_that_models_of_other_networks_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = linear_model(tmp_path / "other.onnx", np.ones((CLASSES, 4), dtype=np.float32))
    with pytest.raises(MeasureError, match=r"other\.onnx.*same network"):
        compare(pair[0], [other], _data(), **QUICK)


def test_that_a_label_beyond_the_classes_is_named(pair: tuple[Path, Path]) -> None:
    data = _data()
    assert data.labels is not None
    data.labels[7] = 9
    with pytest.raises(MeasureError, match="label 9 of sample 7"):
        compare(pair[0], [pair[1]], data, **QUICK)


def test_that_a_missing_file_and_wrong_names_are_told_before_anything_runs(pair: tuple[Path, Path]) -> None:
    with pytest.raises(ModelLoadError, match="no such file"):
        compare(pair[0], [Path("nowhere.onnx")], _data(), **QUICK)
    with pytest.raises(MeasureError, match="1 names for 2 models"):
        compare(pair[0], [pair[1]], _data(), names=["only"], **QUICK)


def test_that_a_model_that_does_not_fit_the_data_is_named(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    narrow = linear_model(tmp_path / "narrow.onnx", np.ones((3, CLASSES), dtype=np.float32))
    with pytest.raises(MeasureError, match=r"narrow\.onnx"):
        compare(pair[0], [narrow], _data(), **QUICK)


def test_that_an_empty_data_set_is_refused(pair: tuple[Path, Path]) -> None:
    with pytest.raises(MeasureError, match="no samples"):
        compare(pair[0], [pair[1]], ArrayDataset(np.zeros((0, CLASSES), dtype=np.float32)), **QUICK)


def test_that_equal_file_names_are_told_apart_by_folder(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    folder = tmp_path / "tuned"
    folder.mkdir()
    twin = Path(shutil.copy(pair[0], folder / "base.onnx"))
    result = compare(pair[0], [twin], _data(), **QUICK)
    assert [v.name for v in result.variants] == [f"{tmp_path.name}/base.onnx", "tuned/base.onnx"]


def test_that_a_few_small_logits_are_not_taken_for_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large images come one per batch; the first logit alone would pass for a probability of 0.3."""
    monkeypatch.setattr("quantstudio.engine.evaluation.scoring.MAX_BATCH", 1)
    x = np.concatenate([[0.3], np.linspace(-2, 2, 40)]).astype(np.float32)[:, None]
    labels = (x[:, 0] > 0).astype(np.int64)
    base = linear_model(tmp_path / "base.onnx", np.ones((1, 1), dtype=np.float32))
    result = compare(base, [base], ArrayDataset(x, labels), **QUICK)
    assert result.variants[0].metrics["top1"] == 1.0


def test_that_large_outputs_make_small_batches(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(ArrayDataset):
        sizes: set[int] = set()  # noqa: RUF012  one data set in this test

        def batches(self, size: int, *, start: int = 0, stop: int | None = None) -> Any:
            self.sizes.add(size)
            return super().batches(size, start=start, stop=stop)

    plain = _data()
    data = Watched(plain.x, plain.labels)
    monkeypatch.setattr("quantstudio.engine.evaluation.scoring.OUTPUT_BYTES", 5 * 4 * CLASSES)
    compare(pair[0], [pair[1]], data, **QUICK)
    assert data.sizes == {1, 2, 5}  # two samples tell what the outputs are


def test_that_cancelling_is_no_failure_of_the_model(pair: tuple[Path, Path]) -> None:
    token = CancelToken()

    class Setting(NullReporter):
        def progress(self, done: int, total: int, unit: str, label: str) -> None:
            token.set()

    with pytest.raises(JobCancelled):
        compare(pair[0], [pair[1]], _data(repeats=100), reporter=Setting(), cancel=token, **QUICK)


def test_that_what_was_measured_outlives_a_process_that_fails(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise MeasureError("the process that measures memory failed", where="variant.onnx")

    class Messages(NullReporter):
        texts: list[str] = []  # noqa: RUF012  one reporter in this test

        def message(self, text: str, severity: Severity = Severity.INFO) -> None:
            self.texts.append(text)

    monkeypatch.setattr("quantstudio.engine.evaluation.compare.footprint_of", failing)
    options = {**QUICK, "footprint": True}
    result = compare(pair[0], [pair[1]], _data(), reporter=Messages(), **options)
    assert result.variants[1].metrics["top1"] == pytest.approx(5 / 6)
    assert result.variants[1].footprint is None
    assert any("measures memory failed" in text for text in Messages.texts)


def test_that_a_base_that_computes_no_numbers_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    broken = linear_model(tmp_path / "nan.onnx", np.full((CLASSES, CLASSES), np.nan, dtype=np.float32))
    for variants in ([broken], [pair[0]]):
        with pytest.raises(MeasureError, match=r"nan\.onnx: the base computes no numbers"):
            compare(broken, variants, _data(), **QUICK)
