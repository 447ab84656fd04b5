from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.errors import DataError, TrustRequiredError
from quantstudio.core.layers import TensorInfo
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.data.factory import is_factory

INPUTS = (TensorInfo("input", "float32", ("n", 3)),)
CODE = """
import pathlib
import numpy as np

pathlib.Path(__file__).with_suffix(".ran").touch()
X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 0, 1])

class Pairs:
    def __len__(self): return 4
    def __getitem__(self, i): return X[i], int(Y[i])

def mapping(): return {"input": X, "labels": Y, "site": np.arange(4)}
def pair(): return X, Y
def pairs(): return Pairs()
def samples(): return [row for row in X]
def array(): return X
def empty(): return []
def ragged(): return [X[0], X[0][:2]]
def objects(): return {"input": np.array([{}], dtype=object)}
def ragged_lists(): return {"input": [[1, 2], [3]]}
def fails(): raise KeyError("lost")
number = 3
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "made.py"
    path.write_text(CODE)
    return path


def opened(module: Path, name: str) -> Dataset:
    return open_dataset(DataSpec(f"{module}:{name}", trusted=True), INPUTS)


def test_that_code_does_not_run_without_trust(module: Path) -> None:
    with pytest.raises(TrustRequiredError, match="agree to run it"):
        open_dataset(DataSpec(f"{module}:pair"), INPUTS)
    assert not module.with_suffix(".ran").exists()


@pytest.mark.parametrize("name", ["mapping", "pair", "pairs"])
def test_that_every_form_gives_samples_and_labels(module: Path, name: str) -> None:
    data = opened(module, name)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert next(data.batches(4)).feed["input"].tolist() == np.arange(12).reshape(4, 3).tolist()
    assert set(data.segments) == ({"site"} if name == "mapping" else set())


@pytest.mark.parametrize("name", ["samples", "array"])
def test_that_samples_alone_have_no_labels(module: Path, name: str) -> None:
    data = opened(module, name)
    assert data.labels is None
    assert len(data) == 4


def test_that_the_digest_follows_the_arrays(module: Path) -> None:
    assert opened(module, "pair").digest == opened(module, "pairs").digest
    assert opened(module, "pair").digest != opened(module, "array").digest


@pytest.mark.parametrize(
    ("name", "part"),
    [
        pytest.param("none", "no callable 'none'", id="no-such-name"),
        pytest.param("number", "no callable 'number'", id="not-callable"),
        pytest.param("fails", "KeyError", id="raises"),
        pytest.param("objects", "Python objects", id="objects"),
        pytest.param("ragged", "different shapes", id="ragged"),
        pytest.param("ragged_lists", "not an array", id="ragged-lists"),
        pytest.param("empty", r"\[N\]", id="empty"),
    ],
)
def test_that_wrong_callables_are_refused(module: Path, name: str, part: str) -> None:
    with pytest.raises(DataError, match=part):
        opened(module, name)


def test_that_modules_that_do_not_import_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    for path, part in (
        (f"{tmp_path / 'broken.py'}:make", "does not import: ModuleNotFoundError"),
        (f"{tmp_path / 'none.py'}:make", "no such file"),
        ("no.such.module:make", "does not import"),
    ):
        with pytest.raises(DataError, match=part):
            open_dataset(DataSpec(path, trusted=True), INPUTS)


def test_that_paths_are_not_taken_for_code(tmp_path: Path) -> None:
    assert is_factory("package.module:callable")
    assert is_factory("folder/file.py:callable")
    assert not is_factory("C:data")
    assert not is_factory("folder/data.npz")
    odd = tmp_path / "odd:name"
    try:
        odd.touch()
    except OSError:
        pytest.skip("this file system has no colons in names")
    assert not is_factory(str(odd))


def test_that_results_that_are_no_samples_are_refused() -> None:
    for path, part in (("time:time", "a single number"), ("os:getcwd", "not numbers")):
        with pytest.raises(DataError, match=part):
            open_dataset(DataSpec(path, trusted=True), INPUTS)
