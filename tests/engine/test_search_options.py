"""Options that a search leaves out change no plan it would choose."""

from __future__ import annotations

import itertools
from typing import ClassVar

import numpy as np
import pytest

from quantstudio.core.errors import RecipeError
from quantstudio.core.events import NullReporter, Severity
from quantstudio.core.precision import STATIC_INT8, Precision, at_weights, searched_formats
from quantstudio.core.search_results import Recover, recover_named
from quantstudio.engine.search.allocation import (
    Option,
    Problem,
    Quantity,
    Unit,
    allocate,
    uniform_allocation,
)
from quantstudio.engine.search.options import worth_a_run, worthwhile
from quantstudio.engine.search.recovery import STEP, needs_recovery, recovery_steps

KL, BITS, BYTES = Quantity.KL, Quantity.AVERAGE_BITS, Quantity.FILE_BYTES


def options(error: float, weights: int) -> tuple[Option, ...]:
    """Every searched format: a table takes bytes, and makes a tenth of the error."""
    found = []
    for row in searched_formats():
        size, kl = weights * row.bits / 8, error * 4.0 ** (8 - row.bits)
        if row.has_codebook:
            size, kl = size + 0.02 * weights, kl / 10
        costs = {KL: kl, BITS: float(row.bits), BYTES: size}
        found.append(Option(at_weights(STATIC_INT8, row), costs))
    return tuple(found)


def whole(layers: int) -> tuple[Unit, ...]:
    rng = np.random.default_rng(3)
    return tuple(
        Unit((f"l{i}",), options(float(10 ** rng.uniform(-6, -4)), int(rng.integers(500, 5000))))
        for i in range(layers)
    )


def pruned(units: tuple[Unit, ...]) -> Problem:
    return Problem(tuple(Unit(unit.layers, worthwhile(unit.options)) for unit in units))


def test_that_few_options_are_left_and_int8_is_one() -> None:
    left = worthwhile(options(1e-5, 1000))
    formats = [one.scheme.weights for one in left]
    assert Precision.INT8 in formats
    assert Precision.CODEBOOK2 in formats
    assert Precision.INT5 not in formats  # four bits and a table lose less
    assert len(left) < len(searched_formats()) - 3


@pytest.mark.parametrize("quantity", [BYTES, BITS])
def test_that_the_best_plan_loses_hardly_anything_by_it(quantity: Quantity) -> None:
    units = whole(12)
    full = Problem(units)
    low, high = allocate(full, {}, minimise=quantity), allocate(full, {}, minimise=KL)
    for share in (0.2, 0.5, 0.8):
        bound = {quantity: low.totals[quantity] + share * (high.totals[quantity] - low.totals[quantity])}
        best, found = allocate(full, bound).totals[KL], allocate(pruned(units), bound).totals[KL]
        assert found <= 1.1 * best


def test_that_single_formats_that_another_beats_by_far_are_not_run() -> None:
    problem = Problem(whole(3))
    plans = [plan for row in searched_formats() if (plan := uniform_allocation(problem, row)) is not None]
    run = {plan.schemes["l0"].weights for plan in worth_a_run(plans)}
    assert run >= {Precision.INT8, Precision.CODEBOOK4, Precision.CODEBOOK2, Precision.CODEBOOK1}
    assert run.isdisjoint({Precision.INT4, Precision.INT2})


def test_that_plans_of_few_bits_are_recovered_where_there_is_time() -> None:
    int8, four = STATIC_INT8, at_weights(STATIC_INT8, Precision.INT4)
    assert not needs_recovery({"a": int8})
    assert needs_recovery({"a": int8, "b": four})
    for asked, own, seconds in itertools.product(Recover, ((), (STEP,)), (0.1, 60.0)):
        steps, why = recovery_steps(asked, (STEP,), own, seconds)
        is_done = not own and (asked is Recover.GPTQ or (asked is Recover.AUTO and seconds < 1))
        assert [step.name for step in steps] == [STEP] * is_done
        assert ("minutes" in why) == (asked is Recover.AUTO and not own and seconds > 1)
    with pytest.raises(RecipeError, match="no step"):
        recovery_steps(Recover.GPTQ, (), (), 0.1)


def test_that_a_search_says_first_what_recovering_plans_of_a_large_network_costs() -> None:
    class Told(NullReporter):
        said: ClassVar[list[str]] = []

        def message(self, text: str, severity: Severity = Severity.INFO) -> None:
            self.said.append(text)

    recovery_steps(Recover.AUTO, (STEP,), (), 0.1, Told())
    assert not Told.said
    # EfficientNet-Lite0 on 128 photos: 2.5 s a pass.
    steps, _ = recovery_steps(Recover.AUTO, (STEP,), (), 2.5, Told())
    assert steps
    recovery_steps(Recover.AUTO, (STEP,), (), 0.22, Told())
    assert Told.said == [
        "Recovering a plan takes some 153 s: 10 minutes for 4, the most.",
        "Recovering a plan takes some 16 s: 1 minute for 4, the most.",
    ]


def test_that_an_unknown_way_to_recover_is_refused() -> None:
    with pytest.raises(RecipeError, match="unknown way"):
        recover_named("magic")
