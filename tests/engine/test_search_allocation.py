"""The knapsack against every plan counted out, its bounds, and what it says when there is no plan."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstudio.core.precision import FP32, STATIC_INT8, at_weights, weight_format
from quantstudio.engine.search.allocation import (
    InfeasibleBudgetError,
    Option,
    Problem,
    Quantity,
    Unit,
    allocate,
    allocation_of,
    alternative,
    keeps,
    uniform_allocation,
)
from quantstudio.engine.search.frontier import not_dominated, pareto_front

INT8, INT4, INT2 = (at_weights(STATIC_INT8, weight_format(name)) for name in ("int8", "int4", "int2"))
KL, BITS, BYTES = Quantity.KL, Quantity.AVERAGE_BITS, Quantity.FILE_BYTES


def option(scheme, kl, size):
    return Option(scheme, {KL: kl, BYTES: size})


def unit(name, *options):
    return Unit((name,), options)


def random_problem(layers, seed):
    rng = np.random.default_rng(seed)
    units = []
    for index in range(layers):
        count = int(rng.integers(10, 1000))
        error = 10 ** rng.uniform(-6, -3)
        units.append(
            unit(
                f"l{index}",
                *(
                    option(s, error * 4 ** (8 - s.weights.bits), count * s.weights.bits / 8)
                    for s in (INT8, INT4, INT2)
                ),
            )
        )
    return Problem(tuple(units))


def every_plan(problem):
    for choice in itertools.product(*(range(len(u.options)) for u in problem.units)):
        yield allocation_of(problem, choice)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), share=st.floats(0.26, 0.99))
def test_that_the_plan_is_the_best_of_all(seed, share):
    problem = random_problem(5, seed)
    bound = share * sum(u.options[0].costs[BYTES] for u in problem.units)
    best = min(p.totals[KL] for p in every_plan(problem) if p.totals[BYTES] <= bound)
    found = allocate(problem, {BYTES: bound})
    assert found.totals[BYTES] <= bound
    assert found.totals[KL] <= best * (1 + 1e-3)


def test_that_equal_problems_give_equal_plans():
    plans = {allocate(random_problem(30, 3), {BYTES: 4000}).choice for _ in range(3)}
    assert len(plans) == 1


def test_that_bytes_can_be_what_is_made_small():
    problem = Problem(
        (
            unit("a", option(INT8, 1, 100), option(INT4, 3, 50)),
            unit("b", option(INT8, 1, 10), option(INT4, 3, 5)),
        )
    )
    found = allocate(problem, {KL: 4.0}, minimise=BYTES)
    assert found.schemes == {"a": INT4, "b": INT8}
    assert found.totals[BYTES] == 60


def test_that_several_bounds_hold_together():
    rows = [
        (INT8, 1.0, 8.0, 0.5),
        (INT4, 2.0, 4.0, 0.5),
        (FP32, 0.0, 32.0, 1.0),
    ]
    options = tuple(Option(s, {KL: k, BITS: b / 4, Quantity.LATENCY_RATIO: t / 4}) for s, k, b, t in rows)
    problem = Problem(tuple(Unit((f"l{i}",), options) for i in range(4)))
    found = allocate(problem, {BITS: 13.0, Quantity.LATENCY_RATIO: 0.7})
    assert list(found.schemes.values()).count(FP32) == 1
    assert found.totals[Quantity.LATENCY_RATIO] == pytest.approx(0.625)


def test_that_the_rest_of_the_model_counts():
    problem = Problem((unit("a", option(INT8, 1, 100), option(INT4, 2, 50)),), base={BYTES: 30})
    assert allocate(problem, {BYTES: 130}).schemes == {"a": INT8}
    assert allocate(problem, {BYTES: 129}).schemes == {"a": INT4}


def test_that_options_may_save_what_the_model_takes():
    slow = Option(INT8, {KL: 1.0, Quantity.LATENCY_RATIO: -0.1})
    fast = Option(INT4, {KL: 2.0, Quantity.LATENCY_RATIO: -0.4})
    problem = Problem(
        (Unit(("a",), (slow, fast)), Unit(("b",), (slow, fast))), base={Quantity.LATENCY_RATIO: 1.0}
    )
    found = allocate(problem, {Quantity.LATENCY_RATIO: 0.6})
    assert sorted(s.weights.bits for s in found.schemes.values()) == [4, 8]
    with pytest.raises(InfeasibleBudgetError) as raised:
        allocate(problem, {Quantity.LATENCY_RATIO: 0.1})
    assert raised.value.nearest == pytest.approx(0.2)


def test_that_joined_layers_agree_on_their_activations():
    free = (option(FP32, 0.0, 400), option(INT8, 1.0, 100))
    fixed = (option(FP32, 0.0, 4000), option(INT8, 1.0, 1000))
    apart = Problem((Unit(("a",), free), Unit(("b",), fixed)))
    joined = Problem(apart.units, joins=((0, 1),))
    assert allocate(apart, {BYTES: 2000}).schemes == {"a": FP32, "b": INT8}
    assert allocate(joined, {BYTES: 2000}).schemes == {"a": INT8, "b": INT8}


def test_that_joined_layers_may_differ_in_bits():
    problem = Problem(
        (
            unit("a", option(INT8, 1, 100), option(INT4, 9, 50)),
            unit("b", option(INT8, 1, 100), option(INT4, 2, 50)),
        ),
        joins=((0, 1),),
    )
    assert allocate(problem, {BYTES: 150}).schemes == {"a": INT8, "b": INT4}


def test_that_one_bound_out_of_reach_is_named_with_the_nearest_value():
    problem = random_problem(4, 1)
    smallest = sum(u.options[-1].costs[BYTES] for u in problem.units)
    with pytest.raises(InfeasibleBudgetError) as raised:
        allocate(problem, {BYTES: smallest / 2, KL: 1e9})
    assert raised.value.quantity is BYTES
    assert raised.value.nearest == pytest.approx(smallest)
    assert "file bytes" in raised.value.one_line


def test_that_bounds_in_each_others_way_name_the_one_missed_by_least():
    problem = Problem((unit("a", option(INT8, 1.0, 100), option(INT4, 4.0, 50)),))
    with pytest.raises(InfeasibleBudgetError) as raised:
        allocate(problem, {KL: 1.0, BYTES: 90})
    assert raised.value.quantity is BYTES
    assert raised.value.nearest == 100
    assert raised.value.allocation is not None
    assert raised.value.allocation.schemes == {"a": INT8}
    # 40 bytes are out of reach whatever the KL may be; what can be had keeps the KL all the same.
    with pytest.raises(InfeasibleBudgetError) as raised:
        allocate(problem, {KL: 1.0, BYTES: 40})
    assert (raised.value.quantity, raised.value.nearest) == (BYTES, 100)


def test_that_the_next_best_plan_can_be_asked_for():
    problem = random_problem(4, 2)
    first = allocate(problem, {})
    second = alternative(problem, {}, excluded=[first])
    ranked = sorted(every_plan(problem), key=lambda plan: plan.totals[KL])
    assert second is not None
    assert second.totals[KL] == pytest.approx(ranked[1].totals[KL], rel=1e-3)
    assert (
        alternative(
            Problem((unit("a", option(INT8, 1, 1)),)),
            {},
            excluded=[allocation_of(Problem((unit("a", option(INT8, 1, 1)),)), [0])],
        )
        is None
    )


def test_that_nothing_to_choose_is_a_plan_too():
    assert allocate(Problem((), base={BYTES: 5}), {BYTES: 5}).totals[BYTES] == 5


def test_that_a_uniform_plan_leaves_alone_what_cannot_follow():
    problem = Problem(
        (unit("a", option(INT8, 1, 8), option(INT4, 2, 4)), unit("pinned", option(FP32, 0, 32)))
    )
    uniform = uniform_allocation(problem, INT4.weights)
    assert uniform is not None
    assert uniform.schemes == {"a": INT4, "pinned": FP32}
    assert uniform_allocation(problem, INT2.weights) is None


def test_that_the_front_rises_in_bytes_and_falls_in_kl():
    front = pareto_front(random_problem(8, 5), axis=BYTES, points=20)
    sizes, losses = zip(*((p.totals[BYTES], p.totals[KL]) for p in front), strict=True)
    assert len(front) > 10
    assert list(sizes) == sorted(set(sizes))
    assert list(losses) == sorted(set(losses), reverse=True)


def test_that_no_plan_of_a_small_problem_beats_the_front():
    problem = random_problem(4, 7)
    front = pareto_front(problem, axis=BYTES, points=40)
    for plan in every_plan(problem):
        assert any(
            p.totals[BYTES] <= plan.totals[BYTES] * 1.05 and p.totals[KL] <= plan.totals[KL] * 1.001
            for p in front
        )


def test_that_dominated_and_repeated_plans_are_left_out():
    problem = random_problem(3, 0)
    good, same, bad = (allocation_of(problem, c) for c in ([0, 0, 0], [0, 0, 0], [0, 0, 1]))
    worse = allocation_of(problem, [0, 0, 0])
    assert not_dominated([good, same, worse], BYTES) == (good,)
    assert {p.choice for p in not_dominated([good, bad], BYTES)} == {good.choice, bad.choice}


def test_that_the_solver_keeps_standard_output_clean(capfd):
    problem = random_problem(60, 5)  # one that HiGHS prints about
    bound = 0.4 * sum(u.options[0].costs[BYTES] for u in problem.units)
    assert keeps(allocate(problem, {BYTES: bound}), {BYTES: bound})
    assert capfd.readouterr().out == ""
