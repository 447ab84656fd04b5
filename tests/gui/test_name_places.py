"""Names beside dots: none runs into another, and they move when the plot is resized."""

from __future__ import annotations

from itertools import combinations

import pytest
from PySide6.QtCore import QPointF, QRectF

from quantstudio.core.predict.check import PredictionPoint
from quantstudio.core.results import Interval
from quantstudio.gui.plots.name_places import Box, NamePlaces, pixel_size
from quantstudio.gui.plots.prediction_check import PredictionCheckPlot
from quantstudio.gui.plots.trade_off import TradeOffPlot
from quantstudio.gui.plots.trade_off_dots import Limits, TradeOffPoint
from tests.gui.plot_mouse import shown
from tests.gui.settling import settled


def test_that_names_keep_off_dots_and_each_other_and_stay_near(qtbot):
    plot = TradeOffPlot()
    qtbot.addWidget(plot)
    plot.resize(520, 300)
    plot.show()
    settled()
    view = plot.item.getViewBox()
    view.setRange(xRange=(0, view.width()), yRange=(0, view.height()), padding=0)
    places = NamePlaces(view)
    dots = [Box(x - 5, 95, x + 5, 105) for x in (100, 118, 136)]
    for x in (100, 118, 136):
        places.block(x, 100, 5)
    found = [places.take(x, 100, 60, 15, 5) for x in (100, 118, 136)]
    names = [place for place in found if place is not None]
    assert len(names) == 3
    assert not any(name.meets(dot) for name in names for dot in dots)
    assert not any(one.meets(other) for one, other in combinations(names, 2))
    for _ in range(12):
        places.take(118, 100, 60, 15, 5)
    assert places.take(118, 100, 60, 15, 5) is None


def rows_of(plot) -> list[tuple[float, float, float]]:
    """Left, right and middle height of every visible name, in pixels."""
    found = []
    for text in plot._names:
        if text.isVisible():
            rect = text.mapRectToScene(text.boundingRect())
            found.append((rect.left(), rect.right(), rect.center().y()))
    return found


def run_together(rows) -> list[tuple[int, int]]:
    return [
        (i, j)
        for i, (left, right, y) in enumerate(rows)
        for j, (other_left, other_right, other_y) in enumerate(rows[:i])
        if left < other_right - 1 and other_left < right - 1 and abs(y - other_y) < 14
    ]


def interval(value: float) -> Interval:
    return Interval(value, value - 0.3, value + 0.3)


def check_plot() -> PredictionCheckPlot:
    plot = PredictionCheckPlot()
    points = [
        PredictionPoint(f"INT8 · {i} W4A8 · 3 W6A8", 99.80 + i / 100, 99.5, 100, 99.83) for i in range(4)
    ]
    plot.show_points(points, "accuracy", "%")
    return plot


def trade_off_plot() -> TradeOffPlot:
    plot = TradeOffPlot()
    points = [
        TradeOffPoint(f"v{i}", f"INT8 · {i} W4A8 · 3 W6A8", Interval(c, c, c), interval(99.8))
        for i, c in enumerate((117.0, 120.0, 145.0, 150.0, 230.0))
    ]
    plot.show_points(points, "Accuracy against size", "Size (kB)", "Accuracy (%)")
    return plot


@pytest.mark.parametrize("make", [check_plot, trade_off_plot])
def test_that_a_pixel_fits_the_range_while_that_is_told(qtbot, make):
    plot = make()
    qtbot.addWidget(plot)
    plot.resize(520, 300)
    plot.show()
    settled()
    view = plot.item.getViewBox()
    told: list[tuple[float, float]] = []
    view.sigRangeChanged.connect(lambda *_: told.append(pixel_size(view)))
    view.setRange(xRange=(0, view.width()), yRange=(0, 2 * view.height()), padding=0)
    view.setRange(xRange=(0, 10 * view.width()), yRange=(0, 20 * view.height()), padding=0)
    assert told[-1] == pytest.approx((10, 20))
    assert pixel_size(view) == pytest.approx(view.viewPixelSize())


@pytest.mark.parametrize("make", [check_plot, trade_off_plot])
def test_that_names_of_dots_in_one_place_do_not_run_together(qtbot, make):
    plot = make()
    qtbot.addWidget(plot)
    plot.resize(520, 300)
    plot.show()
    settled()
    assert len(rows_of(plot)) >= 3
    assert run_together(rows_of(plot)) == []
    # The range stays the same: only the size of a pixel does not.
    plot.resize(560, 620)
    settled()
    assert run_together(rows_of(plot)) == []


def test_that_the_axes_follow_the_figure_that_is_checked(qtbot):
    """The same variants, another figure: the dots of latency are not where those of accuracy were."""
    plot = shown(qtbot, PredictionCheckPlot(), 500, 300)
    plot.show_points([PredictionPoint("v", 93.0, 92.0, 94.0, 93.2)], "accuracy", "%")
    plot.show_points([PredictionPoint("v", 0.2, 0.18, 0.22, 0.21)], "latency", "ms")
    (left, right), (bottom, top) = plot.item.getViewBox().viewRange()
    assert left < 0.18 < 0.22 < right < 1.0
    assert bottom < 0.21 < top < 1.0


def test_that_what_a_budget_says_keeps_off_dots_and_their_error_bars(qtbot):
    """FP32 is the largest and stands at the right, where the words of the line below it would be."""
    plot = shown(qtbot, TradeOffPlot(), 700, 320)
    wide = Interval(99.8, 98.9, 100.0)
    plot.show_points(
        [
            TradeOffPoint("fp32", "FP32", Interval(0.9, 0.9, 0.9), wide, is_base=True),
            TradeOffPoint("a", "W2A8 #2", Interval(0.07, 0.07, 0.07), wide, is_current=True),
            TradeOffPoint("b", "W2A8", Interval(0.07, 0.07, 0.07), Interval(10.0, 8.0, 13.0)),
        ],
        "t", "x", "y",
    )  # fmt: skip
    plot.show_limits(Limits(quality=99.3, quality_text="at most 0.50 pp lost"))
    settled()
    view, words = plot.item.getViewBox(), plot._bound_texts[1]
    said = words.mapRectToScene(words.boundingRect())
    for x, quality in ((0.9, wide), (0.07, wide)):
        ends = [view.mapViewToScene(QPointF(x, y)) for y in (quality.high, quality.low)]
        bar = QRectF(*ends).adjusted(-8, -8, 8, 0)
        assert not said.intersects(bar)
    names = [one.mapRectToScene(one.boundingRect()) for one in plot._names if one.isVisible()]
    assert len(names) == 3
    assert not any(said.intersects(name.adjusted(1, 1, -1, -1)) for name in names)


def test_that_a_dot_at_the_top_is_drawn_whole(qtbot):
    plot = shown(qtbot, TradeOffPlot(), 700, 320)
    ends = [(0.07, 99.8), (0.9, 10.0)]
    plot.show_points(
        [TradeOffPoint(str(y), "v", Interval(x, x, x), Interval(y, y, y)) for x, y in ends], "t", "x", "y"
    )
    settled()
    view = plot.item.getViewBox()
    top = view.mapViewToScene(QPointF(0.07, 99.8)).y() - view.sceneBoundingRect().top()
    assert top >= 10
