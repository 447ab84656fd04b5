"""The doors by which the session takes what was found: models, projects, data, results of the engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.figures import count
from quantstudio.core.layers import ModelSummary
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.core.sensitivity_rows import EXACT, joined
from quantstudio.core.statistics import Statistics, WeightStatistics
from quantstudio.gui.session_base import SessionBase
from quantstudio.jobs.rows import LogLine, NoticeLevel
from quantstudio.project.store import Project
from quantstudio.project.values import Written
from quantstudio.workspace.keeper import Keeper
from quantstudio.workspace.state import BuiltVariant

logger = logging.getLogger(__name__)


class SessionResults(SessionBase):
    """Takes results, keeps them in the project, and tells the views.

    Called by the workflow as results come, and by tests.
    """

    def adopt_model(
        self, model: ModelSummary | None, *, trusted: bool = False, factory: str = "", state_path: str = ""
    ) -> None:
        """Show a model: another one begins a new project, the same one keeps what is known of it."""
        known = self._project.model
        is_other = model is None or known is None or known.summary.digest != model.digest
        if is_other and (known is not None or model is None):
            self.attach_project(Project.temporary(restore=False))
        if model is None:
            return
        self._keep(lambda: self._keeper.keep_model(model, factory=factory, state_path=state_path))
        self.state.model, self.state.trusted = model, trusted
        self.state.factory, self.state.state_path = factory, state_path
        if is_other:
            self._fit_start_plan()
        self._tell_everything()
        self._warn_of(model)

    def attach_project(self, project: Project) -> None:
        """Go on in another project, with everything it knows; what cannot be read is told.

        Raises:
            ProjectError: the file cannot be read; the present project stays.
        """
        self.save_pending()
        keeper = Keeper(project)
        state = keeper.load()
        self.job_queue.abandon()
        old, self._project = self._project, project
        if old is not project:
            old.close()
        self._keeper, self.state = keeper, state
        self._start_plan()
        self.project_changed.emit()
        self._tell_everything()
        for text in project.unreadable:
            self.notify(NoticeLevel.WARNING, text)
        if state.model is not None:
            for text in state.model.warnings[1:]:  # no job of this sitting has put them into the log
                self.job_queue.logged.emit(LogLine(time.time(), NoticeLevel.WARNING, text))
            self._warn_of(state.model)
        if state.weights_path:
            self.load_weights(state.weights_path)
        if state.statistics_path:
            self.load_activations(state.statistics_path)

    def adopt_data(self, calibration: DataSpec | None, test: DataSpec | None) -> None:
        """Use other data; what was found with the data before is forgotten."""
        state = self.state
        model = state.model
        if calibration != state.calibration_data:
            state.activations = state.curve = state.sensitivity_run = state.search = None
            state.statistics_path = state.statistics_digest = ""
            state.sensitivity = {}
            self._saving.forget()
            if model is not None:
                self._keep(lambda: self._keeper.forget_calibration(model))
            self.activations_changed.emit()
            self.sensitivity_changed.emit()
        if (test or calibration) != self.measured_on:
            if model is not None:
                self._keep(lambda: self._keeper.forget_measurements(model, state.built))
                if state.test_data is not None:  # a search may have judged its plans there
                    self._keep(lambda: self._keeper.forget_search(model))
            state.base_result = None
            state.search = None if state.test_data is not None else state.search
            state.built = [replace(one, result=None) for one in state.built]
        state.calibration_data, state.test_data = calibration, test
        self._keep(lambda: self._keeper.keep_data(calibration, test))
        self.data_changed.emit()
        self._touch_variants()
        self._prediction_throttle.request()

    def adopt_weights(self, rows: Iterable[WeightStatistics]) -> None:
        """Weight statistics of some or all layers."""
        self.state.weights.update({row.layer: row for row in rows})
        self._weights_throttle.request()

    def adopt_weights_file(self, path: str) -> None:
        """Weight statistics of every layer that lie in a file."""
        model = self.state.model
        self.state.weights_path = path
        if model is not None:
            self._keep(lambda: self._keeper.keep_weights(model, path))
        if any(layer.weight_name and layer.name not in self.state.weights for layer in self.layers):
            self.load_weights(path)

    def adopt_activations(self, statistics: Statistics | None) -> None:
        """Activation statistics."""
        self.state.activations = statistics
        self.activations_changed.emit()

    def adopt_calibration(self, path: str, digest: str, samples_asked: int) -> None:
        """Activation statistics that lie in a file; builds made with others are out of date."""
        state = self.state
        state.statistics_path, state.statistics_digest, state.statistics_asked = path, digest, samples_asked
        model = state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_calibration(model, path, digest, samples_asked))
        self.load_activations(path)
        self._touch_variants()

    def adopt_sensitivity(self, rows: Iterable[LayerSensitivity], curve: AccuracyCurve | None = None) -> None:
        """Sensitivity of some or all layers, first or refined."""
        self._what_if.forget()
        found: dict[str, LayerSensitivity] = {}
        for row in rows:
            known = self.state.sensitivity.get(row.name)
            self.state.sensitivity[row.name] = found[row.name] = joined(known, row)
        self._saving.add(found)
        model = self.state.model
        if curve is not None:
            self.state.curve = curve
        if curve is not None and model is not None:
            self._saving.after_all(lambda: self._keep(lambda: self._keeper.keep_curve(model, curve)))
        self._sensitivity_throttle.request()

    def adopt_sensitivity_run(self, found: SensitivityResult) -> None:
        """A finished run: all its layers, its curve, and how it was made."""
        model = self.state.model
        known = self.state.sensitivity_run
        if known is None:
            run = found
        elif found.method == EXACT:
            kl_all = known.kl_all if found.kl_all is None else found.kl_all
            run = replace(known, classes=known.classes or found.classes, kl_all=kl_all)
        else:
            estimated = known.precisions if known.method != EXACT else ()
            precisions = tuple(dict.fromkeys((*estimated, *found.precisions)))
            classes = found.classes or known.classes
            run = replace(found, classes=classes, kl_all=known.kl_all, precisions=precisions)
        self.state.sensitivity_run = run
        self.adopt_sensitivity(found.layers, found.curve)
        if model is not None:
            self._saving.after_all(lambda: self._keep(lambda: self._keeper.keep_sensitivity_run(model, run)))

    def adopt_costs(self, costs: CostTable, text: Written | None = None) -> None:
        """Bytes and times for predictions; `text` is what the project keeps of them, where it is known."""
        self.state.costs = costs
        model = self.state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_costs(model, text or costs))
        self._prediction_throttle.request()

    def adopt_search(self, found: SearchResult) -> None:
        """What a search found; what it built is adopted like any build."""
        self.state.search = found
        model = self.state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_search(model, found))
        self._prediction_throttle.request()

    def adopt_build(self, built: BuiltVariant) -> None:
        """A variant that was built."""
        self.state.keep(built)
        self._keep(lambda: self._keeper.keep_built(built))
        self._touch_variants()

    def adopt_comparison(self, base: VariantResult, results: Mapping[str, VariantResult]) -> None:
        """Measurements: of the base, and of variants by the path of their file."""
        self.state.base_result = base
        model = self.state.model
        if model is not None:
            self._keep(lambda: self._keeper.keep_base(model, base))
        for index, one in enumerate(self.state.built):
            result = results.get(one.build.output)
            if result is not None:
                self.state.built[index] = measured = replace(one, result=result)
                self._keep(lambda measured=measured: self._keeper.keep_built(measured))  # type: ignore[misc]
        self._touch_variants()

    def load_weights(self, path: str) -> None:
        """Read weight statistics from a file without holding up the window."""

        def read(rows: tuple[WeightStatistics, ...]) -> None:
            if self.state.weights_path == path:
                self.adopt_weights(rows)

        def unreadable(error: Exception) -> None:
            if self.state.weights_path == path:
                self._on_weights_unreadable(error)

        self.background.run(lambda: _read_weights(path), read, unreadable)

    def load_activations(self, path: str) -> None:
        """Read activation statistics from a file without holding up the window."""

        def read(found: Statistics) -> None:
            if self.state.statistics_path == path:
                self.adopt_activations(found)

        def unreadable(error: Exception) -> None:
            if self.state.statistics_path == path:
                self._on_activations_unreadable(error)

        self.background.run(lambda: _read_activations(path), read, unreadable)

    # Inside.

    def _warn_of(self, model: ModelSummary) -> None:
        """Say once what makes a model's results worthless; the log names every tensor."""
        if model.warnings:
            others = len(model.warnings) - 1
            hint = f"The log has {count(others)} more such warning{'s' * (others > 1)}" if others else ""
            self.notify(NoticeLevel.WARNING, model.warnings[0], hint)

    def _on_weights_unreadable(self, error: Exception) -> None:
        self.state.weights_path = ""
        logger.warning("weight statistics: %s", error)
        self.notify(NoticeLevel.INFO, "Weight statistics are no longer in the cache", "Run Sensitivity again")

    def _on_activations_unreadable(self, error: Exception) -> None:
        self.state.statistics_path = ""
        logger.warning("activation statistics: %s", error)
        self.notify(NoticeLevel.INFO, "Calibration is no longer in the cache", "Run Calibrate again")


def _read_weights(path: str) -> tuple[WeightStatistics, ...]:
    from quantstudio.core.statistics_file import load_weight_statistics

    return tuple(load_weight_statistics(Path(path)))


def _read_activations(path: str) -> Statistics:
    from quantstudio.core.statistics_file import load_statistics

    return load_statistics(Path(path))
