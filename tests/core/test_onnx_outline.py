"""The outline of ONNX files, by hand-written bytes and bundled models."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantstudio.core.onnx_outline import is_whole_onnx
from quantstudio.core.samples import sample, sample_names

# Field 1, a varint of two bytes; field 7, three bytes; field 8, empty.
_WHOLE = bytes([0x08, 0x96, 0x01, 0x3A, 0x03, 1, 2, 3, 0x42, 0x00])


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(content)
    return path


def test_that_every_bundled_model_is_whole_and_half_of_it_is_not(tmp_path):
    for name in sample_names():
        model = sample(name).model
        content = Path(model).read_bytes()
        assert is_whole_onnx(Path(model))
        assert not is_whole_onnx(_file(tmp_path, content[: len(content) // 2]))


@pytest.mark.parametrize(
    ("content", "is_whole"),
    [
        (_WHOLE, True),
        (_WHOLE + bytes([0x99, 0x06, *range(8)]), True),  # field 99, eight bytes
        (_WHOLE + bytes([0x9D, 0x06, 0, 0, 0, 0]), True),  # field 99, four bytes
        (_WHOLE[:-1], False),
        (_WHOLE[:6], False),
        (_WHOLE[:3], False),  # no graph
        (bytes([0x08, 0xFF]), False),  # a number that does not end
        (bytes([0x08]) + b"\xff" * 11, False),  # a number that is too long
        (bytes([0x3B, 0x00]), False),  # a wire type that ONNX does not use
        (bytes(16), False),
        (b"", False),
        (b"<!DOCTYPE html><html></html>", False),
    ],
)
def test_that_only_fields_that_fill_the_file_with_a_graph_among_them_are_whole(tmp_path, content, is_whole):
    assert is_whole_onnx(_file(tmp_path, content)) is is_whole


def test_that_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        is_whole_onnx(tmp_path / "none.onnx")
