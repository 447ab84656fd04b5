"""Writing files so that a failed run leaves the old file whole, and naming contents by hash."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantstudio.core.errors import OutputError
from quantstudio.core.folders import CACHE_VARIABLE, is_cached

# Temporary files of this process that are not renamed yet.
_unfinished: set[Path] = set()


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A temporary path in the target's folder, renamed onto the target when the block succeeds.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    target = Path(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise _refused(target, error) from error
    os.close(handle)
    temporary = Path(name)
    _unfinished.add(temporary)
    try:
        yield temporary
        # mkstemp makes the file private; an exported model is meant to be read like any other file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def discard_unfinished() -> None:
    """Remove the temporary files of writes in progress, for a process that is about to end without them."""
    for temporary in tuple(_unfinished):
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write the whole file or nothing.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    with written_beside(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write the whole UTF-8 file or nothing.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    write_bytes(target, content.encode())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _refused(target: Path, error: OSError) -> OutputError:
    reason = (error.strerror or str(error)).lower()
    hint = "Choose a folder you can write to, with space left"
    if is_cached(target):
        hint = f"Free some space, or set {CACHE_VARIABLE} to a folder you can write to"
    return OutputError(f"cannot write the file ({reason})", where=str(target), hint=hint)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
