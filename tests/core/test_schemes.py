from __future__ import annotations

import pytest

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.precision import (
    DYNAMIC_INT8,
    FP16,
    FP32,
    STATIC_INT4,
    STATIC_INT8,
    WEIGHT_INT4,
    WEIGHT_INT8,
    Granularity,
    LayerScheme,
    Precision,
    WeightFormat,
    integer_formats,
    register,
    weight_format,
)
from quantstudio.core.schemes import (
    NAMED_SCHEMES,
    listed_schemes,
    named_scheme,
    preset_names,
    preset_scheme,
    scheme_name,
)


def test_that_every_integer_format_has_a_static_a_dynamic_and_a_weight_only_scheme() -> None:
    for row in integer_formats():
        assert {f"{kind}-{row.name}" for kind in ("static", "dynamic", "weight")} <= set(NAMED_SCHEMES)


def test_that_the_first_names_mean_what_they_always_meant() -> None:
    meant = {
        "fp32": FP32,
        "fp16": FP16,
        "static-int8": STATIC_INT8,
        "dynamic-int8": DYNAMIC_INT8,
        "weight-int8": WEIGHT_INT8,
        "weight-int4": WEIGHT_INT4,
        "static-int4": STATIC_INT4,
    }
    assert {name: NAMED_SCHEMES[name] for name in meant} == meant


@pytest.mark.parametrize("name", list(NAMED_SCHEMES))
def test_that_a_name_a_scheme_and_its_json_are_one(name: str) -> None:
    scheme = NAMED_SCHEMES[name]
    assert scheme_name(scheme) == name
    assert named_scheme(name) == scheme
    assert from_json(LayerScheme, to_json(scheme)) == scheme
    assert isinstance(to_json(scheme)["weights"], str)
    assert scheme.label
    assert scheme.text


def test_that_labels_and_texts_tell_schemes_apart() -> None:
    for texts in ({s.label for s in NAMED_SCHEMES.values()}, {s.text for s in NAMED_SCHEMES.values()}):
        assert len(texts) == len(NAMED_SCHEMES)


def test_that_a_chip_tells_codebooks_from_equal_steps() -> None:
    assert NAMED_SCHEMES["static-int2"].label == "W2A8"
    assert NAMED_SCHEMES["static-codebook2"].label == "W2A8 codebook"
    assert NAMED_SCHEMES["dynamic-codebook3"].label == "W3 dyn codebook"
    assert NAMED_SCHEMES["weight-codebook4"].label == "W4 codebook"
    names = ("static-codebook2", "dynamic-codebook3", "weight-codebook4", "static-int4-a4", "static-int8")
    shorts = [NAMED_SCHEMES[name].short_label for name in names]
    assert shorts == ["CB2A8", "CB3 dyn", "CB4", "W4A4 sim", "INT8"]
    assert (Precision.INT2.label, Precision.CODEBOOK2.label) == ("INT2", "CB2")


def test_that_float16_is_another_spelling_of_fp16() -> None:
    assert named_scheme("float16") == preset_scheme("float16") == FP16


def test_that_unknown_names_are_told_what_there_is() -> None:
    with pytest.raises(RecipeError, match="unknown precision 'int9'") as unknown:
        named_scheme("int9")
    assert unknown.value.hint.text == f"Choose one of {listed_schemes(NAMED_SCHEMES)}"
    assert len(unknown.value.hint.text) < 200
    with pytest.raises(RecipeError, match="unknown preset 'int9'") as preset:
        preset_scheme("int9")
    assert preset.value.hint.text == f"Choose one of {listed_schemes(preset_names())}"
    with pytest.raises(CodecError, match="'int9' is not one of fp32, fp16, int8"):
        from_json(LayerScheme, {"weights": "int9"})


def test_that_a_codebook_says_which_channels_share_it() -> None:
    assert named_scheme("static-codebook3/layer") == named_scheme("static-table3")
    assert named_scheme("dynamic-codebook1/group8") == named_scheme("dynamic-group1")
    for name in ("static-codebook5/layer", "static-codebook2/group7", "static-int4/group8"):
        with pytest.raises(RecipeError, match="unknown precision"):
            named_scheme(name)


def test_that_long_lists_are_said_in_a_few_words() -> None:
    formats = (
        "int8/6/5/4/3/2, codebook4/3/2/1, group4/3/2/1, table4/3/2/1, ternary, binary"  # widths together
    )
    static = [f"static-{row.name}" for row in integer_formats()]
    assert listed_schemes(["fp32", "fp16", *static]) == f"fp32, fp16, static-W (W: {formats})"
    assert listed_schemes(["fp32", *static[1:]]) == f"fp32, {', '.join(static[1:])}"
    assert listed_schemes([]) == "fp32"


def test_that_a_format_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="there is a format 'int8' already"):
        register(WeightFormat("int8", 8, "INT8", "another"))
    assert weight_format("int8") is Precision.INT8


def test_that_sensitivity_knows_a_scheme_by_its_parts() -> None:
    assert STATIC_INT4.sensitivity_names == ("int4",)
    assert WEIGHT_INT4.sensitivity_names == ("int4/group128", "int4")
    assert (
        LayerScheme(Precision.INT4, granularity=Granularity.PER_TENSOR).sensitivity_names[0] == "int4/tensor"
    )
    assert STATIC_INT8.activations.sensitivity_name == "int8-activations"
    assert DYNAMIC_INT8.activations.sensitivity_name == "int8-activations"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("weight-codebook2/64", "no blocks of weights"),
        ("weight-binary/32/asymmetric", "no zero points"),
        ("weight-ternary/32/asymmetric", "no zero points"),
    ],
)
def test_that_a_suffix_a_format_cannot_have_is_refused(name: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        named_scheme(name)
