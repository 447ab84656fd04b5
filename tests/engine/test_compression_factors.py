"""Factors of low rank: exact where the rank is known, and least in error for what a layer reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from quantstudio.core.errors import CalibrationError
from quantstudio.engine.compression.factors import FactorProblem, Form
from quantstudio.engine.compression.rank_budget import Choice, within_budget

EYE = torch.eye(6, dtype=torch.float64)


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("outputs", "columns"), [(5, 9), (9, 5), (7, 7)], ids=["wide", "tall", "square"])
def test_that_a_matrix_of_known_rank_is_factored_exactly(outputs, columns):
    weight = drawn(outputs, 2) @ drawn(2, columns, seed=1)
    vectors = drawn(columns, 40, seed=2)
    metric = drawn(outputs, 30, seed=3)
    problem = FactorProblem(weight, vectors @ vectors.T, metric @ metric.T)
    found = problem.factors(Form.MATRIX, 2)
    assert (tuple(found.read.shape), tuple(found.written.shape)) == ((2, columns), (outputs, 2))
    torch.testing.assert_close(found.whole(()), weight, rtol=1e-6, atol=1e-6)
    assert problem.tails()[2] < 1e-9 * problem.power


def test_that_whitening_keeps_the_direction_that_data_uses():
    # Alone the first column is larger: 3 against 1. But inputs along the second are ten times as large, so it
    # carries 10 of the output's deviation against 3, and 100 of its power against 9.
    weight = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    moments = torch.tensor([[1.0, 0.0], [0.0, 100.0]], dtype=torch.float64)
    alone = FactorProblem(weight, torch.eye(2, dtype=torch.float64)).factors(Form.MATRIX, 1).whole(())
    torch.testing.assert_close(alone, torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64))
    problem = FactorProblem(weight, moments)
    whitened = problem.factors(Form.MATRIX, 1).whole(())
    torch.testing.assert_close(whitened, torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    assert problem.power == pytest.approx(109.0)
    assert problem.error(whitened) == pytest.approx(9.0)
    assert problem.error(alone) == pytest.approx(100.0)


def test_that_the_channel_the_answers_hang_on_is_kept():
    # Both channels have power 1 and 4; an error of the first counts 9 times.
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    metric = torch.tensor([[9.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    problem = FactorProblem(weight, torch.eye(2, dtype=torch.float64), metric)
    found = problem.factors(Form.MATRIX, 1).whole(())
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64))
    assert [problem.power, problem.error(found)] == pytest.approx([13.0, 4.0])


def test_that_what_is_left_is_what_the_singular_values_say():
    weight, vectors = drawn(6, 6), drawn(6, 50, seed=1)
    moments = vectors @ vectors.T / 50
    problem = FactorProblem(weight, moments)
    for rank in (1, 3, 5):
        error = problem.error(problem.factors(Form.MATRIX, rank).whole(()))
        assert error == pytest.approx(float(problem.tails()[rank]), rel=2e-3)  # of the damped moments
        assert error < problem.error(FactorProblem(weight, EYE).factors(Form.MATRIX, rank).whole(()))


def test_that_a_separable_kernel_is_written_as_two_lines_exactly():
    down, across = drawn(2, 3, 3), drawn(4, 2, 5, seed=1)  # [r, C, kh], [O, r, kw]
    weight = torch.einsum("rci,orj->ocij", down, across).flatten(1)
    vectors = drawn(45, 200, seed=2)
    found = FactorProblem(weight, vectors @ vectors.T, None, (3, 5)).factors(Form.LINES, 2)
    assert (tuple(found.read.shape), tuple(found.written.shape)) == ((2, 9), (4, 10))
    torch.testing.assert_close(found.whole((3, 5)), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("has_metric", [False, True], ids=["plain", "metric"])
def test_that_fitting_lines_to_what_is_read_lessens_the_error(has_metric):
    weight, vectors, metric = drawn(6, 36), drawn(36, 100, seed=1).cumsum(0), drawn(6, 20, seed=2)
    own = metric @ metric.T if has_metric else None
    problem = FactorProblem(weight, vectors @ vectors.T / 100, own, (3, 3))
    for rank in (2, 4):
        begun = problem.error(problem.begun(rank).whole((3, 3)))
        assert problem.error(problem.factors(Form.LINES, rank).whole((3, 3))) < begun < problem.power


def test_that_an_input_that_never_varies_stops_nothing():
    moments = EYE.clone()
    moments[2] = 0.0
    problem = FactorProblem(drawn(6, 6), moments)
    assert math.isfinite(problem.error(problem.factors(Form.MATRIX, 2).whole(())))


def test_that_moments_with_nan_are_refused():
    with pytest.raises(CalibrationError, match="NaN or infinity"):
        FactorProblem(drawn(6, 6), EYE * float("nan"))


def choice(parameters, error):
    return Choice(Form.MATRIX, parameters, parameters, 0.0, error)


def test_that_a_budget_is_spent_where_it_is_missed_least():
    # Of `a` 50 weights go for an error of 1, of `b` for 10: 150 of 200 come from `a` alone. The next 30 cost
    # 9 at `a` (0.3 each) and 6 at `b` for 30 (0.2 each): those come from `b`.
    choices = {
        "a": [choice(100, 0.0), choice(50, 1.0), choice(20, 10.0)],
        "b": [choice(100, 0.0), choice(70, 6.0), choice(50, 10.0)],
    }
    found = within_budget(choices, 150, by_macs=False)
    assert [found[name].parameters for name in "ab"] == [50, 100]
    found = within_budget(choices, 125, by_macs=False)
    assert [found[name].parameters for name in "ab"] == [50, 70]
    with pytest.raises(ValueError, match="cannot be kept"):
        within_budget(choices, 69, by_macs=False)


def test_that_what_the_last_move_saved_too_much_is_spent_again():
    # The hull of `a` leaves 60 out, which lies above the line from 100 to 20.
    choices = {"a": [choice(100, 0.0), choice(60, 6.0), choice(20, 8.0)]}
    assert within_budget(choices, 70, by_macs=False)["a"].parameters == 60
