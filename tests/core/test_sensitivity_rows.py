"""What a later sensitivity run adds to an earlier one."""

from __future__ import annotations

import math
from dataclasses import replace

from quantstudio.core.codec import from_json, to_json
from quantstudio.core.results import LayerSensitivity
from quantstudio.core.sensitivity_rows import joined, measured_precisions

ESTIMATE = LayerSensitivity(
    "conv",
    0.2,
    0.1,
    0.3,
    24.0,
    by_precision={"int8": 0.01, "int4": 0.2},
    error_by_precision={"int8": 0.001, "int4": 0.05},
    by_class=(0.1, 0.3),
)
MEASURED = LayerSensitivity(
    "conv",
    0.25,
    0.24,
    0.26,
    math.nan,
    accuracy_drop=0.4,
    by_precision={"int4": 0.25},
    method="exact",
    error_by_precision={"int4": 0.005},
    kl_all_but=0.9,
)


def test_that_the_first_row_is_taken_as_it_is():
    assert joined(None, ESTIMATE) is ESTIMATE


def test_that_more_precisions_join_those_that_are_known():
    more = replace(ESTIMATE, by_precision={"int4": 0.21, "int2": 0.8}, error_by_precision={"int4": 0.02})
    row = joined(ESTIMATE, more)
    assert row.by_precision == {"int8": 0.01, "int4": 0.21, "int2": 0.8}
    assert row.error_by_precision == {"int8": 0.001, "int4": 0.02}
    assert not measured_precisions(row)


def test_that_a_measurement_wins_and_the_other_estimates_stay():
    row = joined(ESTIMATE, MEASURED)
    assert (row.kl, row.method, row.accuracy_drop) == (0.25, "exact", 0.4)
    assert row.by_precision == {"int8": 0.01, "int4": 0.25}
    assert row.error_by_precision["int4"] == 0.005
    assert measured_precisions(row) == {"int4"}
    assert row.by_class == (0.1, 0.3)
    assert row.sqnr_db == 24.0  # NaN says that it was not measured this time


def test_that_a_later_estimate_does_not_replace_a_measurement():
    row = joined(joined(ESTIMATE, MEASURED), replace(ESTIMATE, by_precision={"int4": 0.3, "int3": 0.5}))
    assert (row.kl, row.method, row.kl_all_but) == (0.25, "exact", 0.9)
    assert row.by_precision == {"int8": 0.01, "int4": 0.25, "int3": 0.5}
    assert measured_precisions(row) == {"int4"}


def test_that_an_old_error_does_not_stand_beside_a_new_figure():
    row = joined(ESTIMATE, replace(MEASURED, error_by_precision={}))
    assert row.error_by_precision == {"int8": 0.001}


def test_that_a_joined_row_survives_the_file():
    row = joined(ESTIMATE, MEASURED)
    assert from_json(LayerSensitivity, to_json(row)) == row


def test_that_classes_come_from_where_the_kl_comes_from():
    measured = LayerSensitivity("conv", 0.5, 0.4, 0.6, 30.0, method="exact", by_class=(0.2, 0.8))
    estimate = LayerSensitivity("conv", 0.3, 0.2, 0.4, 30.0, by_class=(0.1, 0.5))
    for first, second in ((measured, estimate), (estimate, measured)):
        row = joined(first, second)
        assert (row.kl, row.by_class) == (0.5, (0.2, 0.8))
    assert joined(replace(measured, by_class=()), estimate).by_class == (0.1, 0.5)
