"""The histogram with its clip lines, by mouse."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.affine import IntegerGrid, clip_effect
from quantstudio.core.statistics import Histogram
from quantstudio.gui.plots.distribution import (
    Distribution,
    drawn_bins,
    grid_bars,
    thinned,
    top_of,
    visible_range,
)
from quantstudio.gui.plots.histogram import HistogramPlot
from tests.gui.plot_mouse import double_click, move, press, release, shown
from tests.workspace.samples import histogram_of

SIGNED8 = IntegerGrid(8, signed=True)
UNSIGNED8 = IntegerGrid(8, signed=False)


def normal(seed=0, size=50_000, scale=0.1):
    return np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)


def weights(low=-0.5, high=0.5, grid: IntegerGrid | None = SIGNED8, values=None) -> Distribution:
    values = normal() if values is None else values
    return Distribution("conv1", "weights", histogram_of(values), grid, low, high)


def activations(low=0.0, high=3.0) -> Distribution:
    values = np.maximum(np.random.default_rng(2).normal(0.5, 1, 40_000), 0).astype(np.float32)
    return Distribution("relu1", "activations", histogram_of(values, 4096, -8.0, 8.0), UNSIGNED8, low, high)


def test_that_every_value_lands_on_a_level():
    distribution = weights()
    effect = distribution.effect(-0.5, 0.5)
    assert effect is not None
    bars = grid_bars(distribution.histogram, effect, SIGNED8)
    histogram = distribution.histogram
    bin_width = (histogram.high - histogram.low) / len(histogram.counts)
    assert len(bars.centres) == 255
    assert bars.step == pytest.approx(0.5 / 127)
    assert float(bars.density.sum()) * bars.step / bin_width == pytest.approx(histogram.total, rel=1e-9)


def test_that_clipped_values_pile_up_on_the_last_level():
    values = np.concatenate([np.zeros(100), np.full(50, 1.0)]).astype(np.float32)
    distribution = weights(-0.5, 0.5, values=np.concatenate([values, [-1.0]]).astype(np.float32))
    effect = distribution.effect(-0.5, 0.5)
    assert effect is not None
    bars = grid_bars(distribution.histogram, effect, SIGNED8)
    width = 2.0 / 2048
    assert bars.density[-1] * bars.step / width == pytest.approx(50)


def test_that_thinned_bars_keep_the_area():
    distribution = weights()
    effect = distribution.effect(-0.5, 0.5)
    assert effect is not None
    bars = grid_bars(distribution.histogram, effect, SIGNED8)
    few, every = thinned(bars, -1, 1, 51)
    assert (every, len(few.centres)) == (5, 51)
    assert float(few.density.sum() * every) == pytest.approx(float(bars.density.sum()))


def test_that_a_spike_of_zeros_leaves_the_plot():
    top, is_cut = top_of(np.asarray([1000.0, 10.0, 9.0, 8.0]))
    assert is_cut
    assert top < 20
    top, is_cut = top_of(np.asarray([10.0, 9.0, 8.0]))
    assert top == pytest.approx(10.8)
    assert not is_cut


def test_that_a_constant_tensor_has_a_visible_range():
    values = np.full(10, 2.0, dtype=np.float32)
    low, high = visible_range(histogram_of(values, 8, 1.0, 3.0))
    assert low < 2.0 < high


@pytest.mark.parametrize(
    ("moved", "low", "high", "expected"),
    [
        pytest.param("high", -0.5, 0.3, (-0.3, 0.3), id="the other line follows"),
        pytest.param("low", -0.2, 0.5, (-0.2, 0.2), id="from the left"),
        pytest.param("high", -0.5, 9.0, None, id="not beyond the largest weight"),
    ],
)
def test_that_signed_ranges_stay_symmetric(moved, low, high, expected):
    distribution = weights()
    got = distribution.limited(low, high, moved)
    assert got[0] == -got[1]
    reach = max(abs(distribution.histogram.minimum), distribution.histogram.maximum)
    assert got == (pytest.approx(expected) if expected else (-reach, reach))


def test_that_unsigned_ranges_always_hold_zero():
    distribution = activations()
    low, high = distribution.limited(1.0, 2.0, "low")
    assert low == 0.0
    assert high == pytest.approx(2.0)
    assert distribution.limited(0.0, -1.0, "high")[1] > 0


def test_that_dragging_a_clip_line_updates_the_figures_live_and_reports_once(qtbot):
    plot = shown(qtbot, HistogramPlot())
    distribution = weights(-0.4, 0.4)
    plot.show_distribution(distribution)
    edits: list[tuple[str, float, float]] = []
    plot.range_edited.connect(lambda *a: edits.append(a))
    before = plot.readout.text()

    press(plot, 0.4, 0.5)
    move(plot, 0.3, 0.5)
    move(plot, 0.2, 0.5)

    assert edits == []
    assert plot.clip_range[1] == pytest.approx(0.2, abs=0.01)
    assert plot.clip_range[0] == -plot.clip_range[1]
    assert plot.readout.text() != before
    low, high = plot.clip_range
    histogram = distribution.histogram
    expected = clip_effect(histogram.counts, histogram.edges, low, high, SIGNED8)
    assert plot.effect is not None
    assert plot.effect.clipped_share == expected.clipped_share
    assert plot.effect.sqnr_db == expected.sqnr_db
    assert f"{expected.sqnr_db:.1f}" in plot.readout.text()
    assert plot.tag.text == "simulated"

    release(plot, 0.2, 0.5)
    assert len(edits) == 1
    assert edits[0][0] == "conv1"
    assert edits[0][2] == pytest.approx(0.2, abs=0.01)


def test_that_activation_lines_move_one_at_a_time(qtbot):
    plot = shown(qtbot, HistogramPlot())
    plot.show_distribution(activations())
    with qtbot.waitSignal(plot.range_edited) as edited:
        press(plot, 3.0, 0.5)
        move(plot, 2.0, 0.5)
        release(plot, 2.0, 0.5)
    key, low, high = edited.args
    assert key == "relu1"
    assert low == 0.0
    assert high == pytest.approx(2.0, abs=0.05)


def test_that_a_double_click_asks_for_the_calibrated_range(qtbot):
    plot = shown(qtbot, HistogramPlot())
    plot.show_distribution(weights(-0.2, 0.2))
    with qtbot.waitSignal(plot.range_reset) as reset:
        double_click(plot, 0.05, 0.9)
    assert reset.args == ["conv1"]


def test_that_the_reset_button_shows_only_for_a_range_set_by_hand(qtbot):
    plot = shown(qtbot, HistogramPlot())
    plot.show_distribution(weights())
    assert not plot.reset_button.isVisible()
    edited = Distribution("conv1", "weights", histogram_of(normal()), SIGNED8, -0.1, 0.1, is_edited=True)
    plot.show_distribution(edited)
    assert plot.reset_button.isVisible()
    with qtbot.waitSignal(plot.range_reset):
        plot.reset_button.click()


def test_that_float_layers_have_no_clip_lines(qtbot):
    plot = shown(qtbot, HistogramPlot())
    plot.show_distribution(weights(grid=None))
    assert not plot.clip_line("low").isVisible()
    assert plot.effect is None
    assert "not quantized" in plot.summary


def test_that_log_counts_keep_the_clip_range(qtbot):
    plot = shown(qtbot, HistogramPlot())
    plot.show_distribution(weights(-0.2, 0.2))
    plot.log_button.click()
    assert plot.labels == ("", "Count"), "a narrow plot has no room for the name of its values"
    assert plot.readout.width() > plot.width() / 2
    assert plot.clip_range == (-0.2, 0.2)
    plot.grab()
    _, (bottom, top) = plot.item.getViewBox().viewRange()
    assert bottom < 0 < top  # half a count to the largest, in decades
    plot.log_button.click()
    assert plot.labels == ("", "Density")


def test_that_an_emptied_plot_hides_its_footer(qtbot):
    plot = shown(qtbot, HistogramPlot())
    plot.show_distribution(weights())
    plot.show_empty("Choose a layer.", "Analyze")
    assert plot.is_empty
    assert not plot.readout.isVisible()
    with qtbot.waitSignal(plot.action_asked):
        plot.empty.button.click()


def test_that_sparse_histograms_are_drawn_with_fewer_bins():
    few = np.random.default_rng(1).normal(0, 1, 400).astype(np.float32)
    edges, counts = drawn_bins(histogram_of(few))
    assert len(counts) == 32
    assert len(edges) == 33
    assert counts.sum() == 400
    assert (edges[0], edges[-1]) == (few.min(), few.max())


@pytest.mark.parametrize(("values", "bins"), [(20_000, 256), (100_000, 512), (4_000_000, 2048)])
def test_that_as_many_bins_are_drawn_as_the_values_can_fill(values, bins):
    share = np.exp(-(np.linspace(-3, 3, 2048) ** 2) / 2)
    counts = np.round(share / share.sum() * values).astype(np.int64)
    assert len(drawn_bins(Histogram(counts, -1.0, 1.0, -1.0, 1.0))[1]) in (bins // 2, bins)


def test_that_an_input_of_a_few_grey_levels_is_drawn_with_fewer_bins():
    levels = np.repeat(np.arange(17, dtype=np.float32) / 16, 5000)
    assert len(drawn_bins(histogram_of(levels, 4096, -1.0, 1.0))[1]) <= 128
