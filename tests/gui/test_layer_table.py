"""Item models: layers, their filter, variants, comparison, changed answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import Qt

from quantstudio.core.activation_ranges import activation_range
from quantstudio.core.affine import IntegerGrid
from quantstudio.core.figures import NOTHING, THIN_SPACE
from quantstudio.core.precision import STATIC_INT4, STATIC_INT8, WEIGHT_INT8
from quantstudio.core.schemes import named_scheme
from quantstudio.core.target import WITH_VNNI, WITHOUT_VNNI
from quantstudio.core.weight_error import rounding_key, weight_sqnr_db
from quantstudio.gui.facts.layer_facts import (
    activation_distribution,
    sparkline,
    weight_distribution,
)
from quantstudio.gui.features.compare.compare_table import CompareTableModel
from quantstudio.gui.features.compare.flip_table import FlipTableModel
from quantstudio.gui.features.layers.layer_filter import LayerFilterModel
from quantstudio.gui.features.layers.layer_table import (
    CHOICES_ROLE,
    SORT_ROLE,
    SPARK_ROLE,
    STALE_ROLE,
    LayerColumn,
    LayerTableModel,
)
from quantstudio.gui.features.tradeoff.variant_table import VARIANT_ROLE, VariantColumn, VariantTableModel
from quantstudio.gui.session import Session
from tests.gui.sample_session import analysed_session, measured_session
from tests.workspace.putting import put_sensitivity, put_weights
from tests.workspace.samples import IdleRunner, activations, model_summary, sensitivity, weight_statistics

CONV, EMBED, NORM = 0, 3, 5  # rows of the sample by type


@pytest.fixture
def session(qapp):
    return analysed_session()


@pytest.fixture
def model(session):
    return LayerTableModel(session)


def text(model, row, column):
    return model.index(row, column).data()


def test_that_the_layer_model_keeps_the_rules_of_item_models(model, qtmodeltester):
    qtmodeltester.check(model)


def test_that_the_filter_model_keeps_the_rules_of_item_models(model, qtmodeltester):
    qtmodeltester.check(LayerFilterModel(model))


def test_that_a_row_shows_what_is_known_of_its_layer(session, model):
    layer = session.workspace.layers[CONV]
    assert text(model, CONV, LayerColumn.NAME) == layer.name
    assert text(model, CONV, LayerColumn.PRECISION) == "INT8"
    bits = session.workspace.recipe.on_target.weight_bits
    expected = session.workspace.weights[layer.name].sqnr_db[rounding_key("static-int8", bits)]
    assert text(model, CONV, LayerColumn.SQNR) == f"{expected:.1f}{THIN_SPACE}dB"
    assert text(model, CONV, LayerColumn.KERNEL) == NOTHING
    assert text(model, NORM, LayerColumn.TYPE) == "LayerNorm"
    assert text(model, NORM, LayerColumn.SQNR) == NOTHING
    assert len(model.index(CONV, LayerColumn.WEIGHTS).data(SPARK_ROLE)) == 30


def test_that_only_layers_with_schemes_can_be_edited(model):
    assert model.index(CONV, LayerColumn.PRECISION).flags() & Qt.ItemFlag.ItemIsEditable
    assert not model.index(NORM, LayerColumn.PRECISION).flags() & Qt.ItemFlag.ItemIsEditable
    assert not model.index(CONV, LayerColumn.NAME).flags() & Qt.ItemFlag.ItemIsEditable
    choices = model.index(EMBED, LayerColumn.PRECISION).data(CHOICES_ROLE)
    assert choices == [
        "fp32",
        "fp16",
        *(
            f"weight-{name}"
            for name in (
                *("int8", "int6", "int5", "codebook4", "group4", "table4", "codebook3", "group3", "table3"),
                *("codebook2", "group2", "table2", "codebook1", "group1", "table1"),
            )
        ),
    ]
    assert "norm is too small" in model.index(NORM, LayerColumn.PRECISION).data(Qt.ItemDataRole.ToolTipRole)


def test_that_setting_one_row_of_a_selection_sets_every_row_that_can_as_one_step(session, model):
    names = [session.workspace.layers[i].name for i in (0, 1, EMBED, 4)]
    session.select(names)
    index = model.index(0, LayerColumn.PRECISION)
    before = session.workspace.edits.undo_text
    assert model.setData(index, "static-int4")
    assert [model.scheme_of(n).label for n in names] == ["W4A8", "W4A8", "FP32", "W4A8"]
    assert session.workspace.edits.undo_text == "Set 3 layers to W4A8"
    session.workspace.edits.undo()
    assert model.scheme_of(names[0]).label == "INT8"
    assert session.workspace.edits.undo_text == before


def test_that_an_illegal_precision_is_refused(session, model):
    before = session.workspace.edits.undo_text
    assert not model.setData(model.index(EMBED, LayerColumn.PRECISION), "static-int4")
    assert not model.setData(model.index(CONV, LayerColumn.PRECISION), "int7")
    assert session.workspace.edits.undo_text == before


def test_that_every_cell_has_a_spoken_text(model):
    for column in LayerColumn:
        spoken = model.index(CONV, column).data(Qt.ItemDataRole.AccessibleTextRole)
        assert spoken.startswith(text(model, CONV, LayerColumn.NAME))
    spoken = model.index(CONV, LayerColumn.SENSITIVITY).data(Qt.ItemDataRole.AccessibleTextRole)
    assert "KL" in spoken
    assert "INT8 weights" in spoken


def test_that_figures_sort_as_figures(session, model):
    proxy = LayerFilterModel(model)
    proxy.sort(LayerColumn.SENSITIVITY, Qt.SortOrder.DescendingOrder)
    keys = [proxy.index(row, LayerColumn.SENSITIVITY).data(SORT_ROLE) for row in range(proxy.rowCount())]
    assert keys == sorted(keys, reverse=True)
    worst = max(session.workspace.layer_sensitivity.values(), key=lambda s: s.kl).name
    assert proxy.index(0, LayerColumn.NAME).data() == worst
    for column in LayerColumn:
        proxy.sort(column, Qt.SortOrder.AscendingOrder)


def test_that_the_filter_takes_words_and_a_type(model):
    proxy = LayerFilterModel(model)
    proxy.set_text("stage1 CONV")
    assert proxy.rowCount() == 3
    proxy.set_text("")
    proxy.set_op_type("MatMul")
    assert {proxy.index(r, LayerColumn.TYPE).data() for r in range(proxy.rowCount())} == {"MatMul"}
    proxy.set_op_type("")
    assert proxy.rowCount() == model.rowCount()


def test_that_a_weight_range_set_by_hand_changes_the_sqnr(session, model):
    name = session.workspace.layers[CONV].name
    before = text(model, CONV, LayerColumn.SQNR)
    session.workspace.edits.set_weight_range(name, -0.02, 0.02)
    assert text(model, CONV, LayerColumn.SQNR) != before
    assert "by hand" in model.index(CONV, LayerColumn.PRECISION).data(Qt.ItemDataRole.ToolTipRole)


def test_that_kernels_are_marked_out_of_date_when_the_recipe_moves_on(qapp):
    session = measured_session()
    model = LayerTableModel(session)
    index = model.index(CONV, LayerColumn.KERNEL)
    assert index.data() == "QLinearConv"
    assert not index.data(STALE_ROLE)
    session.workspace.edits.set_scheme([session.workspace.layers[CONV].name], STATIC_INT4)
    assert index.data(STALE_ROLE)
    assert "out of date" in index.data(Qt.ItemDataRole.ToolTipRole)


def test_that_streamed_results_announce_their_columns(qtbot, session, model):
    announced: list[tuple[int, int]] = []
    model.dataChanged.connect(lambda first, last: announced.append((first.column(), last.column())))
    put_weights(session.workspace, [weight_statistics(session.workspace.layers[2], 77)])
    qtbot.waitUntil(lambda: (LayerColumn.WEIGHTS, LayerColumn.SQNR) in announced)
    put_sensitivity(session.workspace, [sensitivity(session.workspace.layers[2], 5)])
    qtbot.waitUntil(lambda: (LayerColumn.SENSITIVITY, LayerColumn.SENSITIVITY) in announced)


def test_that_another_model_resets_the_table(session, model, qtbot):
    with qtbot.waitSignal(model.modelReset):
        session.workspace.opening.set_model(model_summary(7))
    assert model.rowCount() == 7
    assert model.index(0, LayerColumn.WEIGHTS).data(SPARK_ROLE) is None
    assert text(model, 0, LayerColumn.SENSITIVITY) == NOTHING


def test_that_an_empty_session_has_an_empty_table(qapp):
    model = LayerTableModel(Session(IdleRunner))
    assert model.rowCount() == 0
    assert model.op_types == ()


# ---------------------------------------------------------------------- facts


def test_that_a_sparkline_is_highest_at_the_mode():
    statistics = weight_statistics(model_summary().layers[0])
    heights = sparkline(statistics.histogram, statistics.mean, statistics.std)
    assert heights.max() == 1.0
    assert abs(int(heights.argmax()) - 15) <= 2


def test_that_a_codebook_shows_no_grid_before_its_levels_are_known(session):
    """Its levels are no equal steps: bars of a 2-bit grid would be another figure for the same thing."""
    statistics = session.workspace.weights[session.workspace.layers[0].name]
    found = weight_distribution(statistics, named_scheme("static-codebook2"), None)
    assert found.grid is None
    assert found.note.startswith("W2A8 codebook")


def test_that_weights_per_group_show_a_bound(session):
    from quantstudio.core.precision import WEIGHT_INT4

    statistics = session.workspace.weights[session.workspace.layers[0].name]
    distribution = weight_distribution(statistics, WEIGHT_INT4, None)
    assert distribution.is_grouped
    assert distribution.grid is not None
    assert distribution.grid.bits == 4
    # At the range in force the figure is exact, elsewhere the histogram knows a bound alone.
    assert distribution.exact_db == statistics.sqnr_db["weight-int4"]
    rest = distribution.effect(distribution.low, distribution.high)
    assert rest is not None
    assert rest.sqnr_db == distribution.exact_db
    assert not distribution.has_bound(distribution.low, distribution.high)
    assert distribution.has_bound(distribution.low / 2, distribution.high / 2)


def test_that_sqnr_is_of_the_bits_the_target_keeps(session):
    """Kernels without VNNI keep weights to 7 bits: about 6 dB less than the format could."""
    statistics = session.workspace.weights[session.workspace.layers[0].name]
    wide, narrow = (weight_sqnr_db(statistics, STATIC_INT8, None, t) for t in (WITH_VNNI, WITHOUT_VNNI))
    assert wide is not None
    assert narrow is not None
    assert 5 < wide - narrow < 7
    assert weight_sqnr_db(statistics, WEIGHT_INT8, None, WITHOUT_VNNI) == wide


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_that_activation_ranges_hold_zero_and_say_where_they_come_from(method):
    from quantstudio.core.precision import STATIC_INT8
    from quantstudio.core.recipe import CalibrationSettings, RangeMethod

    model = model_summary()
    histogram = activations(model).tensors[model.layers[0].inputs[0]]
    settings = CalibrationSettings(RangeMethod(method), percentile=99.0)
    distribution = activation_distribution("x", histogram, STATIC_INT8, None, settings)
    assert distribution.low == 0.0
    assert 0 < distribution.high <= histogram.maximum
    assert (distribution.high, distribution.low) == activation_range(
        histogram, settings, IntegerGrid(8, signed=False)
    )[::-1]
    assert (distribution.high == histogram.maximum) == (method == "minmax")
    assert distribution.note.endswith("range")


# ---------------------------------------------------------------------- variants


def test_that_variants_are_rows_with_intervals(qapp, qtmodeltester):
    session = measured_session()
    model = VariantTableModel(session)
    qtmodeltester.check(model)
    names = [model.index(r, 0).data() for r in range(model.rowCount())]
    assert names == ["FP32", "INT4 mixed", "Dynamic", "INT8"]
    change = model.index(3, VariantColumn.CHANGE).data()
    assert change == f"−0.25{THIN_SPACE}pp  [−0.43, −0.10]"
    assert model.index(0, VariantColumn.CHANGE).data() == NOTHING
    assert "current recipe" in model.index(3, VariantColumn.STATE).data()
    assert model.index(3, 0).data(VARIANT_ROLE).name == "INT8"
    assert "integer kernels" in model.index(3, 0).data(Qt.ItemDataRole.ToolTipRole)
    for column in VariantColumn:
        assert model.index(3, column).data(SORT_ROLE) is not None


def test_that_a_new_variant_becomes_a_row(qapp):
    session = measured_session()
    model = VariantTableModel(session)
    session.workspace.edits.set_scheme([session.workspace.layers[0].name], "fp32")
    assert "current recipe" not in model.index(3, VariantColumn.STATE).data()
    session.workspace.opening.set_model(model_summary(4))
    assert model.rowCount() == 1
    assert model.index(0, VariantColumn.QUALITY).data() == NOTHING


def test_that_the_comparison_has_variants_as_columns(qapp, qtmodeltester):
    session = measured_session()
    model = CompareTableModel()
    model.set_variants(session.workspace.variants)
    qtmodeltester.check(model)
    cells = {model.index(r, 0).data(): r for r in range(model.rowCount())}
    assert model.index(cells["Top-1 accuracy"], 4).data() == f"92.15{THIN_SPACE}%"
    assert model.index(cells["95 % CI (pp)"], 4).data() == "−0.43…−0.10"
    assert model.index(cells["Change"], 1).data() == NOTHING
    assert model.index(cells["Speed-up"], 4).data() == "2.7×"
    assert model.index(cells["p, McNemar"], 4).data() == "0.012"
    assert model.index(cells["Integer kernels"], 4).data().endswith("of 24")
    assert model.headerData(4, Qt.Orientation.Horizontal) == "INT8"
    model.set_variants([])
    assert (model.rowCount(), model.columnCount()) == (0, 1)


def test_that_changed_answers_name_their_class(qapp, qtmodeltester):
    session = measured_session()
    model = FlipTableModel()
    model.set_result(session.workspace.variants[3].result)
    qtmodeltester.check(model)
    assert model.rowCount() == 4
    assert [model.index(0, c).data() for c in (0, 1)] == ["12", "Dress (3)"]
    measured = session.workspace.variants[3].result
    assert measured is not None
    unnamed = replace(measured, per_class=())
    model.set_result(unnamed)
    assert model.index(2, 1).data() == "6"
    assert model.index(2, 0).data(SORT_ROLE) == 4711
    model.set_result(None)
    assert model.rowCount() == 0
