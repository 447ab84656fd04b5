"""Compensated rounding as pure maths: targets, grids, tables, refits, against solutions found another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantstudio.core.errors import CalibrationError
from quantstudio.engine.quantization.shared_tables import known_rows
from quantstudio.engine.recovery import compensation, second_moments
from quantstudio.engine.recovery.code_grids import TableGrid, best_tables, best_uniform
from quantstudio.engine.recovery.compensation import Compensation, asymmetric_target
from quantstudio.engine.recovery.second_moments import SecondMoments, leaned
from quantstudio.engine.recovery.weight_formats import LayerFormat

INT4 = LayerFormat(-8, 7)
FORMATS = {
    "int8": LayerFormat(-127, 127),
    "int4": INT4,
    "int2": LayerFormat(-2, 1),
    "ternary": LayerFormat(-1, 1),
    "binary": LayerFormat(-1, 1, is_sign=True),
    "int3 by blocks": LayerFormat(-4, 3, block=5),
    "int3 by blocks with zero points": LayerFormat(-4, 3, block=5, is_affine=True),
    "int3, one scale": LayerFormat(-4, 3, is_shared=True),
    "codebook3": LayerFormat(-127, 127, entries=8),
    "codebook2": LayerFormat(-63, 63, entries=4),
    "codebook1, 7 bits": LayerFormat(-63, 63, entries=2),
    "codebook2, one table": LayerFormat(-127, 127, entries=4, is_shared=True),
    "table2": LayerFormat(-127, 127, entries=4, is_scaled=True),
    "group2": LayerFormat(-127, 127, entries=4, is_scaled=True, is_grouped=True),
}


@pytest.fixture(autouse=True)
def one_further_order(monkeypatch):
    """Eight take eight times as long and are nothing else."""
    monkeypatch.setattr(compensation, "_MOST_ORDERS", 1)


def problem(groups=1, outputs=6, columns=16, seed=0):
    """A target and second moments of inputs that hang together, as real ones do."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, columns, 200)) + rng.normal(size=(groups, 1, 200))
    moments = SecondMoments(groups, columns)
    moments.add(torch.from_numpy(x).float())
    target = torch.from_numpy(rng.normal(size=(groups, outputs, columns)))
    return Compensation(target, moments.hessian)


def rounded_alone(one, grid):
    """Every weight on the nearest value of a grid."""
    columns = [grid.nearest(j, one.rows[:, j])[1] for j in range(one.rows.shape[1])]
    return torch.from_numpy(np.stack(columns, axis=1)).reshape(one.target.shape)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", list(FORMATS))
def test_that_weights_chosen_together_lose_less_than_each_by_itself(name, groups):
    one, format_ = problem(groups), FORMATS[name]
    grid = format_.best(one.rows, one.row_importance)
    chosen = one.solved(grid, sweeps=3)
    assert chosen.loss == pytest.approx(one.loss(chosen.values))
    assert chosen.loss < one.loss(rounded_alone(one, grid))


@pytest.mark.parametrize("name", ["int2", "codebook2", "codebook2, one table", "int3, one scale"])
def test_that_further_orders_of_the_columns_lose_less_and_each_channel_keeps_its_best(name, monkeypatch):
    one, format_ = problem(columns=32), FORMATS[name]
    grid, losses = format_.best(one.rows, one.row_importance), []
    for orders in (0, 4):
        monkeypatch.setattr(compensation, "_MOST_ORDERS", orders)
        off = one.solved(grid, sweeps=2).values - one.target
        losses.append(((off @ one.hessian) * off).sum(2)[0])
    if format_.is_shared:
        assert losses[1].sum() <= losses[0].sum()
    else:
        assert losses[1].sum() < losses[0].sum()
        assert bool((losses[1] <= losses[0] * (1 + 1e-2)).all())


def lies_on_steps(row, low, high):
    """Whether a row shows its uniform grid: multiples of its largest value over k, for some k."""
    for k in range(1, max(high, -low) + 1):
        codes = row / np.abs(row).max() * k
        whole = np.allclose(codes, np.round(codes), atol=1e-6)
        if whole and codes.min() > low - 0.5 and codes.max() < high + 0.5:
            return True
    return False


@pytest.mark.parametrize("name", list(FORMATS))
def test_that_chosen_weights_show_the_grid_they_lie_on(name):
    one, format_ = problem(), FORMATS[name]
    weights = one.solved(format_.best(one.rows, one.row_importance), sweeps=2).values[0].numpy()
    if format_.is_scaled:
        assert known_rows(weights.astype(np.float32), format_.entries, format_.high) is not None
        return
    width = format_.block or (weights.size if format_.is_shared else weights.shape[1])
    flat = weights.reshape(1, -1) if format_.is_shared else weights
    rows = [row for at in range(0, flat.shape[1], width) for row in flat[:, at : at + width]]
    for row in rows:
        if format_.entries:
            codes = row / np.abs(row).max() * format_.high
            assert len(np.unique(np.round(codes))) <= format_.entries
            np.testing.assert_allclose(codes, np.round(codes), atol=1e-6)
        else:
            # With a zero point steps are counted from either end.
            span = format_.high - format_.low
            low, high = (-span, span) if format_.is_affine else (format_.low, format_.high)
            assert lies_on_steps(row, low, high)


def test_that_more_refits_never_lose_more():
    one, format_ = problem(outputs=12, columns=40), FORMATS["codebook3"]
    grid = format_.best(one.rows, one.row_importance)
    losses = [one.solved(grid, sweeps).loss for sweeps in (0, 1, 2, 4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] <= losses[1] < losses[0]


def test_that_the_target_does_on_quantized_inputs_what_the_weights_do_on_their_own():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(8, 4000))
    seen = np.round(real * 2) / 2 + 0.3 * rng.normal(size=(8, 4000))
    weight = rng.normal(size=(5, 8))
    moments = SecondMoments(1, 8)
    moments.add(torch.from_numpy(seen)[None], torch.from_numpy(real)[None])
    meant = torch.from_numpy(weight)[None]
    found = asymmetric_target(meant, moments.hessian, meant @ moments.across)[0].numpy()
    best = np.linalg.lstsq(seen.T, (weight @ real).T, rcond=None)[0].T
    # The ridge pulls it a twentieth of the way back to the weights themselves.
    assert np.abs(found - best).max() < 0.1 * np.abs(weight - best).max()


def test_that_moments_about_the_mean_are_those_of_numpy():
    rng = np.random.default_rng(2)
    seen, real = rng.normal(size=(2, 3, 50)) + 4, rng.normal(size=(2, 3, 50)) - 2
    halves = [SecondMoments(2, 3, has_mean=True) for _ in range(2)]
    for half, part in zip(halves, (slice(0, 20), slice(20, 50)), strict=True):
        half.add(torch.from_numpy(seen[..., part]), torch.from_numpy(real[..., part]))
    halves[0].join(halves[1])
    for group in range(2):
        both = np.cov(np.vstack([seen[group], real[group]]), bias=True)
        np.testing.assert_allclose(halves[0].hessian[group], both[:3, :3], atol=1e-10)
        np.testing.assert_allclose(halves[0].across[group], both[3:, :3], atol=1e-10)
    assert halves[0].count == 50


def test_that_what_is_missing_is_met_about_its_mean_too():
    rng = np.random.default_rng(3)
    seen, lost = rng.normal(size=(2, 3, 50)) + 4, rng.normal(size=(2, 4, 50)) - 2
    moments = SecondMoments(2, 3, has_mean=True)
    assert SecondMoments(2, 3).missing is None
    moments.add(torch.from_numpy(seen))
    for part in (slice(0, 20), slice(20, 50)):
        moments.add_missing(torch.from_numpy(seen[..., part]), torch.from_numpy(lost[..., part]))
    found = moments.missing
    assert found is not None
    for group in range(2):
        both = np.cov(np.vstack([seen[group], lost[group]]), bias=True)
        np.testing.assert_allclose(found[group], both[3:, :3], atol=1e-10)


def test_that_tables_find_values_that_repeat():
    values = np.array([-3.0, -1.0, 0.5, 4.0])
    rows = np.random.default_rng(0).choice(values, size=(5, 64))
    rows[:, :4] = values
    table = best_tables(rows, np.ones((1, 64)), 4, 127).table
    np.testing.assert_allclose(table, np.broadcast_to(values, (5, 4)), atol=4 / 127 / 2 + 1e-9)


def test_that_the_largest_entry_of_a_table_is_the_last_code():
    grid = TableGrid.snapped(np.array([[-0.2, 0.1, 0.3], [0.0, 0.0, 0.0]]), 63)
    codes = grid.table[0] / (0.3 / 63)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-9)
    assert codes[-1] == pytest.approx(63)
    assert not grid.table[1].any()


def test_that_a_refitted_scale_is_that_of_least_squares():
    one = problem(outputs=1)
    grid = best_uniform(one.rows, np.ones_like(one.rows), -8, 7)
    codes = np.stack([grid.nearest(j, one.rows[:, j])[0] for j in range(16)], axis=1)
    fitted = grid.refitted(codes, one.target, one.hessian)
    losses = [
        one.loss(torch.from_numpy(codes * scale)[None])
        for scale in float(fitted.scales[0, 0]) * np.array([0.99, 1.0, 1.01])
    ]
    assert losses[1] == min(losses)


def test_that_dead_inputs_leave_the_weights_as_they_are():
    target = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 2, 6)))
    silent = torch.zeros(1, 6, 6, dtype=torch.float64)
    assert torch.allclose(asymmetric_target(target, silent, target @ silent), target)
    chosen = Compensation(target, silent).solved(
        best_uniform(target[0].numpy(), np.ones((2, 6)), -127, 127), 1
    )
    assert torch.allclose(chosen.values, target, atol=0.03)


def test_that_broken_moments_are_one_clear_line():
    target, moments = torch.zeros(1, 2, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[None]
    with pytest.raises(CalibrationError, match="second moments of what it reads hold NaN or infinity"):
        Compensation(target, moments * torch.nan)
    with pytest.raises(CalibrationError, match="singular"):
        Compensation(target, -moments)


def test_that_vectors_of_many_groups_do_not_pile_up_while_they_wait(monkeypatch):
    monkeypatch.setattr(second_moments, "_WAITING", 500)
    rng = np.random.default_rng(4)
    parts = [torch.from_numpy(rng.normal(size=(6, 3, 10)).astype(np.float32)) for _ in range(8)]
    moments, held = SecondMoments(6, 3), []
    for part in parts:
        moments.add(part)
        held.append(sum(one.numel() for one, _ in moments._waiting))
    assert max(held) < 500
    x = torch.cat(parts, dim=2).double()
    torch.testing.assert_close(moments.hessian, x @ x.transpose(1, 2) / 80, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [24, 48])
def test_that_weights_chosen_on_few_vectors_err_less_on_others_behind_moments_that_lean(count):
    rng = np.random.default_rng(6)
    seen, others = (
        torch.from_numpy(rng.normal(size=(24, number)) + rng.normal(size=(1, number)))
        for number in (count, 4000)
    )
    weight = torch.from_numpy(rng.normal(size=(1, 8, 24)))
    hessian, future = (x[None] @ x.T[None] / x.shape[1] for x in (seen, others))
    errors = []
    for moments in (hessian, leaned(hessian, weight @ hessian, weight, count, 12)[0]):
        one = Compensation(weight, moments)
        off = one.solved(best_tables(one.rows, one.row_importance, 4, 63), 2).values - weight
        errors.append(float((off @ future * off).sum()))
    assert errors[1] < 0.9 * errors[0]


def test_that_moments_of_many_samples_stay_as_they_are_and_lean_the_more_the_fewer_there_are():
    one = problem(outputs=3, columns=5)
    weight, hessian = one.target, one.hessian
    met = weight @ hessian
    assert leaned(hessian, met, weight, 40, 4)[0] is hessian, "eight vectors a column"
    assert leaned(hessian, met, weight, 20, 5)[0] is hessian, "as many samples as columns"
    few, fewer = (leaned(hessian, met, weight, count, 1) for count in (20, 1))
    alike = torch.eye(5).double() * hessian.diagonal(dim1=1, dim2=2).mean()
    torch.testing.assert_close(few[0], 0.8 * hessian + 0.2 * alike)
    torch.testing.assert_close(few[1], weight @ few[0], msg="a target that is reached stays one")
    torch.testing.assert_close(fewer[0], (hessian + alike) / 2, msg="half at most")
