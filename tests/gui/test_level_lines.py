"""The histogram of one channel: lines at the levels it really has, chosen by a number that says which."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.levels import ChannelLevels
from quantstudio.core.recipe import Recipe
from quantstudio.core.steps import Step
from quantstudio.gui.facts.layer_facts import channel_distribution
from quantstudio.gui.features.inspect.channel_box import EVERY, ChannelBox
from quantstudio.gui.plots.histogram import HistogramPlot
from quantstudio.gui.plots.level_lines import MOST_NAMED

LEVELS = ChannelLevels(
    "conv1",
    3,
    8,
    (1, 4, 6, 4, 1),
    -1.0,
    1.0,
    (-0.8, -0.1, 0.2, 0.9),
    (-113, -14, 28, 127),
    (2, 6, 6, 2),
    11.5,
)


@pytest.fixture
def plot(qtbot):
    made = HistogramPlot()
    qtbot.addWidget(made)
    made.resize(640, 360)
    made.show()
    qtbot.waitExposed(made)
    return made


def test_that_a_line_stands_at_every_level_with_the_integer_it_is_stored_as(plot):
    plot.show_distribution(channel_distribution(LEVELS, "conv1", Recipe()))
    x, _ = plot._levels._lines.getData()
    np.testing.assert_array_equal(x[::2], LEVELS.levels)
    shown = [name for name in plot._levels._names if name.isVisible()]
    assert [name.toPlainText() for name in shown] == ["−113", "−14", "28", "127"]
    assert plot.readout.text().startswith("4 levels · SQNR 11.5")
    assert not plot.clip_line("low").isVisible()
    assert [name for name, _ in plot.legend.entries] == ["FP32", "Levels"]
    assert "output channel 3" in plot.subtitle.text()
    assert "4 levels" in plot.summary


def test_that_many_levels_are_drawn_without_their_integers(plot):
    many = tuple(np.linspace(-1, 1, 3 * MOST_NAMED).tolist())
    codes = tuple(range(len(many)))
    levels = ChannelLevels("conv1", 0, 8, (1, 2), -1.0, 1.0, many, codes, codes, 40.0)
    plot.show_distribution(channel_distribution(levels, "conv1", Recipe(steps=(Step("bias"),))))
    assert not any(name.isVisible() for name in plot._levels._names)
    assert "before the steps" in plot.subtitle.text()


def test_that_a_codebook_always_shows_one_channel_and_a_grid_also_all(qtbot):
    box = ChannelBox()
    qtbot.addWidget(box)
    told: list[int] = []
    box.chosen.connect(told.append)
    assert not box.offer((0, False))
    assert box.channel == EVERY
    assert box.offer((8, True))
    assert box.channel == 0
    assert box.accessibleName()
    box.setValue(5)
    assert told == [5]
    box.offer((8, False))
    assert box.channel == 5
    box.offer((4, False))
    assert box.channel == 3
    box.setValue(EVERY)
    assert box.text() == "all channels"
