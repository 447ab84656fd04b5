from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import DataError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.data.sources import decode_image

RNG = np.random.default_rng(0)
GRAY = (TensorInfo("input", "float32", ("n", 1, 6, 8)),)
COLOUR = (TensorInfo("input", "float32", ("n", 3, 6, 8)),)


def save(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


def image(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape or (6, 8)).astype(np.uint8)


def opened(folder: Path, inputs: tuple[TensorInfo, ...], text: str = "scale=1/255 layout=NCHW") -> Dataset:
    return open_dataset(DataSpec(str(folder), parse_transform(text)), inputs)


def test_that_subfolders_are_classes_in_turn(tmp_path: Path) -> None:
    for label, count in (("cat", 4), ("dog", 2)):
        for i in range(count):
            save(tmp_path / label / f"{i}.png", image())
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("not a image")
    data = opened(tmp_path, GRAY)
    assert data.class_names == ("cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0, 0, 1, 0]
    batch = next(data.batches(6))
    assert batch.feed["input"].shape == (6, 1, 6, 8)
    expected = np.asarray(Image.open(tmp_path / "dog" / "0.png")) / 255
    assert np.allclose(batch.feed["input"][1, 0], expected)
    assert np.array_equal(data.raw(1), np.asarray(Image.open(tmp_path / "dog" / "0.png")))


def test_that_pictures_become_what_the_channels_ask_for(tmp_path: Path) -> None:
    colour = save(tmp_path / "a" / "0.png", image(6, 8, 3))
    save(tmp_path / "a" / "1.png", image(6, 8))
    out = next(opened(tmp_path, COLOUR).batches(2)).feed["input"]
    assert out.shape == (2, 3, 6, 8)
    assert np.allclose(out[0], colour.transpose(2, 0, 1) / 255)
    assert np.array_equal(out[1, 0], out[1, 2])
    assert next(opened(tmp_path, GRAY).batches(2)).feed["input"].shape == (2, 1, 6, 8)
    last = (TensorInfo("input", "float32", ("n", 6, 8, 3)),)
    assert np.allclose(next(opened(tmp_path, last, "scale=1/255").batches(1)).feed["input"][0], colour / 255)
    flat = (TensorInfo("input", "float32", ("n", 6, 8)),)
    assert next(opened(tmp_path, flat, "").batches(1)).feed["input"].shape == (1, 6, 8)


def test_that_a_folder_without_subfolders_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "0.png", image())
    data = opened(tmp_path, GRAY)
    assert data.labels is None
    assert data.class_names == ()


def test_that_exif_orientation_is_applied(tmp_path: Path) -> None:
    array = image(8, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    Image.fromarray(array).save(tmp_path / "0.png", exif=exif)
    assert np.array_equal(decode_image(tmp_path / "0.png", 1), np.rot90(array, -1))


def test_that_sixteen_bit_and_palette_pictures_keep_their_look(tmp_path: Path) -> None:
    deep = (image().astype(np.uint16) << 8) + 77
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(decode_image(tmp_path / "deep.png", 1), deep >> 8)
    Image.fromarray(image(6, 8, 3)).quantize(4).save(tmp_path / "palette.gif")
    assert decode_image(tmp_path / "palette.gif", 3).shape == (6, 8, 3)


def test_that_pictures_of_all_sizes_are_resized(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", np.full((20, 10), 100, np.uint8))
    save(tmp_path / "a" / "1.png", np.full((3, 50), 100, np.uint8))
    out = next(opened(tmp_path, GRAY, "resize=6x8 scale=1/100 layout=NCHW").batches(2)).feed["input"]
    assert out.shape == (2, 1, 6, 8)
    assert np.allclose(out, 1)


def test_that_another_size_without_resize_names_the_picture(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", image())
    save(tmp_path / "a" / "1.png", image(7, 8))
    with pytest.raises(DataError, match=r"1\.png.*8x7 pixels, others are 8x6.*resize="):
        list(opened(tmp_path, GRAY).batches(2))


def test_that_the_wrong_size_of_all_suggests_resize(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", image(12, 16, 3))
    with pytest.raises(DataError, match="Add resize=6x8"):
        opened(tmp_path, COLOUR)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a image", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(50), id="broken-png"),
    ],
)
def test_that_a_picture_that_does_not_decode_is_named(tmp_path: Path, content: bytes) -> None:
    save(tmp_path / "a" / "0.png", image())
    (tmp_path / "a" / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png.*does not decode"):
        list(opened(tmp_path, GRAY).batches(2))


def test_that_a_cut_off_picture_is_named(tmp_path: Path) -> None:
    save(tmp_path / "0.jpg", image(64, 64))
    content = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"0\.jpg.*does not decode"):
        decode_image(tmp_path / "0.jpg", 1)


def test_that_folders_that_make_no_data_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        opened(tmp_path / "empty", GRAY)
    save(tmp_path / "part" / "a" / "0.png", image())
    (tmp_path / "part" / "b").mkdir()
    with pytest.raises(DataError, match="class folder 'b' holds no images"):
        opened(tmp_path / "part", GRAY)
    save(tmp_path / "mixed" / "a" / "0.png", image())
    save(tmp_path / "mixed" / "loose.png", image())
    with pytest.raises(DataError, match=r"loose\.png"):
        opened(tmp_path / "mixed", GRAY)
    with pytest.raises(DataError, match="2 inputs"):
        opened(tmp_path / "part", (*GRAY, *COLOUR))


def test_that_the_digest_follows_the_files(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", image())
    before = opened(tmp_path, GRAY).digest
    assert opened(tmp_path, GRAY).digest == before
    save(tmp_path / "a" / "1.png", image())
    assert opened(tmp_path, GRAY).digest != before


def test_that_labels_of_a_folder_are_checked_against_the_classes(tmp_path: Path) -> None:
    for label in "abc":
        save(tmp_path / label / "0.png", image())
    spec = DataSpec(str(tmp_path), parse_transform("layout=NCHW"))
    with pytest.raises(DataError, match=r"label 2 .*0 to 1"):
        open_dataset(spec, GRAY, classes=2)
