"""Weights alone, in blocks of few bits: forms in the file, kernels, sizes; an embedding that is the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantstudio.core.errors import RecipeError
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.results import BuildResult
from quantstudio.core.schemes import named_scheme, preset_scheme
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.model.open import open_model
from quantstudio.engine.quantization.weights import quantize_weight
from tests.engine.decoders import DecoderShape, decoder, random_weights
from tests.engine.quantization_cases import normal, opened, outputs_of
from tests.engine.recipe_builds import build_variant

SHAPE = DecoderShape(layers=1, with_past=False, hidden=64, inner=128)


def product(folder: Path, rows: int = 128, columns: int = 96) -> Graph:
    """One MatMul."""
    info = onnx.helper.make_tensor_value_info
    matrix = onnx.numpy_helper.from_array(normal(rows, columns, seed=3), "w")
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "g",
        [info("x", 1, ["n", rows])],
        [info("y", 1, ["n", columns])],
        [matrix],
    )
    imports = [onnx.helper.make_opsetid("", 21)]
    return opened(onnx.helper.make_model(made, opset_imports=imports, ir_version=10), folder)


def built(graph: Graph, folder: Path, *rules: LayerRule) -> BuildResult:
    found: BuildResult = build_variant(graph, None, Recipe(rules=rules), folder / "out.onnx")
    return found


def bytes_of(path: str | Path) -> int:
    """Of the initializers of a file."""
    return sum(len(t.raw_data) for t in onnx.load(str(path)).graph.initializer)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("weight-int8/64", 8), ("weight-int4/64", 4), ("weight-int3/32", 3), ("weight-int2/32", 2)],
    ids=str,
)
def test_that_blocks_run_in_one_kernel_and_lie_in_as_many_bits(tmp_path: Path, name: str, bits: int) -> None:
    graph, scheme = product(tmp_path), named_scheme(name)
    result = built(graph, tmp_path, LayerRule(scheme))
    assert result.layers[0].kernel.startswith("MatMulNBits")
    weights, scales = 128 * 96, 128 * 96 // scheme.group_size
    small = 256 + (scales if bits == 8 else 0)  # shapes and masks; zero points of INT8
    assert (
        weights * bits // 8 + 4 * scales
        <= bytes_of(result.output)
        <= weights * bits // 8 + 4 * scales + small
    )
    x = normal(5, 128, seed=4)
    weight = np.asarray(onnx.numpy_helper.to_array(graph.proto.graph.initializer[0]))
    wanted = x @ quantize_weight(weight, scheme, 1).dequantized
    (found,) = outputs_of(onnx.load(result.output), {"x": x})
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_that_codebooks_lie_in_three_bits_and_run_in_the_kernel_of_eight(tmp_path: Path) -> None:
    result = built(product(tmp_path, 256, 96), tmp_path, LayerRule(named_scheme("weight-codebook3")))
    assert result.layers[0].kernel.startswith("MatMulNBits")
    indices, tables = 256 * 96 * 3 // 8, 96 * (8 + 4 + 1)  # with a scale and a zero point a channel
    assert indices + tables <= bytes_of(result.output) <= indices + tables + 256


@pytest.mark.parametrize("bits", [8, 4, 3, 2], ids=str)
def test_that_blocks_with_zero_points_run_in_the_same_kernel_and_round_closer(
    tmp_path: Path, bits: int
) -> None:
    graph, scheme = product(tmp_path), named_scheme(f"weight-int{bits}/32/asymmetric")
    lopsided = np.abs(normal(128, 96, seed=3))
    graph.proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(lopsided, "w"))
    result = built(graph, tmp_path, LayerRule(scheme))
    assert result.layers[0].kernel.startswith("MatMulNBits")
    rounded = quantize_weight(lopsided, scheme, 1).dequantized
    plain = quantize_weight(lopsided, named_scheme(f"weight-int{bits}/32"), 1).dequantized
    assert np.square(rounded - lopsided).sum() < 0.5 * np.square(plain - lopsided).sum()
    x = normal(5, 128, seed=4)
    (found,) = outputs_of(onnx.load(result.output), {"x": x})
    assert np.abs(found - x @ rounded).max() < 0.02 * np.abs(x @ rounded).max()


def test_that_recipes_of_symmetric_blocks_keep_their_digests() -> None:
    digests = [
        Recipe(rules=(LayerRule(named_scheme(name)),), target="cpu-x86").digest
        for name in ("weight-int4/32", "weight-int4/32/asymmetric", "weight-int4", "weight-int4/128")
    ]
    # Of recipes that were written before blocks could have zero points.
    assert digests[0] == "c908db44eb845a6c3fca015e637b55d9b3639c660e959dc3d36fb302436aa308"
    assert digests[1] != digests[0] != digests[2] == digests[3]


def test_that_a_last_block_that_is_not_whole_runs_in_the_same_kernel(tmp_path: Path) -> None:
    graph, scheme = product(tmp_path, 200, 96), named_scheme("weight-int4")
    result = built(graph, tmp_path, LayerRule(scheme))
    assert result.layers[0].kernel.startswith("MatMulNBits")
    weights, scales = 200 * 96 // 2, 4 * 2 * 96
    assert bytes_of(result.output) == weights + scales
    x = normal(5, 200, seed=4)
    weight = np.asarray(onnx.numpy_helper.to_array(graph.proto.graph.initializer[0]))
    wanted = x @ quantize_weight(weight, scheme, 1).dequantized
    (found,) = outputs_of(onnx.load(result.output), {"x": x})
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("width", [40, 64, 160], ids=str)
def test_that_an_embedding_of_any_width_is_the_head_too(tmp_path: Path, width: int) -> None:
    table = normal(50, width, seed=2)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "embed"),
        helper.make_node("Relu", ["rows"], ["x"], "relu"),
        helper.make_node("MatMul", ["x", "head_weight"], ["y"], "head"),
    ]
    weights = [
        onnx.numpy_helper.from_array(a, n) for a, n in ((table, "table"), (table.T.copy(), "head_weight"))
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 50])
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", [ids], [y], weights),
            opset_imports=[helper.make_opsetid("", 21)],
            ir_version=10,
        ),
        tmp_path / "m.onnx",
    )
    graph, scheme = open_model(tmp_path / "m.onnx"), named_scheme("weight-int4")
    result = built(graph, tmp_path, LayerRule(scheme))
    blocks = -(-width // 128)
    rows = 50 * (width if width < 128 else blocks * 128) // 2
    assert rows + 4 * 50 * blocks <= bytes_of(result.output) <= rows + 4 * 50 * blocks + 256
    real = quantize_weight(table, scheme, 0).dequantized
    index = np.array([[1, 2, 3], [4, 5, 49]])
    (found,) = outputs_of(onnx.load(result.output), {"ids": index})
    wanted = np.maximum(real[index], 0) @ real.T
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_that_planes_hold_every_integer_of_the_format(tmp_path: Path) -> None:
    graph = product(tmp_path, 32, 8)
    weight = np.tile(np.arange(-4, 4, dtype=np.float32)[:, None] / 4, (4, 8))
    graph.proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    result = built(graph, tmp_path, LayerRule(named_scheme("weight-int3/32")))
    (found,) = outputs_of(onnx.load(result.output), {"x": np.eye(32, dtype=np.float32)})
    np.testing.assert_allclose(found, weight, atol=0.01)


def test_that_blocks_no_kernel_takes_are_refused() -> None:
    with pytest.raises(RecipeError, match="no kernel takes them"):
        named_scheme("weight-int4/48")
    with pytest.raises(RecipeError, match="unknown precision"):
        named_scheme("static-int4/32")
    assert preset_scheme("weight-int4/128").group_size == 128


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    folder = tmp_path_factory.mktemp("tied")
    onnx.save(decoder(SHAPE, random_weights(SHAPE)), folder / "m.onnx")
    return open_model(folder / "m.onnx"), folder


def run_of(path: str | Path) -> np.ndarray:
    ids = np.arange(24, dtype=np.int64).reshape(2, 12)
    feed: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.tile(np.arange(12), (2, 1)),
    }
    return np.asarray(outputs_of(onnx.load(str(path)), feed)[0])


@pytest.mark.parametrize("name", ["weight-int8", "weight-int8/32", "weight-int4/32", "weight-int3/32"])
def test_that_an_embedding_that_is_the_head_is_stored_once(tied, tmp_path: Path, name: str) -> None:
    graph, _ = tied
    table = LayerRule(named_scheme(name), ("model.embed_tokens", "lm_head"))
    both = built(graph, tmp_path, table.by_node(graph.layers))
    once = bytes_of(both.output)
    head = LayerRule(named_scheme(name), ("lm_head",)).by_node(graph.layers)
    apart = bytes_of(built(graph, tmp_path, head).output)
    assert once < apart - 96 * 64 * 4 + 900  # without the float table, and no second one in its place
    kernels = {layer.name: layer.kernel for layer in both.layers}
    assert kernels["/lm_head/MatMul"].startswith("MatMulNBits")


def test_that_tied_weights_compute_what_two_copies_do(tied, tmp_path: Path) -> None:
    graph, _ = tied
    for name in (
        "weight-int8/32",
        "weight-int4/32",
        "weight-int8/32/asymmetric",
        "weight-int4/32/asymmetric",
    ):
        scheme = named_scheme(name)
        rule = LayerRule(scheme, ("model.embed_tokens", "lm_head")).by_node(graph.layers)
        found = run_of(built(graph, tmp_path, rule).output)
        weights = random_weights(SHAPE)
        table = weights["model.embed_tokens.weight"]
        rounded = quantize_weight(table, scheme, 0).dequantized
        onnx.save(decoder(SHAPE, weights | {"model.embed_tokens.weight": rounded}), tmp_path / "wanted.onnx")
        wanted = run_of(tmp_path / "wanted.onnx")
        assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_that_embedding_and_head_of_two_schemes_are_two_copies(tied, tmp_path: Path) -> None:
    graph, _ = tied
    rules = [
        LayerRule(named_scheme("weight-int8/32"), ("model.embed_tokens",)).by_node(graph.layers),
        LayerRule(named_scheme("weight-int4/32"), ("lm_head",)).by_node(graph.layers),
    ]
    result = built(graph, tmp_path, *rules)
    sizes = {layer.name: layer.weight_bytes for layer in result.layers}
    assert sizes["/model/embed_tokens/Gather"] >= 96 * 64
    assert sizes["/lm_head/MatMul"] >= 96 * 64 // 2


@pytest.mark.parametrize(
    "first", ["weight-int4/64", "weight-int4/64/asymmetric", "weight-int2/32/asymmetric"]
)
def test_that_blocks_with_zero_points_keep_what_lies_on_a_grid(first: str) -> None:
    second = first if first.endswith("asymmetric") else f"{first}/asymmetric"
    weight = quantize_weight(normal(16, 128, seed=1), named_scheme(first), 0).dequantized
    again = quantize_weight(weight, named_scheme(second), 0).dequantized
    np.testing.assert_allclose(again, weight, rtol=1e-5, atol=1e-7)
