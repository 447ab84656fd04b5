"""Writing files so that a failed run leaves the old file whole, and naming contents by hash."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quantstudio.core.errors import OutputError
from quantstudio.core.folders import CACHE_VARIABLE, is_cached
from quantstudio.core.weight_files import drop_unnamed, named_weights

# Temporary files of this process that are not renamed yet, with what they become.
_unfinished: dict[Path, Path] = {}
_naming = threading.Lock()

# Host and process in the name of a temporary file tell whether its writer is still alive.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_TAG = re.compile(rf"\.{_HOST}-(\d+)-[a-z0-9_]{{8}}(?:\.[^.]*)?$")
# Of the target's name, so that the temporary one does not become too long.
_NAME_CHARACTERS = 120


@contextmanager
def written_beside(target: Path) -> Iterator[Path]:
    """A temporary path in the target's folder, renamed onto the target when the block succeeds.

    A temporary file that a killed process left for this target is removed.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    with written_together(target) as (temporary,):
        yield temporary


@contextmanager
def written_together(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """As `written_beside`, for files that belong together: none is renamed before all are whole.

    Files of weights beside a model that is replaced, or not written after all, go where no model of the
    folder names them.

    Args:
        targets: In the order of renaming; the one the others describe comes last.

    Raises:
        OutputError: a folder is missing, read-only or full.
    """
    temporaries: list[Path] = []
    weights: dict[Path, set[str]] = {}
    for target in map(Path, targets):
        weights.setdefault(target.parent, set()).update(named_weights(target))
    try:
        for target in map(Path, targets):
            temporaries.append(_temporary(target))  # noqa: PERF401  one that fails must not hide the others
        yield tuple(temporaries)
        for temporary in temporaries:
            # The file was made private; an exported model is meant to be read like any other file.
            temporary.chmod(0o666 & ~_umask())
        for temporary in temporaries:
            temporary.replace(_unfinished[temporary])
    except OSError as error:
        named = next((t for t in temporaries if error.filename == str(t)), None)
        raise _refused(named or Path(targets[-1]), error) from error
    finally:
        for temporary in temporaries:
            weights[temporary.parent] |= named_weights(temporary)
            temporary.unlink(missing_ok=True)
            _unfinished.pop(temporary, None)
        for folder, names in weights.items():
            drop_unnamed(folder, names)


@contextmanager
def scratch_beside(name: Path) -> Iterator[Path]:
    """A temporary file that ends with the block.

    One that a killed process left under this name is removed.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    temporary = _temporary(name)
    try:
        yield temporary
    finally:
        # Mapped after all, as Windows tells: the next one removes it.
        with suppress(OSError):
            temporary.unlink()
        _unfinished.pop(temporary, None)


def _temporary(target: Path) -> Path:
    stem = target.name.lstrip(".")[:_NAME_CHARACTERS]
    prefix = f".{stem}.{_HOST}-{os.getpid()}-"
    temporary = target.parent / f"{prefix}{secrets.token_hex(4)}{target.suffix}"
    with _naming:  # another thread must not take the new file for one left behind
        try:
            _remove_left_behind(target.parent, f".{stem}.")
            # Known before it is there: an interrupt in between must not leave it behind.
            _unfinished[temporary] = target
            temporary.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            _unfinished.pop(temporary, None)
            raise _refused(target, error) from error
    return temporary


def _remove_left_behind(folder: Path, prefix: str) -> None:
    """Remove temporary files of this host whose process is gone."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    for name in names:
        tag = _TAG.search(name)
        if tag and folder / name not in _unfinished and not _is_alive(int(tag[1])):
            # In use after all, as Windows tells: it stays.
            with suppress(OSError):
                (folder / name).unlink()


def _is_alive(process: int) -> bool:
    """Whether a process other than this one runs."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True  # there, signal 0 is a Ctrl+C; an open file cannot be removed anyway
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def discard_unfinished() -> None:
    """Remove the temporary files of writes in progress, for a process that is about to end without them."""
    for temporary in tuple(_unfinished):
        temporary.unlink(missing_ok=True)


def becomes(temporary: Path, target: Path) -> None:
    """Give a file that is being written another name to get, such as one made of its content."""
    _unfinished[temporary] = target


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
    while target in _unfinished:
        target = _unfinished[target]  # the user knows only what it becomes
    reason = (error.strerror or str(error)).lower()
    hint = "Choose a folder you can write to, with space left"
    if is_cached(target):
        hint = f"Free some space, or set {CACHE_VARIABLE} to a folder you can write to"
    return OutputError(f"cannot write the file ({reason})", where=str(target), hint=hint)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
