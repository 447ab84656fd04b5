"""What the command line takes for `--preset`, `--set` and `--target`."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import numpy_helper

from quantstudio.cli.main import invoke
from quantstudio.core.aim import Aim
from quantstudio.core.samples import sample
from quantstudio.core.schemes import NAMED_SCHEMES, listed_schemes, preset_names
from quantstudio.core.target import targets

SAMPLE = sample("digits_resnet")
DATA = ["--data", str(SAMPLE.train), "--transform", SAMPLE.transform, "--samples", "64"]


@pytest.fixture
def build(tmp_path, capfd):
    """Quantize the sample; gives the document and the file."""

    def quantize(*options: str) -> tuple[dict[str, object], onnx.ModelProto]:
        output = str(tmp_path / "v.onnx")
        assert invoke(["quantize", str(SAMPLE.model), *DATA, *options, "-o", output, "--json", "-"]) == 0
        return json.loads(capfd.readouterr().out), onnx.load(output)

    return quantize


def largest_weight(model):
    tensors = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8)
    return max(abs(numpy_helper.to_array(t).astype(int)).max() for t in tensors)


def test_that_a_preset_of_four_bit_activations_is_simulated_and_says_so(build):
    document, _ = build("--preset", "static-int4-a4")
    for layer in document["layers"]:
        assert (layer["weights"], layer["activations"]) == ("int4", "int4")
        assert layer["kernel"].endswith(", simulated")
        assert layer["is_simulated"]


def test_that_any_scheme_is_a_preset_and_sets_layers(build):
    document, _ = build("--preset", "weight-int3", "--set", "*linear*=dynamic-int6", "--set", "*_152=float16")
    made = {row["name"]: (row["weights"], row["activations"]) for row in document["layers"]}
    assert made["node_linear"] == ("int6", "int8-dynamic")
    assert made["node_Conv_152"] == ("fp16", "fp32")
    assert made["node_Conv_154"] == ("int3", "fp32")


@pytest.mark.parametrize(("target", "largest"), [("cpu-x86-vnni", 127), ("cpu-x86", 63)])
def test_that_the_target_decides_how_far_weights_reach(build, target, largest):
    document, model = build("--preset", "static-int8", "--target", target)
    assert document["recipe"]["recipe"]["target"] == target
    assert largest_weight(model) == largest


def test_that_other_runtimes_get_signed_activations(build):
    _, model = build("--preset", "static-int8", "--target", "onnx-qdq-s8")
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    zeros = {kinds[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert zeros == {onnx.TensorProto.INT8}


@pytest.mark.parametrize(
    ("options", "listed"),
    [
        (["--preset", "int9"], (listed_schemes(preset_names()),)),
        (["--preset", "static-int8", "--set", "*=int9"], (listed_schemes(NAMED_SCHEMES),)),
        (["--target", "npu"], tuple(one.name for one in targets())),
        (["--aim", "quick"], tuple(Aim)),
        (["--preset", "static-int8", "--aim", "fast"], ("--preset auto",)),
    ],
    ids=["preset", "set", "target", "aim", "aim without auto"],
)
def test_that_unknown_names_are_told_what_there_is(tmp_path, capfd, options, listed):
    assert invoke(["quantize", str(SAMPLE.model), *DATA, *options, "-o", str(tmp_path / "v.onnx")]) == 2
    said = capfd.readouterr().err
    assert all(name in said for name in listed)
    assert not (tmp_path / "v.onnx").exists()
