"""Where raw samples come from: an array, in memory or mapped, or a folder of images decoded on demand."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from quantstudio.core.errors import DataError
from quantstudio.core.folders import is_cached

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


class Source(Protocol):
    """Raw samples of one model input."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    def __len__(self) -> int:
        """Number of samples."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Samples start to stop, first axis the batch."""


class FileWatch:
    """Says whether a file is still what it was when it was opened.

    A file that was deleted or put in place of another is no harm: what is mapped is the old one, whole.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = path.stat()
        # Files of the cache are touched when they are used.
        self._is_ours = is_cached(path)

    def check(self) -> None:
        """Look once more.

        Raises:
            DataError: the file was written over in place.
        """
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return
        known = self._known
        if (now.st_dev, now.st_ino) != (known.st_dev, known.st_ino):
            return
        is_touched = now.st_mtime_ns != known.st_mtime_ns and not self._is_ours
        if now.st_size != known.st_size or is_touched:
            raise DataError(
                "the file was changed while it was read",
                where=str(self._path),
                hint="Run again when nothing writes to it; write a new file and rename it over the old one",
            )


class ArraySource:
    """Samples along one axis of an array, the first by default."""

    def __init__(self, array: NDArray[Any], axis: int = 0) -> None:
        self._array = np.moveaxis(array, axis, 0) if axis else array
        base: object = array.base
        self._mapped = base if isinstance(base, mmap.mmap) else None
        file = array.filename if isinstance(array, np.memmap) else None
        self._watch = FileWatch(Path(file)) if file else None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self._array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._array.dtype

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._array)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Samples start to stop; of a mapped array a copy, whose pages are given back at once.

        The system would keep them until it runs short, and count them as memory of this process.

        Raises:
            DataError: the file was written over since it was opened. Pages that are no longer there would
                end the process.
        """
        if self._mapped is None:
            return self._array[start:stop]
        if self._watch is not None:
            self._watch.check()
        samples = np.array(self._array[start:stop])
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, which counts mapped pages apart
            self._mapped.madvise(mmap.MADV_DONTNEED)
        return samples


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Images of a folder with one subfolder per class, or without subfolders and labels.

    Attributes:
        folder: The folder.
        files: Images, class by class in turn, so that the first so many samples hold every class.
        labels: Class of each image; None without subfolders.
        class_names: Subfolder names, sorted.
        digest: Stands for the content: names and sizes.
    """

    folder: Path
    files: tuple[Path, ...]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    digest: str


def list_image_folder(folder: Path) -> ImageFolder:
    """What images a folder holds; none is decoded.

    Raises:
        DataError: it holds no images, an empty class, or images both beside and inside subfolders.
    """
    # macOS puts a __MACOSX folder of other files into its zip archives.
    entries = sorted(e for e in folder.iterdir() if not e.name.startswith((".", "__MACOSX")))
    loose = [e for e in entries if _is_image(e)]
    classes = [e for e in entries if e.is_dir()]
    groups = [sorted(f for f in c.iterdir() if _is_image(f)) for c in classes]
    if loose and any(groups):
        raise DataError(
            f"the folder holds images ({loose[0].name}, ...) beside its class folders",
            where=str(folder),
            hint="Put every image into the subfolder of its class",
        )
    if not loose and not any(groups):
        raise DataError(
            "the folder holds no images",
            where=str(folder),
            hint="Make one subfolder per class with .png or .jpg files in it",
        )
    if loose:
        return ImageFolder(folder, tuple(loose), None, (), _folder_digest(folder, loose))
    empty = next((c.name for c, g in zip(classes, groups, strict=True) if not g), None)
    if empty is not None:
        raise DataError(
            f"class folder {empty!r} holds no images", where=str(folder), hint="Fill it or remove it"
        )
    ordered = sorted(
        (position / len(group), label, file)
        for label, group in enumerate(groups)
        for position, file in enumerate(group)
    )
    files = tuple(file for _, _, file in ordered)
    labels = np.array([label for _, label, _ in ordered], dtype=np.int64)
    return ImageFolder(folder, files, labels, tuple(c.name for c in classes), _folder_digest(folder, files))


class ImageSource:
    """Images decoded when asked for, as uint8 [H, W] or [H, W, 3]."""

    def __init__(self, listing: ImageFolder, *, channels: int, resize: tuple[int, int] | None) -> None:
        """Look at the first image for the size.

        Args:
            listing: The images.
            channels: 1 for gray, 3 for colour.
            resize: Size the transform makes of every image; without one all must have the same size.

        Raises:
            DataError: the first image does not decode.
        """
        self._listing = listing
        self._channels = channels
        self._resize = resize
        self._shape = decode_image(listing.files[0], channels, resize).shape

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._listing.files)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Decoded images.

        Raises:
            DataError: one does not decode or has another size; the message names it.
        """
        images = []
        for file in self._listing.files[start:stop]:
            image = decode_image(file, self._channels, self._resize)
            if image.shape != self._shape:
                raise DataError(
                    f"the image is {image.shape[1]}x{image.shape[0]} pixels, others are "
                    f"{self._shape[1]}x{self._shape[0]}",
                    where=str(file),
                    hint="Add resize=HEIGHTxWIDTH to the transform",
                )
            images.append(image)
        return np.stack(images) if images else np.zeros((0, *self._shape), np.uint8)


def decode_image(file: Path, channels: int, resize: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """One image upright (EXIF applied), as gray [H, W] or colour [H, W, 3].

    Raises:
        DataError: it does not decode; the message names the file.
    """
    try:
        with Image.open(file) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16") or image.mode == "I":
                # Pillow clips 16-bit gray to 255 when asked for 8 bits; the upper byte is what is meant.
                image = Image.fromarray(
                    (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
                )
            image = image.convert("L" if channels == 1 else "RGB")
            if resize is not None and image.size != resize[::-1]:
                image = image.resize(resize[::-1], Image.Resampling.BILINEAR)
            return np.asarray(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"the image does not decode ({_reason(error)})",
            where=str(file),
            hint="Replace or remove the file",
        ) from error


def content_digest(arrays: Sequence[NDArray[Any]]) -> str:
    """Hash of arrays in memory, for data that has no file to stand for it."""
    total = hashlib.blake2b(digest_size=16)
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "unknown or damaged format" if "cannot identify" in text else text[:120]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folder_digest(folder: Path, files: Sequence[Path]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        total.update(f"{file.relative_to(folder).as_posix()}:{file.stat().st_size}\n".encode())
    return total.hexdigest()
