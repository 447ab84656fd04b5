"""Data from the user's own code, `module:callable`: runs only after the user agreed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from quantstudio.core.errors import DataError, TrustRequiredError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.data.npz import check_readable


def is_factory(path: str) -> bool:
    """Whether a data path means `module:callable` and not a file (or a Windows drive)."""
    module, colon, name = path.rpartition(":")
    return bool(colon) and name.isidentifier() and len(module) > 1 and not Path(path).exists()


def arrays_from_factory(path: str, *, trusted: bool) -> dict[str, NDArray[Any]]:
    """Named arrays made by the user's callable.

    Args:
        path: "package.module:callable" or "file.py:callable". The callable takes no argument and returns a
            mapping of arrays named as in an .npz file, a pair (inputs, labels), or a sequence of samples or
            of (sample, label) pairs.
        trusted: Whether the user agreed to run it.

    Raises:
        TrustRequiredError: not trusted.
        DataError: it cannot be imported, fails, or returns something else.
    """
    if not trusted:
        raise TrustRequiredError(
            "this data is a program, and reading it runs its code",
            where=path,
            hint=Hint("If you know where it comes from, agree to run it", HintAction.TRUST_DATA),
        )
    maker = callable_from(path)
    try:
        made = maker()
    except Exception as error:
        raise DataError(f"the callable failed: {type(error).__name__}: {error}", where=path) from error
    return _named_arrays(made, path)


def callable_from(path: str) -> Callable[..., Any]:
    """What "package.module:callable" or "file.py:callable" names; importing it runs its code.

    Raises:
        DataError: it cannot be imported, or there is no such callable.
    """
    module_name, _, name = path.rpartition(":")
    if not module_name or not name:
        raise DataError(f"{path!r} is not module:callable")
    found = getattr(_imported(module_name), name, None)
    if not callable(found):
        raise DataError(f"{module_name} has no callable {name!r}", where=path)
    return cast("Callable[..., Any]", found)


def _imported(name: str) -> ModuleType:
    if name.endswith(".py"):
        check_readable(Path(name))
    try:
        if not name.endswith(".py"):
            return import_from_here(name)
        loader = SourceFileLoader(f"quantstudio_data_{Path(name).stem}", name)
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[loader.name] = module
        loader.exec_module(module)
        return module
    except Exception as error:
        raise DataError(f"the module does not import: {type(error).__name__}: {error}", where=name) from error


def import_from_here(name: str) -> ModuleType:
    """Import as `python -m` would: the working folder counts, for data as for the factory of a model.

    Raises:
        Exception: whatever the module does when it is imported.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _named_arrays(made: object, path: str) -> dict[str, NDArray[Any]]:
    if isinstance(made, Mapping):
        return {str(name): _as_array(value, path) for name, value in made.items()}
    if isinstance(made, tuple) and len(made) == 2:
        return {"x": _as_array(made[0], path), "labels": _as_array(made[1], path)}
    if hasattr(made, "__len__") and hasattr(made, "__getitem__") and not hasattr(made, "dtype"):
        items = [made[i] for i in range(len(made))]
        if items and isinstance(items[0], tuple | list) and len(items[0]) == 2:
            samples, labels = zip(*items, strict=True)
            return {"x": _stacked(samples, path), "labels": _as_array(list(labels), path)}
        return {"x": _stacked(items, path)}
    return {"x": _as_array(made, path)}


def _stacked(samples: Any, path: str) -> NDArray[Any]:  # noqa: ANN401  whatever the user's code made
    arrays = [_as_array(sample, path) for sample in samples]
    if len({a.shape for a in arrays}) > 1:
        raise DataError("the samples have different shapes", where=path, hint="Pad or resize them")
    return np.stack(arrays) if arrays else np.zeros((0,), np.float32)


def _as_array(value: object, path: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"the callable returned something that is not an array: {error}", where=path
        ) from error
    if array.dtype.hasobject:
        raise DataError(
            "the callable returned Python objects instead of numbers",
            where=path,
            hint="Return numpy arrays: a mapping like an .npz file, or (inputs, labels)",
        )
    return array
