"""Every broken file ends in one clear line that names the file and, where there is one, the node."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from quantstudio.core.errors import (
    JobCancelled,
    ModelLoadError,
    QuantStudioError,
    TrustRequiredError,
    UnsupportedOpError,
)
from quantstudio.core.events import CancelToken, NullReporter, Severity
from quantstudio.core.folders import cache_folder
from quantstudio.engine.model import trial
from quantstudio.engine.model.open import open_model
from tests.engine.builders import conv_net, if_model, mlp, model, node, random, save, value


def refused(path: Path | str, kind: type[QuantStudioError] = ModelLoadError, **options: object) -> str:
    """The one line of the error; nothing may be left in the cache."""
    with pytest.raises(kind) as caught:
        open_model(path, **options)  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.hint
    assert str(path) in line
    assert not list(cache_folder().rglob("*.onnx"))
    return line


def saved(made: ModelProto, folder: Path) -> Path:
    return save(made, folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"just some text\n" * 20, "text file", id="text"),
        pytest.param("Gruesse aus Koeln: äöü\n".encode(), "text file", id="unicode text"),
        pytest.param(np.random.default_rng(0).bytes(5000), "not a whole ONNX file", id="random bytes"),
        pytest.param(b"PK\x03\x04" + b"\0" * 100, "truncated or damaged", id="broken archive"),
        pytest.param(b"\x80\x02}q\x00.", "weights but no network", id="pickle"),
        pytest.param(b"\x08\x08", "no ONNX graph", id="only a version"),
    ],
)
def test_that_what_is_no_model_is_refused(tmp_path, content, says):
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    assert says in refused(path)


@pytest.mark.parametrize("seed", range(8))
def test_that_random_bytes_never_crash_the_reader(tmp_path, seed):
    path = tmp_path / "noise.onnx"
    path.write_bytes(np.random.default_rng(seed).bytes(100 << seed))
    refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_that_a_truncated_file_is_refused(tmp_path, share):
    path = save(conv_net(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


def test_that_damaged_names_are_refused(tmp_path):
    content = mlp().SerializeToString().replace(b"MatMul", b"Mat\xfful", 1)
    (tmp_path / "model.onnx").write_bytes(content)
    assert "not text" in refused(tmp_path / "model.onnx")


@pytest.mark.parametrize("seed", range(3))
def test_that_flipped_bits_end_in_an_error_or_a_whole_model(tmp_path, seed, monkeypatch):
    monkeypatch.setattr(trial, "RUN_LIMIT_S", 0.5)
    generator = np.random.default_rng(seed)
    whole = bytearray(if_model().SerializeToString())
    path = tmp_path / "model.onnx"
    for _ in range(40):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            damaged[place] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(damaged)
        try:
            open_model(path)
        except QuantStudioError as error:
            assert str(path) in str(error)  # noqa: PT017  either outcome is right


def test_that_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "nothing.onnx")
    assert "folder" in refused(tmp_path)


def test_that_a_cycle_names_a_node_on_it(tmp_path):
    nodes = [
        node("Relu", ["d"], ["y"], "behind"),
        node("Add", ["x", "c"], ["b"], "in_a"),
        node("Relu", ["b"], ["c"], "in_b"),
        node("Relu", ["c"], ["d"], "after"),
    ]
    line = refused(saved(model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])]), tmp_path))
    assert "cycle" in line
    assert "in_a" in line or "in_b" in line


def test_that_a_missing_initializer_names_node_and_tensor(tmp_path):
    made = mlp()
    kept = [tensor for tensor in made.graph.initializer if tensor.name != "w2"]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    line = refused(saved(made, tmp_path))
    assert "'w2'" in line
    assert "'second'" in line


def test_that_an_output_nobody_makes_is_refused(tmp_path):
    made = mlp()
    made.graph.output.append(value("ghost", ["N"]))
    assert "'ghost'" in refused(saved(made, tmp_path))


def test_that_a_tensor_written_twice_is_refused(tmp_path):
    made = mlp()
    made.graph.node.append(node("Relu", ["x"], ["h"], "second_writer"))
    assert "written twice" in refused(saved(made, tmp_path))


@pytest.mark.parametrize(
    ("domain", "says"), [("", "no operator 'Convolve'"), ("my.domain", "domain 'my.domain'")]
)
def test_that_an_unknown_operator_names_its_node(tmp_path, domain, says):
    bad = helper.make_node("Convolve", ["x"], ["y"], "strange", domain=domain)
    domains = {domain: 1} if domain else {}
    made = model([bad], [value("x", ["N", 4])], [value("y", ["N", 4])], domains=domains)
    line = refused(saved(made, tmp_path), UnsupportedOpError)
    assert says in line
    assert "'strange'" in line


def test_that_an_operator_the_runtime_lacks_is_named(tmp_path):
    bad = helper.make_node("NoSuchKernel", ["x"], ["y"], "strange", domain="com.microsoft")
    made = model([bad], [value("x", ["N", 4])], [value("y", ["N", 4])], domains={"com.microsoft": 1})
    line = refused(saved(made, tmp_path), UnsupportedOpError)
    assert "NoSuchKernel" in line
    assert "'strange'" in line


def test_that_an_initializer_with_a_lying_shape_is_named(tmp_path):
    made = mlp()
    made.graph.initializer[0].dims[0] = 99
    line = refused(saved(made, tmp_path))
    assert "'w1'" in line
    assert "needs" in line


def test_that_typed_values_that_do_not_fit_their_shape_are_named(tmp_path):
    made = mlp()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])
    assert "'w1'" in refused(saved(made, tmp_path))


@pytest.mark.parametrize(
    ("stated", "found", "says"),
    [
        pytest.param(["N", 77], ("N", 3), "has the shape [N, 3], not [N, 77]", id="number"),
        pytest.param([1, "seqlen", 9], ("N", 3), "has the shape [N, 3], not [1, seqlen, 9]", id="rank"),
        pytest.param([5, 3], (None, 3), "has the shape [?, 3], not [5, 3]", id="fixed batch"),
    ],
)
def test_that_a_lying_shape_of_an_output_is_dropped_with_a_note(tmp_path, stated, found, says):
    """ONNX Runtime runs such a file, with a warning."""
    made = mlp()
    made.graph.output[0].CopyFrom(value("y", stated))
    path = save(made, tmp_path)
    for _again in range(2):
        summary = open_model(path).summary
        assert [note for note in summary.notes if "Output 'y'" in note and says in note]
        assert summary.outputs[0].shape == found
        assert summary.verified_error < 1e-6
    assert len(list(cache_folder().rglob("graphs/*.onnx"))) == 1


def test_that_an_input_with_a_lying_shape_is_refused(tmp_path):
    made = conv_net()
    made.graph.input[0].CopyFrom(value("x", ["N", 7, 8, 8]))
    refused(saved(made, tmp_path))


def test_that_a_weight_of_the_wrong_shape_names_its_node(tmp_path):
    made = mlp()
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(random(5, 3), "w2"))
    assert "second" in refused(saved(made, tmp_path))


def test_that_a_wrong_number_of_inputs_is_named(tmp_path):
    made = mlp()
    del made.graph.node[0].input[1]
    assert "'first'" in refused(saved(made, tmp_path))


def test_that_a_lacking_attribute_is_named(tmp_path):
    made = model([node("Cast", ["x"], ["y"], "cast")], [value("x", ["N"])], [value("y", ["N"])])
    assert "'to'" in refused(saved(made, tmp_path))


@pytest.mark.parametrize("opset", [6, 99])
def test_that_opsets_outside_the_range_are_refused(tmp_path, opset):
    made = mlp()
    made.opset_import[0].version = opset
    with pytest.raises(QuantStudioError, match=f"opset {opset}"):
        open_model(save(made, tmp_path))


def test_that_a_graph_without_outputs_is_refused(tmp_path):
    made = mlp()
    del made.graph.output[:]
    assert "no outputs" in refused(saved(made, tmp_path))


def test_that_a_file_without_an_opset_is_refused(tmp_path):
    made = mlp()
    made.opset_import[0].domain = "ai.onnx.ml"
    assert "opset" in refused(saved(made, tmp_path))


def test_that_batchnorm_with_spatial_0_is_refused_by_name(tmp_path):
    made = conv_net(opset=7, batchnorm=True)
    made.graph.node[1].attribute.append(helper.make_attribute("spatial", 0))
    assert "'bn'" in refused(saved(made, tmp_path), UnsupportedOpError)


class TestExternalData:
    """Weights in other files."""

    def external(self, folder: Path, location: str = "weights.bin", **entries: str) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / "model.onnx"
        onnx.save(conv_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        entries["location"] = location
        made = onnx.load(path, load_external_data=False)
        for tensor in made.graph.initializer:
            for entry in tensor.external_data:
                entry.value = entries.get(entry.key, entry.value)
        path.write_bytes(made.SerializeToString())
        return path

    def test_that_it_is_brought_into_the_graph(self, tmp_path):
        path = self.external(tmp_path / "m")
        result = open_model(path)
        assert all(not tensor.external_data for tensor in result.proto.graph.initializer)
        assert (
            result.summary.parameters
            == open_model(save(conv_net(), tmp_path, "inline.onnx")).summary.parameters
        )

    def test_that_a_changed_data_file_is_noticed(self, tmp_path):
        path = self.external(tmp_path / "m")
        first = open_model(path)
        data = path.parent / "weights.bin"
        data.write_bytes(np.full(data.stat().st_size // 4, 0.25, np.float32).tobytes())
        second = open_model(path)
        assert second.digest != first.digest
        assert second.summary.source_digest != first.summary.source_digest

    def test_that_a_missing_or_short_data_file_is_refused(self, tmp_path):
        path = self.external(tmp_path / "m")
        data = path.parent / "weights.bin"
        data.write_bytes(data.read_bytes()[:100])
        assert "too short" in refused(path)
        data.unlink()
        assert "'weights.bin' is missing" in refused(path)

    @pytest.mark.parametrize("entry", ["offset", "length"])
    @pytest.mark.parametrize("text", ["-4", "0x10", "4.5", "ten", "9" * 40, "\u0664", "1_0", " "])
    def test_that_an_entry_that_is_no_number_of_bytes_is_refused(self, tmp_path, entry, text):
        line = refused(self.external(tmp_path / "m", **{entry: text}))
        assert f"the {entry} of its data" in line
        assert "'conv.weight'" in line

    @pytest.mark.parametrize("length", ["4", "1000000000000000"])
    def test_that_a_length_that_is_not_the_shape_s_is_refused(self, tmp_path, length):
        assert f"{length} bytes" in refused(self.external(tmp_path / "m", length=length))

    @pytest.mark.parametrize(
        ("location", "says"),
        [
            pytest.param("weights\0.bin", "no file can have", id="NUL"),
            pytest.param("", "no file can have", id="empty"),
            pytest.param("w" * 5000, "cannot be found|is missing", id="too long"),
            pytest.param(".", "is missing", id="folder"),
        ],
    )
    def test_that_a_name_no_file_can_have_is_refused(self, tmp_path, location, says):
        assert re.search(says, refused(self.external(tmp_path / "m", location)))

    @pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin"])
    def test_that_a_path_out_of_the_folder_is_refused(self, tmp_path, location):
        (tmp_path / "secret.bin").write_bytes(bytes(100_000))
        assert "outside" in refused(self.external(tmp_path / "m", location))

    def test_that_a_link_out_of_the_folder_is_refused(self, tmp_path):
        (tmp_path / "secret.bin").write_bytes(bytes(100_000))
        path = self.external(tmp_path / "m", "link.bin")
        try:
            (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
        except OSError:
            pytest.skip("no symbolic links here")
        refused(path)


def test_that_a_program_is_not_opened_without_trust(tmp_path):
    import zipfile

    for name, members in (
        ("net.pt2", ["net/archive_format", "net/models/model.json"]),
        ("net.pt", ["net/code/__torch__.py", "net/data.pkl", "net/constants.pkl"]),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.writestr(member, "x")
        assert "agree to run it" in refused(tmp_path / name, TrustRequiredError)
        assert "torch" in refused(tmp_path / name, trust=True)
    assert "agree to run it" in refused("package.module:make", TrustRequiredError)


def test_that_an_archive_of_other_things_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.writestr("photo.jpg", "x")
    assert "holds no model" in refused(tmp_path / "holiday.zip")


def test_that_weights_beside_a_model_are_refused(tmp_path):
    path = save(mlp(), tmp_path)
    assert "leave out the function" in refused(path, factory="a.b:c", trust=True)


def test_that_cancel_stops_between_steps(tmp_path):
    token = CancelToken()
    token.set()
    with pytest.raises(JobCancelled):
        open_model(save(mlp(), tmp_path), cancel=token)
    assert not list(cache_folder().rglob("*.onnx"))


def test_that_string_inputs_are_opened_and_said_to_be_unverified(tmp_path):
    nodes = [node("StringNormalizer", ["s"], ["y"], "text", case_change_action="LOWER")]
    made = model(nodes, [value("s", ["N"], TensorProto.STRING)], [value("y", ["N"], TensorProto.STRING)])
    result = open_model(save(made, tmp_path))
    assert any("Not verified" in note for note in result.summary.notes)
    assert np.isnan(result.summary.verified_error)


class Listener(NullReporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str, severity: Severity = Severity.INFO) -> None:
        assert severity is Severity.WARNING
        self.told.append(text)


def test_that_weights_that_are_no_numbers_are_named_whenever_the_file_is_opened(tmp_path):
    made = mlp()
    broken = random(16, 3)
    broken[0, :2] = np.nan, np.inf
    made.graph.initializer[2].CopyFrom(numpy_helper.from_array(broken, "w2"))
    path = save(made, tmp_path)
    for _again in range(2):
        listener = Listener()
        summary = open_model(path, reporter=listener).summary
        (text,) = listener.told
        assert text.startswith("Tensor 'w2' of layer 'second' holds NaN or infinity in 2 of 48 values")
        assert summary.warnings == (text,)


def test_that_infinity_in_a_mask_is_no_mistake(tmp_path):
    made = mlp()
    made.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(16, -np.inf, np.float32), "b1"))
    listener = Listener()
    open_model(save(made, tmp_path), reporter=listener)
    assert listener.told == []
