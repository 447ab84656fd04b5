"""Places the views of all features: pages as tabs, docks left and below, the row on top."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from PySide6.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDockWidget,
    QFrame,
    QMainWindow,
    QStackedWidget,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from shiboken6 import isValid
from typing_extensions import override

from quantstudio.gui.action import Context
from quantstudio.gui.feature import Building, Place, View
from quantstudio.gui.shell.page_scroll import PageScroll
from quantstudio.gui.theme import icon, theme_hub
from quantstudio.gui.widgets.card import Card

MARGIN = 12
GAP = 8
DOCK_SHARE = 0.43
DOCK_MAX_PX = 690
DOCK_MINIMUM_PX = 240
# Of a window: a narrower one shows the pages or the layers, not both.
NARROW_PX = 1000
BELOW_MIN_PX = 190
TABS_MINIMUM_PX = 120


class Views(QObject):
    """The inside of a main window.

    Emits `built(widget)` for what is made after the window, and `all_built` when the last page is filled.
    """

    all_built = Signal()
    built = Signal(QWidget)

    def __init__(self, window: QMainWindow, context: Context, views: Iterable[View]) -> None:
        super().__init__(window)
        self._window = window
        self._context = context
        self._views = {view.name: view for view in sorted(views, key=lambda view: view.order)}
        self._widgets: dict[str, QWidget] = {}
        self._behind_start: list[QDockWidget] = []
        self._below_height = 0
        self._late = [made for page in self._at(Place.PAGE) for made in (*self._parts_of(page.name), page)]
        self._building: Building | None = None
        for place in (Place.LEFT, Place.TOP, Place.BELOW):
            for view in self._at(place):
                self._widgets[view.name] = built_at_once(view, context)
        # A timer of its own: PySide at times frees those of QTimer.singleShot while they wait to be deleted.
        self._next_timer = QTimer(self)
        self._next_timer.setSingleShot(True)
        self._next_timer.timeout.connect(self.build_next)
        self._fit_timer = QTimer(self)
        self._fit_timer.setSingleShot(True)
        self._fit_timer.timeout.connect(self.size_docks)
        self.dock_share = DOCK_SHARE
        self._is_left_away = False
        self._below_pages: QWidget | None = None
        self._window_width = 0
        self._build_centre()
        self._build_left()
        self._build_below()
        theme_hub().theme_changed.connect(self._retheme)
        self._retheme()

    def _at(self, place: Place) -> list[View]:
        return [view for view in self._views.values() if view.place is place]

    def _parts_of(self, page: str) -> list[View]:
        return [view for view in self._at(Place.PART) if view.page == page]

    # Building.

    def _build_centre(self) -> None:
        centre = QWidget(self._window)
        centre.setObjectName("centre")
        column = QVBoxLayout(centre)
        column.setContentsMargins(0, MARGIN - 2, MARGIN, GAP)
        column.setSpacing(GAP)
        for view in self._at(Place.TOP):
            column.addWidget(self._widgets[view.name])
        self.tabs = QTabWidget(centre)
        self.tabs.setObjectName("tabs")
        self.tabs.setAccessibleName("Views")
        self.tabs.tabBar().setAccessibleName("Views")
        self.tabs.setDocumentMode(True)
        # On a small screen, with the panel below open, the pages give way first.
        self.tabs.setMinimumHeight(TABS_MINIMUM_PX)
        self._left_button = self._make_left_button()
        for view in self._at(Place.PAGE):
            self.tabs.addTab(_page(view.name), view.title)
        column.addWidget(self.tabs, 1)
        self._stack = QStackedWidget(self._window)
        self._stack.setObjectName("stack")
        self._stack.addWidget(centre)
        whole = QWidget(self._window)
        self._whole = QVBoxLayout(whole)
        self._whole.setContentsMargins(0, 0, 0, 0)
        self._whole.setSpacing(0)
        self._whole.addWidget(self._stack, 1)
        self._window.setCentralWidget(whole)
        self._columns = [column]

    def _make_left_button(self) -> QToolButton:
        """Brings back what stands left of the pages, where it is away or takes turns with them."""
        button = QToolButton()
        button.setObjectName("tabs.left")
        button.setCheckable(True)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setIconSize(QSize(16, 16))
        for view in self._at(Place.LEFT):
            button.setText(view.title)
            button.setAccessibleName(f"Show the {view.title.lower()} beside the pages")
            button.setToolTip(f"{view.title} beside the pages")
            button.clicked.connect(partial(self.toggle, view.name))
        self.tabs.setCornerWidget(button, Qt.Corner.TopLeftCorner)
        button.hide()
        return button

    def add_below_pages(self, widget: QWidget) -> None:
        """Give something of the window a place of its own between the pages and the status bar."""
        # Margins of its own: those of a layout would stay while it is hidden.
        widget.setContentsMargins(MARGIN, 0, MARGIN, GAP)
        self._whole.addWidget(widget)
        self._below_pages = widget

    def _build_left(self) -> None:
        self.left_dock: QDockWidget | None = None
        for view in self._at(Place.LEFT):
            holder = QWidget()
            column = QVBoxLayout(holder)
            column.setContentsMargins(MARGIN, MARGIN - 2, 0, GAP)
            # Less than it asks for: a window made small at once must not be held by what goes a moment later.
            holder.setMinimumWidth(DOCK_MINIMUM_PX)
            column.addWidget(self._widgets[view.name])
            self._columns.append(column)
            self.left_dock = self._dock(view.name, view.title, holder, Qt.DockWidgetArea.LeftDockWidgetArea)
            self.left_dock.installEventFilter(self)
            self.left_dock.visibilityChanged.connect(self._on_left_shown)

    def _build_below(self) -> None:
        views = self._at(Place.BELOW)
        titles = [view.title.lower() for view in views]
        title = f"{', '.join(titles[:-1])} and {titles[-1]}"
        self._window.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.BottomDockWidgetArea)
        self.below = QTabWidget()
        self.below.setObjectName("below")
        self.below.setDocumentMode(True)
        for widget in (self.below, self.below.tabBar()):
            widget.setAccessibleName(title.capitalize())
        for view in views:
            self.below.addTab(self._widgets[view.name], view.title)
        self._close_below = QToolButton()
        self._close_below.setObjectName("below.close")
        self._close_below.setAccessibleName(f"Hide {title}")
        self._close_below.setToolTip("Hide this panel")
        self._close_below.setAutoRaise(True)
        self._close_below.setIconSize(QSize(14, 14))
        self._close_below.clicked.connect(self._hide_below)
        self.below.setCornerWidget(self._close_below)
        card = QFrame()
        card.setProperty("card", True)
        card_column = QVBoxLayout(card)
        card_column.setContentsMargins(6, 2, 6, 4)
        card_column.addWidget(self.below)
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(MARGIN, 0, MARGIN, GAP)
        column.addWidget(card)
        self.below_dock = self._dock(
            "below", ", ".join(titles).capitalize(), holder, Qt.DockWidgetArea.BottomDockWidgetArea
        )
        self.below_dock.hide()
        self.below_dock.visibilityChanged.connect(self._on_below_shown)

    def _dock(self, name: str, title: str, widget: QWidget, area: Qt.DockWidgetArea) -> QDockWidget:
        dock = QDockWidget(title, self._window)
        dock.setObjectName(f"dock.{name}")
        dock.setAccessibleName(title)
        dock.setFeatures(QDockWidget.DockWidgetFeature.DockWidgetClosable)
        dock.setTitleBarWidget(QWidget())
        dock.setWidget(widget)
        self._window.addDockWidget(area, dock)
        return dock

    def size_docks(self) -> None:
        """Give the dock on the left its share of the window, less where the pages need more.

        In a narrow window it goes; it comes back with the room, unless the user has done otherwise.
        """
        if self.left_dock is None or self.is_start_shown:
            return
        is_narrow = self._window.width() < NARROW_PX
        if is_narrow != (self._window_width < NARROW_PX) or not self._window_width:
            if is_narrow and self.left_dock.isVisible():
                self._is_left_away = True
                self.left_dock.hide()
            elif not is_narrow and self._is_left_away:
                self._is_left_away = False
                self.left_dock.show()
        self._window_width = self._window.width()
        self._show_left_button()
        width = self._window.width()
        largest = DOCK_MAX_PX if self.dock_share == DOCK_SHARE else width
        needed = max((self._needed(page) for page in self._at(Place.PAGE)), default=0) + MARGIN + GAP
        least = max(self._widgets[view.name].minimumSizeHint().width() for view in self._at(Place.LEFT))
        wanted = max(least + MARGIN, min(largest, round(width * self.dock_share), width - needed))
        self._window.resizeDocks([self.left_dock], [wanted], Qt.Orientation.Horizontal)

    def _needed(self, page: View) -> int:
        """Width a page can be used in without scrolling; 0 before it is built."""
        widget = self._widgets.get(page.name)
        return 0 if widget is None else max(widget.minimumSizeHint().width(), widget.minimumWidth())

    @override
    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """A dock that is drawn wider with the mouse keeps that share of the window."""
        is_drawn = bool(QGuiApplication.mouseButtons() & Qt.MouseButton.LeftButton)
        is_sized = event.type() == QEvent.Type.Resize and self._window.width() == self._window_width
        if is_drawn and is_sized and self.left_dock is not None and self.left_dock is watched:
            self.dock_share = self.left_dock.width() / self._window_width
        return super().eventFilter(watched, event)

    def layout_state(self) -> str:
        """The share of the layers, whether they are shown, and how high the panel below is if it is."""
        is_left_hidden = self.left_dock is not None and self.left_dock.isHidden() and not self._is_left_away
        below = 0 if self.below_dock.isHidden() else self.below_dock.height()
        return f"share={self.dock_share:.4f} left={int(not is_left_hidden)} below={below}"

    def restore_layout_state(self, text: str) -> None:
        """Go back to what was arranged; nonsense is ignored."""
        found = dict(part.partition("=")[::2] for part in text.split())
        try:
            share, below = float(found["share"]), int(found["below"])
        except (KeyError, ValueError):
            return
        if 0 < share < 1:
            self.dock_share = share
        if self.left_dock is not None and found.get("left") == "0":
            self.left_dock.hide()
        if below > 0:
            self._below_height = below
            self._show_below(self.below.currentWidget())

    def build_next(self) -> None:
        """Build what draws, a piece per turn of the event loop: the window stays usable."""
        if not isValid(self) or not self._late:
            return
        view = self._late[0]
        if view.name not in self._widgets:
            self._build_piece(view)
        else:
            self._late.pop(0)
            if view.place is Place.PAGE:
                self._fill_page(view.name)
            self.built.emit(self._widgets[view.name])
        if self._late:
            self._next_timer.start(0)
        else:
            self.all_built.emit()

    def _build_piece(self, view: View) -> None:
        if self._building is None:
            parts = {part.name: self._widgets[part.name] for part in self._parts_of(view.name)}
            made = view.build(self._context, parts)
            if isinstance(made, QWidget):
                self._widgets[view.name] = made
                return
            self._building = made
        try:
            next(self._building)
        except StopIteration as done:
            self._widgets[view.name], self._building = done.value, None

    def _fill_page(self, name: str) -> None:
        page = self.tabs.widget(self.page_names.index(name))
        layout = page.layout() if page is not None else None
        if layout is None:
            return
        old = layout.takeAt(0)
        placeholder = old.widget() if old is not None else None
        if placeholder is not None:
            placeholder.deleteLater()
        scroll = PageScroll(self._widgets[name].objectName())
        scroll.needs_changed.connect(self._fit_timer.start)
        layout.addWidget(scroll)
        scroll.hold(self._widgets[name])

    # Showing.

    @property
    def page_names(self) -> list[str]:
        """Pages from left to right."""
        return [view.name for view in self._at(Place.PAGE)]

    @property
    def page(self) -> str:
        """The page that is in front."""
        return self.page_names[self.tabs.currentIndex()]

    def show(self, name: str) -> None:
        """Bring a view to the front; a part brings its page.

        Raises:
            KeyError: there is no such view.
        """
        view = self._views[name]
        match view.place:
            case Place.START:
                self.show_start()
            case Place.PAGE | Place.PART:
                self.leave_start()
                self.tabs.setCurrentIndex(self.page_names.index(view.page or name))
            case Place.BELOW:
                self._show_below(self._widgets[name])
            case Place.LEFT:
                self._is_left_away = False
                self.leave_start()
                self._left(name).show()
            case Place.TOP:
                self.leave_start()
                self._widgets[name].show()

    def toggle(self, name: str) -> None:
        """Show a view; hide it if it is shown already. A page is only ever shown.

        Raises:
            KeyError: there is no such view.
        """
        view = self._views[name]
        is_shown = self._widgets[name].isVisible() if name in self._widgets else False
        if view.place is Place.BELOW and is_shown:
            self.below_dock.hide()
        elif view.place is Place.LEFT and not self.is_start_shown:
            self._is_left_away = False
            self._left(name).setVisible(not is_shown)
        elif view.place is Place.TOP and not self.is_start_shown:
            self._widgets[name].setVisible(not is_shown)
        else:
            self.show(name)

    @property
    def is_start_shown(self) -> bool:
        """Whether the start page stands in the place of everything else."""
        return self._stack.currentIndex() > 0

    def show_start(self) -> None:
        """Show the start page instead of pages and docks; nothing happens in a window without one."""
        start = next(iter(self._at(Place.START)), None)
        if start is None or self.is_start_shown:
            return
        if start.name not in self._widgets:
            self._widgets[start.name] = built_at_once(start, self._context)
            self._stack.addWidget(self._widgets[start.name])
        self._behind_start = [
            dock for dock in (self.left_dock, self.below_dock) if dock is not None and not dock.isHidden()
        ]
        for dock in self._behind_start:
            dock.hide()
        self._stack.setCurrentIndex(1)

    def leave_start(self) -> None:
        """Show pages and docks again as they were."""
        if not self.is_start_shown:
            return
        self._stack.setCurrentIndex(0)
        for dock in self._behind_start:
            dock.show()
        self._behind_start = []
        self.size_docks()

    def focus_next_area(self) -> None:
        """Move the focus on: the layers, the tabs, the panel below where it is open."""
        areas: list[tuple[QWidget, QWidget]] = [
            (self.tabs, self.tabs.tabBar()),
            (self.below_dock, self.below.tabBar()),
        ]
        for view in self._at(Place.LEFT):
            target = self._widgets[view.name].findChild(QWidget, view.focus)
            areas.insert(0, (self._left(view.name), target or self._widgets[view.name]))
        areas += [
            (self._widgets[view.name], self._widgets[view.name])
            for view in self._at(Place.START)
            if view.name in self._widgets
        ]
        shown = [(area, target) for area, target in areas if area.isVisible()]
        focused = self._window.focusWidget()
        now = next(
            (i for i, (area, _) in enumerate(shown) if focused is not None and area.isAncestorOf(focused)), -1
        )
        shown[(now + 1) % len(shown)][1].setFocus(Qt.FocusReason.TabFocusReason)

    def _left(self, name: str) -> QDockWidget:
        dock = self._window.findChild(QDockWidget, f"dock.{name}")
        assert dock is not None  # made with the view
        return dock

    def _show_below(self, widget: QWidget) -> None:
        self.below.setCurrentWidget(widget)
        if not self.below_dock.isVisible():
            # Now, not when Qt says that it is visible: every plot would be drawn once more.
            self._on_below_shown(shown=True)
            self.below_dock.show()
            height = self._below_height or max(BELOW_MIN_PX, self._window.height() // 5)
            self._window.resizeDocks([self.below_dock], [height], Qt.Orientation.Vertical)

    def _hide_below(self) -> None:
        self.below_dock.hide()

    def _on_below_shown(self, shown: bool) -> None:
        """The separator above the panel is the gap; without the panel the margin is."""
        for layout in self._columns:
            margins = layout.contentsMargins()
            if margins.bottom() != (0 if shown else GAP):
                margins.setBottom(0 if shown else GAP)
                layout.setContentsMargins(margins)

    def _show_left_button(self) -> None:
        is_away = self.left_dock is not None and self.left_dock.isHidden()
        self._left_button.setChecked(not is_away)
        self._left_button.setVisible(is_away or 0 < self._window_width < NARROW_PX)

    def _on_left_shown(self, _is_shown: bool) -> None:
        """The separator beside the layers is the gap; without them the pages have a margin of their own."""
        margins = self._columns[0].contentsMargins()
        is_hidden = self.left_dock is None or self.left_dock.isHidden()
        left = MARGIN if is_hidden else 0
        self._show_left_button()
        margins.setLeft(left)
        self._columns[0].setContentsMargins(margins)
        if self._below_pages is not None:
            self._below_pages.setContentsMargins(left, 0, MARGIN, GAP)

    def _retheme(self) -> None:
        self._left_button.setIcon(icon("layers"))
        self._close_below.setIcon(icon("close", "muted", 14))


def _page(name: str) -> QWidget:
    page = QWidget()
    page.setObjectName(f"tab.{name}")
    layout = QVBoxLayout(page)
    layout.setContentsMargins(0, GAP, 0, 0)
    layout.setSpacing(GAP)
    layout.addWidget(Card())
    return page


def built_at_once(view: View, context: Context) -> QWidget:
    """The widget of a view that is there from the start, whether or not it is made in pieces."""
    made = view.build(context, {})
    while not isinstance(made, QWidget):
        try:
            next(made)
        except StopIteration as done:
            made = done.value
    return made
