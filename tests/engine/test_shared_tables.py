"""Codebooks that channels share: one table of INT8 codes, a scale a channel, kept by whoever reads them."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.precision import ActivationPrecision, Granularity, LayerScheme, Precision, weight_format
from quantstudio.engine.quantization.quantized_weights import WeightSource, with_room_for_bias
from quantstudio.engine.quantization.shared_tables import known_rows, readable, shared_rows
from quantstudio.engine.quantization.weights import quantize_weight

RNG = np.random.default_rng(0)


def weights(rows: int = 24, columns: int = 40, seed: int = 0) -> np.ndarray:
    """Heavy tails, and channels whose sizes differ by orders of magnitude."""
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, (rows, columns)) * 10.0 ** rng.uniform(-2, 1, (rows, 1))).astype(np.float32)


def noise(weight: np.ndarray, name: str) -> float:
    found = quantize_weight(weight, LayerScheme(weight_format(name), ActivationPrecision.INT8), 0, max_bits=7)
    return float(np.square((weight - found.dequantized) / np.abs(weight).max(axis=1, keepdims=True)).mean())


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_that_one_table_lies_between_equal_steps_and_a_table_a_channel(bits):
    weight = weights(64, 64)
    assert noise(weight, f"codebook{bits}") < noise(weight, f"table{bits}") < noise(weight, f"int{bits}")


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_that_the_more_channels_share_a_table_the_more_is_lost(bits):
    # Every eight channels are of a shape of their own.
    weight = (
        np.sign(weights(64, 64)) * np.abs(weights(64, 64)) ** np.repeat(np.linspace(0.3, 2, 8), 8)[:, None]
    )
    weight = (weight / np.abs(weight).max(axis=1, keepdims=True)).astype(np.float32)
    losses = [noise(weight, f"{kind}{bits}") for kind in ("codebook", "group", "table")]
    assert losses == sorted(losses)


@pytest.mark.parametrize("shape", [(16, 1, 3, 3), (32, 5, 1, 1), (7, 33)], ids=str)
@pytest.mark.parametrize("max_bits", [8, 7])
def test_that_all_channels_use_one_table_and_what_lies_on_it_is_kept(shape, max_bits):
    weight, scheme = RNG.normal(size=shape).astype(np.float32), LayerScheme(Precision.TABLE3)
    found = quantize_weight(weight, scheme, 0, max_bits=max_bits)
    assert len(np.unique(found.values)) <= 8
    assert np.abs(found.values.astype(int)).max() == (1 << max_bits - 1) - 1
    assert found.scales.shape == shape[:1]
    again = quantize_weight(found.dequantized, scheme, 0, max_bits=max_bits)
    np.testing.assert_allclose(again.dequantized, found.dequantized, rtol=1e-6)


@pytest.mark.parametrize(("shape", "axis"), [((16, 4, 3, 3), 0), ((33, 40), 1)], ids=str)
def test_that_eight_channels_share_a_table_and_what_lies_on_it_is_kept(shape, axis):
    weight, scheme = RNG.normal(size=shape).astype(np.float32), LayerScheme(Precision.GROUP2)
    found = quantize_weight(weight, scheme, axis)
    rows = np.moveaxis(found.values, axis, 0).reshape(shape[axis], -1)
    parts = np.split(rows, Precision.GROUP2.tables_of(shape[axis]))
    assert max(len(np.unique(part)) for part in parts) == 4 < len(np.unique(rows))
    assert all(np.abs(part.astype(int)).max() == 127 for part in parts)
    again = quantize_weight(found.dequantized, scheme, axis)
    np.testing.assert_allclose(again.dequantized, found.dequantized, rtol=1e-6)


def test_that_channels_with_a_bias_that_needs_room_stay_on_their_tables():
    weight = weights(16, 24)
    weight[3] *= 1e-6
    source = WeightSource("w", weight, "", LayerScheme(Precision.GROUP2), 0, None)
    before = source.quantized()
    made, is_changed = with_room_for_bias(source, before, np.ones(16, np.float32), np.float32(0.01))
    assert is_changed
    assert all(set(np.unique(b)) >= set(np.unique(a)) for a, b in zip(
        np.split(made.values, 2), np.split(before.values, 2), strict=True))  # fmt: skip


def test_that_one_scale_and_one_table_serve_a_whole_weight():
    scheme = LayerScheme(Precision.TABLE2, granularity=Granularity.PER_TENSOR)
    found = quantize_weight(weights(), scheme, 0)
    assert found.scales.shape == ()
    assert len(np.unique(found.values)) <= 4


def test_that_dead_channels_stay_at_zero_and_leave_the_others_alone():
    weight = weights()
    alive = quantize_weight(weight, LayerScheme(Precision.TABLE3), 0)
    weight = np.vstack([weight, np.zeros((2, 40), np.float32)])
    found = quantize_weight(weight, LayerScheme(Precision.TABLE3), 0)
    np.testing.assert_allclose(found.dequantized[:-2], alive.dequantized, rtol=1e-6)
    assert np.abs(found.dequantized[-2:]).max() < 1e-30


def test_that_a_table_is_read_off_channels_that_do_not_reach_its_end():
    table = np.array([-63, -20, 9, 40])
    codes = table[RNG.integers(0, 4, (30, 12))]
    codes[:5] = table[RNG.integers(1, 4, (5, 12))]
    scales = RNG.uniform(0.1, 2.0, 30).astype(np.float32)
    rows = (codes * scales[:, None]).astype(np.float32)
    found = known_rows(rows, 4, 63)
    assert found is not None
    np.testing.assert_allclose(np.rint(rows / found[:, None]) * found[:, None], rows, rtol=1e-5)
    assert known_rows(rows, 3, 63) is None
    assert known_rows(weights(), 16, 63) is None


def test_that_channels_which_reach_the_end_by_chance_do_not_hide_the_table():
    codes = np.array([[-63, -20, 9, 40]] * 6 + [[9, 9, 9, 9], [-20, -20, -20, -20]])
    rows = (codes * np.linspace(0.5, 2.0, 8)[:, None]).astype(np.float32)
    found = known_rows(rows, 4, 63)
    assert found is not None
    whole = np.rint(rows / found[:, None])
    assert set(np.unique(whole)) == {-63, -20, 9, 40}
    np.testing.assert_allclose(whole * found[:, None], rows, rtol=1e-5)


def test_that_integers_are_brought_to_where_they_can_be_read():
    codes = np.array([[30.0, -10.0, 5.0], [29.0, 5.0, 5.0]])
    found, scales = readable(codes, np.ones(2), 63)
    assert found.max() == 63
    assert set(found[1].tolist()) <= set(found[0].tolist())  # 29 lies on no entry of the other
    np.testing.assert_allclose(found[0] * scales[0], codes[0], atol=0.5)


def test_that_weights_of_no_size_are_no_error():
    codes, scales = shared_rows(np.zeros((0, 4), np.float32), 4, 127)
    assert codes.shape == (0, 4)
    assert scales.shape == (0,)
