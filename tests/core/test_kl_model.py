"""KL of plans from KLs of layers, by hand-made plans."""

import math
from dataclasses import replace

import numpy as np
import pytest

from quantstudio.core.precision import (
    FP16,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Granularity,
    LayerScheme,
    Precision,
)
from quantstudio.core.predict.kl_model import (
    ACTIVATIONS,
    KlModel,
    fitted_kl,
    kl_parts,
    part_names,
    plan_parts,
    prior_of,
)
from quantstudio.core.results import LayerSensitivity


def parts_array(parts):
    """Parts in the order of `part_names`."""
    return np.asarray([parts.get(name, 0.0) for name in part_names()])


ROW = LayerSensitivity(
    "a", 0.1, 0, 1, 20.0, by_precision={"int8": 0.01, "int4": 0.5, "int4/group128": 0.3, ACTIVATIONS: 0.02}
)


def test_that_parts_name_what_a_scheme_costs():
    assert kl_parts(ROW, STATIC_INT8) == {"int8": 0.01, ACTIVATIONS: 0.02}
    assert kl_parts(ROW, WEIGHT_INT8) == {"int8": 0.01}
    assert kl_parts(ROW, FP16) == {}
    assert kl_parts(None, STATIC_INT8) is None
    assert kl_parts(ROW, LayerScheme(Precision.INT2)) is None
    assert kl_parts(LayerSensitivity("g", 0, 0, 0, 0, by_precision={"int8": 0.1}), STATIC_INT8) is None


def test_that_an_embedding_has_no_activations_to_pay_for():
    row = LayerSensitivity("g", 0, 0, 0, 0, by_precision={"int8": 0.1})
    assert kl_parts(row, STATIC_INT8, reads_floats=False) == {"int8": 0.1}
    assert plan_parts({"g": STATIC_INT8, "unknown": STATIC_INT8}, {"g": row}) == {"int8": 0.1}


def test_that_the_nearest_granularity_is_read():
    assert kl_parts(ROW, WEIGHT_INT4) == {"int4": 0.3}
    other_groups = LayerScheme(Precision.INT4, granularity=Granularity.PER_GROUP, group_size=64)
    assert kl_parts(ROW, other_groups) == {"int4": 0.5}


def test_that_what_channels_lose_is_no_answer_for_one_scale_a_tensor():
    per_tensor = LayerScheme(Precision.INT4, granularity=Granularity.PER_TENSOR)
    assert kl_parts(ROW, per_tensor) is None
    known = replace(ROW, by_precision=ROW.by_precision | {"int4/tensor": 0.9})
    assert kl_parts(known, per_tensor) == {"int4": 0.9}


def test_that_a_target_that_keeps_weights_to_7_bits_pays_for_coarser_steps():
    parts = kl_parts(ROW, STATIC_INT8, weight_bits=7)
    assert parts is not None
    assert parts["int8"] == pytest.approx(0.01 * (127 / 63) ** 2)
    assert parts[ACTIVATIONS] == 0.02
    assert kl_parts(ROW, WEIGHT_INT8, weight_bits=7) == {"int8": 0.01}  # unpacked, not multiplied as integers


def test_that_a_sum_and_its_kl_are_each_others_inverse():
    model = KlModel()
    for kl in (1e-5, 0.01, 0.5, 2.0):
        assert model.kl_of(model.linear_of(kl)) == pytest.approx(kl)
    assert model.kl_of(0.0) == 0.0
    assert model.kl({"int8": 0.01, ACTIVATIONS: 0.02}) == pytest.approx(
        math.exp(0.4) * 0.03 * (1 + 0.03 / 0.003) ** 0.25
    )


def test_that_measured_plans_teach_a_factor_for_each_precision():
    rng = np.random.default_rng(0)
    factors = {"int8": 1.0, "int4": 2.0, ACTIVATIONS: 0.7}
    plans = []
    for _ in range(40):
        parts = {name: float(rng.uniform(0.0, 1e-4)) for name in factors}
        plans.append((parts, 1.3 * sum(factors[name] * value for name, value in parts.items())))
    model = fitted_kl([(parts_array(parts), kl) for parts, kl in plans])
    for parts, kl in plans:
        assert model.kl(parts) == pytest.approx(kl, rel=0.1)
    assert model.scale["int4"] / model.scale["int8"] == pytest.approx(2.0, rel=0.15)
    assert model.spread < KlModel().spread
    assert model.deviation(parts_array(plans[0][0])) < KlModel().deviation(parts_array(plans[0][0])) / 2


def test_that_the_posterior_is_the_exact_one_for_the_level_alone():
    # One part and tiny sums make ln KL = a + d + ln x: a normal prior met by one normal observation.
    model = fitted_kl([(parts_array({"int8": 1e-6}), 1e-6 * math.exp(1.4))])
    prior, variance = 0.5**2 + 0.3**2, model.spread**2
    shift = model.mean[0] + math.log(model.factors[0]) - 0.4
    assert shift == pytest.approx(prior / (prior + variance), rel=0.02)


def test_that_plans_that_tell_nothing_leave_the_prior():
    ruined = [
        (parts_array({"int2": 5.0}), 9.0),
        (parts_array({"int2": 5.0}), math.inf),
        (parts_array({}), 0.1),
    ]
    assert fitted_kl(ruined) == KlModel()
    assert KlModel().deviation(parts_array({})) == 0.0


def test_that_a_ruined_network_ends_where_outputs_say_nothing():
    model, endless = prior_of(10), prior_of(0)
    assert endless == KlModel()
    kls = [model.kl({"int2": part}) for part in (1e-6, 1e-3, 0.1, 10.0, 1e4)]
    assert kls == sorted(kls)
    assert kls[-1] == pytest.approx(math.log(10), rel=1e-3)
    assert kls[0] == pytest.approx(endless.kl({"int2": 1e-6}), rel=1e-4)
    assert endless.kl({"int2": 10.0}) > 20
    # There the layers decide nothing any more, but where that end lies is known no better than so.
    assert model.deviation(parts_array({"int2": 1e4})) == pytest.approx(
        math.hypot(0.35, model.spread), rel=0.01
    )


def test_that_plans_lie_the_farther_apart_the_more_they_lose_until_all_is_lost():
    sure = replace(prior_of(10), covariance=tuple(map(tuple, np.zeros_like(prior_of(10).covariance))))
    small, some, all_of_it = (sure.deviation(parts_array({"int4": part})) for part in (1e-6, 0.05, 1e4))
    assert small == pytest.approx(sure.spread, rel=1e-3)
    assert some > 1.5 * small
    assert all_of_it == pytest.approx(sure.spread, rel=0.01)


@pytest.mark.parametrize("part", [1e-5, 0.01, 1.0])
def test_that_the_doubt_follows_from_every_coefficient(part):
    # The deviation of one coefficient alone is that of the KL when it moves by as much.
    prior, parts = prior_of(10), {"int4": part, ACTIVATIONS: part / 3}
    values = parts_array(parts)
    for index in (0, 1 + part_names().index("int4"), len(prior.mean) - 2, len(prior.mean) - 1):
        covariance = np.zeros((len(prior.mean), len(prior.mean)))
        covariance[index, index] = 1e-6
        alone = replace(prior, covariance=tuple(map(tuple, covariance.tolist())), spread=0.0)
        mean = np.asarray(prior.mean)
        mean[index] += 0.001
        moved = replace(prior, mean=tuple(mean.tolist())).kl(parts)
        assert alone.deviation(values) == pytest.approx(abs(math.log(moved / prior.kl(parts))), rel=0.02)


def test_that_the_interval_behind_five_measured_plans_holds_what_it_says():
    rng, prior = np.random.default_rng(3), prior_of(10)
    held = []
    for _ in range(12):
        own = replace(prior, mean=tuple(rng.normal(prior.mean, np.sqrt(np.diag(prior.covariance))).tolist()))
        plans = [
            parts_array({"int4": float(np.exp(x)), "int8": 1e-4, "int2": float(np.exp(y))})
            for x, y in rng.uniform(-9, 0, (20, 2))
        ]
        alone = replace(own, covariance=tuple(map(tuple, np.zeros_like(own.covariance))))
        found = [
            own.kl_of(float(own.factors @ x)) * math.exp(alone.deviation(x) * rng.standard_normal())
            for x in plans
        ]
        model = fitted_kl(list(zip(plans[:5], found[:5], strict=True)), prior)
        held += [
            abs(math.log(kl / model.kl_of(float(model.factors @ x)))) < 1.645 * model.deviation(x)
            for x, kl in zip(plans[5:], found[5:], strict=True)
        ]
    assert 0.85 <= np.mean(held) <= 0.97
