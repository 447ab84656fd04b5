"""Networks that come as programs: torch.export, TorchScript, Python factories, weights onto a factory.

Loading any of these runs code from the file (a tampered .pt2 does so too): callers ask for trust first.
torch is imported only inside functions, so that opening an ONNX file does not wait for it.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from quantstudio.core.errors import ModelLoadError, TrustRequiredError
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.data.factory import import_from_here

if TYPE_CHECKING:
    import torch

_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PICTURE_SIZES = (28, 32, 64, 96, 128, 224, 299)


@dataclass(slots=True)
class TorchSource:
    """A network ready for export.

    Attributes:
        network: Module, script module or exported program.
        args: Example inputs by position.
        kwargs: Example inputs by name.
        notes: What had to be guessed.
        dynamic_axes: Axes of every example tensor that may have another length; of guessed inputs all but the
            channel.
    """

    network: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dynamic_axes: tuple[int, ...] = (0,)


def require_trust(name: str, what: str, *, trust: bool) -> None:
    """Stop unless the user agreed to run code.

    Raises:
        TrustRequiredError: `trust` is not given; the message names the file.
    """
    if not trust:
        raise TrustRequiredError(
            f"this is a {what}: opening it runs the code inside",
            where=name,
            hint=Hint("If you know where it comes from, agree to run it", HintAction.TRUST_MODEL),
        )


def is_factory(text: str) -> bool:
    """Whether `text` has the form module:callable or file.py:callable and is not an existing file."""
    module, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier() or Path(text).exists():
        return False
    return module.endswith(".py") or (len(module) > 1 and all(p.isidentifier() for p in module.split(".")))


def load_exported_program(path: Path) -> TorchSource:
    """A torch.export program with the example inputs it carries.

    Raises:
        ModelLoadError: the archive is damaged or of another version.
    """
    import torch

    try:
        with quiet_torch():
            program = torch.export.load(path)
    except Exception as error:  # the archive is a program: anything may be raised
        raise _failed("torch cannot load the exported program", str(path), error) from error
    args, kwargs = program.example_inputs or ((), {})
    return TorchSource(program, tuple(args), dict(kwargs))


def load_torchscript(path: Path) -> TorchSource:
    """A TorchScript program with inputs of the shapes it was traced on.

    Raises:
        ModelLoadError: the archive is damaged, or it was scripted and no input could be guessed.
    """
    import torch

    try:
        with ZipFile(path) as archive:
            traced = any(name.endswith("traced_inputs.pkl") for name in archive.namelist())
        with quiet_torch():
            script = torch.jit.load(str(path), "cpu", _restore_shapes=traced)  # type: ignore[no-untyped-call]
        script = script.eval()
        args = [_like(value.type()) for value in list(script.forward.graph.inputs())[1:]]
    except Exception as error:  # the archive is a program: anything may be raised
        raise _failed("torch cannot load the TorchScript program", str(path), error) from error
    known = [value for value in args if value is not None]
    if args and len(known) == len(args):
        return TorchSource(script, tuple(known))
    return _with_guess(script, str(path))


def _like(kind: Any) -> torch.Tensor | None:  # noqa: ANN401  torch's types have no public class
    """A tensor of a traced type, or None where the type is not a tensor or has no shape."""
    import torch

    sizes = kind.sizes() if kind.kind() == "TensorType" else None
    if sizes is None:
        return None
    dtype = kind.dtype() or torch.float32
    return torch.randn(sizes).to(dtype) if dtype.is_floating_point else torch.zeros(sizes, dtype=dtype)


def load_factory(text: str) -> TorchSource:
    """Call a factory.

    Args:
        text: "module:callable" or "file.py:callable"; the callable takes nothing and returns a module, or a
            pair (module, example inputs) with the inputs as one tensor, a tuple or a dictionary by name.

    Raises:
        ModelLoadError: it cannot be found, raises, or returns something else.
    """
    import torch

    make = _find(text)
    try:
        made = make()
    except Exception as error:  # user code may raise anything
        raise _failed("the factory raised an error", text, error) from error
    network, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, torch.nn.Module):
        raise ModelLoadError(
            f"the factory returned a {type(network).__name__}, not a torch.nn.Module",
            where=text,
            hint="Return the module, or a pair of the module and its example inputs",
        )
    network = network.cpu().eval()
    if examples is None:
        return _with_guess(network, text)
    if isinstance(examples, Mapping):
        return TorchSource(network, (), dict(examples))
    if isinstance(examples, torch.Tensor):
        return TorchSource(network, (examples,))
    return TorchSource(network, tuple(examples))


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Load a state_dict or safetensors file into a network, all of it.

    Raises:
        ModelLoadError: the file is not a plain dictionary of tensors, or names and shapes do not fit.
    """
    import torch

    weights = _read_weights(path)
    if weights and all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    own = network.state_dict()
    missing, surplus = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    for keys, what in (
        (missing, "lacks"),
        (surplus, "has the unknown tensor"),
        (wrong, "has another shape for"),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ModelLoadError(
                f"the file {what} {keys[0]!r}{more}",
                where=str(path),
                hint="Give the factory that made the network these weights were saved from",
            )
    with torch.no_grad():
        network.load_state_dict(weights)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    import torch

    with path.open("rb") as handle:
        head = handle.read(9)
    try:
        if head[8:9] == b"{":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelLoadError(
            "the file holds Python objects, not plain weights; loading them could run code",
            where=str(path),
            hint="Save model.state_dict(), or export the model to ONNX",
        ) from error
    except Exception as error:  # torch and safetensors raise many unrelated classes
        raise _failed("the weights cannot be read", str(path), error) from error
    for key in _CHECKPOINT_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise ModelLoadError(
            "the file is not a dictionary of tensors",
            where=str(path),
            hint="Save model.state_dict()",
        )
    return {str(key): value for key, value in loaded.items()}


def _find(text: str) -> Callable[[], object]:
    module_name, _colon, name = text.rpartition(":")
    try:
        is_file = module_name.endswith(".py")
        module = _import_file(Path(module_name)) if is_file else import_from_here(module_name)
    except Exception as error:  # importing runs user code
        raise _failed("the module cannot be imported", text, error) from error
    made: object = getattr(module, name, None)
    if not callable(made):
        raise ModelLoadError(
            f"module {module_name!r} has no callable {name!r}", where=text, hint="Check the spelling"
        )
    return made


def _import_file(path: Path) -> Any:  # noqa: ANN401
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ModelLoadError("no such Python file", where=str(path), hint="Check the path")
    module = importlib.util.module_from_spec(spec)
    # Pickles and dataclasses of the module look it up here.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _with_guess(network: torch.nn.Module, where: str) -> TorchSource:
    """Example inputs found by trying what the first layer could take.

    Raises:
        ModelLoadError: nothing tried was accepted.
    """
    import torch

    given = getattr(network, "example_input_array", None)
    if isinstance(given, torch.Tensor):
        return TorchSource(network, (given,))
    for example, axes in _candidates(network):
        try:
            with torch.no_grad():
                network(example)
        except Exception:  # noqa: BLE001  a wrong guess may fail in any way
            continue
        shape = ", ".join("any" if axis in axes else str(size) for axis, size in enumerate(example.shape))
        note = f"The input shape was guessed as [{shape}]; a factory may return (module, example inputs)."
        return TorchSource(network, (example,), {}, (note,), axes)
    raise ModelLoadError(
        "the shape of the input is not known",
        where=where,
        hint="Give module:factory with a callable that returns (module, example_inputs)",
    )


def _candidates(network: torch.nn.Module) -> list[tuple[torch.Tensor, tuple[int, ...]]]:
    """Inputs the first layer could take, with the axes a longer input may stretch."""
    import torch

    for name, weight in network.state_dict().items():
        if not name.endswith("weight") or weight.dim() < 2:
            continue
        layer = _owner(network, name)
        if isinstance(layer, torch.nn.Embedding):
            return [(torch.zeros(2, length, dtype=torch.int64), (0, 1)) for length in (8, 32)]
        channels = getattr(layer, "in_channels", weight.shape[1])
        if weight.dim() == 2:
            return [(torch.randn(2, channels), (0,)), (torch.randn(2, 8, channels), (0, 1))]
        space = weight.dim() - 2
        axes = (0, *range(2, 2 + space))
        return [(torch.randn(2, channels, *[size] * space), axes) for size in _PICTURE_SIZES]
    return []


def _owner(network: torch.nn.Module, weight_name: str) -> torch.nn.Module | None:
    # Script modules refuse get_submodule.
    return dict(network.named_modules()).get(weight_name.rpartition(".")[0])


def _failed(what: str, where: str, error: BaseException) -> ModelLoadError:
    if isinstance(error, ModelLoadError):
        return error
    lines = str(error).strip().splitlines()
    detail = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    return ModelLoadError(f"{what} ({detail})", where=where, hint="Load it once in Python to see the cause")


def input_names(network: torch.nn.Module) -> list[str]:
    """Names of forward's parameters, for the inputs of an exported graph."""
    parameters = inspect.signature(network.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Without torch's remarks about packages, deprecations and its own tracebacks: no help to a user."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "torch.onnx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
