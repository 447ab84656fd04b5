"""Files are written whole or not at all, in pairs where they belong together."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from quantstudio.core import files
from quantstudio.core.errors import OutputError
from quantstudio.core.files import discard_unfinished, write_bytes, written_beside, written_together


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A recipe and a model of an earlier run."""
    recipe, model = tmp_path / "m.recipe.json", tmp_path / "m.onnx"
    recipe.write_bytes(b"old recipe")
    model.write_bytes(b"old model")
    return recipe, model


def test_that_a_pair_is_replaced_together(pair, tmp_path):
    with written_together(*pair) as (recipe, model):
        model.write_bytes(b"new model")
        recipe.write_bytes(b"new recipe")
        assert pair[1].read_bytes() == b"old model"
    assert [path.read_bytes() for path in pair] == [b"new recipe", b"new model"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("full", ["recipe", "model"])
def test_that_a_disk_that_fills_in_the_middle_keeps_the_old_pair(full, pair, tmp_path):
    def write() -> None:
        with written_together(*pair) as (recipe, model):
            if full == "recipe":
                write_bytes(model, b"new model")
            named = str(recipe if full == "recipe" else model)
            raise OSError(errno.ENOSPC, "No space left on device", named)

    with pytest.raises(OutputError, match="no space left") as refusal:
        write()
    assert refusal.value.where == str(pair[0] if full == "recipe" else pair[1])
    assert [path.read_bytes() for path in pair] == [b"old recipe", b"old model"]
    assert len(list(tmp_path.iterdir())) == 2


def test_that_the_user_never_reads_the_name_of_a_temporary_file(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with written_beside(tmp_path / "m.onnx") as outer:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "chmod", full)
            with pytest.raises(OutputError) as refusal:
                write_bytes(outer, b"new")
        outer.write_bytes(b"new")
    assert refusal.value.where == str(tmp_path / "m.onnx")


def test_that_a_long_name_still_has_a_temporary_one(tmp_path):
    target = tmp_path / ("n" * 240 + ".onnx")
    with written_beside(target) as outer, written_beside(outer) as inner:
        inner.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"


@pytest.mark.skipif(os.name != "posix", reason="a process is killed by a signal")
def test_that_the_next_run_removes_what_a_killed_one_left(tmp_path):
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from quantstudio.core.files import written_beside, written_together
        folder = Path(sys.argv[1])
        with written_together(folder / "m.recipe.json", folder / "m.onnx") as (_, model):
            with written_beside(model) as temporary:
                temporary.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    for name in ("m.onnx", "m.recipe.json", ".m.onnx.mine", ".other.onnx"):
        (tmp_path / name).write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 7
    assert all(name.startswith(".") for name in left if name not in ("m.onnx", "m.recipe.json"))
    write_bytes(tmp_path / "m.onnx", b"new")
    write_bytes(tmp_path / "m.recipe.json", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".m.onnx.mine",
        ".other.onnx",
        "m.onnx",
        "m.recipe.json",
    ]


def test_that_a_file_another_process_is_writing_stays(tmp_path):
    host = re.escape(files._HOST)
    running = tmp_path / f".m.onnx.{files._HOST}-{os.getppid()}-abcd1234.onnx"
    elsewhere = tmp_path / ".m.onnx.000000-99999999-abcd1234.onnx"
    for path in (running, elsewhere):
        path.write_bytes(b"half")
    with written_beside(tmp_path / "m.onnx") as mine:
        assert re.match(rf"\.m\.onnx\.{host}-{os.getpid()}-", mine.name)
        write_bytes(tmp_path / "m.onnx", b"of another thread")
        assert mine.exists()
        discard_unfinished()
        assert not mine.exists()
        mine.write_bytes(b"new")
    assert {path.name for path in tmp_path.iterdir()} == {running.name, elsewhere.name, "m.onnx"}
