from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from quantstudio.core.data_spec import Transform, parse_transform
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.transform import bind_transform, resize_bilinear, resize_matrix

RNG = np.random.default_rng(0)
U8, F32, I64 = np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int64)


def info(*shape: int | str | None, dtype: str = "float32", name: str = "input") -> TensorInfo:
    return TensorInfo(name, dtype, shape)


def applied(text: str, x: np.ndarray, target: TensorInfo) -> np.ndarray:
    return bind_transform(parse_transform(text), x.shape[1:], x.dtype, target).apply(x)


def test_that_gray_pictures_become_nchw_and_normalised() -> None:
    x = RNG.integers(0, 256, (5, 28, 28)).astype(np.uint8)
    out = applied("scale=1/255 mean=0.2860 std=0.3530 layout=NCHW", x, info("n", 1, 28, 28))
    assert out.shape == (5, 1, 28, 28)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert np.allclose(out[:, 0], (x / 255 - 0.2860) / 0.3530, atol=1e-6)


def test_that_colour_pictures_move_their_channels_with_a_mean_each() -> None:
    x = RNG.integers(0, 256, (4, 6, 8, 3)).astype(np.uint8)
    out = applied("scale=1/255 mean=0.1,0.2,0.3 std=0.5,0.6,0.7 layout=NCHW", x, info("n", 3, 6, 8))
    expected = ((x / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).transpose(0, 3, 1, 2)
    assert np.allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "shape", "target", "axes"),
    [
        pytest.param("NHWC", (4, 3, 6, 8), ("n", 6, 8, 3), (0, 2, 3, 1), id="nchw-to-nhwc"),
        pytest.param("NCHW", (4, 3, 6, 8), ("n", 3, 6, 8), (0, 1, 2, 3), id="nchw-stays"),
        pytest.param("NCHW", (4, 8, 8, 16), ("n", 16, 8, 8), (0, 3, 1, 2), id="many-channels-last"),
        pytest.param("NCHW", (4, 16, 9, 8), ("n", 16, 9, 8), (0, 1, 2, 3), id="many-channels-first"),
        pytest.param("keep", (4, 6, 8, 3), ("n", 6, 8, 3), (0, 1, 2, 3), id="keep"),
        pytest.param("keep", (4, 6, 8), ("n", 6, 8), (0, 1, 2), id="keep-gray"),
    ],
)
def test_that_layouts_put_the_channels_where_asked(layout, shape, target, axes) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    assert np.array_equal(applied(f"layout={layout}", x, info(*target)), x.transpose(axes))


def test_that_nhwc_adds_a_last_axis_to_gray_pictures() -> None:
    x = RNG.standard_normal((2, 4, 5)).astype(np.float32)
    assert np.array_equal(applied("layout=NHWC", x, info("n", 4, 5, 1)), x[..., None])


def test_that_rows_of_features_are_scaled_a_feature() -> None:
    x = np.array([[1.0, 20.0], [3.0, 40.0]])
    out = applied("mean=1,20 std=2,20", x, info("n", 2))
    assert out.tolist() == [[0, 0], [1, 1]]
    assert out.dtype == np.float32


def test_that_half_and_double_inputs_get_their_own_type() -> None:
    x = RNG.integers(0, 9, (3, 4)).astype(np.uint8)
    for dtype in ("float16", "float64"):
        out = applied("scale=1/2", x, info("n", 4, dtype=dtype))
        assert out.dtype == dtype
        assert np.array_equal(out, x / 2)


def test_that_integer_inputs_pass_uncast_values() -> None:
    x = np.array([[1, 2], [3, 40000]], dtype=np.uint16)
    out = applied("", x, info("n", 2, dtype="int64"))
    assert out.dtype == np.int64
    assert out.tolist() == x.tolist()


def test_that_integers_that_do_not_fit_are_named() -> None:
    bound = bind_transform(Transform(), (2,), I64, info("n", 2, dtype="uint8"))
    with pytest.raises(DataError, match="hold 256"):
        bound.apply(np.array([[0, 256]], dtype=np.int64))
    flags = bind_transform(Transform(), (2,), I64, info("n", 2, dtype="bool"))
    assert flags.apply(np.array([[0, 1]])).tolist() == [[False, True]]
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        flags.apply(np.array([[0, 2]]))


def test_that_a_sample_with_nan_is_named() -> None:
    x = np.zeros((8, 3), np.float32)
    x[5, 1] = np.nan
    bound = bind_transform(Transform(), (3,), F32, info("n", 3))
    with pytest.raises(DataError, match=r"sample 105 of input 'input' holds NaN"):
        bound.apply(x, 100)


def test_that_a_value_too_large_for_float32_is_refused() -> None:
    bound = bind_transform(Transform(scale=2.0), (1,), np.dtype(np.float64), info("n", 1))
    with np.errstate(over="ignore"), pytest.raises(DataError, match="infinity"):
        bound.apply(np.array([[1e300]]))


@pytest.mark.parametrize(
    ("sample", "dtype", "target", "text", "parts"),
    [
        pytest.param(
            (28, 28),
            U8,
            info("b", 1, 28, 28),
            "",
            ["[N, 28, 28]", "[b, 1, 28, 28]", "Add layout=NCHW"],
            id="needs-channel",
        ),
        pytest.param((8, 8, 3), U8, info("b", 3, 8, 8), "", ["Add layout=NCHW"], id="needs-move"),
        pytest.param((3, 8, 8), U8, info("b", 8, 8, 3), "", ["Add layout=NHWC"], id="needs-move-back"),
        pytest.param(
            (30, 20), U8, info("b", 1, 28, 28), "", ["Add resize=28x28 layout=NCHW"], id="needs-resize"
        ),
        pytest.param(
            (30, 30), U8, info("b", 1, 28, 28), "layout=NCHW", ["Add resize=28x28 to"], id="needs-only-resize"
        ),
        pytest.param(
            (50, 200),
            U8,
            info("b", 1, 64, "width"),
            "layout=NCHW",
            ["[b, 1, 64, width]", "Store pictures 64 high"],
            id="fixed-height-open-width",
        ),
        pytest.param((28, 28), U8, info("b", 784), "", ["Reshape the array to [N, 784]"], id="needs-flat"),
        pytest.param((5,), F32, info("b", 4), "", ["[N, 5]", "[b, 4]"], id="other-features"),
        pytest.param(
            (3, 8, 8),
            U8,
            info("b", 1, 8, 8),
            "layout=NCHW",
            ["[N, 3, 8, 8]", "Store the array"],
            id="channels",
        ),
    ],
)
def test_that_a_shape_error_says_both_shapes_and_the_way_out(sample, dtype, target, text, parts) -> None:
    with pytest.raises(DataError) as caught:
        bind_transform(parse_transform(text), sample, dtype, target)
    for part in parts:
        assert part in caught.value.one_line


@pytest.mark.parametrize(
    ("dtype", "target", "text", "part"),
    [
        pytest.param(F32, info("b", 4, dtype="int64"), "", "Store the array as int64", id="float-for-int"),
        pytest.param(U8, info("b", 4, dtype="uint8"), "scale=1/255", "takes raw values", id="scaled-int"),
        pytest.param(np.dtype("U3"), info("b", 4), "", "not numbers", id="text"),
        pytest.param(np.dtype(np.complex64), info("b", 4), "", "not numbers", id="complex"),
        pytest.param(U8, info("b", 4, dtype="bfloat16"), "", "no array file", id="bfloat16"),
        pytest.param(U8, info("b", 4, dtype="str"), "", "no array file", id="strings"),
        pytest.param(U8, info("b", 4), "mean=1,2,3", "mean has 3 values", id="means"),
        pytest.param(U8, info("b", 4), "std=1,2", "std has 2 values", id="stds"),
    ],
)
def test_that_types_and_lists_that_do_not_fit_are_refused(dtype, target, text, part) -> None:
    with pytest.raises(DataError, match=part):
        bind_transform(parse_transform(text), (4,), dtype, target)


@pytest.mark.parametrize("size", [(13, 9), (64, 70), (32, 40)])
def test_that_resizing_matches_pillow(size: tuple[int, int]) -> None:
    x = RNG.uniform(0, 255, (2, 32, 40, 3)).astype(np.float32)
    out = resize_bilinear(x, *size)
    for sample in range(2):
        for channel in range(3):
            image = Image.fromarray(x[sample, :, :, channel]).resize(size[::-1], Image.Resampling.BILINEAR)
            # Pillow keeps its filter weights in another precision.
            assert np.allclose(out[sample, :, :, channel], np.asarray(image), atol=1e-2)


def test_that_resize_weights_add_up() -> None:
    assert np.allclose(resize_matrix(17, 5).sum(1), 1)
    assert np.array_equal(resize_matrix(6, 6), np.eye(6, dtype=np.float32))


def test_that_resize_and_crop_come_before_scale() -> None:
    x = RNG.integers(0, 256, (2, 8, 8)).astype(np.uint8)
    out = applied("resize=6 crop=4x2 scale=1/255 layout=NCHW", x, info("n", 1, 4, 2))
    assert np.allclose(out[:, 0], resize_bilinear(x[..., None], 6, 6)[:, 1:5, 2:4, 0] / 255, atol=1e-6)


def test_that_integer_pictures_stay_integers_through_resizing() -> None:
    x = np.full((1, 4, 4), 200, np.uint8)
    out = applied("resize=2 layout=NCHW", x, info("n", 1, 2, 2, dtype="uint8"))
    assert out.dtype == np.uint8
    assert (out == 200).all()


def test_that_a_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(DataError, match="crop=9x4 is larger than the 8x8"):
        bind_transform(parse_transform("crop=9x4"), (8, 8), U8, info("n", 9, 4))
