"""torch devices by name: which are installed, and how torch computes on them so that figures compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from quantstudio.core.errors import MeasureError
from quantstudio.core.hints import Hint, HintAction

CPU = "cpu"


def available_devices() -> tuple[str, ...]:
    """Names of the torch devices of this machine, "cpu" first."""
    found = [CPU]
    if torch.cuda.is_available():
        found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return tuple(found)


def resolve_device(name: str) -> torch.device:
    """The device a name means: "cpu", "cuda" (the first), "cuda:1", "mps"; empty for the CPU.

    Raises:
        MeasureError: it is not installed here; the message lists what is.
    """
    wanted = name.strip().lower() or CPU
    installed = available_devices()
    for known in (wanted, f"{wanted}:0", wanted.removesuffix(":0")):
        if known in installed:
            return torch.device(known)
    raise MeasureError(
        f"torch device {name!r} is not installed",
        hint=Hint(
            f"Others come with other builds of torch. Installed here: {', '.join(installed)}",
            HintAction.CHOOSE_DEVICE,
        ),
    )


@contextmanager
def torch_settings(threads: int) -> Iterator[None]:
    """torch limited to so many threads, and in plain float32 on every device.

    CUDA convolutions round their operands to ten bits (TF32) unless told not to: an estimate would then
    depend on the device it was made on.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
