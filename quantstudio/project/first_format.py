"""What projects of the first format held, as findings under the keys by which they are looked up now."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import Any

from quantstudio.core.codec import CodecError, from_json
from quantstudio.core.data_spec import DataSpec
from quantstudio.core.effective_plan import fitting
from quantstudio.core.findings import (
    CALIBRATION,
    COSTS,
    CURVE,
    MEASUREMENT,
    PATH_INSTEAD,
    SEARCH,
    SENSITIVITY,
    SENSITIVITY_RUN,
    VARIANT,
    WEIGHTS,
    FindingKind,
    calibration_key,
    costs_key,
    data_identity,
    measurement_key,
    search_key,
    sensitivity_key,
    variant_key,
    weights_key,
)
from quantstudio.core.layers import ModelSummary
from quantstudio.core.recipe import Recipe

# What the first format always asked for.
SAMPLES = 512
# It did not keep on how many threads or with which terms: the row holds for any.
ANY_ROW = "before"

logger = logging.getLogger(__name__)


def carry_over(connection: sqlite3.Connection) -> None:
    """Fill `finding` from `result`, `layer_result` and `variant`; their values are moved as they are.

    Data gets what stands for it in keys: its digest, or its path where that was never computed.
    """
    connection.execute("UPDATE data SET digest = ? || path WHERE digest = ''", (PATH_INSTEAD,))
    rows = connection.execute("SELECT summary FROM model").fetchall()
    model = _read(ModelSummary, rows[0][0]) if rows else None
    if model is None:  # nothing says what the results are about
        return
    _Carrier(connection, model).run()


class _Carrier:
    def __init__(self, connection: sqlite3.Connection, model: ModelSummary) -> None:
        self._connection = connection
        self._model = model
        self._graph = model.digest
        self._calibration = self._identity("calibration")
        self._test = self._identity("test")
        self._results = {
            (kind, key): (created, value)
            for kind, key, created, value in connection.execute("SELECT * FROM result")
        }

    def run(self) -> None:
        for kind, key in (
            (CURVE, self._sensitivity_key(CURVE)),
            (SENSITIVITY_RUN, self._sensitivity_key(SENSITIVITY_RUN)),
            (COSTS, costs_key(self._graph)),
        ):
            self._carry(kind.name, kind, key)
        self._carry("search", SEARCH, search_key(self._graph, self._calibration, self._test), ANY_ROW)
        measured_on = self._test or self._calibration
        self._carry("base", MEASUREMENT, measurement_key(self._graph, measured_on), ANY_ROW)
        self._carry_statistics()
        key = self._sensitivity_key(SENSITIVITY)
        self._connection.execute(
            "INSERT INTO finding SELECT ?, ?, layer, 0, value FROM layer_result"
            " WHERE kind = 'sensitivity' AND key = ?",
            (SENSITIVITY.name, key, self._graph),
        )
        for row in self._connection.execute("SELECT * FROM variant ORDER BY created, rowid").fetchall():
            self._carry_variant(row, measured_on)

    def _carry(self, name: str, kind: FindingKind[Any], key: str, row: str = "") -> None:
        if (name, self._graph) in self._results:
            created, value = self._results[name, self._graph]
            self._put(kind, key, row, created, value)

    def _carry_statistics(self) -> None:
        for name, kind in (("weights", WEIGHTS), ("calibration", CALIBRATION)):
            created, text = self._results.get((name, self._graph), (0.0, "null"))
            values = _json(text)
            if not isinstance(values, dict) or not isinstance(values.get("path"), str):
                continue
            if kind is WEIGHTS:
                file = {"path": values["path"]}
                self._put(kind, weights_key(self._graph), "", created, json.dumps(file))
            elif isinstance(values.get("asked"), int):
                file = {"path": values["path"], "digest": values["digest"], "samples": values["asked"]}
                key = calibration_key(self._graph, self._calibration)
                self._put(kind, key, str(values["asked"]), created, json.dumps(file))

    def _carry_variant(self, row: tuple[Any, ...], measured_on: str) -> None:
        variant, name, plan, recipe, statistics, path, build, result, created = row
        made_with = _json(self._results.get(("built-with", variant), (0.0, "null"))[1])
        if isinstance(made_with, dict) and isinstance(made_with.get("digest"), str):
            statistics = made_with["digest"]
        read = _read(Recipe, recipe)
        # One that cannot be read stays as it is; whoever looks for it is told.
        key = variant
        if read is not None:
            key = variant_key(self._graph, read, fitting(read, self._model.layers), statistics)
        plain = {
            "key": key,
            "name": name,
            "plan": plan,
            "path": path,
            "statistics": statistics,
            "created": created,
        }
        value = f'{json.dumps(plain)[:-1]}, "recipe": {recipe}, "build": {build}}}'
        self._put(VARIANT, key, "", created, value)
        if result is not None:
            self._put(MEASUREMENT, measurement_key(key, measured_on), ANY_ROW, created, result)

    def _put(self, kind: FindingKind[Any], key: str, row: str, created: float, value: str) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO finding VALUES (?, ?, ?, ?, ?)", (kind.name, key, row, created, value)
        )

    def _sensitivity_key(self, kind: FindingKind[Any]) -> str:
        return sensitivity_key(kind, self._graph, self._calibration, SAMPLES)

    def _identity(self, kind: str) -> str:
        rows = self._connection.execute("SELECT digest, spec FROM data WHERE kind = ?", (kind,)).fetchall()
        spec = _read(DataSpec, rows[0][1]) if rows else None
        return data_identity(spec, rows[0][0]) if spec is not None else ""


def _json(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return None


def _read(form: type[Any], text: str) -> Any:  # noqa: ANN401
    try:
        return from_json(form, _json(text))
    except CodecError as error:
        logger.warning("Not carried over: %s", error)
        return None
