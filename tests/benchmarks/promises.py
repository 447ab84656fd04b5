"""What a few hot functions take, against a yardstick: `python -m tests.benchmarks.promises [--samples 7]`.

The yardstick is the time NumPy takes to sort a million floats on this machine, so that the ratios of two
machines, and of two commits, can be compared. A ratio above its limit ends the run with 1. Wall time: run it
on a machine that does nothing else. First paint, heartbeat and predictions have scripts of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
from PySide6.QtWidgets import QApplication, QWidget
from rich.console import Console
from rich.table import Table

from quantstudio.core.errors import JobCancelled
from quantstudio.core.events import CancelToken
from quantstudio.core.samples import sample
from quantstudio.engine.calibration.ranges import all_ranges
from quantstudio.engine.evaluation.uncertainty import bootstrap_interval
from quantstudio.engine.graph.runtime import open_session, run
from quantstudio.engine.model.open import open_model
from quantstudio.engine.quantization.weights import quantize_weight
from quantstudio.gui.plots.histogram import HistogramPlot
from quantstudio.gui.plots.sensitivity_scale import SensitivityScale, StripRow
from quantstudio.gui.plots.sensitivity_strip import SensitivityStrip
from tests.engine.builders import loop_model
from tests.engine.test_calibration_ranges import HEAVY, histogram
from tests.engine.test_quantization_weights import scheme
from tests.gui.test_plots_histogram import normal, weights


@dataclass(frozen=True)
class Promise:
    """Something a person waits for.

    Attributes:
        what: In words.
        limit: Times the yardstick it may take.
        once: Does it; may return the seconds that count.
    """

    what: str
    limit: float
    once: Callable[[], float | None]


def seconds(once: Callable[[], float | None], samples: int) -> float:
    """Median over the samples; the first call, which warms up, does not count."""
    once()
    taken = []
    for _ in range(samples):
        begun = time.perf_counter()
        own = once()
        taken.append(time.perf_counter() - begun if own is None else own)
    return float(np.median(taken))


MILLION = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)


def yardstick() -> None:
    """Sort a million floats, shuffled."""
    np.sort(MILLION)


def cancel_of_a_run() -> float:
    """Seconds between a cancel and the end of a run that would never end."""
    session = open_session(loop_model(steps=1 << 50).SerializeToString(), threads=1)
    token, at = CancelToken(), list[float]()

    def cancel() -> None:
        at.append(time.perf_counter())
        token.set()

    threading.Timer(0.1, cancel).start()
    try:
        run(session, {"x": np.zeros((1, 4), np.float32)}, cancel=token)
    except JobCancelled:
        return time.perf_counter() - at[0]
    raise AssertionError("a run without an end has ended")


def redraws(size: tuple[int, int], widget: QWidget, draws: list[Callable[[], None]]) -> Callable[[], None]:
    """Draw what comes next, painted as on a screen."""
    widget.resize(*size)
    widget.show()

    def once() -> None:
        draws.append(draws.pop(0))
        draws[0]()
        widget.grab()

    return once


def promises(folder: Path) -> list[Promise]:
    """All of them; the widgets live as long as the list."""
    rng = np.random.default_rng(3)
    heavy = histogram(HEAVY)
    million = rng.normal(size=(1000, 1000)).astype(np.float32)
    values = rng.normal(5, 2, size=(200_003, 1))
    plot, strip = HistogramPlot(), SensitivityStrip()
    shown = [weights(values=normal(seed)) for seed in (1, 2)]
    rows = [
        [StripRow(f"layer{i}", float(v), float(v) * 0.8, float(v) * 1.2) for i, v in enumerate(kls)]
        for kls in rng.lognormal(-7, 1, (2, 500))
    ]
    scale = SensitivityScale(largest=0.01)
    os.environ["QUANTSTUDIO_CACHE"] = str(folder)

    def opening() -> None:
        open_model(sample("digits_resnet").model)

    def ranges() -> None:
        for _ in range(100):
            all_ranges(heavy, 8)

    def group_search() -> None:
        quantize_weight(million, scheme("int4", "per-group", "mse"), 1)

    def bootstrap() -> None:
        bootstrap_interval(values, lambda means: means[:, 0], resamples=400)

    histograms: list[Callable[[], None]] = [partial(plot.show_distribution, one) for one in shown]
    strips: list[Callable[[], None]] = [partial(strip.show_rows, one, scale) for one in rows]
    return [
        Promise("open a network that is known", 4, opening),
        Promise("every range of 100 tensors", 80, ranges),
        Promise("search the scales of a million weights, in groups", 30, group_search),
        Promise("bootstrap 200,000 samples 400 times", 20, bootstrap),
        Promise("redraw a histogram", 4, redraws((460, 380), plot, histograms)),
        Promise("redraw 500 bars of sensitivity", 4, redraws((760, 260), strip, strips)),
        Promise("end a run in progress", 60, cancel_of_a_run),
    ]


def main() -> int:
    """Print the table; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=7)
    samples = parser.parse_args().samples
    application = QApplication.instance() or QApplication([])
    table = Table("what", "ms", "yardsticks", "limit")
    broken = 0
    with tempfile.TemporaryDirectory() as folder:
        unit = seconds(yardstick, samples)
        for promise in promises(Path(folder)):
            taken = seconds(promise.once, samples)
            broken += taken / unit > promise.limit
            table.add_row(promise.what, f"{taken * 1e3:.1f}", f"{taken / unit:.2f}", f"{promise.limit:g}")
    table.caption = f"the yardstick: {unit * 1e3:.1f} ms"
    Console().print(table)
    del application
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
