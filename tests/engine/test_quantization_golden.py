"""Recipes of version 1 give the bytes they gave before there was a version 2."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import pytest

from quantstudio.core.effective_plan import resolve
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import LayerRule, Recipe
from quantstudio.core.samples import sample
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.core.statistics import Histogram, Statistics
from quantstudio.engine.calibration.tensors import calibration_tensors
from quantstudio.engine.model.open import open_model
from quantstudio.engine.quantization.emit import emit, variant_name
from quantstudio.project.recipe_file import OutputSource, RecipeFile, parse_recipe, recipe_text
from tests.engine.network_kinds import Builder

# Sample, recipe, first half of the recipe's digest and of the file's SHA-256, made by the version that wrote
# recipes of version 1 only.
GOLDEN = [
    ("digits_resnet", "static-int8", "5ac230e1c0d39f37e600727412eb1111", "cdb35a10f427ffc4ba6fb02afdda5da1"),
    ("digits_resnet", "dynamic-int8", "9f91f96969df302eb543bba6e4684e18", "3fc0e9e331598cbda772d7e709c87ec1"),
    ("digits_resnet", "weight-int8", "710b9d8fee82a3a754f2c4fdadb89232", "963f48ca6a30ca2a40fc322c1181324f"),
    ("digits_resnet", "weight-int4", "cb9bec3ff452fa5b0fa6b5b866a1549c", "1e80f8045c5fdc45851103a496f56151"),
    ("digits_resnet", "static-int4", "7c2be828c1dff65a1c8c07a0c9e15612", "f85794732cb1544888f964cdbaee3d2b"),
    ("digits_resnet", "float16", "ea0a87b2dd0f732d64b1de782bf253fb", "c7f513730b3177813d8f47300101efdd"),
    ("digits_resnet", "float32", "d76a75ffb6ffcbac55c5d3c7c4bde803", "aaa6bb4b149209db9301677385ee3efd"),
    ("digits_resnet", "weighted", "d642fcdb898f5c925e865e55e50c4961", "88770f25575c10fea0228b67e3265381"),
    ("digits_resnet", "mixed", "bc7f1e4e78d79cfeb230b70bdd11f3c1", "87e422251b95af9a11c43ae8301ce4e9"),
    ("digits_resnet", "per-tensor", "f05cea7e3805df0871b0a1dac774d656", "e356868e9c11222fed82e2bfdc67f73e"),
    ("digits_resnet", "ranges", "6b9a103aff1cb5f2973405f9a8b541de", "4d0c3ed9e2687d3735aeaa9f91796400"),
    (
        "digits_mobilenet",
        "static-int8",
        "5ac230e1c0d39f37e600727412eb1111",
        "4e5760cf502a62543ee110aedafa5066",
    ),
    (
        "digits_mobilenet",
        "dynamic-int8",
        "9f91f96969df302eb543bba6e4684e18",
        "b339c257f2ccff01b4c72ad9ad676bf8",
    ),
    (
        "digits_mobilenet",
        "weight-int8",
        "710b9d8fee82a3a754f2c4fdadb89232",
        "48f360ae14e4d579a0a3122773450da8",
    ),
    (
        "digits_mobilenet",
        "weight-int4",
        "cb9bec3ff452fa5b0fa6b5b866a1549c",
        "dddf9189d4f2fbc1f35471918a470abd",
    ),
    (
        "digits_mobilenet",
        "static-int4",
        "7c2be828c1dff65a1c8c07a0c9e15612",
        "b542a0b8eb0c1f8a6e1ab1bd3a7e0734",
    ),
    ("digits_mobilenet", "float16", "ea0a87b2dd0f732d64b1de782bf253fb", "8e42ffb5b7e6c7a5d2e530b7d65ef287"),
    ("digits_mobilenet", "float32", "d76a75ffb6ffcbac55c5d3c7c4bde803", "81960f37015df8622da456af4f7c61bf"),
    ("digits_mobilenet", "weighted", "d642fcdb898f5c925e865e55e50c4961", "25e2acd0c48e392242cca31c1baccc90"),
    ("digits_mobilenet", "mixed", "60a49c6f7092ec000ebd99e59781a8c2", "be65c77573667425e4fea6964d747b73"),
    (
        "digits_mobilenet",
        "per-tensor",
        "f05cea7e3805df0871b0a1dac774d656",
        "52ae4b5fd9563721a41eee738b561475",
    ),
    ("digits_mobilenet", "ranges", "0202b658bafed601e17c164858126cbb", "a8c0b2c688162feb2798d8eed6fadecf"),
    (
        "digits_transformer",
        "static-int8",
        "5ac230e1c0d39f37e600727412eb1111",
        "9a501db3ccdf56c1c70e863a005aba88",
    ),
    (
        "digits_transformer",
        "dynamic-int8",
        "9f91f96969df302eb543bba6e4684e18",
        "503159b81def38aa0cc3aa8408150cbf",
    ),
    (
        "digits_transformer",
        "weight-int8",
        "710b9d8fee82a3a754f2c4fdadb89232",
        "23653c5a094e8a3bf9e4677851d0938a",
    ),
    (
        "digits_transformer",
        "weight-int4",
        "cb9bec3ff452fa5b0fa6b5b866a1549c",
        "33bf800a96d5a7a75af3dc6bb430dc91",
    ),
    (
        "digits_transformer",
        "static-int4",
        "7c2be828c1dff65a1c8c07a0c9e15612",
        "d1a2cc7e6a0a6e90dcc9149d42de2bee",
    ),
    ("digits_transformer", "float16", "ea0a87b2dd0f732d64b1de782bf253fb", "b4bda60e7130c97d76561f74e67a9ff7"),
    ("digits_transformer", "float32", "d76a75ffb6ffcbac55c5d3c7c4bde803", "76d0413975f4618c9796b606bc11643c"),
    (
        "digits_transformer",
        "weighted",
        "d642fcdb898f5c925e865e55e50c4961",
        "e2f3afd6590d80b81a9cfac14e0b1c27",
    ),
    ("digits_transformer", "mixed", "38cbfd7a8f853fe4f3870ca66e035c4b", "9f3bfd09bf89e10d8f9bd6b5f0d9ea22"),
    (
        "digits_transformer",
        "per-tensor",
        "f05cea7e3805df0871b0a1dac774d656",
        "82a955fdf92dcca8c8f9f6bdd89032b1",
    ),
    ("digits_transformer", "ranges", "08346f8192c86825e7275121ef25d23a", "58245cd2054791806d56052d4f30176b"),
]


def formula_statistics(graph) -> Statistics:
    """Histograms made by a formula: what a runtime computes differs from processor to processor."""
    tensors = {}
    for i, name in enumerate(sorted(calibration_tensors(graph))):
        counts = np.zeros(4096, np.int64)
        width = 600 + 37 * (i % 11)
        at = np.arange(2048 - (width if i % 2 else 0), 2048 + width)
        counts[at] = np.maximum(1000 - np.abs(at - 2048), 1)
        high = float(2 ** (i % 4))
        step = 2 * high / 4096
        low, top = float((at[0] - 2048) * step), float((at[-1] - 2047) * step)
        tensors[name] = Histogram(counts, -high, high, low, top)
    return Statistics(tensors, 64, graph.digest, "formula")


def scheme(weights="fp32", activations="fp32", granularity="per-channel", size=32, rule="minmax"):
    return {
        "weights": weights,
        "activations": activations,
        "granularity": granularity,
        "group_size": size,
        "weight_range": rule,
    }


def rule(value, names=(), op_types=()):
    return {"scheme": value, "names": list(names), "op_types": list(op_types)}


STATIC = scheme("int8", "int8")
DYNAMIC = scheme("int8", "int8-dynamic")


def recipe_values(label, layer):
    """A recipe as version 1 wrote it; `layer` is one that can be static."""
    uniform = {
        "static-int8": STATIC,
        "dynamic-int8": DYNAMIC,
        "weight-int8": scheme("int8"),
        "weight-int4": scheme("int4", granularity="per-group", rule="mse"),
        "static-int4": scheme("int4", "int8", rule="mse"),
        "float16": scheme("fp16"),
    }
    if label in uniform:
        return {"rules": [rule(uniform[label])]}
    return {
        "float32": {"rules": []},
        "weighted": {
            "rules": [rule(STATIC)],
            "activation_scope": "weighted",
            "calibration": {"method": "minmax", "percentile": 99.5, "samples": 64},
        },
        "mixed": {
            "rules": [
                rule(STATIC, op_types=["Conv"]),
                rule(DYNAMIC, op_types=["Gemm", "MatMul"]),
                rule(scheme(), [layer.name]),
            ],
            "calibration": {"method": "percentile", "percentile": 99.9, "samples": 32},
        },
        "per-tensor": {
            "rules": [
                rule(scheme("int2", "int8", "per-tensor")),
                rule(scheme("int6", "int8"), ["*"], ["Gemm"]),
            ],
            "calibration": {"method": "entropy"},
        },
        "ranges": {
            "rules": [rule(STATIC)],
            "activation_ranges": [{"tensor": layer.inputs[0], "low": -0.5, "high": 2.25}],
            "weight_ranges": [{"tensor": layer.name, "low": -0.125, "high": 0.25}],
            "target": "cpu-x86-vnni",
        },
    }[label]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Each sample with its statistics, opened once."""
    known = {}

    def open_once(name):
        if name not in known:
            graph = open_model(sample(name).model)
            known[name] = graph, formula_statistics(graph)
        return known[name]

    return open_once


@pytest.mark.parametrize(
    ("name", "label", "recipe_digest", "file_digest"),
    [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in GOLDEN],
)
def test_that_an_old_recipe_gives_the_same_bytes_as_before(opened, name, label, recipe_digest, file_digest):
    graph, statistics = opened(name)
    layer = next(one for one in graph.layers if "static-int8" in one.schemes and one.weight_name)
    text = json.dumps({"schema": "quantstudio.recipe/1", "recipe": recipe_values(label, layer)})
    recipe = parse_recipe(text, "old.json").recipe
    assert recipe.digest.startswith(recipe_digest)
    model = emit(graph, statistics, resolve(recipe, graph.layers))
    found = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    assert found.startswith(file_digest)


@pytest.mark.parametrize("emission", [1, 2])
def test_that_forms_before_the_packed_one_give_fewer_bits_as_they_did(opened, emission):
    graph, statistics = opened("digits_resnet")
    rules = (LayerRule(NAMED_SCHEMES["static-int4"]),)
    old = resolve(Recipe(rules, target="cpu-x86-vnni", emission=emission), graph.layers)
    first = resolve(Recipe(rules, target="cpu-x86-vnni", emission=1), graph.layers)
    new = resolve(Recipe(rules, target="cpu-x86-vnni"), graph.layers)
    assert old.digest == first.digest != new.digest
    written = emit(graph, statistics, old)
    assert written == emit(graph, statistics, first)
    assert written.ByteSize() > 1.5 * emit(graph, statistics, new).ByteSize()


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """Products of three axes with biases, every shape known, with statistics."""
    b = Builder()
    up = b.add("Add", [b.add("MatMul", ["x", b.weight(8, 16)]), b.weight(16)])
    b.add("Add", [b.add("MatMul", [b.add("Relu", [up]), b.weight(16, 8)]), b.weight(8)], "y")
    path = tmp_path_factory.mktemp("products") / "known.onnx"
    onnx.save(b.model({"x": [2, 6, 8]}, {"y": [2, 6, 8]}), path)
    graph = open_model(path)
    return graph, formula_statistics(graph)


@pytest.mark.parametrize("version", [1, 2])
def test_that_a_recipe_that_names_no_form_gives_the_bytes_it_gave(products, version):
    graph, statistics = products
    values = {"rules": [rule(STATIC)], "target": "cpu-x86-vnni"}
    document = {"schema": f"quantstudio.recipe/{version}", "recipe": values, "output": {"name": "old.onnx"}}
    text = json.dumps(document)
    recipe = parse_recipe(text, "old.json").recipe
    plan = resolve(recipe, graph.layers)
    found = hashlib.sha256(emit(graph, statistics, plan).SerializeToString(deterministic=True)).hexdigest()
    assert recipe.digest.startswith("5ac230e1c0d39f37e600727412eb1111")
    assert found.startswith("3fa397c27a57185fc717b8fdaef5c299")
    assert plan.digest.startswith("17f1cc20a25216ee")


def test_that_a_new_recipe_keeps_biases_apart_and_is_another_variant_only_where_that_matters(products):
    graph, statistics = products
    first, now = Recipe((LayerRule(STATIC_INT8),), emission=1), Recipe((LayerRule(STATIC_INT8),))
    old, new = (resolve(recipe, graph.layers) for recipe in (first, now))
    written = emit(graph, statistics, new)
    assert [t.name for t in written.graph.initializer if t.name.endswith("_apart")]
    assert old.digest != new.digest
    assert variant_name(graph, statistics, old) != variant_name(graph, statistics, new)
    assert parse_recipe(recipe_text(RecipeFile(now)), "new.json").recipe == now
    built = RecipeFile(first, output=OutputSource("old.onnx"))
    assert parse_recipe(recipe_text(built), "old.json").recipe == first
    convolutions = open_model(sample("digits_resnet").model).layers
    old, new = (resolve(recipe, convolutions) for recipe in (first, now))
    assert old.digest == new.digest
