"""Values to JSON and back, strictly."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantstudio.core.codec import CodecError, from_json, to_json
from quantstudio.core.layers import LayerInfo, ModelSummary, TensorInfo
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import CalibrationSettings, LayerRule, RangeMethod, Recipe
from quantstudio.core.results import (
    Agreement,
    BuildResult,
    ClassAccuracy,
    CompareResult,
    Footprint,
    Interval,
    LatencyResult,
    LayerSensitivity,
    SensitivityResult,
    VariantResult,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Number(Enum):
    ONE = 1


@dataclass(frozen=True)
class Inner:
    size: tuple[int, int]
    ratio: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    colour: Colour = Colour.RED
    many: tuple[Inner, ...] = ()
    listed: list[str] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    maybe: int | None = None
    either: int | str = 0
    anything: Any = None

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise ValueError("that name is refused")


INNER = {"size": [2, 3], "ratio": 0.5}


def test_that_every_kind_of_field_survives() -> None:
    value = Outer(
        "a", Inner((2, 3), 0.5), Colour.BLUE, (Inner((1, 1)),), ["x"], {"k": 2.0}, 4, "seven", {"deep": [1]}
    )
    assert from_json(Outer, json.loads(json.dumps(to_json(value)))) == value


def test_that_missing_fields_take_their_defaults() -> None:
    assert from_json(Outer, {"name": "a", "inner": {"size": [2, 3]}}) == Outer("a", Inner((2, 3)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(np.float32(0.5), 0.5, id="numpy float"),
        pytest.param(np.int64(3), 3, id="numpy int"),
        pytest.param(np.bool_(True), True, id="numpy bool"),
        pytest.param(np.array([[1.0, np.nan]]), [[1.0, None]], id="array"),
        pytest.param(math.inf, None, id="infinity"),
        pytest.param(np.float64("nan"), None, id="nan"),
        pytest.param(Path("a/b"), str(Path("a/b")), id="path"),
        pytest.param({Colour.RED: (1, 2), 3: None}, {"red": [1, 2], "3": None}, id="mapping"),
        pytest.param({"b", "a"}, ["a", "b"], id="set, in a fixed order"),
        pytest.param(Number.ONE, 1, id="enum"),
        pytest.param(True, True, id="bool"),
    ],
)
def test_that_values_become_plain_json(value: object, expected: object) -> None:
    found = to_json(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [object(), b"bytes", Outer, 1j])
def test_that_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(CodecError, match="cannot write"):
        to_json(value)


def test_that_null_reads_as_nan_where_a_number_is_due_and_as_none_where_it_may_be() -> None:
    assert math.isnan(from_json(Inner, {"size": [1, 2], "ratio": None}).ratio)
    assert from_json(Outer, {"name": "a", "inner": INNER, "maybe": None}).maybe is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"name": 3}, r"\$\.name: expected str, found int", id="type"),
        pytest.param({"inner": {"size": [2]}}, r"\$\.inner\.size: expected 2 items, found 1", id="length"),
        pytest.param({"inner": {}}, r"\$\.inner: field 'size' is missing", id="missing"),
        pytest.param({"inner": 3}, r"\$\.inner: expected an object", id="not an object"),
        pytest.param({"inner": INNER | {"size": "23"}}, r"expected a list, found str", id="text as list"),
        pytest.param({"inner": INNER | {"size": [True, 1]}}, r"size\[0\]: expected int", id="bool as int"),
        pytest.param({"inner": INNER | {"ratio": "1"}}, r"ratio: expected a number", id="text as number"),
        pytest.param({"inner": INNER | {"ratio": True}}, r"ratio: expected a number", id="bool as number"),
        pytest.param({"inner": INNER | {"ratio": 10**400}}, r"ratio: the number is too large", id="large"),
        pytest.param({"many": [INNER, {}]}, r"\$\.many\[1\]: field 'size'", id="path in a list"),
        pytest.param({"colour": "green"}, r"'green' is not one of red, blue", id="enum"),
        pytest.param({"colour": []}, r"\[\] is not one of", id="enum from a list"),
        pytest.param({"table": []}, r"\$\.table: expected an object, found list", id="table"),
        pytest.param({"table": {"k": "v"}}, r"\$\.table\.k: expected a number", id="table value"),
        pytest.param({"maybe": "x"}, r"\$\.maybe: expected int", id="optional"),
        pytest.param({"either": 1.5}, r"\$\.either: expected int", id="union"),
        pytest.param({"mor": 1}, r"\$: unknown field 'mor'; known are anything", id="unknown"),
        pytest.param({"name": "refused"}, r"\$: that name is refused", id="refused by the class"),
    ],
)
def test_that_a_wrong_field_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        from_json(Outer, {"name": "a", "inner": INNER} | change)


def test_that_a_type_without_a_rule_is_refused() -> None:
    with pytest.raises(CodecError, match="no rule to read"):
        from_json(complex, 1)
    with pytest.raises(CodecError, match="expected null"):
        from_json(type(None), 3)


@given(st.floats(), st.integers(), st.text())
def test_that_finite_numbers_and_text_are_exact(number: float, size: int, name: str) -> None:
    value = Outer(name + "_", Inner((size, 0), number))
    back = from_json(Outer, json.loads(json.dumps(to_json(value))))
    if math.isfinite(number):
        assert back == value
    else:
        assert math.isnan(back.inner.ratio)


SUMMARY = ModelSummary(
    source_path="m.onnx",
    graph_path="/cache/g.onnx",
    digest="d",
    source_digest="s",
    opset=21,
    inputs=(TensorInfo("x", "float32", ("N", None, 28)),),
    outputs=(TensorInfo("y", "float32", (1, 10)),),
    layers=(LayerInfo("conv", "Conv", "w", (8, 1, 3, 3), 80, 320, None, 1.0, schemes=("fp32",)),),
    edges=((0, 0),),
    parameters=80,
    weight_bytes=320,
    file_bytes=400,
    notes=("folded",),
)
LATENCY = LatencyResult(1.0, 2.0, 3.0, 1.5, 800.0, 1, 2, 30, "CPUExecutionProvider", (1.0, 2.0))
VARIANT = VariantResult(
    path="v.onnx",
    name="INT8",
    size_bytes=100,
    metrics={"top1": 0.9},
    drop=Interval(0.1, -0.1, 0.3),
    drop_method="mcnemar",
    p_value=None,
    per_class=(ClassAccuracy("0", 5, 1.0, 0.8, 0.4, 0.9),),
    segments=(),
    agreement=Agreement(0.99, 0.001, 30.0),
    latency_ms=LATENCY,
    speedup=None,
    peak_memory_bytes=5,
    footprint=Footprint(1, 2, 3, 4.0),
    provider="cpu",
    samples=100,
)


@pytest.mark.parametrize(
    "value",
    [
        SUMMARY,
        VARIANT,
        CompareResult((VARIANT,), 100, 1.5, True),
        SensitivityResult("fisher", 5, 0.1, "int4", (LayerSensitivity("a", 0.1, 0.0, 0.2, 20.0),)),
        BuildResult("o", "d", "v", "r", 1, 0.5, ()),
        Recipe((LayerRule(STATIC_INT8, ("a*",), ("Conv",)),)),
        CalibrationSettings(RangeMethod.ENTROPY, 99.0, 8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_that_the_values_of_core_survive(value: object) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value
