"""Views are redrawn one per turn of the event loop."""

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QWidget

from quantstudio.gui.widgets.refresher import Refresher
from tests.gui.settling import settled


def _seen(qtbot):
    widget = QWidget()
    qtbot.addWidget(widget)
    widget.show()
    return widget


def test_that_many_requests_redraw_a_view_once(qtbot):
    drawn = []
    refresher = Refresher(_seen(qtbot))
    refresher.due.connect(lambda: drawn.append("view"))
    for _ in range(5):
        refresher.request()
    assert drawn == []
    qtbot.waitUntil(lambda: bool(drawn))
    settled()
    assert drawn == ["view"]


def test_that_a_turn_redraws_one_view_and_the_most_important_first(qtbot):
    drawn: list[tuple[int, int]] = []
    turns: list[int] = []
    views = [_seen(qtbot) for _ in range(3)]
    refreshers = [Refresher(view, priority) for view, priority in zip(views, (3, 1, 2), strict=True)]
    for refresher in refreshers:
        refresher.due.connect(lambda r=refresher: drawn.append((r.priority, len(turns))))
        refresher.request()
    timer = QTimer()
    timer.timeout.connect(lambda: turns.append(1))
    timer.start(0)
    qtbot.waitUntil(lambda: len(drawn) == 3)
    assert [priority for priority, _ in drawn] == [1, 2, 3]
    assert len({turn for _, turn in drawn}) == 3


def test_that_a_hidden_view_is_redrawn_when_it_is_shown(qtbot):
    drawn = []
    view = QWidget()
    qtbot.addWidget(view)
    refresher = Refresher(view)
    refresher.due.connect(lambda: drawn.append(1))
    refresher.request()
    settled()
    assert drawn == []
    view.show()
    assert drawn == [1]


def test_that_views_shown_together_are_redrawn_one_a_turn(qtbot):
    page = QWidget()
    qtbot.addWidget(page)
    drawn: list[tuple[int, int]] = []
    turns: list[int] = []
    for priority in (3, 1, 2):
        refresher = Refresher(QWidget(page), priority)
        refresher.due.connect(lambda p=priority: drawn.append((p, len(turns))))
        refresher.request()
    timer = QTimer()
    timer.timeout.connect(lambda: turns.append(1))
    timer.start(0)
    page.show()
    assert len(drawn) == 1
    qtbot.waitUntil(lambda: len(drawn) == 3)
    assert [priority for priority, _ in drawn[1:]] == sorted({1, 2, 3} - {drawn[0][0]})
    assert len({turn for _, turn in drawn}) == 3


def test_that_a_view_that_is_gone_is_left_out(qtbot):
    view, other = QWidget(), _seen(qtbot)
    view.show()
    gone, stays = Refresher(view), Refresher(other, 1)
    drawn = []
    stays.due.connect(lambda: drawn.append(1))
    gone.request()
    stays.request()
    view.deleteLater()
    qtbot.waitUntil(lambda: bool(drawn))
