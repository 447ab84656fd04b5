"""Between the session and its project file: what is found is kept at once, and read back on opening."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.layers import ModelSummary
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.project.references import ReferenceKind
from quantstudio.project.results import Variant as StoredVariant
from quantstudio.project.store import Project
from quantstudio.project.values import Written
from quantstudio.workspace.state import BuiltVariant, SessionState

SENSITIVITY = "sensitivity"
CALIBRATION = "calibration"
WEIGHTS = "weights"
CURVE = "curve"
RUN = "sensitivity-run"
COSTS = "costs"
BASE = "base"
BUILT_WITH = "built-with"
SEARCH = "search"


class Keeper:
    """Writes what the session learns into a project; results are keyed by the model's digest."""

    def __init__(self, project: Project) -> None:
        self.project = project

    # Reading.

    def load(self) -> SessionState:
        """Everything the project knows; what cannot be read is left out (`Project.unreadable`).

        Raises:
            ProjectError: the file cannot be read at all.
        """
        state = SessionState()
        reference = self.project.model
        if reference is not None:
            self._load_into(state, reference.summary)
            state.factory = reference.factory
        return state

    def _load_into(self, state: SessionState, model: ModelSummary) -> None:
        project, key = self.project, model.digest
        state.model = model
        calibration = project.data(ReferenceKind.CALIBRATION)
        test = project.data(ReferenceKind.TEST)
        state.calibration_data = calibration.spec if calibration else None
        state.test_data = test.spec if test else None
        state.weights_path = _text(project.result(WEIGHTS, key), "path")
        found = project.result(CALIBRATION, key)
        asked = found.get("asked") if isinstance(found, dict) else None
        if isinstance(asked, int):
            state.statistics_path, state.statistics_digest = _text(found, "path"), _text(found, "digest")
            state.statistics_asked = asked
        state.sensitivity = project.layer_results_as(LayerSensitivity, SENSITIVITY, key)
        state.curve = project.result_as(AccuracyCurve, CURVE, key)
        state.sensitivity_run = project.result_as(SensitivityResult, RUN, key)
        state.costs = project.result_as(CostTable, COSTS, key)
        state.base_result = project.result_as(VariantResult, BASE, key)
        state.search = project.result_as(SearchResult, SEARCH, key)
        made_with = project.results(BUILT_WITH)
        state.built = [
            BuiltVariant(
                v.name,
                v.plan,
                v.recipe,
                _text(made_with.get(v.variant), "digest"),
                v.build,
                v.result,
            )
            for v in project.variants()
        ]

    # Writing.

    def keep_model(self, model: ModelSummary, *, factory: str, state_path: str) -> None:
        """Point to another model."""
        self.project.set_model(model, factory=factory, state=state_path)

    def keep_data(self, calibration: DataSpec | None, test: DataSpec | None) -> None:
        """Point to other data, or to none."""
        for kind, spec in ((ReferenceKind.CALIBRATION, calibration), (ReferenceKind.TEST, test)):
            if spec is not None:
                self.project.set_data(kind, spec)
            else:
                self.project.drop_data(kind)

    def keep_weights(self, model: ModelSummary, path: str) -> None:
        """Where weight statistics lie."""
        self.project.put_result(WEIGHTS, model.digest, {"path": path})

    def keep_calibration(self, model: ModelSummary, path: str, digest: str, asked: int) -> None:
        """Where activation statistics lie."""
        self.project.put_result(CALIBRATION, model.digest, {"path": path, "digest": digest, "asked": asked})

    def keep_sensitivity(self, model: ModelSummary, rows: Iterable[LayerSensitivity]) -> None:
        """Sensitivity of layers, finished or refined."""
        self.project.put_layer_results(SENSITIVITY, model.digest, {row.name: row for row in rows})

    def keep_curve(self, model: ModelSummary, curve: AccuracyCurve) -> None:
        """Accuracy expected at a total KL."""
        self.project.put_result(CURVE, model.digest, curve)

    def keep_sensitivity_run(self, model: ModelSummary, found: SensitivityResult) -> None:
        """How the sensitivity was made; its layers are kept one by one."""
        self.project.put_result(RUN, model.digest, replace(found, layers=(), curve=None))

    def keep_costs(self, model: ModelSummary, costs: CostTable | Written) -> None:
        """Cost table, or its text."""
        self.project.put_result(COSTS, model.digest, costs)

    def keep_search(self, model: ModelSummary, found: SearchResult) -> None:
        """What the last search found."""
        self.project.put_result(SEARCH, model.digest, found)

    def keep_built(self, built: BuiltVariant) -> None:
        """A build, with what was measured of it."""
        variant = built.build.variant
        self.project.put_variant(
            StoredVariant(
                variant, built.name, built.plan, built.recipe, built.build.output, built.build, built.result
            )
        )
        self.project.put_result(BUILT_WITH, variant, {"digest": built.statistics_digest})

    def keep_base(self, model: ModelSummary, result: VariantResult) -> None:
        """What was measured of the FP32 model."""
        self.project.put_result(BASE, model.digest, result)

    def forget_calibration(self, model: ModelSummary) -> None:
        """Everything that depends on the calibration data."""
        for kind in (CALIBRATION, SENSITIVITY, CURVE, RUN, SEARCH):
            self.project.drop_results(kind, model.digest)

    def forget_search(self, model: ModelSummary) -> None:
        """What the last search found."""
        self.project.drop_results(SEARCH, model.digest)

    def forget_measurements(self, model: ModelSummary, built: Iterable[BuiltVariant]) -> None:
        """Everything that was measured on the test data."""
        self.project.drop_results(BASE, model.digest)
        for one in built:
            self.keep_built(replace(one, result=None))


def _text(values: object, name: str) -> str:
    """A text among the values of a result; empty where it is not what this version writes."""
    found = values.get(name) if isinstance(values, dict) else None
    return found if isinstance(found, str) else ""
