"""Weights beside a model go when no model names them any more, and not before."""

from __future__ import annotations

import logging

import pytest

from quantstudio.core.errors import OutputError
from quantstudio.core.files import scratch_beside, write_bytes, written_beside, written_together
from quantstudio.core.keeping import kept_if_possible
from quantstudio.core.weight_files import named_weights

OLD, NEW = (f"weights-{digit * 16}.bin" for digit in "ab")


def naming(*names: str) -> bytes:
    return b"\x08model" + b"\x00".join(name.encode() for name in names)


@pytest.fixture
def folder(tmp_path):
    """A model with its weights, and those of a new one."""
    for name in (OLD, NEW):
        (tmp_path / name).write_bytes(b"values")
    (tmp_path / "m.onnx").write_bytes(naming(OLD))
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_that_weights_of_a_replaced_model_go(folder):
    write_bytes(folder / "m.onnx", naming(NEW))
    assert files(folder) == ["m.onnx", NEW]


def test_that_weights_another_model_names_stay(folder):
    (folder / "other.onnx").write_bytes(naming(OLD))
    write_bytes(folder / "m.onnx", naming(NEW))
    assert files(folder) == ["m.onnx", "other.onnx", OLD, NEW]


def test_that_weights_of_a_model_somebody_renamed_stay(folder):
    (folder / "m.onnx").rename(folder / "m.onnx.before")
    (folder / "m.onnx").write_bytes(naming(OLD))
    write_bytes(folder / "m.onnx", naming(NEW))
    assert files(folder) == ["m.onnx", "m.onnx.before", OLD, NEW]


def test_that_weights_go_wherever_the_model_stands_among_files_written_together(folder):
    with written_together(folder / "m.onnx", folder / "m.json") as (model, recipe):
        model.write_bytes(naming(NEW))
        recipe.write_bytes(b"{}")
    assert files(folder) == ["m.json", "m.onnx", NEW]


def test_that_weights_of_a_model_that_was_not_written_go_and_the_old_ones_stay(folder):
    def write(content):
        with written_beside(folder / "m.onnx") as temporary:
            temporary.write_bytes(content)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write(naming(NEW))
    assert files(folder) == ["m.onnx", OLD]


def test_that_other_files_are_nothing_to_look_into(folder):
    (folder / "empty.onnx").touch()
    write_bytes(folder / "notes.txt", naming(OLD))
    assert named_weights(folder / "notes.txt") == named_weights(folder / "empty.onnx") == set()
    assert {OLD, NEW} < set(files(folder))


def test_that_a_scratch_file_ends_with_its_block(tmp_path):
    with scratch_beside(tmp_path / "constants.bin") as path:
        assert path.parent == tmp_path
        path.write_bytes(b"values")
    assert files(tmp_path) == []


def test_that_what_cannot_be_kept_is_logged_and_no_error(caplog):
    def write():
        raise OutputError("no space left", where="cache")

    with caplog.at_level(logging.WARNING), kept_if_possible("answers"):
        write()
    assert [record.getMessage() for record in caplog.records] == [
        "answers are not kept, and made again the next time: cache: no space left."
    ]
