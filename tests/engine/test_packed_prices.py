"""The law of bytes, held against files as they are written, format by format."""

from __future__ import annotations

import numpy as np
import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.packing import WeightCount, code_bytes, unpacking_bytes
from quantstudio.core.precision import Precision, integer_formats, integer_levels
from quantstudio.core.predict.table import PredictionTable
from quantstudio.core.recipe import FIRST_EMISSION, ActivationScope, Recipe, uniform_recipe
from quantstudio.core.samples import sample
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.model.open import open_model
from quantstudio.engine.quantization.emit import emit_with_plan
from quantstudio.engine.quantization.packed_weights import packed_digits
from quantstudio.engine.search.space import byte_costs
from tests.engine.quantization_cases import normal, statistics_of

CONTAINERS = ("static-int8", "dynamic-int8", "weight-int8", "weight-int4")


@pytest.fixture(scope="module")
def priced(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        graph = open_model(sample("digits_resnet").model)
    (tensor,) = graph.summary.inputs
    statistics = statistics_of(graph, {tensor.name: normal(4, *tensor.shape[1:])})
    costs = byte_costs(graph, statistics, CONTAINERS, ActivationScope.ALL)
    return graph, statistics, PredictionTable(graph.layers, costs=costs)


def written(priced, recipe: Recipe) -> tuple[int, int | None]:
    graph, statistics, table = priced
    plan = resolve(recipe, graph.layers)
    return emit_with_plan(graph, statistics, plan).model.ByteSize(), table.predict(plan).size_bytes


@pytest.mark.parametrize("weights", [row.name for row in integer_formats()])
def test_that_the_file_of_every_format_is_predicted_within_a_hundredth(priced, weights):
    size, predicted = written(priced, uniform_recipe(f"static-{weights}"))
    assert predicted == pytest.approx(size, rel=0.01)


def test_that_a_mixed_file_is_predicted_within_a_hundredth(priced):
    graph = priced[0]
    formats = [f"static-{row.name}" for row in integer_formats()]
    recipe = uniform_recipe("static-int8")
    for index, layer in enumerate(graph.layers):
        recipe = recipe.assign([layer.name], NAMED_SCHEMES[formats[index % len(formats)]])
    size, predicted = written(priced, recipe)
    assert predicted == pytest.approx(size, rel=0.01)


def test_that_unpacked_files_and_old_ones_take_a_byte_a_weight(priced):
    eight = written(priced, uniform_recipe("static-int8"))[0]
    for change in ({"unpacked": True}, {"emission": FIRST_EMISSION}):
        recipe = uniform_recipe("static-codebook2")
        size, predicted = written(priced, Recipe(recipe.rules, **change))
        assert predicted == pytest.approx(size, rel=0.01)
        assert size == pytest.approx(eight, rel=0.06)


@pytest.mark.parametrize("weights", [row for row in integer_formats() if row != Precision.INT8])
def test_that_digits_take_the_bytes_the_law_says(weights):
    count = WeightCount(40_001, 10)
    radix = 1 << weights.bits if weights.has_codebook else None
    if radix is None:
        low, high = integer_levels(weights)
        radix = 2 if weights == Precision.BINARY else high - low + 1
    tables = radix * (1 if weights.shares_table else 10) if weights.has_codebook else 0
    digits = -(-40_001 // 2) if radix == 16 else packed_digits(np.zeros(40_001, np.uint8), radix).size
    assert code_bytes(weights, count) == digits + tables
    assert unpacking_bytes(weights, count) > 0


def test_that_small_weights_take_a_byte_each():
    assert code_bytes(Precision.CODEBOOK2, WeightCount(90, 10)) == 90
    assert unpacking_bytes(Precision.CODEBOOK2, WeightCount(90, 10)) == 0
    assert code_bytes(Precision.INT8, WeightCount(4000, 10)) == 4000
