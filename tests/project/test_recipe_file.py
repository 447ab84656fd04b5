"""Recipe files: written the same every time, read strictly, found again wherever the folder goes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import quantstudio
from quantstudio.core.data_spec import Transform
from quantstudio.core.errors import OutputError, RecipeError
from quantstudio.core.precision import FP32, STATIC_INT8, WEIGHT_INT8
from quantstudio.core.recipe import LayerRule, RangeOverride, Recipe, uniform_recipe
from quantstudio.core.steps import Step
from quantstudio.project.recipe_file import (
    DataSource,
    ModelSource,
    OutputSource,
    RecipeFile,
    parse_recipe,
    read_recipe_file,
    recipe_text,
    write_recipe_file,
)

RECIPE = Recipe(
    (LayerRule(STATIC_INT8), LayerRule(FP32, ("conv1", "größe/ж"))),
    weight_ranges=(RangeOverride("conv2", -0.5, 0.25),),
)
TRANSFORM = "scale=1/255 mean=0.286 std=0.353 layout=NCHW"


def full(folder: Path) -> RecipeFile:
    return RecipeFile(
        RECIPE,
        ModelSource(str(folder / "models" / "m.onnx"), "ab" * 32),
        DataSource(str(folder / "d.npz"), TRANSFORM, 512, "cd" * 32),
        OutputSource("m.int8.onnx", "ef" * 32),
    )


def test_that_a_recipe_file_survives_the_round_trip(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    path = folder / "r.json"
    write_recipe_file(path, full(folder))
    back = read_recipe_file(path)
    assert back == full(folder)
    assert back.recipe.digest == RECIPE.digest
    assert back.data is not None
    assert back.data.spec.transform == Transform(1 / 255, (0.286,), (0.353,), "NCHW")
    assert (back.data.spec.samples, back.data.spec.trusted) == (512, False)


def test_that_equal_recipes_are_equal_bytes(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    for name in ("a.json", "b.json"):
        write_recipe_file(folder / name, full(folder))
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    read = read_recipe_file(folder / "a.json")
    write_recipe_file(folder / "c.json", read)
    assert (folder / "c.json").read_bytes() == (folder / "a.json").read_bytes()


def test_that_every_rule_has_a_line_of_its_own() -> None:
    lines = recipe_text(RecipeFile(RECIPE)).splitlines()
    rules = [line for line in lines if '"scheme"' in line]
    assert len(rules) == 2
    assert '"größe/ж"' in rules[1]
    assert all(json.loads(line.strip().rstrip(",")) for line in rules)
    assert lines[1] == '  "schema": "quantstudio.recipe/2",'
    assert lines[2] == f'  "quantstudio": "{quantstudio.__version__}",'


def test_that_a_moved_folder_still_finds_its_files(tmp_path: Path) -> None:
    folder = (tmp_path / "a").resolve()
    folder.mkdir()
    outside = str((tmp_path / "elsewhere.npz").resolve())
    file = RecipeFile(RECIPE, ModelSource(str(folder / "models" / "m.onnx")), DataSource(outside))
    write_recipe_file(folder / "r.json", file)
    values = json.loads((folder / "r.json").read_text("utf-8"))
    assert values["model"]["path"] == "models/m.onnx"
    assert values["data"]["path"] == outside
    moved = (tmp_path / "b").resolve()
    folder.rename(moved)
    back = read_recipe_file(moved / "r.json")
    assert back.model is not None
    assert back.model.path == str(moved / "models" / "m.onnx")
    assert back.data is not None
    assert back.data.path == outside


def test_that_a_path_relative_to_where_the_user_is_becomes_relative_to_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    write_recipe_file(Path("out/r.json"), RecipeFile(RECIPE, ModelSource("m.onnx")))
    back = read_recipe_file(tmp_path / "out" / "r.json")
    assert back.model is not None
    assert back.model.path == str(tmp_path.resolve() / "m.onnx")


def test_that_a_callable_is_not_a_path(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_recipe_file(path, RecipeFile(RECIPE, data=DataSource("package.data:calibration")))
    back = read_recipe_file(path)
    assert back.data is not None
    assert back.data.path == "package.data:calibration"


@pytest.mark.parametrize("path", ["C:\\data\\d.npz", "/data/d.npz"])
def test_that_a_path_of_another_system_is_left_alone(tmp_path: Path, path: str) -> None:
    text = recipe_text(RecipeFile(RECIPE, data=DataSource(path)))
    (tmp_path / "r.json").write_text(text, "utf-8")
    back = read_recipe_file(tmp_path / "r.json")
    assert back.data is not None
    assert back.data.path == path


def test_that_a_short_recipe_can_be_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(
        '{"schema": "quantstudio.recipe/2", "recipe": {"rules": ['
        '{"scheme": {"weights": "int8", "activations": "int8"}}]}}',
        encoding="utf-8-sig",
    )
    file = read_recipe_file(path)
    assert file.recipe == Recipe((LayerRule(STATIC_INT8),))
    assert (file.model, file.data, file.output) == (None, None, None)


@pytest.mark.skipif(os.name != "posix", reason="file names are Unicode elsewhere")
def test_that_a_name_that_is_not_unicode_survives(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    path = str(folder / "bad\udc80.onnx")
    write_recipe_file(folder / "r.json", RecipeFile(RECIPE, ModelSource(path)))
    back = read_recipe_file(folder / "r.json")
    assert back.model == ModelSource(path)


def text_with(**changes: Any) -> str:
    values = json.loads(recipe_text(RecipeFile(RECIPE, data=DataSource("d.npz", TRANSFORM))))
    for key, value in changes.items():
        where, _, name = key.rpartition("__")
        (values[where] if where else values)[name] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "not a QuantStudio recipe.*line 1", id="empty"),
        pytest.param('{\n"schema": ', "line 2: expecting value", id="truncated"),
        pytest.param("[]", '"schema" is None', id="list"),
        pytest.param("{}", '"schema" is None', id="no schema"),
        pytest.param("[" * 200_000, "nested too deeply", id="deep"),
        pytest.param('{"schema": "quantstudio.inspect/1"}', "'quantstudio.inspect/1', not", id="other"),
        pytest.param('{"schema": "quantstudio.recipe/3"}', "version.*Update QuantStudio", id="newer"),
        pytest.param('{"schema": "quantstudio.recipe/2"}', "field 'recipe' is missing", id="no recipe"),
        pytest.param('{"schema": 1, "schema": 2}', "'schema' is there twice", id="twice"),
        pytest.param(text_with(recipe__rules=3), "recipe.rules: expected a list, found int", id="rules"),
        pytest.param(
            text_with(recipe__rules=[{"scheme": {"weights": "int9"}}]),
            r"recipe.rules\[0\].scheme.weights: 'int9' is not one of fp32",
            id="precision",
        ),
        pytest.param(text_with(modell=None), "unknown field 'modell'", id="unknown field"),
        pytest.param(text_with(data__transform="scael=2"), "data.transform: unknown transform", id="scale"),
        pytest.param(text_with(data__samples=-1), "data.samples: -1 is negative", id="samples"),
        pytest.param(text_with(data__path=None), "data.path: expected str, found null", id="path"),
    ],
)
def test_that_a_wrong_recipe_is_refused_with_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe_file(path)
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.one_line


def test_that_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(RecipeError, match=r"cannot be read \(no such file"):
        read_recipe_file(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe_file(tmp_path)
    path.write_bytes(b"\xff\x00\x80")
    with pytest.raises(RecipeError, match="it is not text"):
        read_recipe_file(path)


def test_that_a_recipe_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_recipe_file(tmp_path / "no" / "r.json", RecipeFile(RECIPE))


def test_that_text_is_read_without_touching_paths() -> None:
    file = parse_recipe(text_with(), "here")
    assert file.data is not None
    assert file.data.path == "d.npz"


def test_that_a_file_of_version_1_opens_as_one_of_version_2(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    old = {
        "schema": "quantstudio.recipe/1",
        "quantstudio": "0.9",
        "recipe": {"rules": [{"scheme": {"weights": "int8"}}], "target": "cpu-x86-vnni"},
    }
    path.write_text(json.dumps(old), "utf-8")
    file = read_recipe_file(path)
    assert file.recipe == replace(uniform_recipe(WEIGHT_INT8), target="cpu-x86-vnni", emission=1)
    assert (file.recipe.steps, file.recipe.seed) == ((), 0)
    write_recipe_file(path, file)
    assert '"schema": "quantstudio.recipe/2"' in path.read_text("utf-8")
    assert read_recipe_file(path) == file


def test_that_a_file_of_version_1_without_a_target_is_for_the_one_there_was() -> None:
    file = parse_recipe('{"schema": "quantstudio.recipe/1", "recipe": {"rules": []}}', "old.json")
    assert file.recipe.target == "cpu-x86-vnni"


def test_that_steps_get_a_line_each_and_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    steps = (Step("equalize", {"rounds": 20}), Step("bias", is_on=False))
    file = RecipeFile(replace(uniform_recipe(WEIGHT_INT8), steps=steps, seed=7))
    write_recipe_file(path, file)
    assert read_recipe_file(path).recipe == file.recipe
    line = '      {"name": "equalize", "settings": {"rounds": 20}, "is_on": true},'
    assert line in path.read_text("utf-8").splitlines()


def test_that_a_step_in_a_file_of_version_1_is_refused() -> None:
    text = '{"schema": "quantstudio.recipe/1", "recipe": {"steps": []}}'
    with pytest.raises(RecipeError, match=r"recipe.steps: version 1 of recipes does not have it"):
        parse_recipe(text, "old.json")
