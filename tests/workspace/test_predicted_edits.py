"""Edits of a measured plan are predicted from what was measured of it."""

from dataclasses import replace

import pytest

from quantstudio.core.precision import FP32
from tests.workspace.conftest import Desk
from tests.workspace.putting import put_costs


@pytest.fixture
def timed(measured: Desk) -> Desk:
    """Costs and variants were timed on the same provider."""
    assert measured.known.costs is not None
    put_costs(measured.known, replace(measured.known.costs, provider="CPUExecutionProvider"))
    return measured


def speedup(desk: Desk) -> float:
    variant = desk.known.current_variant
    assert variant is not None
    assert variant.result is not None
    assert variant.result.speedup is not None
    return variant.result.speedup.value


def test_that_a_clip_by_hand_costs_accuracy_and_no_time(timed: Desk) -> None:
    known, times = timed.known, speedup(timed)
    before = known.prediction
    layer = next(one for one in known.layers if one.weight_name and one.name in known.weights)
    found = known.weights[layer.name].histogram
    reach = max(abs(found.minimum), abs(found.maximum))
    known.edits.set_weight_range(layer.name, -0.4 * reach, 0.4 * reach)
    after = known.prediction
    assert known.current_variant is None
    assert before is not None
    assert after is not None
    assert before.kl is not None
    assert after.kl is not None
    assert after.kl > before.kl
    assert after.latency_ms is not None
    assert after.fp32_ms is not None
    assert after.fp32_ms / after.latency_ms == pytest.approx(times)
    assert after.size_bytes == before.size_bytes


def test_that_one_flip_is_predicted_from_the_measured_plan(timed: Desk) -> None:
    known, times = timed.known, speedup(timed)
    known.edits.set_scheme([known.layers[0].name], "fp32")
    after = known.prediction
    assert after is not None
    assert after.latency_ms is not None
    assert after.fp32_ms is not None
    assert known.base is not None
    assert known.base.result is not None
    assert known.base.result.latency_ms is not None
    assert after.fp32_ms == known.base.result.latency_ms.p50
    assert after.fp32_ms / after.latency_ms == pytest.approx(times, rel=0.5)
    assert known.recipe.scheme_for(known.layers[0]) == FP32


def test_that_the_parts_of_layers_add_up_to_the_loss_of_the_plan(measured: Desk) -> None:
    known = measured.known
    losses, prediction = known.losses, known.prediction
    assert losses is not None
    assert prediction is not None
    assert prediction.accuracy is not None
    assert sum(losses.points(layer.name) for layer in known.layers) == pytest.approx(losses.total)
    if losses.total <= losses.budget:
        assert not losses.breaking
