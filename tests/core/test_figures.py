"""Figures as text."""

from __future__ import annotations

import math

import pytest

from quantstudio.core import figures
from quantstudio.core.results import Interval

T = "\u202f"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (figures.number(-0.25, 2), "−0.25"),
        (figures.number(1234567, 0), f"1{T}234{T}567"),
        (figures.number(-0.001, 2), "0.00"),
        (figures.number(0.5, 1, signed=True), "+0.5"),
        (figures.number(math.nan), "—"),
        (figures.number(-math.inf), "−∞"),
        (figures.compact_count(25_557_032), f"25.6{T}M"),
        (figures.compact_count(842), "842"),
        (figures.significant(0.03124), "0.0312"),
        (figures.significant(1.2e-5, 2), "1.2×10⁻⁵"),
        (figures.significant(0), "0"),
        (figures.size(24_900_000), f"24.9{T}MB"),
        (figures.size(999_600), f"1.0{T}MB"),
        (figures.size(812), f"812{T}B"),
        (figures.size(245_068), f"245{T}kB"),
        (figures.milliseconds(0.84), f"840{T}µs"),
        (figures.milliseconds(0.0432), f"43.2{T}µs"),
        (figures.milliseconds(math.nan), "—"),
        (figures.milliseconds(6.9), f"6.90{T}ms"),
        (figures.milliseconds(18.44), f"18.4{T}ms"),
        (figures.milliseconds(1240), f"1.24{T}s"),
        (figures.percent(0.7588), f"75.88{T}%"),
        (figures.points(-0.25), f"−0.25{T}pp"),
        (figures.decibels(37.61), f"37.6{T}dB"),
        (figures.decibels(math.inf), f"∞{T}dB"),
        (figures.ratio(3.94), "3.9×"),
        (figures.ratio(0.64), "0.64×"),
        (figures.ratio(1.279), "1.28×"),
        (figures.ratio(math.inf), "—"),
        (figures.significant(2.5e10), "2.50×10¹⁰"),
        (figures.percent(math.nan), "—"),
        (figures.interval(Interval(1, -0.5, 2), signed=True), "−0.50 to +2.00"),
        (figures.provider("CUDAExecutionProvider"), "CUDA"),
    ],
    ids=lambda v: None,
)
def test_that_figures_read_as_people_write_them(made, expected):
    assert made == expected


def test_that_one_thing_is_not_said_to_be_several():
    assert figures.counted(1, "layer") == "1 layer"
    assert figures.counted(0, "layer") == "0 layers"
    assert figures.counted(1200, "layer") == f"1{figures.THIN_SPACE}200 layers"
