"""The bundled samples are what their README says, and are found wherever QuantStudio is."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from quantstudio.core.data_spec import parse_transform
from quantstudio.core.errors import DataError
from quantstudio.core.samples import DEFAULT_SAMPLE, sample, sample_names, samples_folder

FLOORS = {"digits_uneven": 0.98, "digits_resnet": 0.97, "digits_mobilenet": 0.96, "digits_transformer": 0.95}
FLOORS["digits_two_bits"] = FLOORS["digits_resnet"]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("name", sample_names())
def test_that_a_sample_is_small_self_contained_and_accurate(name: str) -> None:
    found = sample(name)
    assert found.model.stat().st_size < 1_000_000
    model = onnx.load(found.model, load_external_data=False)
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    data = _arrays(found.test)
    transform = parse_transform(found.transform)
    assert (transform.scale, transform.layout) == (1 / 16, "NCHW")
    x = (data["images"].astype(np.float32) / 16)[:, None]
    session = ort.InferenceSession(str(found.model), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("input", "tensor(float)", ["batch", 1, 8, 8])
    ]
    (logits,) = session.run(["logits"], {"input": x})
    assert logits.shape == (len(x), 10)
    assert (logits.argmax(1) == data["labels"]).mean() >= FLOORS[name]


def test_that_no_test_image_is_a_training_image() -> None:
    found = sample()
    train, test = _arrays(found.train), _arrays(found.test)
    assert len(train["images"]) + len(test["images"]) == 1797
    assert np.bincount(test["labels"]).tolist() == [60] * 10
    seen = {image.tobytes() for image in train["images"]}
    assert not [i for i, image in enumerate(test["images"]) if image.tobytes() in seen]


def test_that_the_split_covers_the_published_images() -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    found = sample()
    train, test = _arrays(found.train), _arrays(found.test)
    images = np.concatenate([train["images"], test["images"]])
    labels = np.concatenate([train["labels"], test["labels"]])
    ours = sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
    theirs = zip(digits.images.astype(np.uint8), digits.target, strict=True)
    assert ours == sorted((image.tobytes(), int(label)) for image, label in theirs)


def test_that_the_data_carry_their_attribution_and_a_segment() -> None:
    data = _arrays(sample().test)
    assert "CC BY 4.0" in str(data["attribution"])
    assert set(data["ink"].tolist()) == {"thin", "medium", "bold"}
    assert len(data["ink"]) == len(data["images"])


def test_that_the_readme_states_the_licence_and_every_sample() -> None:
    text = (samples_folder() / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in text
    assert all(name in text for name in sample_names())


def test_that_the_default_sample_comes_first() -> None:
    assert sample_names()[0] == DEFAULT_SAMPLE == sample().name


def test_that_an_unknown_sample_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="digits_uneven, digits_resnet, digits_mobilenet, digits_transformer"):
        sample("imagenet")


def test_that_the_environment_moves_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSTUDIO_SAMPLES", str(tmp_path))
    assert samples_folder() == tmp_path
    with pytest.raises(DataError, match="incomplete"):
        sample()
    monkeypatch.setenv("QUANTSTUDIO_SAMPLES", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not installed"):
        sample()


def test_that_an_installation_keeps_its_samples_in_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import quantstudio.core.samples as module

    share = tmp_path / "share" / "quantstudio" / "samples"
    share.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(module, "__file__", str(tmp_path / "lib" / "quantstudio" / "core" / "samples.py"))
    monkeypatch.delenv("QUANTSTUDIO_SAMPLES", raising=False)
    assert samples_folder() == share
