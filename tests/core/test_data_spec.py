from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstudio.core.data_spec import LAYOUTS, Transform, parse_transform
from quantstudio.core.errors import DataError


def test_that_the_documented_transform_is_read() -> None:
    read = parse_transform("scale=1/255 mean=0.2860 std=0.3530 layout=NCHW")
    assert read == Transform(scale=1 / 255, mean=(0.2860,), std=(0.3530,), layout="NCHW")


def test_that_sizes_and_lists_are_read() -> None:
    read = parse_transform("resize=256 crop=224x192 mean=0.1,0.2,0.3 std=1,2,4")
    assert read.resize == (256, 256)
    assert read.crop == (224, 192)
    assert read.mean == (0.1, 0.2, 0.3)
    assert read.std == (1.0, 2.0, 4.0)


def test_that_no_text_changes_nothing() -> None:
    assert parse_transform("") == Transform()
    assert Transform().text == ""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("scale", "key=value", id="no-value"),
        pytest.param("scale=", "key=value", id="empty-value"),
        pytest.param("scale=1 scale=2", "twice", id="twice"),
        pytest.param("sclae=2", "unknown transform key 'sclae'", id="unknown"),
        pytest.param("layout=CHWN", "unknown layout", id="layout"),
        pytest.param("std=0", "std is zero", id="zero-std"),
        pytest.param("scale=0 layout=NCHW", "scale is zero", id="zero-scale"),
        pytest.param("scale=1e-300", "scale is zero", id="zero-in-float32"),
        pytest.param("std=1,1e-40", "std is zero", id="zero-std-in-float32"),
        pytest.param("scale=1/0", "not a number", id="division-by-zero"),
        pytest.param("mean=a", "not a number", id="text"),
        pytest.param("scale=inf", "not finite", id="infinite"),
        pytest.param("resize=0x5", "not a size", id="zero-size"),
        pytest.param("crop=big", "not a size", id="text-size"),
    ],
)
def test_that_a_wrong_transform_is_refused_with_its_part(text: str, part: str) -> None:
    with pytest.raises(DataError, match=part):
        parse_transform(text)


NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).filter(lambda v: abs(v) >= 2.0**-126)
SIZES = st.none() | st.tuples(st.integers(1, 512), st.integers(1, 512))


@given(
    scale=NUMBERS | st.integers(1, 1000).map(lambda n: 1 / n),
    mean=st.lists(NUMBERS, min_size=1, max_size=3).map(tuple),
    std=st.lists(NUMBERS, min_size=1, max_size=3).map(tuple),
    layout=st.sampled_from(LAYOUTS),
    resize=SIZES,
    crop=SIZES,
)
def test_that_text_reads_back_as_the_same_transform(scale, mean, std, layout, resize, crop) -> None:
    made = Transform(scale, mean, std, layout, resize, crop)
    assert parse_transform(made.text) == made
