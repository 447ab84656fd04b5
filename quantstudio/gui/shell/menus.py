"""Menu bar and toolbar, built from the actions; menus that list something are filled when they open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, QSize, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMainWindow, QMenu, QSizePolicy, QToolBar, QToolButton, QWidget

from quantstudio.core.recipe import CalibrationSettings
from quantstudio.core.samples import sample_names
from quantstudio.gui.features.plans.rules_dialog import SCHEME_TEXTS
from quantstudio.gui.session import Session
from quantstudio.gui.shell.actions import Actions
from quantstudio.gui.shell.commands import PRESETS, RANGE_TEXTS, SCOPE_TEXTS
from quantstudio.gui.shell.settings import Settings
from quantstudio.workspace.recipe_edits import PrecisionKey

# Samples asked for; more than a few thousand rarely move a range.
SAMPLE_COUNTS = (64, 128, 256, 512, 1024, 4096, 8192)


class Menus(QObject):
    """Fills a main window's menu bar."""

    def __init__(self, window: QMainWindow, session: Session, settings: Settings, actions: Actions) -> None:
        super().__init__(window)
        self._window = window
        self._session = session
        self._settings = settings
        self._actions = actions
        self._build_file()
        self._build_edit()
        view = self._menu("view", "&View")
        self._add(
            view, "view.palette", "-", "view.inspect", "view.classes", "view.tradeoff", "view.compare", "-"
        )
        self._add(
            view, "view.layers", "view.plans", "view.jobs", "view.log", "-", "view.theme", "view.fullscreen"
        )
        self._add(view, "view.next_area")
        self._build_model()
        self._build_plan()
        self._build_run()
        self._add(self._menu("help", "&Help"), "help.shortcuts", "help.folder", "-", "help.about")

    def _build_file(self) -> None:
        menu = self._menu("file", "&File")
        self._add(menu, "file.new", "file.open", "file.open_code")
        self._filled(menu, "file.recent", "Open &recent", self._fill_recent)
        self._filled(menu, "file.samples", "Open sa&mple", self._fill_samples)
        self._add(menu, "-", "file.save", "file.save_as", "file.locate", "-")
        self._add(menu, "file.import_recipe", "file.export_recipe", "-", "file.export")
        self._add(menu, "file.report", "-", "file.quit")

    def _build_edit(self) -> None:
        menu = self._menu("edit", "&Edit")
        self._add(menu, "edit.undo", "edit.redo", "-")
        for key in PrecisionKey:
            self._add(menu, f"edit.{key.value.lower()}")
        self._filled(menu, "edit.scheme", "Set &selection to", self._fill_selection)
        self._filled(menu, "edit.by_type", "Set all of a &type", self._fill_types)
        self._add(menu, "edit.rules", "edit.threshold", "-", "edit.find", "-", "edit.settings")

    def _build_model(self) -> None:
        menu = self._menu("model", "&Model")
        self._add(menu, "model.data", "-")
        self._filled(menu, "model.ranges", "Activation &ranges by", self._fill_ranges)
        self._filled(menu, "model.samples", "Calibration &samples", self._fill_sample_counts)
        self._filled(menu, "model.scope", "&Quantize activations", self._fill_scopes)
        self._add(menu, "-", "model.notes")

    def _build_plan(self) -> None:
        menu = self._menu("plan", "&Plan")
        menu.aboutToShow.connect(lambda: self._fill_plans(menu))
        self.plan = menu
        self._fill_plans(menu)

    def _build_run(self) -> None:
        menu = self._menu("run", "&Run")
        self._add(menu, "run.all", "-", "run.calibrate", "run.sensitivity", "run.exact", "run.search", "-")
        self._add(menu, "run.quantize")
        presets = menu.addMenu("Quantize by &preset")
        presets.setObjectName("menu.run.presets")
        for name in PRESETS:
            presets.addAction(self._actions[f"run.preset.{name}"])
        self._add(menu, "-", "run.measure", "run.measure_every", "-", "run.stop")

    # Menus that list something.

    def _fill_recent(self, menu: QMenu) -> None:
        for path in self._settings.recent:
            action = menu.addAction(Path(path).name)
            action.setToolTip(path)
            action.triggered.connect(_call(self._session.open_path, path))
        if menu.isEmpty():
            menu.addAction("Nothing yet").setEnabled(False)
        else:
            menu.addSeparator()
            menu.addAction("Forget recent files").triggered.connect(_call(self._settings.clear_recent))

    def _fill_samples(self, menu: QMenu) -> None:
        for name in sample_names():
            title = name.replace("_", " ").capitalize()
            menu.addAction(title).triggered.connect(_call(self._session.open_sample, name))

    def _fill_selection(self, menu: QMenu) -> None:
        for scheme, text in SCHEME_TEXTS.items():
            action = menu.addAction(text)
            action.setEnabled(bool(self._session.selection))
            action.triggered.connect(lambda _=False, s=scheme: self._set_selection(s))

    def _set_selection(self, scheme: str) -> None:
        self._session.set_scheme(self._session.selection, scheme)

    def _fill_types(self, menu: QMenu) -> None:
        for op_type in sorted({layer.op_type for layer in self._session.layers}):
            submenu = menu.addMenu(op_type)
            submenu.setObjectName(f"menu.edit.by_type.{op_type}")
            for scheme, text in SCHEME_TEXTS.items():
                action = submenu.addAction(text)
                action.triggered.connect(_call(self._session.set_scheme_by_type, op_type, scheme))
        if menu.isEmpty():
            menu.addAction("Open a model first").setEnabled(False)

    def _fill_ranges(self, menu: QMenu) -> None:
        settings = self._session.recipe.calibration
        for method, text in RANGE_TEXTS.items():
            chosen = CalibrationSettings(method, settings.percentile, settings.samples)
            self._choice(menu, text, settings.method is method, _call(self._session.set_calibration, chosen))

    def _fill_sample_counts(self, menu: QMenu) -> None:
        settings = self._session.recipe.calibration
        for count in sorted({*SAMPLE_COUNTS, settings.samples}):
            chosen = CalibrationSettings(settings.method, settings.percentile, count)
            is_now = settings.samples == count
            self._choice(
                menu, f"{count:,}".replace(",", " "), is_now, _call(self._session.set_calibration, chosen)
            )

    def _fill_scopes(self, menu: QMenu) -> None:
        now = self._session.recipe.activation_scope
        for scope, text in SCOPE_TEXTS.items():
            self._choice(menu, text, scope is now, _call(self._session.set_activation_scope, scope))

    def _fill_plans(self, menu: QMenu) -> None:
        menu.clear()
        for plan in self._session.plans:
            is_active = plan.name == self._session.active_plan
            self._choice(menu, plan.name, is_active, _call(self._session.activate_plan, plan.name))
        self._add(menu, "-", "plan.add", "plan.duplicate", "plan.delete")

    # Inside.

    def _menu(self, name: str, title: str) -> QMenu:
        menu = self._window.menuBar().addMenu(title)
        menu.setObjectName(f"menu.{name}")
        menu.setToolTipsVisible(True)
        return menu

    def _add(self, menu: QMenu, *names: str) -> None:
        for name in names:
            if name == "-":
                menu.addSeparator()
            else:
                menu.addAction(self._actions[name])

    def _filled(self, menu: QMenu, name: str, title: str, fill: Callable[[QMenu], None]) -> QMenu:
        submenu = menu.addMenu(title)
        submenu.setObjectName(f"menu.{name}")
        submenu.setToolTipsVisible(True)

        def refill() -> None:
            submenu.clear()
            fill(submenu)

        submenu.aboutToShow.connect(refill)
        return submenu

    def _choice(self, menu: QMenu, text: str, is_chosen: bool, slot: Callable[[], None]) -> None:
        action = menu.addAction(text.replace("&", "&&"))
        action.setCheckable(True)
        action.setChecked(is_chosen)
        action.triggered.connect(slot)


class ToolBar(QToolBar):
    """Open, Save; the three analyses; Quantize on the accent colour; plan; report, export and theme right."""

    def __init__(self, window: QMainWindow, actions: Actions, plans: QMenu) -> None:
        super().__init__("Toolbar", window)
        self.setObjectName("toolbar")
        self.setAccessibleName("Toolbar")
        self.setMovable(False)
        self.setIconSize(QSize(18, 18))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self._actions = actions
        self._put("file.open", "file.save", "-")
        self._put("run.calibrate", "run.sensitivity", "run.measure", "run.search", "-")
        self._put("run.quantize", "run.stop", "-")
        self.plan = QToolButton(self)
        self.plan.setObjectName("toolbar.plan")
        # As the buttons beside it: keys reach all of them through the menus.
        self.plan.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.plan.setAccessibleName("Plan")
        self.plan.setToolTip("The plan being edited; several stand side by side")
        self.plan.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.plan.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.plan.setMenu(plans)
        self.addWidget(self.plan)
        space = QWidget(self)
        space.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.addWidget(space)
        self._put("file.report", "file.export", "view.theme")
        theme = self.widgetForAction(actions["view.theme"])
        if isinstance(theme, QToolButton):
            # The picture says it; its word is the first that a small screen has no room for.
            theme.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)

    def _put(self, *names: str) -> None:
        for name in names:
            if name == "-":
                self.addSeparator()
                continue
            action: QAction = self._actions[name]
            self.addAction(action)
            button = self.widgetForAction(action)
            button.setObjectName(f"toolbar.{name}")
            button.setAccessibleName(self._actions.spec(name).plain_text)
            if self._actions.spec(name).is_primary:
                button.setProperty("primary", True)


def _call(function: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: function(*arguments)
