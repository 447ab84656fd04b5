"""Recovery on broken data and dead layers: one line and old files as they were, or a note and a file."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.folders import cache_root
from tests.engine.quantization_cases import NetBuilder, normal

pytestmark = pytest.mark.usefixtures("one_cache")
STEPS = ("gptq", "round", "tune")


class Case(NamedTuple):
    model: str
    data: str


def network(*, dead: bool, flat: bool = False) -> onnx.ModelProto:
    """Two branches into a classifier; one never fires where it is dead. Flat weights use one table entry."""
    net = NetBuilder(7)
    left = net.gemm("x", "left", 8, 16)
    net.initializers[-1].CopyFrom(
        onnx.numpy_helper.from_array(np.full(16, -100 if dead else 0.1, np.float32), "left.b")
    )
    left = net.gemm(net.op("Relu", left, name="left_relu"), "behind", 16, 16)
    right = net.gemm("x", "right", 8, 16)
    y = net.op("Relu", net.op("Add", left, right, name="sum"), name="relu")
    if flat:
        net.constant("head.w", np.tile(np.array([0.3, -0.2, 0.1, 0.4, -0.1], np.float32), (16, 1)))
        y = net.op("Gemm", y, "head.w", net.weight("head.b", 5, scale=0.2), name="head")
    else:
        y = net.gemm(y, "head", 16, 5)
    made: onnx.ModelProto = net.model({"x": ["n", 8]}, [y])
    return made


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    for name, options in {"whole": {}, "dead": {"dead": True}, "flat": {"flat": True}}.items():
        onnx.save(network(**{"dead": False, **options}), folder / f"{name}.onnx")
    x = normal(48, 8, seed=2)
    broken = x.copy()
    broken[3, 2] = np.nan
    arrays = {"good": x, "nan": broken, "one": x[:1], "same": np.ones_like(x), "none": x[:0]}
    for name, array in arrays.items():
        np.savez(folder / f"{name}.npz", x=array)

    def case(model, data):
        return Case(str(folder / f"{model}.onnx"), str(folder / f"{data}.npz"))

    return case


def command(case, output, method, *options, preset="static-int3"):
    fast = {
        "gptq": [],
        "round": ["--set-step", "round.iterations=20"],
        "tune": ["--set-step", "tune.steps=10"],
    }
    base = ["recover", case.model, "--data", case.data, "--preset", preset, "--method", method]
    # A packed file would be loaded in processes of its own, to say what it saves: that is no matter here.
    return [*base, *fast[method], "--unpacked", "--samples", "48", "-o", str(output), *options]


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("preset", ["static-int3", "weight-int3"])
@pytest.mark.parametrize("data", ["nan", "none"])
def test_that_broken_data_is_one_line_and_leaves_what_was_there(cases, out, refused, method, preset, data):
    said = refused(command(cases("whole", data), out / "m.onnx", method, preset=preset))
    assert "NaN" in said if data == "nan" else "sample" in said


@pytest.mark.parametrize("method", STEPS)
def test_that_one_sample_is_one_line(cases, out, refused, method):
    assert "sample" in refused(command(cases("whole", "one"), out / "m.onnx", method))


def test_that_samples_that_are_all_alike_are_one_line(cases, out, refused):
    said = refused(command(cases("whole", "same"), out / "m.onnx", "gptq"))
    assert "what every layer reads is the same in all samples. Give samples that differ" in said


@pytest.mark.parametrize(
    "setting", ["tune.steps=0", "round.iterations=0", "gptq.samples=0", "gptq.sweeps=-1"]
)
def test_that_settings_of_nothing_are_one_line(cases, out, refused, setting):
    method = setting.partition(".")[0]
    arguments = command(cases("whole", "good"), out / "m.onnx", method)
    said = refused([*arguments, "--set-step", setting])
    assert "is not a whole number" in said


@pytest.mark.parametrize("method", STEPS)
def test_that_a_layer_that_never_fires_does_not_keep_the_others(cases, tmp_path, capsys, method):
    made = tmp_path / "m.onnx"
    assert invoke(command(cases("dead", "good"), made, method, "--json", "-")) == 0
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert all(np.isfinite(onnx.numpy_helper.to_array(t)).all() for t in onnx.load(made).graph.initializer)
    if method == "gptq":
        assert step["details"]["plain"] == ["behind"]
        assert step["summary"].endswith("from what they read: behind.")


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("preset", ["static-codebook2", "static-table2"])
def test_that_a_table_that_needs_one_entry_is_no_error(cases, tmp_path, method, preset):
    assert invoke(command(cases("flat", "good"), tmp_path / "m.onnx", method, preset=preset)) == 0
    assert (tmp_path / "m.recipe.json").is_file()


def test_that_a_cache_whose_stores_refuse_costs_nothing_but_time(cases, tmp_path, monkeypatch, caplog):
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    assert invoke(command(cases("whole", "good"), first, "gptq")) == 0
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "cache"))
    cache_root().mkdir()
    for store in ("steps", "statistics", "sensitivity", "doctor", "gptq", "sources"):
        (cache_root() / store).touch()  # a folder that cannot be made
    assert invoke(command(cases("whole", "good"), second, "gptq")) == 0
    assert second.read_bytes() == first.read_bytes()
    assert any("not kept" in record.getMessage() for record in caplog.records)
    case = cases("whole", "good")
    assert invoke(["sensitivity", case.model, "--data", case.data, "--samples", "16"]) == 0
