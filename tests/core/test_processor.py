from __future__ import annotations

from pathlib import Path

import pytest

from quantstudio.core.processor import saturates


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        pytest.param("x86_64", "fpu avx2", True, id="AVX2 alone"),
        pytest.param("x86_64", "fpu avx2 avx512f", True, id="AVX-512 without VNNI"),
        pytest.param("x86_64", "fpu avx512_vnni", False, id="server with VNNI"),
        pytest.param("AMD64", "fpu avx2 avx_vnni", False, id="client with VNNI"),
        pytest.param("aarch64", "", False, id="ARM adds in 32 bits"),
    ],
)
def test_that_16_bit_sums_are_told_by_the_flags(
    tmp_path: Path, machine: str, flags: str, expected: bool
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : \n")
    assert saturates(machine, info) is expected


def test_that_an_unknown_x86_processor_counts_as_saturating(tmp_path: Path) -> None:
    assert saturates("x86_64", tmp_path / "missing")
