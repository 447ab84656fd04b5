from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstudio.core.errors import BuildError
from quantstudio.core.packing import group_axis
from quantstudio.core.precision import FP16, Granularity, LayerScheme, WeightRange, weight_format
from quantstudio.engine.quantization.weights import quantize_weight


def scheme(weights="int8", granularity="per-channel", weight_range="minmax", group_size=32):
    return LayerScheme(
        weight_format(weights),
        granularity=Granularity(granularity),
        weight_range=WeightRange(weight_range),
        group_size=group_size,
    )


def test_that_per_channel_int8_maps_the_largest_magnitude_of_each_row_to_127():
    weight = np.array([[0.5, -1.0, 0.25], [254.0, 2.0, 0.0]], dtype=np.float32)
    result = quantize_weight(weight, scheme(), 0)
    assert result.scales == pytest.approx([1 / 127, 2.0])
    assert result.values.tolist() == [[64, -127, 32], [127, 1, 0]]
    assert result.values.dtype == np.int8
    assert result.axis == 0
    np.testing.assert_allclose(result.dequantized[1], [254.0, 2.0, 0.0])


def test_that_per_tensor_uses_one_scale_of_no_dimensions():
    result = quantize_weight(np.array([[7.0, -3.5]], dtype=np.float32), scheme("int4", "per-tensor"), 0)
    assert result.scales.shape == ()
    assert float(result.scales) == 1.0
    assert result.values.tolist() == [[7, -4]]
    assert result.axis is None


def test_that_binary_is_sign_times_mean_magnitude():
    weight = np.array([[1.0, -3.0, 0.0, 4.0]], dtype=np.float32)
    result = quantize_weight(weight, scheme("binary"), 0)
    assert result.values.tolist() == [[1, -1, 1, 1]]
    assert result.scales == pytest.approx([2.0])


def test_that_binary_mean_ignores_the_padding_of_the_last_group():
    weight = np.array([[1.0, 1.0, 1.0, 1.0, 6.0]], dtype=np.float32)
    result = quantize_weight(weight, scheme("binary", "per-group", group_size=4), 0)
    assert result.scales.tolist() == [[1.0, 6.0]]


@pytest.mark.parametrize("channel_axis", [0, 1])
def test_that_groups_run_along_the_reduced_axis_with_a_ragged_last_one(channel_axis):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(10, 6)).astype(np.float32)
    result = quantize_weight(weight, scheme("int4", "per-group", group_size=4), channel_axis)
    axis = 1 - channel_axis
    assert result.axis == axis
    assert result.group_size == 4
    groups = -(-weight.shape[axis] // 4)
    assert result.scales.shape[axis] == groups
    last = np.take(weight, range((groups - 1) * 4, weight.shape[axis]), axis)
    expected = np.abs(last).max(axis=axis) / 7
    np.testing.assert_allclose(np.take(result.scales, groups - 1, axis), expected, rtol=1e-6)


def test_that_groups_of_a_convolution_weight_become_channels():
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    result = quantize_weight(weight, scheme("int4", "per-group"), 0)
    assert result.scales.shape == (8,)
    assert result.group_size == 0


def test_that_batched_matrices_group_along_the_second_last_axis():
    assert group_axis((4, 16, 8), 2) == 1
    assert group_axis((4, 16, 8), -1) == 1
    assert group_axis((8, 4, 3, 3), 0) is None
    assert group_axis((5,), 0) is None


@given(
    bits=st.sampled_from(["int2", "int3", "int4", "int6", "int8"]),
    seed=st.integers(0, 1000),
    magnitude=st.floats(1e-6, 1e6),
    granularity=st.sampled_from(["per-tensor", "per-channel", "per-group"]),
)
@settings(max_examples=40)
def test_that_the_error_is_at_most_half_a_step_and_zero_stays_zero(bits, seed, magnitude, granularity):
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(6, 20)) * magnitude).astype(np.float32)
    weight[0, 0] = 0
    result = quantize_weight(weight, scheme(bits, granularity, group_size=8), 0)
    high = 2 ** (weight_format(bits).bits - 1) - 1
    assert np.abs(result.values).max() <= high
    assert result.values[0, 0] == 0
    step = np.abs(weight).max() / high
    assert np.abs(result.dequantized - weight).max() <= step / 2 * 1.0001


@pytest.mark.parametrize("bits", ["int2", "int3", "int4", "int8"])
@pytest.mark.parametrize("columns", [24, 400])
def test_that_least_squares_never_has_more_error_than_the_full_range(bits, columns):
    weight = np.random.default_rng(1).standard_t(3, size=(16, columns)).astype(np.float32)
    full = quantize_weight(weight, scheme(bits), 0)
    fitted = quantize_weight(weight, scheme(bits, weight_range="mse"), 0)
    before = ((full.dequantized - weight) ** 2).sum(axis=1)
    after = ((fitted.dequantized - weight) ** 2).sum(axis=1)
    assert (after <= before * 1.00001).all()
    if bits != "int8":
        assert after.sum() < 0.95 * before.sum()


def test_that_least_squares_is_close_to_a_fine_search():
    weight = np.random.default_rng(2).normal(size=(1, 300)).astype(np.float32)
    fitted = quantize_weight(weight, scheme("int4", weight_range="mse"), 0)
    errors = []
    for scale in np.linspace(0.05, 0.6, 2000):
        q = np.clip(np.rint(weight / scale), -7, 7)
        errors.append(((q * scale - weight) ** 2).sum())
    assert ((fitted.dequantized - weight) ** 2).sum() <= 1.02 * min(errors)


def test_that_a_hand_set_clip_range_bounds_values_and_scale():
    weight = np.array([[0.1, 5.0], [-5.0, 0.2]], dtype=np.float32)
    result = quantize_weight(weight, scheme(weight_range="mse"), 0, clip=(-1.0, 0.5))
    assert result.dequantized.max() <= 0.51
    assert result.dequantized.min() >= -1.01
    assert result.scales == pytest.approx([0.5 / 127, 1 / 127])


def test_that_zero_weights_get_a_usable_scale():
    result = quantize_weight(np.zeros((3, 4), np.float32), scheme("int4", weight_range="mse"), 0)
    assert (result.scales > 0).all()
    assert not result.values.any()


def test_that_nan_weights_and_float_schemes_are_refused():
    with pytest.raises(BuildError, match="NaN"):
        quantize_weight(np.array([[np.nan]], np.float32), scheme(), 0)
    with pytest.raises(BuildError, match="no integer grid"):
        quantize_weight(np.ones((1, 1), np.float32), FP16, 0)
