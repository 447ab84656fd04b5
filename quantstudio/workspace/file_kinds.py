"""What a path is by its name and first bytes: a model, a program, weights, data."""

from __future__ import annotations

from pathlib import Path

from quantstudio.core.data_spec import is_text
from quantstudio.core.onnx_outline import is_whole_onnx
from quantstudio.project.references import is_callable_name
from quantstudio.workspace.values import TrustRequest

PROGRAM_SUFFIXES = {
    ".pt2": "A .pt2 file is a program: loading it can run commands that are hidden in it.",
    ".pt": "A .pt file can be TorchScript, which is a program.",
    ".pth": "A .pth file can be TorchScript, which is a program.",
    ".ts": "TorchScript is a program.",
    ".torchscript": "TorchScript is a program.",
}
MODEL_SUFFIXES = (".onnx", *PROGRAM_SUFFIXES, ".safetensors")
STATE_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def trust_request(path: str, factory: str = "") -> TrustRequest:
    """What is asked before a model is opened; without a reason nothing has to be."""
    suffix = Path(path).suffix.lower()
    if is_callable_name(path):
        reason = "This calls your own Python function."
    elif suffix == ".safetensors":
        reason = "Weights alone: your own Python function makes the network."
    else:
        reason = PROGRAM_SUFFIXES.get(suffix, "A Python function makes this network." if factory else "")
    return TrustRequest(path, "model", reason, factory)


def is_data(path: str) -> bool:
    """Whether it may be a data set: an npz file, text, or a folder."""
    return Path(path).suffix.lower() == ".npz" or is_text(path) or Path(path).is_dir()


def looks_like_test(path: str) -> bool:
    """Whether a data set is called one to judge with."""
    return any(word in Path(path).name.lower() for word in ("test", "val"))


def is_broken_onnx(path: str) -> bool:
    """Whether a file called ONNX cannot be; one that cannot be read is left to the worker to explain."""
    if Path(path).suffix.lower() != ".onnx":
        return False
    try:
        return not is_whole_onnx(Path(path))
    except OSError:
        return False
