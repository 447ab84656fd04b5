from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantstudio.core.errors import BuildError
from quantstudio.core.packing import group_axis
from quantstudio.core.precision import FP16, Granularity, LayerScheme, WeightRange, weight_format
from quantstudio.engine.quantization.weights import integer_levels, quantize_weight


def scheme(weights="int8", granularity="per-channel", weight_range="minmax", group_size=32):
    return LayerScheme(
        weight_format(weights),
        granularity=Granularity(granularity),
        weight_range=WeightRange(weight_range),
        group_size=group_size,
    )


def test_that_per_channel_int8_maps_the_largest_magnitude_of_each_row_to_127():
    weight = np.array([[0.51, -1.0, 0.257], [254.0, 2.1, 77.3]], dtype=np.float32)
    result = quantize_weight(weight, scheme(), 0)
    assert result.scales == pytest.approx([1 / 127, 2.0])
    assert result.values.tolist() == [[65, -127, 33], [127, 1, 39]]
    assert result.values.dtype == np.int8
    assert result.axis == 0
    np.testing.assert_allclose(result.dequantized[1], [254.0, 2.0, 78.0])


def test_that_per_tensor_uses_one_scale_of_no_dimensions():
    result = quantize_weight(np.array([[7.0, -3.8]], dtype=np.float32), scheme("int4", "per-tensor"), 0)
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
    expected = np.maximum(last.max(axis=axis) / 7, last.min(axis=axis) / -8)
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
    low, high = integer_levels(weight_format(bits))
    assert low <= result.values.min() <= result.values.max() <= high
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
        q = np.clip(np.rint(weight / scale), -8, 7)
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


@pytest.mark.parametrize(
    ("name", "max_bits", "levels"),
    [
        ("int8", 8, (-127, 127)),
        ("int8", 7, (-63, 63)),
        ("int6", 7, (-32, 31)),
        ("int5", 8, (-16, 15)),
        ("int2", 8, (-2, 1)),
        ("ternary", 8, (-1, 1)),
        ("binary", 8, (-1, 1)),
        ("codebook2", 8, (-127, 127)),
        ("codebook2", 7, (-63, 63)),
    ],
)
def test_that_every_format_says_which_integers_it_takes(name, max_bits, levels):
    assert integer_levels(weight_format(name), max_bits) == levels


@pytest.mark.parametrize("bits", ["int2", "int3", "int4", "int5"])
@pytest.mark.parametrize("weight_range", ["minmax", "mse"])
def test_that_all_levels_are_never_worse_than_the_symmetric_ones_of_older_files(bits, weight_range):
    weight = np.random.default_rng(3).normal(size=(32, 60)).astype(np.float32)
    errors = []
    for is_narrow in (False, True):
        found = quantize_weight(weight, scheme(bits, weight_range=weight_range), 0, is_narrow=is_narrow)
        errors.append(((found.dequantized - weight) ** 2).sum())
    assert errors[0] < errors[1]
    assert found.values.min() == -found.values.max()


@pytest.mark.parametrize("name", ["int8", "int6", "int5", "int4", "int3", "int2", "ternary", "binary"])
@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel", "per-group"])
@pytest.mark.parametrize("max_bits", [7, 8])
def test_that_integers_somebody_chose_are_kept(name, granularity, max_bits):
    rng = np.random.default_rng(4)
    low, high = integer_levels(weight_format(name), max_bits)
    codes = rng.integers(low, high + 1, size=(12, 64))
    if name == "binary":
        codes[codes == 0] = 1
    scale = np.exp(rng.normal(size=(12, 1))) if granularity != "per-tensor" else 0.3
    weight = (codes * scale).astype(np.float32)
    found = quantize_weight(weight, scheme(name, granularity, "mse"), 0, max_bits=max_bits)
    np.testing.assert_allclose(found.dequantized, weight, rtol=2e-6)


def test_that_integers_that_leave_the_largest_level_free_are_kept():
    weight = (np.array([[3, -1, 0, 2], [-5, 1, 4, 2]]) * np.float32(0.37)).astype(np.float32)
    found = quantize_weight(weight, scheme("int8"), 0)
    assert found.values.tolist() == [[3, -1, 0, 2], [-5, 1, 4, 2]]
    assert (quantize_weight(weight, scheme("int8"), 0, is_narrow=True).values.max(axis=1) > 100).all()


def test_that_a_row_off_the_grid_is_rounded_and_others_stay():
    rng = np.random.default_rng(5)
    weight = (rng.integers(-8, 8, size=(3, 40)) * 0.2).astype(np.float32)
    weight[1] = rng.normal(size=40)
    found = quantize_weight(weight, scheme("int4", weight_range="mse"), 0)
    alone = quantize_weight(weight[1:2], scheme("int4", weight_range="mse"), 0)
    np.testing.assert_allclose(found.dequantized[::2], weight[::2], rtol=1e-6)
    np.testing.assert_array_equal(found.values[1:2], alone.values)


def test_that_a_pruned_row_of_few_values_is_looked_at_whole():
    weight = np.zeros((2, 500), np.float32)
    weight[:, ::50] = np.random.default_rng(6).normal(size=(2, 10))
    weight[1] = np.rint(weight[1] * 3)
    found = quantize_weight(weight, scheme("int4"), 0)
    assert np.abs(found.dequantized[0] - weight[0]).max() > 1e-3
    np.testing.assert_allclose(found.dequantized[1], weight[1], rtol=1e-6)


def test_that_ternary_has_the_scale_of_least_squared_error():
    weight = np.random.default_rng(7).normal(size=(1, 200)).astype(np.float32)
    found = quantize_weight(weight, scheme("ternary"), 0)
    error = ((found.dequantized - weight) ** 2).sum()
    scales = np.linspace(0.05, 3, 2000)[:, None]
    tried = ((np.clip(np.rint(weight / scales), -1, 1) * scales - weight) ** 2).sum(axis=1)
    assert set(np.unique(found.values)) == {-1, 0, 1}
    assert error <= tried.min() * 1.0001


@pytest.mark.parametrize("name", ["codebook1", "codebook2", "codebook3", "codebook4"])
@pytest.mark.parametrize("max_bits", [7, 8])
def test_that_a_codebook_has_so_many_codes_a_channel_and_its_largest_on_the_end(name, max_bits):
    weight = np.random.default_rng(8).normal(size=(6, 16, 3, 3)).astype(np.float32)
    found = quantize_weight(weight, scheme(name), 0, max_bits=max_bits)
    high = integer_levels(weight_format(name), max_bits)[1]
    for row in found.values.reshape(6, -1):
        assert len(np.unique(row)) <= 2 ** weight_format(name).bits
        assert np.abs(row).max() == high
    again = quantize_weight(found.dequantized, scheme(name), 0, max_bits=max_bits)
    np.testing.assert_array_equal(again.values, found.values)


@pytest.mark.parametrize(
    ("name", "uniform"), [("codebook2", "int2"), ("codebook3", "int3"), ("codebook4", "int4")]
)
def test_that_a_codebook_is_nearer_than_equal_steps(name, uniform):
    weight = np.random.default_rng(9).standard_t(4, size=(16, 300)).astype(np.float32)
    error = [
        ((quantize_weight(weight, scheme(one, weight_range="mse"), 0).dequantized - weight) ** 2).sum()
        for one in (name, uniform)
    ]
    assert error[0] < 0.9 * error[1]


def test_that_a_codebook_finds_the_best_of_two_codes():
    weight = np.random.default_rng(10).exponential(size=(4, 50)).astype(np.float32)
    found = quantize_weight(weight, scheme("codebook1"), 0)
    for row, got in zip(np.sort(weight, axis=1), found.dequantized, strict=True):
        best = min(row[:k].var() * k + row[k:].var() * (50 - k) for k in range(1, 50))
        assert ((np.sort(got) - row) ** 2).sum() <= 1.02 * best


def test_that_codebooks_of_odd_rows_are_sane():
    rows = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [-2, -2, 3, 3], [1e-30, 0, 0, 1]], np.float32)
    found = quantize_weight(rows, scheme("codebook2"), 0)
    assert (found.scales > 0).all()
    np.testing.assert_allclose(found.dequantized, rows, atol=0.02)
    per_tensor = quantize_weight(rows, scheme("codebook2", "per-tensor"), 0)
    assert per_tensor.scales.shape == ()
    assert len(np.unique(per_tensor.values)) <= 4
    grouped = quantize_weight(rows, scheme("codebook2", "per-group"), 0)
    np.testing.assert_array_equal(grouped.values, found.values)
