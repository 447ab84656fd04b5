"""What a search is asked for: pins, budgets that can be kept, words."""

import math
from dataclasses import replace

import pytest

from quantstudio.core.figures import THIN_SPACE, ratio
from quantstudio.core.precision import FP32, STATIC_INT4, STATIC_INT8, Precision
from quantstudio.core.recipe import LayerRule, uniform_recipe
from quantstudio.core.search_results import ActivationFamily, BudgetObstacle, Recover, SearchBudget
from quantstudio.gui.features.search.reference_list import ReferenceList
from quantstudio.gui.features.search.search_bounds import bounds_for, obstacle_text
from quantstudio.gui.features.search.search_panel import SearchPanel
from quantstudio.workspace.search_references import broken_bounds, references
from quantstudio.workspace.search_terms import budget_text, pins_for, relaxed, set_by_hand
from tests.gui.sample_session import analysed_session, measured_session
from tests.gui.search_samples import at_four_bits, plan, result
from tests.workspace.putting import put_search
from tests.workspace.samples import model_summary

LAYERS = model_summary(12).layers
BUDGET = SearchBudget(max_drop=0.1, max_size_bytes=1000, max_latency_ratio=0.2, average_bits=2.0)


@pytest.mark.parametrize(
    ("bound", "nearest", "expected"),
    [
        ("max_size_bytes", 1234.2, 1235),
        ("max_drop", 0.432, 0.44),
        ("max_latency_ratio", 0.5, pytest.approx(0.5, rel=1e-5)),
        ("max_latency_ratio", 1.2, None),
        ("average_bits", 2.9, pytest.approx(2.9, rel=1e-5)),
        ("max_drop", math.nan, None),
    ],
)
def test_that_a_relaxed_budget_lets_the_nearest_plan_in(bound, nearest, expected):
    found = relaxed(BUDGET, BudgetObstacle(bound, 0.1, nearest))
    value = getattr(found, bound)
    assert value == expected
    assert value is None or value >= nearest
    others = {"max_drop", "max_size_bytes", "max_latency_ratio", "average_bits"} - {bound}
    assert all(getattr(found, name) == getattr(BUDGET, name) for name in others)


def test_that_layers_set_by_themselves_or_by_type_are_set_by_hand():
    start = uniform_recipe("static-int8")
    assert set_by_hand(start, LAYERS) == {}
    one = start.assign([LAYERS[0].name], FP32)
    assert set_by_hand(one, LAYERS) == {LAYERS[0].name: FP32}
    gemm = start.with_rule(LayerRule(STATIC_INT4, op_types=("Gemm",)))
    assert set_by_hand(gemm, LAYERS) == {LAYERS[-1].name: STATIC_INT4}


def test_that_a_found_plan_is_not_set_by_hand_but_what_was_changed_in_it_is():
    found = at_four_bits(LAYERS, 5)
    point = plan(LAYERS, found, 0.2)
    assert len(set_by_hand(found, LAYERS)) == 5
    assert set_by_hand(found, LAYERS, (point,)) == {}
    changed = found.assign([LAYERS[-1].name], FP32)
    assert set_by_hand(changed, LAYERS, (point,)) == {LAYERS[-1].name: FP32}


def test_that_pins_are_one_rule_a_scheme():
    pins = pins_for({"a": FP32, "b": STATIC_INT8, "c": FP32})
    assert pins == (LayerRule(FP32, ("a", "c")), LayerRule(STATIC_INT8, ("b",)))
    assert pins_for({}) == ()


def test_that_a_budget_is_told_in_few_words():
    assert budget_text(SearchBudget(max_drop=0.5)) == "0.50 pp"
    assert (
        budget_text(SearchBudget(average_bits=5.0, max_size_bytes=1_500_000))
        == f"1.5{THIN_SPACE}MB file, 5.0 bits"
    )
    assert budget_text(SearchBudget(max_share_above_8=0.1)) == f"10{THIN_SPACE}% float"


def test_that_single_precisions_are_predicted_and_held_against_the_budget(qtbot):
    session = analysed_session()
    known = {one.precision: one for one in references(session.workspace, ActivationFamily.AUTO)}
    base, eight, four = known[Precision.FP32], known[Precision.INT8], known[Precision.INT4]
    assert session.workspace.model is not None
    assert base.size_bytes == session.workspace.model.file_bytes
    assert base.drop == 0.0
    assert eight.size_bytes is not None
    assert eight.size_bytes < base.size_bytes
    assert four.average_bits < eight.average_bits
    assert eight.drop is not None
    assert four.drop is not None
    assert eight.drop <= four.drop
    assert known[Precision.INT2].drop is None  # nobody has estimated two bits
    assert broken_bounds(base, SearchBudget(max_size_bytes=1000)) == ("file too large",)
    assert broken_bounds(eight, SearchBudget(average_bits=8.0)) == ()
    session.close()


def test_that_what_a_search_measured_of_a_precision_replaces_its_prediction(qtbot):
    session = analysed_session()
    put_search(session.workspace, result(session.workspace.layers, "found.onnx"))
    known = {one.precision: one for one in references(session.workspace, ActivationFamily.AUTO)}
    assert (known[Precision.INT2].drop, known[Precision.INT2].is_measured) == (40.01, True)
    assert not known[Precision.INT4].is_measured
    shown = ReferenceList()
    qtbot.addWidget(shown)
    shown.show_references(known.values(), SearchBudget(max_drop=0.5))
    texts = [text.accessibleName() for _, text in shown.rows]
    assert not any("measured, " in text for text in texts[1:])
    measured = replace(known[Precision.CODEBOOK2], drop=40.0, is_measured=True)
    shown.show_references([*known.values(), measured], SearchBudget(max_drop=0.5))
    assert "measured, loses too much" in shown.rows[-1][1].accessibleName()
    assert not shown.tag.isHidden()
    others = {one.precision: one for one in references(session.workspace, ActivationFamily.DYNAMIC)}
    assert not others[Precision.INT2].is_measured
    session.close()


def test_that_what_recovery_wins_back_is_not_predicted_but_measured(qtbot):
    session = analysed_session()
    recovered = {
        one.precision: one for one in references(session.workspace, ActivationFamily.AUTO, Recover.AUTO)
    }
    assert recovered[Precision.INT8].drop is not None
    assert recovered[Precision.INT4].drop is None
    shown = ReferenceList()
    qtbot.addWidget(shown)
    shown.show_references(recovered.values(), SearchBudget(max_drop=0.5))
    assert "recovered first: the search measures it" in shown.rows[1][1].accessibleName()
    put_search(session.workspace, result(session.workspace.layers, "found.onnx"))
    found = references(session.workspace, ActivationFamily.AUTO, Recover.AUTO)
    assert next(one for one in found if one.precision == Precision.INT2).drop == 40.01
    session.close()


def test_that_the_bound_on_a_class_follows_the_one_on_all(qtbot):
    session = analysed_session()
    panel = SearchPanel(session)
    qtbot.addWidget(panel)
    bounds = [panel.budget.class_drop]
    panel.rows["max_drop"].spin.setValue(0.3)
    bounds.append(panel.budget.class_drop)
    panel.rows["max_class_drop"].spin.setValue(2.0)
    panel.rows["max_drop"].spin.setValue(0.5)
    bounds.append(panel.budget.class_drop)
    panel.set_budget(SearchBudget(max_drop=0.2))
    bounds.append(panel.budget.class_drop)
    panel.rows["max_class_drop"].check.setChecked(False)
    bounds.append(panel.budget.class_drop)
    assert bounds == [1.0, 0.6, 2.0, 0.4, None]
    session.close()


def test_that_an_obstacle_is_told_with_what_can_be_had():
    bounds = bounds_for(())
    text = obstacle_text(BudgetObstacle("average_bits", 2.0, 2.91), bounds)
    assert text == (
        f"No plan keeps average bits at most 2.0{THIN_SPACE}bits. The closest possible: 3.0{THIN_SPACE}bits."
    )
    alone = obstacle_text(BudgetObstacle("max_drop", 0.1, math.nan), bounds)
    assert alone.endswith("together with the other bounds.")


def test_that_a_chosen_plan_has_the_speed_that_was_timed_last(qtbot):
    session = measured_session()
    found = result(session.workspace.layers, "found.onnx")

    def said(recipe):
        chosen = replace(found.chosen, recipe=recipe)
        put_search(session.workspace, replace(found, chosen=chosen))
        panel = SearchPanel(session)
        qtbot.addWidget(panel)
        return panel.verdict_text.text()

    assert f", {ratio(0.375)} the time." in said(found.chosen.recipe)
    # Once it is compared with FP32, what Compare shows is what the panel says.
    variant = next(one for one in session.workspace.variants if one.name == "Dynamic")
    assert variant.result is not None
    assert variant.result.speedup is not None
    timed = ratio(1 / variant.result.speedup.value)
    assert timed != ratio(0.375)
    assert f", {timed} the time." in said(variant.recipe)
    session.close()
