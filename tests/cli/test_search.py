"""`quantstudio search` on a bundled network: documents, files, refusals."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.samples import sample

SAMPLE = sample("digits_resnet")
DATA = ["--data", str(SAMPLE.train), "--transform", SAMPLE.transform, "--samples", "128"]
# Where it makes no difference to what a test looks at.
PLAIN = ["--recover", "none"]
pytestmark = pytest.mark.usefixtures("one_cache")


def test_that_search_writes_a_model_that_runs_and_a_recipe_that_repeats_it(tmp_path, capfd):
    made = tmp_path / "made.onnx"
    model = os.path.relpath(SAMPLE.model)
    arguments = ["search", model, *DATA, "--average-bits", "5", "-o", str(made), "--json", "-"]
    assert invoke(arguments) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "quantstudio.search/1"
    # The printed recipe may be saved anywhere: it must not depend on the folder it was made in.
    assert Path(document["recipe"]["model"]["path"]).is_absolute()
    assert Path(document["recipe"]["data"]["path"]).is_absolute()
    chosen = document["chosen"]
    assert chosen["measured"]["average_bits"] <= 5
    assert chosen["measured"]["size_bytes"] == made.stat().st_size
    for point in document["front"]:
        assert {"size_bytes", "latency_ms", "metric", "predicted", "recipe"} <= set(point)
    session = ort.InferenceSession(str(made))
    shape = [1 if isinstance(n, str) else n for n in session.get_inputs()[0].shape]
    assert session.run(None, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})[0].shape == (1, 10)
    first = made.read_bytes()
    made.unlink()
    assert invoke(["run", str(tmp_path / "made.recipe.json")]) == 0
    assert made.read_bytes() == first


def test_that_the_table_ends_with_the_chosen_plan(tmp_path, capfd):
    arguments = ["search", str(SAMPLE.model), *DATA, "--average-bits", "4.2", *PLAIN]
    assert invoke([*arguments, "-o", str(tmp_path / "m.onnx")]) == 0
    lines = capfd.readouterr().out.splitlines()
    names = [line.split("  ")[0] for line in lines[2:] if " everywhere" in line]
    assert len(names) == len(set(names)), "shown once, also where it is on the front"
    chosen = next(line for line in lines if line.startswith("chosen"))
    assert chosen.rstrip().endswith("measured")
    # Single precisions were measured, among them INT8 and a codebook that keeps the bound on bits.
    rows = [line for line in lines if " everywhere" in line and line.rstrip().endswith("measured")]
    bits = {line.split(" everywhere")[0]: float(line.split(" everywhere")[1].split()[0]) for line in rows}
    assert bits["INT8"] == 8.0
    assert any(name.startswith("CB") and width <= 4.2 for name, width in bits.items())
    assert float(chosen.split()[1]) <= 4.2
    assert "m.recipe.json" in lines[-1]


def test_that_figures_of_the_test_data_are_told_apart(tmp_path, capfd):
    arguments = ["search", str(SAMPLE.model), *DATA, *PLAIN, "--average-bits", "5"]
    arguments += ["--test-data", str(SAMPLE.test)]
    assert invoke([*arguments, "-o", str(tmp_path / "m.onnx")]) == 0
    lines = capfd.readouterr().out.splitlines()
    chosen = next(line for line in lines if line.startswith("chosen"))
    assert chosen.rstrip().endswith(f"measured on {len(np.load(SAMPLE.test)['images'])} test samples")
    others = [
        line.rstrip()
        for line in lines
        if line.startswith(("INT", "CB")) and line.split()[1:] != chosen.split()[1:]
    ]
    assert others
    assert all(line.endswith("  measured") for line in others)


def test_that_pinned_layers_stay(tmp_path, capfd):
    assert invoke(["inspect", str(SAMPLE.model), "--json", "-"]) == 0
    name = json.loads(capfd.readouterr().out)["layers"][2]["name"]
    arguments = ["search", str(SAMPLE.model), *DATA, *PLAIN, "--average-bits", "6"]
    arguments += ["--pin", f"{name}=static-int4"]
    assert invoke([*arguments, "-o", str(tmp_path / "m.onnx"), "--json", "-"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert {row["name"]: row["weights"] for row in document["build"]["layers"]}[name] == "int4"


def test_that_a_budget_nobody_can_keep_is_refused_with_the_nearest(tmp_path, capfd):
    out = tmp_path / "m.onnx"
    assert invoke(["search", str(SAMPLE.model), *DATA, "--average-bits", "1", "-o", str(out)]) == 2
    error = capfd.readouterr().err
    assert "average weight bits (1)" in error
    assert "closest possible is 1.0" in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--pin", "nonsense"], "PATTERN=SCHEME", id="pin"),
        pytest.param(["--pin", "nowhere=fp32"], "no layer matches", id="pin of no layer"),
        pytest.param(["--activations", "odd"], "unknown activation family", id="family"),
        pytest.param(["--max-drop", "-1"], "accuracy drop", id="negative drop"),
    ],
)
def test_that_a_mistake_is_one_line(tmp_path, capfd, arguments, says):
    assert invoke(["search", str(SAMPLE.model), *DATA, *arguments, "-o", str(tmp_path / "m.onnx")]) == 2
    error = capfd.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_that_a_pin_of_layers_that_are_not_searched_says_so(tmp_path, capfd):
    net = sample("digits_transformer")
    arguments = ["search", str(net.model), "--data", str(net.train), "--transform", net.transform]
    assert invoke([*arguments, "--pin", "*layer_norm*=fp32", "-o", str(tmp_path / "m.onnx")]) == 2
    error = capfd.readouterr().err
    assert "matches only layers whose precision is not searched" in error
    assert "node_layer_norm" in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-latency-ratio", "1.5"], "--max-latency-ratio 1.5 is no part of the FP32 time"),
        (["--max-class-drop", "-1"], "accuracy drop of a class cannot be -1"),
    ],
)
def test_that_a_bound_that_means_nothing_is_refused(tmp_path, capfd, options, said):
    arguments = ["search", str(SAMPLE.model), *DATA, *options, "-o", str(tmp_path / "v.onnx")]
    assert invoke(arguments) == 2
    assert said in " ".join(capfd.readouterr().err.split())
