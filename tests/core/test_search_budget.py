"""Bounds of a search as values."""

from __future__ import annotations

from typing import Any

import pytest

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.search_results import ANY_CLASS_DROP, PlanFigures, SearchBudget


@pytest.mark.parametrize("value", ["x", "0.5", True, float("nan"), float("inf"), [1]])
def test_that_a_bound_that_is_no_number_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(RecipeError, match="max_drop is not a finite number") as raised:
        SearchBudget(max_drop=value)
    assert "file" not in str(raised.value)


def test_that_a_class_may_lose_twice_what_all_may_unless_something_else_is_said() -> None:
    assert SearchBudget(max_drop=0.5).class_drop == 1.0
    assert SearchBudget(max_drop=0.5, max_class_drop=0.2).class_drop == 0.2
    assert SearchBudget(max_drop=0.5, max_class_drop=ANY_CLASS_DROP).class_drop is None
    assert SearchBudget(average_bits=4).class_drop is None


def test_that_what_older_projects_said_of_packed_weights_is_left_out() -> None:
    assert from_json(SearchBudget, {"max_drop": 0.5, "max_weight_bytes": 1000}) == SearchBudget(max_drop=0.5)
    figures = PlanFigures(0.1, None, None, None, None, 900, 4.0)
    assert from_json(PlanFigures, to_json(figures) | {"weight_bytes": 280}) == figures
    with pytest.raises(CodecError, match="unknown field 'weights_bytes'"):
        from_json(PlanFigures, to_json(figures) | {"weights_bytes": 280})
