from __future__ import annotations

import io
import mmap
import os
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest

from quantstudio.core.errors import DataError, OutputError
from quantstudio.core.folders import cache_folder
from quantstudio.engine.data.npz import NpzFile, check_readable, prune_cache
from quantstudio.engine.data.sources import ArraySource

RNG = np.random.default_rng(0)
LARGE = RNG.integers(0, 256, (1500, 32, 32), dtype=np.uint8)  # beyond what is read into memory


def cached() -> list[Path]:
    return sorted((cache_folder() / "data").glob("*.npy"))


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def test_that_opening_reads_headers_only(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=LARGE, labels=np.arange(1500))
    file = NpzFile(tmp_path / "d.npz")
    assert file.members["x"].shape == LARGE.shape
    assert file.members["x"].dtype == np.uint8
    assert not (cache_folder() / "data").exists()


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("compressed", [True, False])
def test_that_large_arrays_are_mapped_and_equal(tmp_path: Path, compressed: bool, fortran: bool) -> None:
    array = np.asfortranarray(LARGE) if fortran else LARGE
    (np.savez_compressed if compressed else np.savez)(tmp_path / "d.npz", first=np.zeros(3), x=array)
    read = NpzFile(tmp_path / "d.npz").read("x")
    assert isinstance(read, np.memmap)
    assert np.array_equal(read, LARGE)
    assert len(cached()) == (1 if compressed else 0)


def test_that_a_second_opening_unpacks_nothing(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=LARGE)
    NpzFile(tmp_path / "d.npz").read("x")
    before = [(f.name, f.stat().st_ino) for f in cached()]
    NpzFile(tmp_path / "d.npz").read("x")
    assert [(f.name, f.stat().st_ino) for f in cached()] == before


def test_that_a_changed_file_is_unpacked_again(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=LARGE)
    NpzFile(path).read("x")
    np.savez_compressed(path, x=255 - LARGE)
    assert np.array_equal(NpzFile(path).read("x"), 255 - LARGE)


def test_that_a_cut_off_cache_file_is_replaced(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=LARGE)
    NpzFile(tmp_path / "d.npz").read("x")
    os.truncate(cached()[0], 1000)
    assert np.array_equal(NpzFile(tmp_path / "d.npz").read("x"), LARGE)


def test_that_small_arrays_are_read_without_the_cache(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", labels=np.arange(10), name=np.array(["a", "ü"]))
    file = NpzFile(tmp_path / "d.npz")
    assert file.read("labels").tolist() == list(range(10))
    assert file.read("name").tolist() == ["a", "ü"]
    assert not (cache_folder() / "data").exists()


def test_that_object_arrays_are_refused_without_being_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}, 1], dtype=object), y=np.arange(2))
    file = NpzFile(tmp_path / "d.npz")
    assert file.read("y").tolist() == [0, 1]
    with pytest.raises(DataError, match="'x' holds Python objects"):
        file.read("x")


def test_that_the_member_digest_follows_the_content(tmp_path: Path) -> None:
    digests = set()
    for i, array in enumerate((np.zeros(5), np.ones(5), np.zeros(6))):
        np.savez(tmp_path / f"{i}.npz", x=array)
        digests.add(NpzFile(tmp_path / f"{i}.npz").members["x"].digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("content", "part"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"label,pixel\n1,2\n" * 50, "not a readable .npz", id="text"),
        pytest.param(RNG.bytes(4000), "not a readable .npz", id="random"),
        pytest.param(npy_bytes(np.zeros(3)), "not a readable .npz", id="npy"),
    ],
)
def test_that_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=part) as caught:
        NpzFile(path)
    assert str(path) in caught.value.one_line
    assert "\n" not in caught.value.one_line


def test_that_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=LARGE)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="not a readable"):
        NpzFile(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_that_damage_inside_an_array_is_found(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "d.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=LARGE if compressed else LARGE[:3])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="array 'x' is damaged"):
        NpzFile(path).read("x")
    assert not list((cache_folder()).rglob("*.npy"))


def test_that_a_header_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", npy_bytes(np.zeros(100))[:-8])
    with pytest.raises(DataError, match="size is not what its header says"):
        NpzFile(tmp_path / "d.npz")


def test_that_unknown_array_versions_are_refused(tmp_path: Path) -> None:
    content = bytearray(npy_bytes(np.zeros(4)))
    content[6] = 9
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", bytes(content))
    with pytest.raises(DataError, match="array 'x' is damaged"):
        NpzFile(tmp_path / "d.npz")


def test_that_version_two_headers_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(4), version=(2, 0))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue())
    assert NpzFile(tmp_path / "d.npz").read("x").tolist() == [0, 1, 2, 3]


def test_that_an_array_stored_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", npy_bytes(np.zeros(4)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", npy_bytes(np.ones(4)))
    with pytest.raises(DataError, match="'x' is in the file twice"):
        NpzFile(tmp_path / "d.npz")


def test_that_an_archive_without_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(DataError, match="holds no arrays"):
        NpzFile(tmp_path / "d.npz")


def test_that_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        check_readable(tmp_path / "none.npz")
    with pytest.raises(DataError, match="is a folder"):
        check_readable(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        check_readable(tmp_path / ("n" * 5000))


def test_that_a_cache_that_cannot_be_made_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=LARGE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="QUANTSTUDIO_CACHE"):
        NpzFile(tmp_path / "d.npz").read("x")


def test_that_the_cache_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / f"{name}.npy"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    prune_cache(tmp_path, keep=tmp_path / "old.npy", limit_bytes=150)
    assert sorted(f.stem for f in tmp_path.glob("*.npy")) == ["new", "old"]


def test_that_a_mapped_file_that_is_written_over_is_refused_and_one_that_is_replaced_is_not(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "d.npz", tmp_path / "new.npz"
    array = np.arange(2 << 20, dtype=np.uint8).reshape(-1, 1024)
    np.savez(path, x=array)
    source = ArraySource(NpzFile(path).read("x"))
    np.savez(other, x=array[:1])
    other.replace(path)
    assert np.array_equal(source.read(0, 4), array[:4])
    np.savez(path, x=array)
    source = ArraySource(NpzFile(path).read("x"))
    os.truncate(path, 100)  # reading on would end the process
    with pytest.raises(DataError, match="changed while it was read"):
        source.read(1000, 1004)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system gives no pages back")
def test_that_reading_a_mapped_array_keeps_none_of_it_in_memory(tmp_path: Path) -> None:
    array = np.arange(48 << 20, dtype=np.uint8).reshape(-1, 1024)
    np.savez(tmp_path / "d.npz", x=array)
    source = ArraySource(NpzFile(tmp_path / "d.npz").read("x"))
    process = psutil.Process()
    before, most = process.memory_info().rss, 0
    for start in range(0, len(source), 512):
        assert np.array_equal(source.read(start, start + 512), array[start : start + 512])
        most = max(most, process.memory_info().rss)
    assert most - before < 8 << 20
