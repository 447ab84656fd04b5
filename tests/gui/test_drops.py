"""Files dropped on the real window, through Qt's own dispatch of drags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QCoreApplication, QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QWidget

from quantstudio.core.samples import DEFAULT_SAMPLE, sample
from quantstudio.gui.features.data.data_dialog import DataDialog
from quantstudio.gui.features.data.trust_dialog import TrustDialog
from quantstudio.gui.features.inspect.inspect_panel import BITS, InspectPanel
from quantstudio.jobs.rows import NoticeLevel
from tests.gui.conftest import find, settle
from tests.gui.settling import settled
from tests.workspace.canned import OUTLINE

COPY, LEFT, NONE = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


def drop(target: QWidget, *paths: Path | str) -> bool:
    """Drag files over a widget and let them go there; whether anyone took them."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    entered = QDragEnterEvent(QPoint(5, 5), COPY, data, LEFT, NONE)
    QCoreApplication.sendEvent(target, entered)  # goes up to the first that takes drops
    if not entered.isAccepted():
        return False
    taker: QWidget | None = target
    while taker is not None and not taker.acceptDrops():
        taker = taker.parentWidget()
    assert taker is not None
    dropped = QDropEvent(QPointF(5, 5), COPY, data, LEFT, NONE)
    QCoreApplication.sendEvent(taker, dropped)
    return dropped.isAccepted()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "dropped.onnx"
    path.write_bytes(OUTLINE)
    return path


@pytest.fixture
def data(tmp_path):
    made = {}
    for name in ("train", "test"):
        made[name] = tmp_path / f"{name}.npz"
        np.savez(made[name], x=np.zeros((2, 3), np.float32))
    return made


@pytest.mark.parametrize(
    "name",
    [
        "layers.table",
        "layers.search",
        "plot.histogram.view",
        "plot.channel_ranges.view",
        "plot.latency.view",
        "plot.trade_off.view",
        "panel.key_figures",
        "log",
    ],
)
def test_that_a_model_can_be_dropped_anywhere(window, model, name):
    target = find(window, QWidget, name)
    viewport = getattr(target, "viewport", None)
    assert drop(viewport() if viewport is not None else target, model)
    settle(window)
    assert "dropped.onnx" in window.windowTitle()


def test_that_junk_is_refused_before_anything_is_stopped(full, runner, tmp_path):
    junk = tmp_path / "holiday.jpg"
    junk.write_bytes(b"x")
    title = full.windowTitle()
    runner.is_holding = True
    full.session.workspace.runs.calibrate()
    said: list = []
    full.session.notified.connect(said.append)
    drop(full, junk)
    assert [notice.severity for notice in said] == [NoticeLevel.ERROR]
    assert "QuantStudio does not read holiday.jpg" in said[0].text
    assert full.session.workspace.jobs.running.title == "Calibrate"
    assert full.windowTitle() == title


def test_that_half_a_model_is_refused_before_anything_is_stopped(full, runner, tmp_path):
    half = tmp_path / "half.onnx"
    whole = Path(sample(DEFAULT_SAMPLE).model).read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    title = full.windowTitle()
    runner.is_holding = True
    full.session.workspace.runs.calibrate()
    said: list = []
    full.session.notified.connect(said.append)
    drop(full, half)
    assert [notice.severity for notice in said] == [NoticeLevel.ERROR]
    assert "not a complete ONNX file" in said[0].text
    assert said[0].where == str(half)
    text = full.toasts.toasts[-1].key[1]
    assert text.startswith("half.onnx: this")
    assert full.session.workspace.jobs.running.title == "Calibrate"
    assert full.windowTitle() == title


def test_that_text_is_not_taken(full):
    data = QMimeData()
    data.setText("words")
    entered = QDragEnterEvent(QPoint(5, 5), COPY, data, LEFT, NONE)
    entered.ignore()
    QCoreApplication.sendEvent(full, entered)
    assert not entered.isAccepted()


def test_that_a_program_asks_first_and_no_means_no(full, runner, tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"x")
    count = len(runner.submitted)
    drop(full, path)
    dialog = find(full, TrustDialog)
    assert dialog.isVisible()
    dialog.reject()
    settle(full)
    assert len(runner.submitted) == count


def test_that_a_model_and_its_data_may_come_together(window, model, data):
    drop(window, data["test"], model, data["train"])
    settle(window)
    assert "dropped.onnx" in window.windowTitle()
    dialog = find(window, DataDialog)
    assert dialog.calibration.path.text() == str(data["train"])
    assert dialog.test.path.text() == str(data["test"])
    dialog.reject()


def test_that_data_alone_goes_to_the_dialog_and_needs_a_model(window, data):
    said: list = []
    window.session.notified.connect(said.append)
    drop(window, data["train"], data["test"])
    assert said[0].text == "Open a model before its data"
    assert window.findChild(DataDialog) is None


def test_that_a_file_dropped_on_a_path_field_becomes_its_path(full, data):
    dialog = DataDialog(full.context)
    dialog.open()
    assert drop(dialog.test.path, data["test"])
    assert dialog.test.path.text() == str(data["test"])


def test_that_the_inspector_without_a_model_asks_for_one(window):
    panel = find(window, InspectPanel)
    panel.show_right(BITS)
    settled()
    for plot in (panel.histogram, panel.channels, panel.bits):
        assert "Open a model" in plot.summary
