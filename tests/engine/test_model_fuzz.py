"""Hundreds of models with one or two fields changed: each opens, or is refused in one line; none crashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from quantstudio.core.errors import QuantStudioError
from quantstudio.core.folders import cache_folder
from quantstudio.engine.model import trial
from quantstudio.engine.model.open import open_model
from tests.engine.builders import conv_net, if_model, loop_model, lstm_model, mlp

TEXTS = ("", "x", "y", "\0", "a" * 300, "-1", "conv", "Conv", "../x", "ä")
NUMBERS = (0, 1, -1, 2, 7, 13, 2**31, -(2**63), 2**63 - 1)
REALS = (0.0, float("nan"), float("inf"), -1e30)
# Together a few hundred; each group is a fraction of a second.
GROUPS, A_GROUP = 24, 10


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[ModelProto]:
    """Whole models of several kinds; the last has its weights in another file."""
    path = tmp_path_factory.mktemp("external") / "model.onnx"
    onnx.save(mlp(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    external = onnx.load(path, load_external_data=False)
    made = [mlp(), conv_net(batchnorm=True), if_model(), loop_model(), lstm_model(), conv_net(opset=9)]
    return [*made, external]


@pytest.mark.parametrize("group", range(GROUPS))
def test_that_a_changed_model_opens_or_is_refused_in_one_line(
    group: int, bases: list[ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "RUN_LIMIT_S", 0.2)
    path = tmp_path / "model.onnx"
    (tmp_path / "weights.bin").write_bytes(bytes(2000))
    for number in range(A_GROUP):
        generator = np.random.default_rng([group, number])
        model = ModelProto()
        model.CopyFrom(bases[number % len(bases)])
        changed = [change(model, generator) for _ in range(1 + number % 2)]
        path.write_bytes(model.SerializeToString())
        error = refusal(path)
        if error is not None:
            line = str(error)
            assert str(path) in line, changed
            assert "\n" not in line, changed
            assert str(cache_folder()) not in line, changed
            assert error.hint, changed


def refusal(path: Path) -> QuantStudioError | None:
    """What opening ends with; None where it opens."""
    try:
        open_model(path)
    except QuantStudioError as error:
        return error
    return None


def change(model: ModelProto, generator: np.random.Generator) -> str:
    """Change one field somewhere in a message; returns its name."""
    fields = list(all_fields(model))
    message, field = fields[generator.integers(len(fields))]
    value = getattr(message, field.name)
    how = generator.integers(4)
    if field.is_repeated and how == 0:
        del value[int(generator.integers(len(value)))]
    elif field.is_repeated and field.message_type:
        value.add().CopyFrom(value[int(generator.integers(len(value)))])
    elif field.message_type or how == 1:
        message.ClearField(field.name)
    else:
        put(message, field, generator)
    return str(field.full_name)


def put(message: Any, field: Any, generator: np.random.Generator) -> None:
    """Write a strange value into a plain field."""
    choices: tuple[Any, ...] = NUMBERS
    if field.cpp_type == field.CPPTYPE_STRING:
        choices = tuple(t.encode() for t in TEXTS) if field.type == field.TYPE_BYTES else TEXTS
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        choices = REALS
    elif field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_ENUM):
        choices = tuple(n for n in NUMBERS if abs(n) < 2**31)
    chosen = choices[generator.integers(len(choices))]
    if field.is_repeated:
        value = getattr(message, field.name)
        value[int(generator.integers(len(value)))] = chosen
    else:
        setattr(message, field.name, chosen)


def all_fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every set field of a message and of those inside it."""
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if field.is_repeated else [value]:
                yield from all_fields(inner)
        yield message, field
