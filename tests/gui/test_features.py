"""A feature is one description: its page, its actions, its keys appear wherever they belong."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isgeneratorfunction
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QLabel, QMainWindow, QMenu, QToolButton

from quantstudio.gui.action import Action, Choice, Choices, Command
from quantstudio.gui.feature import Feature, Place, View, show_action
from quantstudio.gui.shell.features import FEATURES
from quantstudio.gui.shell.help_dialogs import ShortcutsDialog
from quantstudio.gui.shell.main_window import MainWindow
from quantstudio.gui.shell.palette import palette_entries
from quantstudio.gui.shell.settings import Settings
from quantstudio.gui.shell.views import Views
from tests.gui.conftest import find, shown_window
from tests.workspace.samples import model_summary

done: list[str] = []


def commands() -> tuple[Command, ...]:
    return (
        show_action("moon", "&Moon", "moon", "Ctrl+9", 250),
        Action(
            "run.fly",
            "&Fly…",
            lambda context: done.append("fly"),
            "run",
            250,
            "play",
            "Ctrl+Alt+F",
            "Go there",
            tool=250,
            why_not=lambda session: "" if session.workspace.model is not None else "Open a model first",
        ),
        Choices(
            "run.craters",
            "&Craters",
            lambda context: [Choice("Tycho", lambda: done.append("Tycho"), words="Land in Tycho")],
            "Run",
            "run",
            260,
        ),
    )


MOON = Feature(
    views=(
        View("moon", "Moon", Place.PAGE, 40, lambda context, parts: QLabel("Moon")),
        View("dust", "Dust", Place.BELOW, 40, lambda context, parts: QLabel("Dust")),
    ),
    commands=commands,
    keys=(("Moon", "Jump", "Space"),),
)


@pytest.fixture
def moon(qapp, replayed_session) -> Iterator[MainWindow]:
    """A window with one feature more than usual."""
    done.clear()
    made = shown_window(qapp, replayed_session, features=(*FEATURES, MOON))
    yield made
    made.close()
    made.deleteLater()


def test_that_a_feature_of_its_own_brings_a_page_and_a_dock(qtbot, moon):
    qtbot.keyClick(moon, Qt.Key.Key_9, Qt.KeyboardModifier.ControlModifier)
    assert moon.views.page == "moon"
    assert moon.views.tabs.currentWidget().objectName() == "tab.moon"
    moon.toggle_view("dust")
    assert moon.views.below.currentWidget().text() == "Dust"
    moon.toggle_view("dust")
    assert not moon.views.below_dock.isVisible()


def test_that_an_action_is_described_once_and_shown_everywhere(moon):
    menu = find(moon, QMenu, "menu.run")
    assert [a.objectName() for a in menu.actions()].count("action.run.fly") == 1
    assert find(moon, QToolButton, "toolbar.run.fly").toolTip() == moon.actions_list["run.fly"].toolTip()
    entry = next(e for e in palette_entries(moon.actions_list, moon.context) if e.text == "Fly")
    assert (entry.group, entry.icon) == ("Run", "play")
    moon.actions_list["help.shortcuts"].trigger()
    table = find(moon, ShortcutsDialog).table
    index = table.model().index
    rows = [[index(row, column).data() for column in range(3)] for row in range(table.rowCount())]
    assert ["Run", "Fly", "Ctrl+Alt+F"] in rows
    assert ["Moon", "Jump", "Space"] in rows


def test_that_an_action_that_cannot_be_done_says_why(moon):
    fly = moon.actions_list["run.fly"]
    assert not fly.isEnabled()
    assert fly.toolTip() == "Go there  (Ctrl+Alt+F)\nOpen a model first"
    moon.context.trigger("run.fly")
    assert done == []


def test_that_a_list_is_in_its_menu_and_in_the_palette(moon):
    craters = find(moon, QMenu, "menu.run.craters")
    craters.aboutToShow.emit()
    craters.actions()[0].trigger()
    next(e for e in palette_entries(moon.actions_list, moon.context) if e.text == "Land in Tycho").run()
    assert done == ["Tycho", "Tycho"]


def test_that_an_action_keeps_the_key_the_user_gave_it(moon):
    moon.settings.set_shortcut("run.fly", "Ctrl+Alt+M")
    assert moon.actions_list["run.fly"].shortcut() == QKeySequence("Ctrl+Alt+M")
    assert "(Ctrl+Alt+M)" in moon.actions_list["run.fly"].toolTip()
    moon.settings.set_shortcut("run.fly", None)
    assert moon.actions_list["run.fly"].shortcut() == QKeySequence("Ctrl+Alt+F")


def test_that_two_actions_of_one_name_are_refused(qapp, replayed_session):
    with pytest.raises(ValueError, match=r"view\.moon"):
        MainWindow(replayed_session, Settings(), qapp, features=(*FEATURES, MOON, MOON))
    (half_built,) = [widget for widget in qapp.topLevelWidgets() if isinstance(widget, MainWindow)]
    half_built.deleteLater()


def test_that_the_page_in_front_is_there_again_at_the_next_start(moon):
    moon.show_view("tradeoff")
    moon.close()
    assert Settings().page == "tradeoff"


def test_that_a_page_that_is_gone_is_not_asked_for(qapp, replayed_session):
    Settings().page = "moon"
    window = shown_window(qapp, replayed_session)
    assert window.views.page == "inspect"
    window.close()
    window.deleteLater()


def test_that_a_menu_has_its_icons_when_it_opens(full):
    actions = full.actions_list
    full.findChild(QMenu, "menu.file").aboutToShow.emit()
    shown = [name for name, described in actions.described.items() if described.menu == "file"]
    drawn = {name for name in shown if not actions[name].icon().isNull()}
    assert drawn == {name for name in shown if actions.described[name].icon}


def test_that_the_palette_says_what_is_chosen_already_and_what_a_threshold_needs(window):
    window.session.workspace.opening.set_model(model_summary(4))
    said = {one.text: one.why_not for one in palette_entries(window.actions_list, window.context)}
    assert said["Activation ranges: Least squared error"] == "Chosen already"
    assert said["Activation ranges: Full range (min and max)"] == ""
    assert said["Threshold on sensitivity"] == "Analyze sensitivity first"


def test_that_a_page_is_built_a_piece_per_turn_of_the_event_loop(qtbot):
    turn, seen = [0], []

    def build(_context, _parts):
        for _ in range(3):
            seen.append(turn[0])
            yield
        seen.append(turn[0])
        page = QLabel("In pieces")
        page.setObjectName("pieces")
        return page

    window = QMainWindow()
    qtbot.addWidget(window)
    page = View("pieces", "Pieces", Place.PAGE, 10, build)
    others = [
        View(name, name, place, 10, lambda _context, _parts: QLabel("there"))
        for name, place in (("below", Place.BELOW), ("next", Place.PAGE))
    ]
    nobody: Any = None
    views = Views(window, nobody, [page, *others])
    built = []
    views.built.connect(lambda widget: built.append((turn[0], widget.text())))
    while not built or built[-1][1] != "there":
        turn[0] += 1
        views.build_next()
    assert seen == [1, 2, 3, 4]
    assert built == [(5, "In pieces"), (7, "there")]
    first = views.tabs.widget(0)
    assert first is not None
    assert find(first, QLabel, "pieces").text() == "In pieces"


def test_that_no_page_of_the_program_is_built_in_one_go():
    pages = [view for feature in FEATURES for view in feature.views if view.place is Place.PAGE]
    assert [view.name for view in pages if not isgeneratorfunction(view.build)] == []
