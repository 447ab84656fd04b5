"""Arrays of an .npz file without loading them: mapped in place, or unpacked once into the cache."""

from __future__ import annotations

import hashlib
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from quantstudio.core.errors import DataError
from quantstudio.core.files import written_beside
from quantstudio.core.folders import cache_folder

# Members up to this size (labels, names) are read into memory; larger ones are mapped.
SMALL_MEMBER_BYTES = 1 << 20
COPY_BLOCK_BYTES = 1 << 20
# Unpacked arrays of data sets not used lately are removed beyond this.
CACHE_LIMIT_BYTES = 20 << 30

_CORRUPT = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    ValueError,
    SyntaxError,
    tokenize.TokenError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an archive, not read yet.

    Attributes:
        name: Array name.
        shape: Its shape.
        dtype: Its element type.
        digest: Stands for its content: CRC and size as the archive gives them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    digest: str


class NpzFile:
    """The arrays of one .npz file by name.

    Opening reads the headers only. Object arrays are refused when asked for: reading one runs code.
    """

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
            DataError: the file is missing, empty, cut off or not an .npz file.
        """
        self.path = path
        check_readable(path)
        with _clear_errors(path), zipfile.ZipFile(path) as archive:
            infos = [i for i in archive.infolist() if i.filename.endswith(".npy")]
            names = [i.filename.removesuffix(".npy") for i in infos]
            twice = next((n for n in names if names.count(n) > 1), None)
            if twice is not None:
                raise DataError(f"array {twice!r} is in the file twice", where=str(path))
            self._infos = dict(zip(names, infos, strict=True))
            self.members = {n: _member(archive, n, i, path) for n, i in self._infos.items()}
        if not self.members:
            raise DataError("the archive holds no arrays", where=str(path), hint="Write it with numpy.savez")

    def read(self, name: str) -> NDArray[Any]:
        """The array: small ones in memory, large ones mapped read-only.

        Raises:
            DataError: an object array, or its bytes are damaged.
            OutputError: a compressed array cannot be unpacked into the cache folder.
        """
        member, info = self.members[name], self._infos[name]
        if member.dtype.hasobject:
            raise DataError(
                f"array {name!r} holds Python objects, which are not opened because reading them runs code",
                where=str(self.path),
                hint="Store it as numbers, or as fixed-width text",
            )
        if info.file_size <= SMALL_MEMBER_BYTES:
            with self._opened(info) as stream:
                return np.asarray(npy_format.read_array(stream, allow_pickle=False))
        if info.compress_type == zipfile.ZIP_STORED:
            return self._map_in_place(info, member)
        return self._map_unpacked(info, member)

    @contextmanager
    def _opened(self, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        name = info.filename.removesuffix(".npy")
        with (
            _clear_errors(self.path, name),
            zipfile.ZipFile(self.path) as archive,
            archive.open(info) as stream,
        ):
            yield stream

    def _map_in_place(self, info: zipfile.ZipInfo, member: Member) -> NDArray[Any]:
        with _clear_errors(self.path, member.name), self.path.open("rb") as handle:
            handle.seek(info.header_offset)
            local = handle.read(30)
            name_length, extra_length = struct.unpack("<HH", local[26:30])
            start = info.header_offset + 30 + name_length + extra_length
            handle.seek(start)
            _, fortran, _ = _read_header(handle)
            return np.memmap(
                self.path,
                dtype=member.dtype,
                mode="r",
                offset=handle.tell(),
                shape=member.shape,
                order="F" if fortran else "C",
            )

    def _map_unpacked(self, info: zipfile.ZipInfo, member: Member) -> NDArray[Any]:
        folder = cache_folder("data")
        key = hashlib.sha256(f"{member.digest}/{self.path.stat().st_mtime_ns}".encode()).hexdigest()
        target = folder / f"{key[:40]}.npy"
        if target.exists() and target.stat().st_size == info.file_size:
            with suppress(OSError):  # of a cache that is only read
                target.touch()
        else:
            with (
                written_beside(target) as temporary,
                temporary.open("wb") as sink,
                self._opened(info) as stream,
            ):
                shutil.copyfileobj(stream, sink, COPY_BLOCK_BYTES)
            prune_cache(folder, keep=target)
        return np.asanyarray(np.load(target, mmap_mode="r", allow_pickle=False))


def prune_cache(folder: Path, *, keep: Path, limit_bytes: int = CACHE_LIMIT_BYTES) -> None:
    """Remove the unpacked arrays used longest ago until the rest fits the limit."""
    files = sorted(folder.glob("*.npy"), key=lambda f: f.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > limit_bytes and file != keep:
            try:
                file.unlink(missing_ok=True)
            except PermissionError:  # Windows refuses while a session has it mapped
                continue


def check_readable(path: Path) -> None:
    """Whether there is something to open.

    Raises:
        DataError: missing, a folder, or empty.
    """
    try:
        if path.is_dir():
            raise DataError("this is a folder, not a file", where=str(path))
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError("no such file or folder", where=str(path), hint="Check the path") from None
    except OSError as error:
        raise DataError(
            f"cannot read ({error.strerror})", where=str(path), hint="Check its permissions"
        ) from error
    if size == 0:
        raise DataError("the file is empty", where=str(path), hint="Copy or write it again")


@contextmanager
def _clear_errors(path: Path, array: str = "") -> Iterator[None]:
    try:
        yield
    except _CORRUPT as error:
        if array:
            raise DataError(
                f"array {array!r} is damaged", where=str(path), hint="Copy or write the file again"
            ) from error
        raise DataError(
            "not a readable .npz file (damaged, cut off, or another format)",
            where=str(path),
            hint="Write it with numpy.savez(path, x=..., labels=...)",
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read ({error.strerror or error})", where=str(path), hint="Check its permissions"
        ) from error


def _member(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo, path: Path) -> Member:
    with _clear_errors(path, name), archive.open(info) as stream:
        shape, _, dtype = _read_header(stream)
        expected = stream.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not dtype.hasobject and expected != info.file_size:
        raise DataError(f"array {name!r} is damaged: its size is not what its header says", where=str(path))
    return Member(name, shape, dtype, f"{name}:{info.CRC:08x}:{info.file_size}")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(stream)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy_format.read_array_header_2_0(stream)
    # Version 3 differs from 2 in the header's encoding only (field names, which are refused anyway).
    raise ValueError(f"array file version {version}")
