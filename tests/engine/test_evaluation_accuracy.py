import math

import numpy as np
import pytest

from quantstudio.core.errors import MeasureError
from quantstudio.engine.evaluation.accuracy import (
    ClassTally,
    ValueTally,
    accuracy_by_class,
    accuracy_by_segment,
)
from quantstudio.engine.evaluation.agreement import AgreementTally
from quantstudio.engine.evaluation.outputs import Meaning, OutputForm, class_scores, output_form, predictions

SCORES = OutputForm(Meaning.CLASSES, classes=3)


def test_that_top1_and_top5_count_what_they_say() -> None:
    form = OutputForm(Meaning.CLASSES, classes=7)
    labels = np.array([0, 1, 6])
    scores = np.array([[7, 6, 5, 4, 3, 2, 1], [7, 6, 5, 4, 3, 2, 1], [7, 6, 5, 4, 3, 2, 1]], dtype=np.float32)
    tally = ClassTally(labels, 3, form)
    tally.add(0, scores[:2])
    tally.add(2, scores[2:])
    assert tally.metrics() == {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)}
    assert tally.right().tolist() == [True, False, False]


def test_that_five_classes_or_fewer_have_no_top5() -> None:
    tally = ClassTally(np.array([2]), 1, SCORES)
    tally.add(0, np.array([[0.0, 1.0, 2.0]], dtype=np.float32))
    assert tally.metrics() == {"top1": 1.0}


def test_that_without_labels_there_are_no_metrics() -> None:
    tally = ClassTally(None, 1, SCORES)
    tally.add(0, np.array([[0.0, 1.0, 2.0]], dtype=np.float32))
    assert tally.metrics() == {}
    assert tally.predicted.tolist() == [2]
    with pytest.raises(MeasureError, match="no labels"):
        tally.right()


def test_that_a_score_that_is_not_a_number_is_never_right() -> None:
    scores = np.array([[np.nan, 0, 0], [0, 1, np.nan], [0, 1, 0]], dtype=np.float32)
    assert predictions(scores, SCORES).tolist() == [-1, -1, 1]


def test_that_regression_errors_are_those_of_the_definition() -> None:
    targets = np.array([1.0, 2.0, 3.0, 6.0])
    tally = ValueTally(targets)
    tally.add(0, np.array([[1.0], [3.0]], dtype=np.float32))
    tally.add(2, np.array([[3.0], [4.0]], dtype=np.float32))
    # Errors 0, 1, 0, -2; the targets' mean is 3, their squared distance from it 4 + 1 + 0 + 9.
    assert tally.metrics() == {
        "rmse": pytest.approx(math.sqrt(5 / 4)),
        "mae": pytest.approx(3 / 4),
        "r2": pytest.approx(1 - 5 / 14),
    }


def test_that_constant_targets_have_no_r2() -> None:
    tally = ValueTally(np.array([2.0, 2.0]))
    tally.add(0, np.array([[2.0], [3.0]], dtype=np.float32))
    assert math.isnan(tally.metrics()["r2"])


def test_that_another_number_of_targets_is_refused() -> None:
    with pytest.raises(MeasureError, match="2 values per sample, the labels have 1"):
        ValueTally(np.zeros(3)).add(0, np.zeros((3, 2), dtype=np.float32))


def test_that_classes_are_counted_one_by_one_and_named() -> None:
    labels = np.array([0, 0, 2, 2, 2])
    base = np.array([True, True, True, False, True])
    variant = np.array([True, False, True, True, False])
    rows = accuracy_by_class(labels, base, variant, ("cat", "dog"))
    assert [(r.label, r.support) for r in rows] == [("cat", 2), ("2", 3)]
    assert [(r.base, r.variant) for r in rows] == [(1.0, 0.5), (pytest.approx(2 / 3), pytest.approx(2 / 3))]
    assert all(r.low < r.variant < r.high for r in rows)


def test_that_segments_are_the_values_of_a_column() -> None:
    columns = {"ink": np.array(["thin", "bold", "thin"])}
    rows = accuracy_by_segment(columns, np.array([True, True, False]), np.array([False, True, False]))
    assert [(r.label, r.support, r.base, r.variant) for r in rows] == [
        ("ink=bold", 1, 1.0, 1.0),
        ("ink=thin", 2, 0.5, 0.0),
    ]


def test_that_many_numbers_become_quarters_and_many_texts_nothing() -> None:
    right = np.ones(100, dtype=np.bool_)
    columns = {"size": np.arange(100.0), "file": np.array([f"{i}.png" for i in range(100)])}
    rows = accuracy_by_segment(columns, right, right)
    assert [r.support for r in rows] == [25, 25, 25, 25]
    assert rows[0].label == "size=0 to 24.75"


@pytest.mark.parametrize(
    ("output", "labels", "expected"),
    [
        pytest.param(
            np.array([[1.0, -2.0, 3.0]]),
            np.array([0]),
            OutputForm(Meaning.CLASSES, classes=3),
            id="logits",
        ),
        pytest.param(
            np.array([[0.25, 0.75]]),
            np.array([0]),
            OutputForm(Meaning.CLASSES, probabilities=True, classes=2),
            id="softmax",
        ),
        pytest.param(
            np.array([[[[1.0]], [[4.0]]]]), None, OutputForm(Meaning.CLASSES, classes=2), id="1x1 map"
        ),
        pytest.param(
            np.array([[0.2], [0.9]]),
            np.array([0, 1]),
            OutputForm(Meaning.CLASSES, probabilities=True, binary=True, classes=2),
            id="sigmoid",
        ),
        pytest.param(
            np.array([[-3.0], [9.0]]),
            np.array([0, 1]),
            OutputForm(Meaning.CLASSES, binary=True, classes=2),
            id="one logit",
        ),
        pytest.param(np.array([3, 4]), np.array([3, 5]), OutputForm(Meaning.INDEX), id="class numbers"),
        pytest.param(np.zeros((2, 4, 9)), None, OutputForm(Meaning.TOKENS, classes=9), id="tokens"),
        pytest.param(np.zeros((2, 3, 4, 4)), None, OutputForm(Meaning.VALUES), id="picture"),
        pytest.param(
            np.zeros((2, 3)), np.zeros((2, 3), dtype=np.float32), OutputForm(Meaning.VALUES), id="targets"
        ),
        pytest.param(np.zeros((2, 1)), np.array([4, 7]), OutputForm(Meaning.VALUES), id="whole targets"),
    ],
)
def test_that_outputs_are_read_for_what_they_are(
    output: np.ndarray, labels: np.ndarray | None, expected: OutputForm
) -> None:
    values = output.astype(np.float32) if output.dtype.kind == "f" else output
    assert output_form(values, labels) == expected


@pytest.mark.parametrize("output", [np.zeros((2, 4, 9), dtype=np.float32), np.zeros((2, 4), dtype=np.int64)])
def test_that_an_output_that_cannot_be_judged_is_refused(output: np.ndarray) -> None:
    with pytest.raises(MeasureError, match="that is judged"):
        output_form(output, np.array([0, 1]))


def test_that_one_number_becomes_two_classes() -> None:
    sigmoid = OutputForm(Meaning.CLASSES, probabilities=True, binary=True, classes=2)
    logit = OutputForm(Meaning.CLASSES, binary=True, classes=2)
    output = np.array([[0.4], [0.6]], dtype=np.float32)
    assert class_scores(output, sigmoid) == pytest.approx(np.array([[0.6, 0.4], [0.4, 0.6]]))
    assert predictions(output, sigmoid).tolist() == [0, 1]
    assert predictions(output, logit).tolist() == [1, 1]


def test_that_agreement_is_what_the_definitions_say() -> None:
    base = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], dtype=np.float32))
    variant = np.log(np.array([[0.25, 0.75], [0.9, 0.1]], dtype=np.float32))
    tally = AgreementTally(OutputForm(Meaning.CLASSES, classes=2))
    tally.add(base[:1], variant[:1])
    tally.add(base[1:], variant[1:])
    found = tally.result()
    assert found.top1 == 0.5  # equal logits choose class 0, the variant class 1
    assert found.kl == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2, rel=1e-5)
    signal = float((base.astype(np.float64) ** 2).sum())
    noise = float(((base - variant).astype(np.float64) ** 2).sum())
    assert found.sqnr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-5)


def test_that_softmax_outputs_give_the_kl_of_their_logits() -> None:
    rng = np.random.default_rng(0)
    base, variant = rng.normal(size=(2, 50, 10)).astype(np.float32)

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    logits = AgreementTally(OutputForm(Meaning.CLASSES, classes=10))
    logits.add(base, variant)
    probabilities = AgreementTally(OutputForm(Meaning.CLASSES, probabilities=True, classes=10))
    probabilities.add(softmax(base), softmax(variant))
    assert probabilities.result().kl == pytest.approx(logits.result().kl, rel=1e-4)


def test_that_equal_outputs_agree_in_everything() -> None:
    same = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    tally = AgreementTally(SCORES)
    tally.add(same, same)
    assert tally.result() == type(tally.result())(1.0, 0.0, math.inf)
    assert not tally.has_nan


def test_that_an_excluded_class_does_not_spoil_the_kl() -> None:
    base = np.array([[1.0, 2.0, -np.inf]], dtype=np.float32)
    tally = AgreementTally(SCORES)
    tally.add(base, np.array([[1.0, 2.0, -1e9]], dtype=np.float32))
    assert tally.result().kl == pytest.approx(0.0)
    assert math.isinf(tally.result().sqnr_db)


def test_that_nan_outputs_are_the_worst_there_is() -> None:
    tally = AgreementTally(SCORES)
    tally.add(np.ones((2, 3), dtype=np.float32), np.full((2, 3), np.nan, dtype=np.float32))
    found = tally.result()
    assert tally.has_nan
    assert (found.top1, found.kl, found.sqnr_db) == (0.0, math.inf, -math.inf)


def test_that_values_have_sqnr_only() -> None:
    tally = AgreementTally(OutputForm(Meaning.VALUES))
    tally.add(np.full((2, 1), 10.0, dtype=np.float32), np.full((2, 1), 11.0, dtype=np.float32))
    found = tally.result()
    assert math.isnan(found.top1)
    assert math.isnan(found.kl)
    assert found.sqnr_db == pytest.approx(20.0)


def test_that_nothing_agrees_where_the_base_computes_no_number() -> None:
    base = np.array([[1.0, 2.0, 3.0], [np.nan, 0.0, 0.0]], dtype=np.float32)
    tally = AgreementTally(SCORES)
    tally.add(base, base)
    found = tally.result()
    assert (found.top1, found.kl, found.sqnr_db) == (0.5, 0.0, math.inf)
