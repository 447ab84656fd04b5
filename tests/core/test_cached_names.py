"""Messages name what the user opened, not what is kept of it."""

from __future__ import annotations

import json

import pytest

from quantstudio.core.cached_names import in_names_of_the_user
from quantstudio.core.folders import cache_folder

DIGEST = "ab" * 32


@pytest.fixture
def graph() -> str:
    """Path of a normalised graph with its summary."""
    path = cache_folder("graphs") / f"{DIGEST}.onnx"
    path.with_suffix(".json").write_text(json.dumps({"source_path": "nets/my net.onnx"}))
    return str(path)


def test_that_a_graph_has_the_name_of_its_file(graph: str) -> None:
    text = f"Load model from {graph} failed: node 'a' ({graph}: bad)"
    assert in_names_of_the_user(text) == (
        "Load model from nets/my net.onnx failed: node 'a' (nets/my net.onnx: bad)"
    )


@pytest.mark.parametrize(
    ("folder", "name"), [("variants", "the variant"), ("graphs", "the model"), ("strange", "the model")]
)
def test_that_a_file_of_unknown_origin_has_the_name_of_its_kind(folder: str, name: str) -> None:
    assert in_names_of_the_user(f"{cache_folder(folder)}/{'cd' * 32}.onnx: bad") == f"{name}: bad"


def test_that_other_text_stays() -> None:
    assert in_names_of_the_user("/home/me/net.onnx: node 'x'") == "/home/me/net.onnx: node 'x'"
