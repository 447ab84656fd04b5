"""Tensors that wait to be read, large ones in fewer bytes.

What lies on the grid of a quantizer is kept as its integers, without loss; other large tensors as halves,
which adds 2^-12 of a value to what 8 bits round away far more of. Small ones stay as they are.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from dataclasses import dataclass

import torch

from quantstudio.engine.quantization.activations import ActivationParams
from quantstudio.engine.quantization.fake_quantization import bounds

Tensor = torch.Tensor

# Bytes a tensor takes over all samples beyond which it is packed.
LARGE_BYTES = 64 * 2**20
# Halves are used as they are where the largest value is between these; else a power of two moves it there.
_LEAST, _MOST = 2.0**-4, 2.0**15


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A tensor in fewer bytes: (stored - zero point) * scale.

    Attributes:
        stored: Halves or bytes, in the shape of the tensor.
        scale: A power of two for halves, the step of the grid for bytes.
        zero_point: The byte that means zero.
    """

    stored: Tensor
    scale: float = 1.0
    zero_point: int = 0

    def value(self) -> Tensor:
        """The tensor, float32."""
        found = self.stored.float()
        if self.zero_point:
            found.sub_(self.zero_point)
        return found if self.scale == 1.0 else found.mul_(self.scale)


Held = Tensor | Packed | None


def read(held: Held) -> Tensor | None:
    """A tensor as it was given, or all but."""
    return held.value() if isinstance(held, Packed) else held


def packed(value: Tensor, params: ActivationParams | None) -> Tensor | Packed:
    """A float32 tensor in fewer bytes; others, and what holds NaN or infinity, as they are.

    Args:
        value: The tensor.
        params: The quantizer it went through last; None where it did not.
    """
    if value.dtype != torch.float32 or not value.numel():
        return value
    if params is not None:
        stored = _room(value, torch.uint8 if bounds(params)[0] >= 0 else torch.int8)
        scale = float(params.scale)
        stored.copy_((value / scale).round_().add_(params.zero_point))
        return Packed(stored, scale, params.zero_point)
    largest = float(torch.stack(torch.aminmax(value)).abs().max())
    if not math.isfinite(largest):
        return value
    if largest == 0.0 or _LEAST <= largest <= _MOST:
        return Packed(_room(value, torch.float16).copy_(value))
    scale = 2.0 ** (math.frexp(largest)[1] - 14)
    return Packed(_room(value, torch.float16).copy_(value / scale), scale)


def _room(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Memory of its own, which goes back to the system with the tensor.

    Among the tensors a node computes with it would leave holes that the allocator keeps: twice the memory.
    """
    if like.device.type != "cpu":
        return torch.empty(like.shape, dtype=dtype, device=like.device)
    memory = mmap.mmap(-1, like.numel() * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).reshape(like.shape)


def bytes_of(held: Held) -> int:
    """Bytes it takes while it waits."""
    stored = held.stored if isinstance(held, Packed) else held
    return 0 if stored is None else stored.nbytes


def give_back() -> None:
    """Return what was freed to the system, where the C library keeps it: glibc does, next to aligned blocks.

    A walk over large tensors held twice the memory without.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
