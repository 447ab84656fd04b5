"""Recipes and rules that are wrong: one clear line, exit 2, nothing written, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.samples import sample
from tests.cli.refusals import DATA, NET

pytestmark = pytest.mark.usefixtures("one_cache")

STATIC = {
    "weights": "int8",
    "activations": "int8",
    "granularity": "per-channel",
    "group_size": 32,
    "weight_range": "minmax",
}
DYNAMIC = {**STATIC, "activations": "int8-dynamic"}


def _recipe(**change: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda good: {**good, "recipe": {**good["recipe"], **change}}


def _rule(scheme: dict[str, Any], *names: str) -> dict[str, Any]:
    return {"scheme": scheme, "names": list(names), "op_types": []}


def _range(tensor: str, low: float, high: float) -> list[dict[str, Any]]:
    return [{"tensor": tensor, "low": low, "high": high}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(_recipe(rules=[_rule(STATIC, "nope")]), "'nope'", id="unknown layer"),
        pytest.param(_recipe(rules=[_rule(DYNAMIC, "node_Conv_152")]), "cannot be INT8 dyn", id="illegal"),
        pytest.param(_recipe(rules=[_rule(DYNAMIC, "node_Conv*")]), "no layer of this model", id="no effect"),
        pytest.param(_recipe(rules=[_rule({**STATIC, "weights": "int17"})]), "int17", id="unknown bits"),
        pytest.param(_recipe(rules=None), "recipe.rules", id="no list"),
        pytest.param(_recipe(target="abacus"), "abacus", id="unknown target"),
        pytest.param(_recipe(activation_scope="some"), "activation_scope", id="unknown scope"),
        pytest.param(_recipe(colour="red"), "colour", id="unknown field"),
        pytest.param(_recipe(calibration={"method": "guess"}), "guess", id="unknown method"),
        pytest.param(_recipe(calibration={"samples": -3}), "negative", id="negative samples"),
        pytest.param(
            _recipe(calibration={"method": "percentile", "percentile": 1000}), "1000", id="percentile"
        ),
        pytest.param(_recipe(activation_ranges=_range("nope", -1, 1)), "'nope'", id="unknown tensor"),
        pytest.param(_recipe(activation_ranges=_range("input", 1, -1)), "reversed", id="reversed range"),
        pytest.param(_recipe(weight_ranges=_range("nope", -1, 1)), "'nope'", id="unknown weight"),
        pytest.param(_recipe(weight_ranges=_range("node_Conv_152", 1, -1)), "[1, -1]", id="reversed clip"),
        pytest.param(_recipe(weight_ranges=_range("node_Conv_152", -1, 1e300)), "1e+300", id="endless clip"),
        pytest.param(lambda good: {**good, "schema": "quantstudio.recipe/9"}, "Update", id="newer version"),
        pytest.param(lambda good: {k: good[k] for k in good if k != "recipe"}, "recipe", id="no recipe"),
        pytest.param(lambda good: [good], "schema", id="list"),
    ],
)
def test_that_a_wrong_recipe_is_refused(change, says, good_recipe, tmp_path, out, refused):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(change(good_recipe)), encoding="utf-8")
    assert says in refused(["run", str(path), "-o", str(out / "m.onnx")])
    target = ["--recipe", str(path), "-o", str(out / "m.onnx")]
    assert says in refused(["quantize", NET, *DATA, *target])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"model": None}, "names no model", id="no model"),
        pytest.param({"model": {"path": "gone.onnx"}}, "gone.onnx", id="model gone"),
        pytest.param({"model": {"path": NET, "digest": "0" * 64}}, "not the one", id="other model"),
        pytest.param({"data": None}, "calibration data", id="no data"),
        pytest.param({"data": {"path": "gone.npz"}}, "gone.npz", id="data gone"),
        pytest.param({"output": {"name": "m.onnx", "digest": "0" * 64}}, "differs", id="other bytes"),
        pytest.param({"statistics": {"path": "gone.npz"}}, "gone.npz", id="statistics gone"),
    ],
)
def test_that_run_refuses_what_it_cannot_reproduce(change, says, good_recipe, tmp_path, out, refused):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**good_recipe, **change}), encoding="utf-8")
    assert says in refused(["run", str(path), "-o", str(out / "m.onnx")])


def test_that_a_recipe_cannot_write_elsewhere(good_recipe, tmp_path, refused):
    folder = tmp_path / "of the recipe"
    folder.mkdir()
    recipe = {**good_recipe, "output": {**good_recipe["output"], "name": "../../m.onnx"}}
    (folder / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    assert invoke(["run", str(folder / "r.json")]) == 0
    assert (folder / "m.onnx").is_file()
    recipe["output"]["name"] = "r.json"
    (folder / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    before = (folder / "r.json").read_bytes()
    refused(["run", str(folder / "r.json")])
    assert (folder / "r.json").read_bytes() == before


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("nope=fp32", "'nope'"),
        ("zzz*=fp32", "matches no layer"),
        ("node_Conv*=dynamic-int8", "no layer it matches"),
        ("*=int7", "Choose one of fp32"),
        ("node_Conv_152", "PATTERN=SCHEME"),
        ("node_Conv_152=fp33", "unknown precision 'fp33'"),
        ("x=weight-int4/7", "blocks of '7' weights: no kernel takes them"),
    ],
)
def test_that_a_wrong_rule_is_refused(rule, says, out, refused):
    arguments = ["quantize", NET, *DATA, "--preset", "static-int8", "--set", rule]
    assert says in refused([*arguments, "-o", str(out / "m.onnx")])


def test_that_statistics_of_another_model_are_refused(tmp_path, out, refused):
    other = sample("digits_mobilenet")
    statistics = str(tmp_path / "s.npz")
    assert invoke(["calibrate", str(other.model), *DATA, "--samples", "16", "-o", statistics]) == 0
    arguments = ["quantize", NET, "--statistics", statistics, "--preset", "static-int8"]
    assert "another model" in refused([*arguments, "-o", str(out / "m.onnx")])


def test_that_a_refusal_after_a_warning_is_one_line(tmp_path, out, refused, capfd):
    network = str(sample("digits_transformer").model)
    assert invoke(["quantize", network, "--preset", "weight-int8", "-o", str(tmp_path / "m.onnx")]) == 0
    assert capfd.readouterr().err.startswith("warning: 8 of 43 layers stay float")
    recipe = json.loads((tmp_path / "m.recipe.json").read_text(encoding="utf-8"))
    recipe["output"]["digest"] = "0" * 64
    (tmp_path / "r.json").write_text(json.dumps(recipe), encoding="utf-8")
    before = (tmp_path / "m.onnx").read_bytes()
    assert "differs" in refused(["run", str(tmp_path / "r.json")])
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
