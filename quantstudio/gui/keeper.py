"""Between the session and its project file: what is found is kept at once, and read back on opening."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.costs import CostTable
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import ProjectError
from quantstudio.core.layers import ModelSummary
from quantstudio.core.results import AccuracyCurve, LayerSensitivity, SensitivityResult, VariantResult
from quantstudio.core.search_results import SearchResult
from quantstudio.gui.session_state import BuiltVariant, SessionState
from quantstudio.project.references import ReferenceKind
from quantstudio.project.results import Variant as StoredVariant
from quantstudio.project.store import Project

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
        """Everything the project knows.

        Raises:
            ProjectError: a value in the file cannot be read.
        """
        state = SessionState()
        reference = self.project.model
        if reference is None:
            return state
        try:
            self._load_into(state, reference.summary)
        except (CodecError, KeyError, TypeError) as error:
            raise ProjectError(
                f"the project holds a result that cannot be read ({error})",
                where=str(self.project.path),
                hint="Open the model in a new project",
            ) from error
        state.factory = reference.factory
        return state

    def _load_into(self, state: SessionState, model: ModelSummary) -> None:
        project, key = self.project, model.digest
        state.model = model
        calibration = project.data(ReferenceKind.CALIBRATION)
        test = project.data(ReferenceKind.TEST)
        state.calibration_data = calibration.spec if calibration else None
        state.test_data = test.spec if test else None
        state.weights_path = (project.result(WEIGHTS, key) or {}).get("path", "")
        found = project.result(CALIBRATION, key)
        if found is not None:
            state.statistics_path = found["path"]
            state.statistics_digest = found["digest"]
            state.statistics_asked = found["asked"]
        rows = project.layer_results(SENSITIVITY, key)
        state.sensitivity = {name: from_json(LayerSensitivity, row) for name, row in rows.items()}
        if (curve := project.result(CURVE, key)) is not None:
            state.curve = from_json(AccuracyCurve, curve)
        if (run := project.result(RUN, key)) is not None:
            state.sensitivity_run = from_json(SensitivityResult, run)
        if (costs := project.result(COSTS, key)) is not None:
            state.costs = from_json(CostTable, costs)
        if (base := project.result(BASE, key)) is not None:
            state.base_result = from_json(VariantResult, base)
        if (search := project.result(SEARCH, key)) is not None:
            state.search = from_json(SearchResult, search)
        made_with = project.results(BUILT_WITH)
        state.built = [
            BuiltVariant(
                v.name,
                v.plan,
                v.recipe,
                (made_with.get(v.variant) or {}).get("digest", ""),
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
        """Point to other data."""
        if calibration is not None:
            self.project.set_data(ReferenceKind.CALIBRATION, calibration)
        if test is not None:
            self.project.set_data(ReferenceKind.TEST, test)

    def keep_weights(self, model: ModelSummary, path: str) -> None:
        """Where weight statistics lie."""
        self.project.put_result(WEIGHTS, model.digest, {"path": path})

    def keep_calibration(self, model: ModelSummary, path: str, digest: str, asked: int) -> None:
        """Where activation statistics lie."""
        self.project.put_result(CALIBRATION, model.digest, {"path": path, "digest": digest, "asked": asked})

    def keep_sensitivity(
        self, model: ModelSummary, rows: Iterable[LayerSensitivity], curve: AccuracyCurve | None
    ) -> None:
        """Sensitivity of layers, finished or refined."""
        self.project.put_layer_results(SENSITIVITY, model.digest, {row.name: to_json(row) for row in rows})
        if curve is not None:
            self.project.put_result(CURVE, model.digest, curve)

    def keep_sensitivity_run(self, model: ModelSummary, found: SensitivityResult) -> None:
        """How the sensitivity was made; its layers are kept one by one."""
        self.project.put_result(RUN, model.digest, replace(found, layers=(), curve=None))

    def keep_costs(self, model: ModelSummary, costs: CostTable) -> None:
        """Cost table."""
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

    def forget_measurements(self, model: ModelSummary, built: Iterable[BuiltVariant]) -> None:
        """Everything that was measured on the test data."""
        self.project.drop_results(BASE, model.digest)
        for one in built:
            self.keep_built(replace(one, result=None))
