from collections import Counter

import numpy as np
import pytest

from quantstudio.core.effective_plan import LayerList, resolve
from quantstudio.core.layer_schemes import LayerSchemes
from quantstudio.core.layers import LayerInfo
from quantstudio.core.precision import FP32, STATIC_INT8, Precision, at_weights
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.schemes import NAMED_SCHEMES

CHOICES = (FP32, STATIC_INT8, at_weights(STATIC_INT8, Precision.INT4), NAMED_SCHEMES["fp16"])


def layer(index: int) -> LayerInfo:
    return LayerInfo(
        f"l{index}",
        ("Conv", "Gemm", "Add")[index % 3],
        weight_name=f"w{index}" if index % 3 != 2 else "",
        weight_shape=(8, 8, 3, 3),
        schemes=tuple(NAMED_SCHEMES) if index % 3 != 2 else ("static-int8",),
        channel_axis=0,
    )


LAYERS = tuple(layer(index) for index in range(40))


@pytest.mark.parametrize("seed", range(5))
def test_that_layers_are_counted_by_kind_and_scheme_as_one_by_one(seed):
    rng = np.random.default_rng(seed)
    schemes = LayerSchemes({one.name: CHOICES[rng.integers(len(CHOICES))] for one in LAYERS})
    listed = LayerList(LAYERS)
    one_by_one = Counter((listed.kinds[name], scheme) for name, scheme in schemes.items())
    found = [((kind, scheme), number) for kind, scheme, number in listed.groups(schemes)]
    assert found == list(one_by_one.items())  # in the order of the layers too
    assert [schemes.kinds[number] for number in schemes.numbers] == list(schemes.values())


def test_that_a_model_without_layers_has_no_kinds():
    assert LayerSchemes().kinds == ()
    assert LayerList(()).groups(LayerSchemes()) == []


def test_that_names_no_layer_has_ask_for_nothing():
    recipe = Recipe((LayerRule(STATIC_INT8, ("l1", "gone", "l0")), LayerRule(FP32, ("lost",))))
    asked = recipe.asked_schemes(LAYERS[:3])
    assert asked == {"l0": STATIC_INT8, "l1": STATIC_INT8, "l2": FP32}
    assert list(asked) == ["l0", "l1", "l2"]


def test_that_what_is_asked_and_given_are_one_where_nothing_is_refused():
    plan = resolve(Recipe((LayerRule(STATIC_INT8),)), [one for one in LAYERS if one.weight_name])
    assert plan.schemes is plan.asked
    narrow = resolve(Recipe((LayerRule(CHOICES[2]),)), LAYERS)
    assert set(narrow.notes) == {one.name for one in LAYERS[2::3]}
    assert all(narrow.schemes[name] == FP32 != narrow.asked[name] for name in narrow.notes)


def test_that_counting_one_plan_again_does_not_answer_for_the_next():
    listed = LayerList(LAYERS)
    eight, four = (LayerSchemes(dict.fromkeys(listed.by_name, one)) for one in CHOICES[1:3])
    for schemes in (eight, eight, four, eight):
        assert {scheme for _, scheme, _ in listed.groups(schemes)} == set(schemes.values())
        assert sum(number for _, _, number in listed.groups(schemes)) == len(LAYERS)
