"""Networks that come as programs: exported once, compared with torch, and only with trust."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from quantstudio.core.errors import ModelLoadError, QuantStudioError, TrustRequiredError, VerificationError
from quantstudio.engine.model import torch_export
from quantstudio.engine.model.open import open_model
from quantstudio.engine.model.torch_source import (
    is_factory,
    load_exported_program,
    load_factory,
    load_torchscript,
    load_weights,
)
from tests.engine.builders import op_types, outputs_of
from tests.shared_data import MODELS, needs_shared

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, picture):
        return self.fc(torch.relu(self.bn(self.conv(picture))).mean((2, 3)))


def seeded():
    torch.manual_seed(0)
    return Net()


def with_example():
    return seeded(), torch.zeros(2, 3, 16, 16)


def with_named_example():
    return seeded(), {"picture": torch.zeros(2, 3, 16, 16)}


def linear():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU())


def embedding():
    return nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))


def picky():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            raise ValueError("not today")

    return Picky()


def raises():
    raise KeyError("no such config")


def text():
    return "a network"


not_callable = 5
"""


@pytest.fixture(scope="module")
def factory_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("factory") / "net_of_test.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture(scope="module")
def net(factory_file) -> torch.nn.Module:
    network: torch.nn.Module = load_factory(f"{factory_file}:seeded").network
    return network


def expected_of(net: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(net(torch.from_numpy(x)).numpy())


def test_that_a_factory_with_example_inputs_is_exported_with_a_dynamic_batch(factory_file, net):
    graph = open_model(f"{factory_file}:with_example", trust=True)
    assert graph.summary.inputs[0].name == "picture"
    assert graph.summary.inputs[0].shape == ("batch", 3, 16, 16)
    assert op_types(graph.proto) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    x = np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(outputs_of(graph.proto, {"picture": x})[0], expected_of(net, x), atol=1e-5)


def test_that_weights_onto_a_factory_replace_its_own(factory_file, net, tmp_path):
    torch.manual_seed(7)
    other = type(net)().eval()
    plain, safe = tmp_path / "weights.pt", tmp_path / "weights.safetensors"
    torch.save({"state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}, "epoch": 3}, plain)
    save_file(other.state_dict(), safe)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    factory = f"{factory_file}:with_named_example"
    with pytest.raises(TrustRequiredError):
        open_model(plain, factory=factory)
    graph = open_model(plain, factory=factory, trust=True)
    np.testing.assert_allclose(outputs_of(graph.proto, {"picture": x})[0], expected_of(other, x), atol=1e-5)
    load_weights(net2 := type(net)().eval(), safe)
    np.testing.assert_allclose(expected_of(net2, x), expected_of(other, x))


@pytest.mark.parametrize(
    ("name", "shape"), [("linear", [2, 6]), ("embedding", [2, 8]), ("seeded", [2, 3, 28, 28])]
)
def test_that_an_input_shape_is_guessed_from_the_first_layer(factory_file, name, shape):
    source = load_factory(f"{factory_file}:{name}")
    assert list(source.args[0].shape) == shape
    assert "guessed" in source.notes[0]


def test_that_lightning_style_examples_are_used(factory_file):
    source = load_factory(f"{factory_file}:linear")
    source.network.example_input_array = torch.ones(3, 6)
    from quantstudio.engine.model.torch_source import _with_guess

    assert _with_guess(source.network, "here").args[0].shape == (3, 6)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", "raised an error (KeyError: 'no such config')"),
        ("text", "returned a str"),
        ("not_callable", "no callable"),
        ("absent", "no callable"),
        ("picky", "shape of the input is not known"),
    ],
)
def test_that_a_bad_factory_is_one_clear_line(factory_file, name, says):
    with pytest.raises(ModelLoadError) as caught:
        open_model(f"{factory_file}:{name}", trust=True)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_that_missing_modules_and_files_are_named(tmp_path):
    with pytest.raises(ModelLoadError, match="no_such_module"):
        open_model("no_such_module:make", trust=True)
    with pytest.raises(ModelLoadError, match="no such Python file"):
        open_model(f"{tmp_path}/nothing.py:make", trust=True)


def test_that_a_module_in_the_working_folder_is_found(factory_file, monkeypatch):
    monkeypatch.chdir(factory_file.parent)
    before = list(sys.path)
    assert load_factory("net_of_test:seeded").args
    assert sys.path == before


def test_that_factories_are_told_from_paths(tmp_path):
    assert is_factory("package.module:make")
    assert is_factory("some/file.py:make")
    assert not is_factory("C:\\models\\net.onnx")
    assert not is_factory("C:make")
    assert not is_factory("net.onnx")
    assert not is_factory("a b:c")


class TestWeights:
    """Files of weights that do not fit."""

    def test_that_the_first_missing_tensor_is_named(self, net, tmp_path):
        torch.save({"conv.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "w.pt")
        with pytest.raises(ModelLoadError, match=r"lacks 'bn.bias' and"):
            load_weights(type(net)(), tmp_path / "w.pt")

    def test_that_surplus_and_misshapen_tensors_are_named(self, net, tmp_path):
        state = net.state_dict()
        torch.save(state | {"extra": torch.zeros(1)}, tmp_path / "a.pt")
        torch.save(state | {"fc.bias": torch.zeros(9)}, tmp_path / "b.pt")
        with pytest.raises(ModelLoadError, match="unknown tensor 'extra'"):
            load_weights(type(net)(), tmp_path / "a.pt")
        with pytest.raises(ModelLoadError, match=r"another shape for 'fc.bias'"):
            load_weights(type(net)(), tmp_path / "b.pt")

    def test_that_a_pickled_module_is_refused_without_running_it(self, net, tmp_path):
        torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "whole.pt")
        with pytest.raises(ModelLoadError, match="could run code"):
            load_weights(type(net)(), tmp_path / "whole.pt")

    def test_that_a_list_and_a_broken_file_are_refused(self, net, tmp_path):
        torch.save([torch.zeros(2)], tmp_path / "list.pt")
        (tmp_path / "broken.pt").write_bytes(b"\x80\x02garbage")
        (tmp_path / "broken.safetensors").write_bytes((8).to_bytes(8, "little") + b"{" + b" " * 40)
        with pytest.raises(ModelLoadError, match="not a dictionary of tensors"):
            load_weights(type(net)(), tmp_path / "list.pt")
        for name in ("broken.pt", "broken.safetensors"):
            with pytest.raises(ModelLoadError):
                load_weights(type(net)(), tmp_path / name)

    def test_that_a_state_must_be_weights(self, factory_file, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(ModelLoadError, match="text file"):
            open_model(f"{factory_file}:linear", state=str(tmp_path / "notes.txt"), trust=True)


def test_that_a_traced_program_keeps_its_shape_and_opens_from_the_cache_later(net, tmp_path):
    path = tmp_path / "traced.pt"
    torch.jit.trace(net, torch.zeros(2, 3, 16, 16)).save(str(path))
    with pytest.raises(TrustRequiredError):
        open_model(path)
    graph = open_model(path, trust=True)
    assert graph.summary.inputs[0].shape == ("batch", 3, 16, 16)
    assert op_types(graph.proto) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert open_model(path, trust=True).summary == graph.summary


def test_that_a_scripted_program_gets_a_guessed_shape(net, tmp_path):
    path = tmp_path / "scripted.pt"
    torch.jit.script(net).save(str(path))
    source = load_torchscript(path)
    assert source.args[0].shape == (2, 3, 28, 28)


def test_that_an_exported_program_carries_its_inputs(net, tmp_path):
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 16, 16),)), path)
    assert load_exported_program(path).args[0].shape == (1, 3, 16, 16)


def test_that_a_wrong_export_is_refused(factory_file, tmp_path, monkeypatch):
    source = load_factory(f"{factory_file}:with_example")
    target = tmp_path / "net.onnx"
    torch_export.export_to_onnx(source, target, "net")
    with torch.no_grad():
        source.network.fc.bias += 1
    with pytest.raises(VerificationError, match="differs from torch"):
        torch_export._prove(source, target, "net")


def test_that_what_torch_cannot_export_is_one_line(factory_file, tmp_path):
    source = load_factory(f"{factory_file}:linear")
    source.args = (torch.zeros(2, 5),)
    with pytest.raises(ModelLoadError, match="cannot export") as caught:
        torch_export.export_to_onnx(source, tmp_path / "x.onnx", "here")
    assert "\n" not in str(caught.value)


@needs_shared
def test_that_the_pt2_form_gives_the_table_of_the_onnx_form():
    program = open_model(MODELS / "fmnist_resnet.pt2", trust=True)
    plain = open_model(MODELS / "fmnist_resnet.onnx")
    assert program.summary.inputs[0].shape == plain.summary.inputs[0].shape
    assert [(a.op_type, a.weight_shape) for a in program.layers] == [
        (a.op_type, a.weight_shape) for a in plain.layers
    ]
    x = np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)
    name = program.summary.inputs[0].name
    np.testing.assert_allclose(
        outputs_of(program.proto, {name: x})[0], outputs_of(plain.proto, {"input": x})[0], atol=1e-4
    )


@needs_shared
def test_that_a_state_dict_alone_is_refused():
    with pytest.raises(QuantStudioError, match="function that makes the network"):
        open_model(MODELS / "fmnist_resnet.state_dict.pt")
