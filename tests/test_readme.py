"""The examples in the README run as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantstudio.core.samples import sample

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one example found out of the sample, the next takes: as in the hands of a reader."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _in_one_cache(_one_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(_one_cache))


def test_that_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("code", EXAMPLES, ids=[f"example {i + 1}" for i in range(len(EXAMPLES))])
def test_that_an_example_runs(code: str, tmp_path: Path) -> None:
    chosen = sample()
    for source, name in ((chosen.model, "net.onnx"), (chosen.train, "train.npz"), (chosen.test, "test.npz")):
        shutil.copyfile(source, tmp_path / name)
    assert chosen.transform in code or 'project="work.qstudio"' in code
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
