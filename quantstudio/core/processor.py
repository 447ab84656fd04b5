"""What this machine's processor can do that decides which integers are safe on it."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
# As Linux spells them: the server's and the client's form of the same instruction.
_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni"})


@lru_cache(maxsize=1)
def sums_saturate() -> bool:
    """Whether products of U8 activations and S8 weights are added up in 16 bits here, which can overflow.

    So it is on x86 without VNNI: two products of 8-bit numbers reach 2 * 255 * 127, while 16 bits end at
    32,767; ONNX Runtime 1.31 then computes with the sum cut off, silently. Weights of 7 bits cannot overflow.
    An x86 processor of which nothing can be read counts as one without: 7 bits cost a little accuracy
    everywhere, 8 bits a lot where they overflow.
    """
    return saturates(platform.machine(), _CPU_INFO)


def saturates(machine: str, cpu_info: Path) -> bool:
    """`sums_saturate` of a processor family (as `platform.machine` names it) and what Linux writes of it."""
    if machine.lower() not in _X86:
        return False
    try:
        text = cpu_info.read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not _VNNI_FLAGS & set(flags.partition(":")[2].split())
