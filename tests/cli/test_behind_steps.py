"""`--recipe` of `search` and `sensitivity`: what is found behind the steps of a recipe, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantstudio.cli.main import invoke
from quantstudio.project.recipe_file import RecipeFile, read_recipe_file, write_recipe_file
from tests.engine.step_cases import BIAS, EQUALIZE, recipe, uneven


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSTUDIO_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("net")
        made = uneven(folder)
        write_recipe_file(folder / "kept.json", RecipeFile(recipe(EQUALIZE)))
        yield made.graph.summary.source_path, made.data.path, str(folder / "kept.json")


def test_that_a_search_keeps_the_steps_of_a_recipe_and_quantize_gives_its_bytes(net, tmp_path, capfd):
    model, data, kept = net
    made, again = tmp_path / "made.onnx", tmp_path / "again.onnx"
    arguments = [model, "--data", data, "--recipe", kept, "--average-bits", "6", "--activations", "static"]
    arguments += ["--recover", "none"]
    assert invoke(["search", *arguments, "-o", str(made), "--json", "-"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [step["name"] for step in document["build"]["steps"]] == ["equalize"]
    found = tmp_path / "made.recipe.json"
    assert [step.name for step in read_recipe_file(found).recipe.steps] == ["equalize"]
    again_with = ["--data", data, "--recipe", str(found), "-o", str(again)]
    assert invoke(["quantize", model, *again_with]) == 0
    assert again.read_bytes() == made.read_bytes()


def test_that_an_unknown_target_of_a_recipe_is_refused_before_any_work(net, tmp_path, capfd):
    model, data, kept = net
    other = tmp_path / "other.json"
    file = json.loads(Path(kept).read_text())
    file["recipe"]["target"] = "abacus"
    other.write_text(json.dumps(file))
    arguments = ["search", model, "--data", data, "--recipe", str(other), "-o", str(tmp_path / "m.onnx")]
    assert invoke(arguments) == 2
    assert "unknown target 'abacus'" in capfd.readouterr().err


def test_that_sensitivity_behind_the_steps_of_a_recipe_says_so(net, capfd, tmp_path):
    model, data, _ = net
    kept = tmp_path / "kept.json"
    write_recipe_file(kept, RecipeFile(recipe(EQUALIZE, BIAS)))
    arguments = ["sensitivity", model, "--data", data, "--samples", "16", "--precisions", "int4/tensor"]
    assert invoke([*arguments, "--recipe", str(kept), "--json", "-"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["steps"], document["left_out"]) == (["equalize"], ["bias"])
    assert invoke([*arguments, "--recipe", str(kept)]) == 0
    title = " ".join(capfd.readouterr().out.split())
    assert "after equalize; without bias, which depends on the precisions" in title
