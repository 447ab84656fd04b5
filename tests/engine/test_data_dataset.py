from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantstudio.core.data_spec import DataSpec, Transform, parse_transform
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import Dataset, open_dataset

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (10, 4, 4), dtype=np.uint8)
Y = np.arange(10) % 3
PICTURES = (TensorInfo("input", "float32", ("n", 1, 4, 4)),)
NCHW = parse_transform("scale=1/255 layout=NCHW")


def opened(
    folder: Path,
    arrays: dict[str, Any],
    inputs: tuple[TensorInfo, ...] = PICTURES,
    transform: Transform = NCHW,
    samples: int = 0,
    classes: int | None = None,
) -> Dataset:
    np.savez(folder / "d.npz", **arrays)
    return open_dataset(DataSpec(str(folder / "d.npz"), transform, samples), inputs, classes=classes)


@pytest.mark.parametrize("name", ["input", "x", "images", "inputs"])
@pytest.mark.parametrize("label", ["labels", "y"])
def test_that_one_input_takes_its_name_or_a_usual_one(tmp_path: Path, name: str, label: str) -> None:
    data = opened(tmp_path, {name: X, label: Y.astype(np.uint8)})
    assert len(data) == 10
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == Y.tolist()
    assert np.array_equal(data.raw(3), X[3])


def test_that_batches_cover_every_sample_once_with_a_ragged_last_one(tmp_path: Path) -> None:
    batches = list(opened(tmp_path, {"x": X}).batches(4))
    assert [(b.start, b.count) for b in batches] == [(0, 4), (4, 4), (8, 2)]
    joined = np.concatenate([b.feed["input"] for b in batches])
    assert np.allclose(joined[:, 0], X / 255)


def test_that_batches_may_start_and_stop_anywhere(tmp_path: Path) -> None:
    data = opened(tmp_path, {"x": X})
    assert [(b.start, b.count) for b in data.batches(4, start=3, stop=8)] == [(3, 4), (7, 1)]
    assert [b.count for b in data.batches(100, start=8, stop=99)] == [2]
    assert [b.count for b in data.batches(0, stop=2)] == [1, 1]


def test_that_fixed_batch_models_get_full_batches_with_the_valid_count(tmp_path: Path) -> None:
    data = opened(tmp_path, {"x": X}, (TensorInfo("input", "float32", (4, 1, 4, 4)),))
    assert data.fixed_batch == 4
    batches = list(data.batches(64))
    assert [b.feed["input"].shape[0] for b in batches] == [4, 4, 4]
    assert [b.count for b in batches] == [4, 4, 2]
    last = batches[-1].feed["input"]
    assert np.array_equal(last[2], last[1])
    assert np.array_equal(last[3], last[1])


def test_that_several_inputs_are_fed_by_name(tmp_path: Path) -> None:
    inputs = (
        TensorInfo("image", "float32", ("n", 1, 4, 4)),
        TensorInfo("age", "float32", ("n", 2)),
        TensorInfo("ids", "int64", ("n", "t")),
    )
    ages, ids = RNG.standard_normal((10, 2)), RNG.integers(0, 9, (10, 5)).astype(np.int32)
    data = opened(tmp_path, {"image": X, "age": ages, "ids": ids}, inputs)
    feed = next(data.batches(2)).feed
    assert np.allclose(feed["image"][:, 0], X[:2] / 255)
    assert np.allclose(feed["age"], ages[:2])  # the transform is for images
    assert feed["ids"].dtype == np.int64
    assert feed["ids"].tolist() == ids[:2].tolist()


def test_that_scalars_and_whole_tensors_are_fed_to_every_batch(tmp_path: Path) -> None:
    inputs = (
        TensorInfo("x", "float32", ("n", 3)),
        TensorInfo("temperature", "float32", ()),
        TensorInfo("anchors", "int64", (2, 2)),
    )
    arrays = {"x": np.ones((10, 3)), "temperature": np.float64(0.5), "anchors": np.eye(2, dtype=np.int32)}
    data = opened(tmp_path, arrays, inputs, Transform())
    for batch in data.batches(4):
        assert batch.feed["temperature"] == np.float32(0.5)
        assert batch.feed["temperature"].shape == ()
        assert batch.feed["anchors"].tolist() == [[1, 0], [0, 1]]
        assert batch.feed["anchors"].dtype == np.int64


def test_that_other_columns_become_segments_and_names_class_names(tmp_path: Path) -> None:
    arrays = {
        "x": X,
        "labels": Y,
        "site": np.array(["a", "b"] * 5),
        "year": np.arange(10),
        "other_length": np.arange(4),
        "class_names": np.array(["cat", "dog", "eel"]),
    }
    data = opened(tmp_path, arrays, samples=6)
    assert sorted(data.segments) == ["site", "year"]
    assert data.segments["site"].tolist() == ["a", "b"] * 3
    assert data.class_names == ("cat", "dog", "eel")
    assert len(data) == 6
    assert data.labels is not None
    assert len(data.labels) == 6


def test_that_the_digest_follows_content_transform_and_count(tmp_path: Path) -> None:
    base = {"x": X, "labels": Y}
    digests = [
        opened(tmp_path, base).digest,
        opened(tmp_path, {**base, "x": X + 1}).digest,
        opened(tmp_path, {**base, "labels": Y[::-1]}).digest,
        opened(tmp_path, base, samples=5).digest,
        opened(tmp_path, base, transform=parse_transform("layout=NCHW")).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert opened(tmp_path, base, samples=10).digest == digests[0]


def test_that_text_labels_are_looked_up_in_the_class_names(tmp_path: Path) -> None:
    arrays = {"x": X[:3], "labels": np.array(["dog", "cat", "dog"]), "class_names": np.array(["cat", "dog"])}
    labels = opened(tmp_path, arrays).labels
    assert labels is not None
    assert labels.tolist() == [1, 0, 1]


def test_that_float_labels_are_targets_unless_the_model_classifies(tmp_path: Path) -> None:
    targets = opened(tmp_path, {"x": X, "y": Y + 0.5}).labels
    assert targets is not None
    assert targets.dtype == np.float32
    whole = opened(tmp_path, {"x": X, "y": Y.astype(np.float64)[:, None]}, classes=3).labels
    assert whole is not None
    assert whole.dtype == np.int64
    assert whole.shape == (10,)
    several = opened(tmp_path, {"x": X, "y": np.ones((10, 2))}).labels
    assert several is not None
    assert several.shape == (10, 2)
    each = opened(tmp_path, {"x": X, "y": np.ones((10, 3))}, classes=3).labels
    assert each is not None
    assert each.shape == (10, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "part"),
    [
        pytest.param(np.arange(9), None, "9 labels for 10 samples", id="length"),
        pytest.param(np.array(3), None, "one label for 10 samples", id="scalar"),
        pytest.param(Y - 1, None, "label -1 of sample 0 is out of range", id="negative"),
        pytest.param(Y + 5, 7, "label 7 of sample 2 .*0 to 6", id="too-large"),
        pytest.param(Y + 0.25, 3, "label 0.25 is a fraction", id="fraction"),
        pytest.param(np.full(10, np.nan), None, "NaN", id="nan"),
        pytest.param(np.full(10, np.inf), 3, "infinity", id="inf"),
        pytest.param(np.zeros((10, 4), int), 3, "labels are not one number each", id="matrix"),
        pytest.param(np.zeros((10, 4, 4), int), None, "labels have shape", id="pictures"),
        pytest.param(np.ones((10, 4)), 3, "not one number each", id="float-matrix"),
        pytest.param(np.array(["a"] * 10), None, "labels are text", id="text"),
        pytest.param(np.zeros(10, complex), None, "not numbers", id="complex"),
    ],
)
def test_that_wrong_labels_are_refused(tmp_path: Path, labels: Any, classes: int | None, part: str) -> None:
    with pytest.raises(DataError, match=part):
        opened(tmp_path, {"x": X, "labels": labels}, classes=classes)


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        pytest.param(
            {"pixels": X}, r"no array named 'input' \(or x, images, inputs\).*holds pixels", id="name"
        ),
        pytest.param({"x": X, "images": X}, "both 'x' and 'images'", id="two-inputs"),
        pytest.param({"x": X, "y": Y, "labels": Y}, "both 'labels' and 'y'", id="two-labels"),
        pytest.param({"x": X[:0]}, "no samples", id="no-samples"),
        pytest.param({"x": np.float32(3)}, "a single number", id="scalar"),
        pytest.param({"x": X[:, :3]}, r"\[N, 3, 4\].*takes \[n, 1, 4, 4\].*resize=4x4", id="shape"),
        pytest.param({"x": np.array(["a"] * 10)}, "not numbers", id="text"),
        pytest.param({"x": np.array([{}] * 10, dtype=object)}, "Python objects", id="objects"),
        pytest.param({"x": X, "class_names": np.arange(3)}, "not a list of text", id="class-numbers"),
        pytest.param({"x": X, "class_names": np.array(["a", "a"])}, "'a' twice", id="class-twice"),
        pytest.param(
            {"x": X, "labels": np.array(["z"] * 10), "class_names": np.array(["a"])},
            "'z' is not among class_names",
            id="unknown-class",
        ),
    ],
)
def test_that_wrong_arrays_are_refused_with_the_file(tmp_path: Path, arrays: Any, part: str) -> None:
    with pytest.raises(DataError, match=part) as caught:
        opened(tmp_path, arrays)
    assert "d.npz" in caught.value.one_line
    assert "\n" not in caught.value.one_line


TWO = (TensorInfo("a", "float32", ("n", 2)), TensorInfo("b", "float32", ("n", 3)))


@pytest.mark.parametrize(
    ("arrays", "inputs", "part"),
    [
        pytest.param({"a": np.ones((5, 2))}, TWO, "no array named 'b'", id="missing"),
        pytest.param(
            {"a": np.ones((5, 2)), "b": np.ones((4, 3))}, TWO, "'b' has 4 samples, but 'a' has 5", id="length"
        ),
        pytest.param(
            {"a": np.ones(1)},
            (TensorInfo("a", "float32", ()),),
            "no input of the model has a batch",
            id="batch",
        ),
        pytest.param(
            {"a": np.ones((5, 2)), "b": np.ones(2)},
            (TWO[0], TensorInfo("b", "float32", ())),
            "takes one tensor",
            id="constant-size",
        ),
        pytest.param(
            {"a": np.ones((5, 2)), "b": np.float32(np.nan)},
            (TWO[0], TensorInfo("b", "float32", ())),
            "finite numbers",
            id="constant-nan",
        ),
        pytest.param(
            {"a": np.ones((12, 2)), "b": np.ones((12, 3))},
            (TensorInfo("a", "float32", (2, 2)), TensorInfo("b", "float32", (4, 3))),
            "disagree about the batch size",
            id="batch-sizes",
        ),
    ],
)
def test_that_models_with_several_inputs_get_clear_refusals(
    tmp_path: Path, arrays: Any, inputs: Any, part: str
) -> None:
    with pytest.raises(DataError, match=part):
        opened(tmp_path, arrays, inputs, Transform())


def test_that_nan_is_found_in_the_batch_that_holds_it(tmp_path: Path) -> None:
    values = X.astype(np.float32)
    values[7, 0, 0] = np.inf
    data = opened(tmp_path, {"x": values})
    batches = data.batches(4)
    next(batches)
    with pytest.raises(DataError, match="sample 7 of input 'input'"):
        next(batches)


def test_that_raw_refuses_samples_that_are_not_there(tmp_path: Path) -> None:
    data = opened(tmp_path, {"x": X}, samples=5)
    with pytest.raises(IndexError):
        data.raw(5)


def test_that_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        open_dataset(DataSpec(str(tmp_path / "none.npz")), PICTURES)
