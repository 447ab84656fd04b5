"""Steps in a script: added by name, applied with the build, taken back by undo."""

from __future__ import annotations

from pathlib import Path

import pytest

import quantstudio as qs
from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import RecipeError
from quantstudio.core.samples import sample
from quantstudio.engine.tasks.models import open_model
from quantstudio.engine.tasks.quantize import quantize

SAMPLE = sample("digits_mobilenet")


def test_that_a_script_recovers_and_gives_the_bytes_of_the_task(tmp_path, monkeypatch):
    with qs.Workspace.sample("digits_mobilenet", progress=False) as ws:
        ws.set("*", "static-int4")
        names = [step.name for step in ws.list_steps()]
        assert names.index("equalize") < names.index("bias")
        ws.add_step("equalize")
        ws.add_step("bias", samples=64)
        with pytest.raises(RecipeError, match="there is no step 'melt'"):
            ws.add_step("melt")
        with pytest.raises(RecipeError, match="0 is not a whole number of at least 1"):
            ws.add_step("bias", samples=0)
        variant = ws.quantize()
        assert variant.build is not None
        assert [step.name for step in variant.build.steps] == ["equalize", "bias"]
        recipe, made = ws.recipe, Path(variant.path).read_bytes()
        ws.undo()
        assert [step.name for step in ws.recipe.steps] == ["equalize"]
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "another cache"))
    path = tmp_path / "task.onnx"
    quantize(
        graph_path=open_model(path=str(SAMPLE.model)).graph_path,
        output=str(path),
        recipe=to_json(recipe),
        data=to_json(DataSpec(str(SAMPLE.train), parse_transform(SAMPLE.transform))),
    )
    assert path.read_bytes() == made
