"""Everything the user can do, as action specs, and what each of them does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QUrl
from PySide6.QtGui import QDesktopServices, QKeySequence
from PySide6.QtWidgets import QFileDialog

from quantstudio.core.folders import config_folder
from quantstudio.core.recipe import ActivationScope, RangeMethod
from quantstudio.core.samples import sample_names
from quantstudio.gui.features.data.data_dialog import DataDialog
from quantstudio.gui.features.data.trust_dialog import TrustDialog
from quantstudio.gui.features.export.export_dialog import ExportDialog
from quantstudio.gui.features.plans.rules_dialog import SCHEME_TEXTS, RulesDialog
from quantstudio.gui.shell.actions import ActionSpec
from quantstudio.gui.shell.help_dialogs import AboutDialog, ShortcutsDialog
from quantstudio.gui.shell.settings_dialog import SettingsDialog
from quantstudio.gui.theme import ThemeChoice, current_theme
from quantstudio.gui.widgets.command_palette import PaletteEntry
from quantstudio.project.references import ReferenceKind
from quantstudio.project.store import SUFFIX
from quantstudio.workspace.recipe_edits import PrecisionKey
from quantstudio.workspace.values import TrustRequest

if TYPE_CHECKING:
    from quantstudio.gui.shell.main_window import MainWindow

OPEN_FILTER = (
    "Everything QuantStudio reads (*.onnx *.qstudio *.npz *.pt2 *.pt *.pth *.ts *.safetensors *.json);;"
    "Models (*.onnx *.pt2 *.pt *.pth *.ts *.torchscript *.safetensors);;Projects (*.qstudio);;"
    "Data (*.npz);;Recipes (*.json);;All files (*)"
)
RANGE_TEXTS = {
    RangeMethod.MSE: "Least squared error",
    RangeMethod.MINMAX: "Full range (min and max)",
    RangeMethod.PERCENTILE: "Percentile 99.999",
    RangeMethod.ENTROPY: "Entropy",
}
SCOPE_TEXTS = {
    ActivationScope.ALL: "Every operator with an integer kernel",
    ActivationScope.WEIGHTED: "Around weights only (transformers)",
}
PRESETS = {
    "auto": "Best that is not slower",
    "static-int8": "INT8 everywhere",
    "dynamic-int8": "INT8, ranges at run time",
    "weight-int8": "INT8 weights only",
    "weight-int4": "INT4 weights only",
    "float16": "FP16 weights",
}


class Commands(QObject):
    """Slots of the actions; dialogs are opened, never run, so the window goes on."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._session = window.session
        self._settings = window.settings
        self._session.documents.trust_requested.connect(self.ask_for_trust)
        self._session.documents.data_offered.connect(self.choose_data)
        self._session.documents.pair_offered.connect(self.choose_data_pair)
        self._session.documents.opened.connect(self._settings.add_recent)

    def specs(self) -> tuple[ActionSpec, ...]:
        """All actions, menu by menu."""
        return (
            *self._file(),
            *self._edit(),
            *self._view(),
            *self._model(),
            *self._plan(),
            *self._run(),
            *self._help(),
        )

    def _file(self) -> tuple[ActionSpec, ...]:
        return (
            ActionSpec("file.new", "&New project", self._session.documents.new_project, "plus", "Ctrl+N"),
            ActionSpec(
                "file.open",
                "&Open…",
                self.open_file,
                "open",
                "Ctrl+O",
                "Open a model, data, a project or a recipe",
                short="Open",
            ),
            ActionSpec("file.open_code", "Open from P&ython…", self.open_code, "command"),
            ActionSpec(
                "file.save",
                "&Save project…",
                self.save,
                "save",
                "Ctrl+S",
                "Give the project a file; every change is kept at once",
                short="Save",
            ),
            ActionSpec("file.save_as", "Save project &as…", self.save_as, keys="Ctrl+Shift+S"),
            ActionSpec("file.locate", "&Locate missing files…", self.locate, "search"),
            ActionSpec("file.import_recipe", "&Import recipe…", self.import_recipe),
            ActionSpec("file.export_recipe", "Export &recipe…", self.export_recipe),
            ActionSpec(
                "file.export",
                "&Export model…",
                self.export,
                "export",
                "Ctrl+E",
                "Write the quantized ONNX model and its recipe",
                short="Export",
            ),
            ActionSpec(
                "file.report",
                "Re&port…",
                self.report,
                "report",
                "Ctrl+P",
                "Write everything known as one HTML file",
                short="Report",
            ),
            ActionSpec("file.quit", "&Quit", self._window.close, keys="Ctrl+Q"),
        )

    def _edit(self) -> tuple[ActionSpec, ...]:
        keys = {
            PrecisionKey.INT8: "8",
            PrecisionKey.INT4: "4",
            PrecisionKey.FP16: "F",
            PrecisionKey.FP32: "3",
        }
        return (
            ActionSpec("edit.undo", "&Undo", self._session.undo, "undo", "Ctrl+Z"),
            ActionSpec("edit.redo", "&Redo", self._session.redo, "redo", "Ctrl+Shift+Z | Ctrl+Y"),
            *(
                ActionSpec(
                    f"edit.{key.value.lower()}",
                    f"Set selection to {key.value}",
                    self._precision_setter(key),
                    keys=letter,
                )
                for key, letter in keys.items()
            ),
            ActionSpec("edit.rules", "R&ules…", self.edit_rules, "rules", "Ctrl+Shift+R"),
            ActionSpec(
                "edit.threshold",
                "&Threshold on sensitivity",
                self._window.show_threshold,
                "sensitivity",
                "Ctrl+Shift+H",
                "Put everything above a line in one precision",
            ),
            ActionSpec("edit.find", "&Find layer", self._window.focus_filter, "search", "Ctrl+F"),
            ActionSpec("edit.settings", "&Settings…", self.edit_settings, "settings", "Ctrl+,"),
        )

    def _view(self) -> tuple[ActionSpec, ...]:
        window = self._window
        return (
            ActionSpec(
                "view.theme", "Light or dark &theme", self.toggle_theme, "moon", "Ctrl+T", short="Theme"
            ),
            ActionSpec("view.palette", "&Command palette", self.open_palette, "command", "Ctrl+K"),
            ActionSpec("view.fullscreen", "F&ull screen", self.toggle_fullscreen, "fit", "F11"),
            ActionSpec("view.inspect", "&Inspect", lambda: window.show_tab(0), "search", "Ctrl+1"),
            ActionSpec("view.classes", "Sensitivity by &class", window.show_classes, "sensitivity"),
            ActionSpec("view.tradeoff", "Trade-&off", lambda: window.show_tab(1), "tradeoff", "Ctrl+2"),
            ActionSpec("view.compare", "Com&pare", lambda: window.show_tab(2), "compare", "Ctrl+3"),
            ActionSpec("view.plans", "P&lans", lambda: window.toggle_below("plans"), "plan", "Ctrl+4"),
            ActionSpec("view.jobs", "&Jobs", lambda: window.toggle_below("jobs"), "list", "Ctrl+5"),
            ActionSpec("view.log", "Lo&g", lambda: window.toggle_below("log"), "log", "Ctrl+6"),
            ActionSpec("view.layers", "Layer t&able", window.toggle_layers, "layers", "Ctrl+L"),
            ActionSpec("view.next_area", "Go to the &next area", window.focus_next_area, keys="F6"),
        )

    def _model(self) -> tuple[ActionSpec, ...]:
        return (
            ActionSpec("model.data", "&Data…", self.choose_data, "data", "Ctrl+D"),
            ActionSpec("model.notes", "&Notes on this model", self.show_notes, "info"),
        )

    def _plan(self) -> tuple[ActionSpec, ...]:
        session = self._session
        return (
            ActionSpec("plan.add", "&New plan", session.add_plan, "plus", "Ctrl+Shift+N"),
            ActionSpec(
                "plan.duplicate",
                "&Duplicate plan",
                lambda: session.duplicate_plan(session.active_plan),
                "copy",
                "Ctrl+Shift+D",
            ),
            ActionSpec(
                "plan.delete", "D&elete plan", lambda: session.delete_plan(session.active_plan), "delete"
            ),
        )

    def _run(self) -> tuple[ActionSpec, ...]:
        session = self._session
        return (
            ActionSpec(
                "run.all", "Run &everything", session.run_all, "play", "F5", "Analyze, quantize, measure"
            ),
            ActionSpec(
                "run.calibrate",
                "&Calibrate",
                session.calibrate,
                "calibrate",
                "Ctrl+Shift+C",
                "Run the calibration data through the model",
            ),
            ActionSpec(
                "run.sensitivity",
                "&Sensitivity",
                session.analyze,
                "sensitivity",
                "Ctrl+Shift+A",
                "Rank the layers by what quantizing them costs",
            ),
            ActionSpec(
                "run.exact",
                "E&xact sensitivity of selection",
                self.exact_sensitivity,
                tip="Quantize the selected layers one at a time and measure",
            ),
            ActionSpec(
                "run.measure",
                "&Measure",
                session.measure,
                "measure",
                "Ctrl+M",
                "Measure accuracy, latency and memory of the plan against FP32",
            ),
            ActionSpec(
                "run.search",
                "Searc&h…",
                self.search,
                "search",
                "Ctrl+Shift+F",
                "Find the best precision of every layer within a budget",
                short="Search",
            ),
            ActionSpec("run.measure_every", "Measure every &variant", session.measure_every, "compare"),
            ActionSpec(
                "run.quantize",
                "&Quantize",
                session.quantize,
                "quantize",
                "Ctrl+R",
                "Build the model as the plan says",
                is_primary=True,
            ),
            ActionSpec(
                "run.stop", "S&top", session.cancel, "stop", "Esc", "Stop what runs; finished layers are kept"
            ),
            *(
                ActionSpec(
                    f"run.preset.{name}",
                    text,
                    self._preset_runner(name),
                    tip=f"Quantize with the preset {name}; its recipe becomes the plan's",
                )
                for name, text in PRESETS.items()
            ),
        )

    def _help(self) -> tuple[ActionSpec, ...]:
        return (
            ActionSpec("help.shortcuts", "&Keyboard shortcuts", self.show_shortcuts, "keyboard", "F1"),
            ActionSpec("help.folder", "Open the &log folder", self.open_log_folder, "log"),
            ActionSpec("help.about", "&About QuantStudio", self.show_about, "help"),
        )

    # File.

    def open_file(self) -> None:
        """Ask for a file and open it."""
        self._ask_for_file("file.open", "Open", OPEN_FILTER, self._session.open_path)

    def open_code(self) -> None:
        """Open what a Python function makes."""
        self.ask_for_trust(TrustRequest("", "model", "This calls a Python function of yours."))

    def save(self) -> None:
        """Ask for a file unless the project has one, in which everything is already."""
        project = self._session.project
        if project.is_temporary:
            self.save_as()
        else:
            self._window.toasts.show(
                "success",
                f"{project.path.name} is up to date",
                "Every change is written the moment it happens",
            )

    def save_as(self) -> None:
        """Ask for a file and go on there."""
        model = self._session.model
        name = f"{Path(model.source_path).stem}{SUFFIX}" if model else f"project{SUFFIX}"
        self._ask_for_target(
            "file.save_as", "Save project", name, f"Projects (*{SUFFIX})", self._session.documents.save_as
        )

    def locate(self) -> None:
        """Ask where the first missing file is now."""
        missing = self._session.project.missing()
        if not missing:
            self._window.toasts.show("info", "Nothing is missing", "")
            return
        gone = missing[0]

        def found(path: str) -> None:
            self._session.documents.locate(ReferenceKind(gone.kind), path)

        self._ask_for_file("file.locate", f"Where is {Path(gone.path).name}?", "All files (*)", found)

    def import_recipe(self) -> None:
        """Ask for a recipe and make it the plan's."""
        self._ask_for_file(
            "file.import_recipe", "Import recipe", "Recipes (*.json)", self._session.documents.import_recipe
        )

    def export_recipe(self) -> None:
        """Ask for a file and write the recipe there."""
        name = f"{self._stem()}.recipe.json"
        self._ask_for_target(
            "file.export_recipe", "Export recipe", name, "Recipes (*.json)", self._session.export_recipe
        )

    def export(self) -> None:
        """Open the export dialog."""
        folder = self._settings.folder or str(Path.home())
        ExportDialog(self._session, str(Path(folder) / f"{self._stem()}.int8.onnx"), self._window).open()

    def report(self) -> None:
        """Ask for a file and write the report there."""
        name = f"{self._stem()}.report.html"
        self._ask_for_target("file.report", "Write report", name, "HTML (*.html)", self._session.write_report)

    # Edit, view, model.

    def edit_rules(self) -> None:
        """Open the rules dialog."""
        RulesDialog(self._session, self._window).open()

    def edit_settings(self) -> None:
        """Open the settings dialog."""
        dialog = SettingsDialog(self._settings, self._window.actions_list, self._window)
        self._session.workflow.devices(dialog.offer_devices)
        dialog.open()

    def toggle_theme(self) -> None:
        """Switch between light and dark, and stay with it."""
        self._settings.theme = ThemeChoice.LIGHT if current_theme().is_dark else ThemeChoice.DARK

    def toggle_fullscreen(self) -> None:
        """Fill the screen, or go back."""
        if self._window.isFullScreen():
            self._window.showNormal()
        else:
            self._window.showFullScreen()

    def choose_data(self, offered: str = "") -> None:
        """Open the data dialog, with a path filled in if one was offered."""
        DataDialog(self._session, self._window, offered=offered).open()

    def choose_data_pair(self, calibration: str, test: str) -> None:
        """Open the data dialog with both paths filled in."""
        DataDialog(self._session, self._window, offered=calibration, offered_test=test).open()

    def show_notes(self) -> None:
        """What normalisation changed, in the log."""
        model = self._session.model
        notes = model.notes if model else ()
        self._window.show_notes(notes or ("Nothing had to be changed on opening.",))

    def search(self) -> None:
        """Show the budget of a search beside the trade-off."""
        self._window.show_search()

    def exact_sensitivity(self) -> None:
        """Measure the selected layers one at a time."""
        self._session.exact_sensitivity(self._session.selection)

    def set_range_method(self, method: RangeMethod) -> None:
        """Read activation ranges off the histograms in another way."""
        self._session.set_calibration(replace(self._session.recipe.calibration, method=method))

    # Trust, help, palette.

    def ask_for_trust(self, request: TrustRequest) -> None:
        """Open the question whether to run a file."""
        dialog = TrustDialog(request, self._window)
        dialog.trusted.connect(self._session.documents.trust)
        dialog.open()

    def show_shortcuts(self) -> None:
        """Open the list of keys."""
        ShortcutsDialog(self._window.actions_list, self._window).open()

    def show_about(self) -> None:
        """Open the about box."""
        AboutDialog(self._window).open()

    def open_log_folder(self) -> None:
        """Show the folder of logs and fault reports."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(config_folder())))

    def open_palette(self) -> None:
        """Open the command palette with commands, plans, samples, recent files and layers."""
        self._window.palette_dialog.open_with(self._palette_entries())

    def _palette_entries(self) -> list[PaletteEntry]:
        actions, session = self._window.actions_list, self._session
        native = QKeySequence.SequenceFormat.NativeText
        entries = [
            PaletteEntry(
                _palette_text(spec),
                spec.menu,
                actions[spec.name].trigger,
                actions[spec.name].shortcut().toString(native),
                spec.icon,
                actions[spec.name].isEnabled(),
            )
            for spec in actions.specs
            if spec.in_palette and spec.name != "view.palette"
        ]
        entries += [
            PaletteEntry(
                f"Switch to {plan.name}", "Plan", _call(session.activate_plan, plan.name), icon="plan"
            )
            for plan in session.plans
            if plan.name != session.active_plan
        ]
        entries += [
            PaletteEntry(
                f"Activation ranges: {text}", "Model", _call(self.set_range_method, method), icon="calibrate"
            )
            for method, text in RANGE_TEXTS.items()
        ]
        entries += [
            PaletteEntry(f"Quantize activations: {text}", "Model", _call(session.set_activation_scope, scope))
            for scope, text in SCOPE_TEXTS.items()
        ]
        entries += [
            PaletteEntry(
                f"Set all {op_type} to {text}", "Edit", _call(session.set_scheme_by_type, op_type, scheme)
            )
            for op_type in sorted({layer.op_type for layer in session.layers})
            for scheme, text in SCHEME_TEXTS.items()
        ]
        entries += [
            PaletteEntry(f"Open sample {name}", "File", _call(session.open_sample, name), icon="sample")
            for name in sample_names()
        ]
        entries += [
            PaletteEntry(f"Open {Path(path).name}", "Recent", _call(session.open_path, path), icon="file")
            for path in self._settings.recent
        ]
        entries += [
            PaletteEntry(layer.name, "Layer", _call(session.select, [layer.name]), icon="layers")
            for layer in session.layers
        ]
        return entries

    # Inside.

    def _precision_setter(self, key: PrecisionKey) -> Callable[[], None]:
        return lambda: self._session.set_precision(self._session.selection, key)

    def _preset_runner(self, name: str) -> Callable[[], None]:
        return lambda: self._session.quantize_preset(name)

    def _stem(self) -> str:
        model = self._session.model
        return Path(model.source_path).stem if model else "model"

    def _ask_for_file(self, name: str, title: str, filters: str, then: Callable[[str], None]) -> None:
        dialog = QFileDialog(self._window, title, self._settings.folder, filters)
        dialog.setObjectName(f"{name}.dialog")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(lambda path: self._chosen(path, then))
        dialog.open()

    def _ask_for_target(
        self, name: str, title: str, proposed: str, filters: str, then: Callable[[str], None]
    ) -> None:
        dialog = QFileDialog(self._window, title, str(Path(self._settings.folder) / proposed), filters)
        dialog.setObjectName(f"{name}.dialog")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(lambda path: self._chosen(path, then))
        dialog.open()

    def _chosen(self, path: str, then: Callable[[str], None]) -> None:
        self._settings.folder = str(Path(path).parent)
        then(path)


def _palette_text(spec: ActionSpec) -> str:
    """Out of its menu, a preset needs its verb."""
    text = spec.plain_text
    return f"Quantize: {text}" if spec.name.startswith("run.preset.") else text


def _call(function: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: function(*arguments)
