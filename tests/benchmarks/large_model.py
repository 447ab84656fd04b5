"""What a model above 2 GiB takes: `python -m tests.benchmarks.large_model FOLDER [LAYERS WIDTH]`.

Writes products of random matrices (40 of 4096 by 4096: 2.7 GB), opens them and writes weights of 4 bits,
each in a process of its own, and prints time and peak memory. Mapped pages of files count as memory here,
though the system takes them back when it needs them. What it writes is removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from tests.engine.large_models import write_products

LAYERS, WIDTH = 40, 4096


def main(folder: Path, layers: int = LAYERS, width: int = WIDTH) -> None:
    """Print a line for each command."""
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        model = write_products(Path(inside) / "model.onnx", layers=layers, width=width)
        size = Path(f"{model}.data").stat().st_size
        print(f"{layers} products of {width} by {width}: {size / 1e9:.2f} GB")
        environment = {**os.environ, "QUANTSTUDIO_CACHE": str(Path(inside) / "cache")}
        output = str(Path(inside) / "small.onnx")
        _measure("open", ["inspect", str(model)], environment)
        _measure(
            "quantize", ["quantize", str(model), "--preset", "weight-int4/128", "-o", output], environment
        )


def _measure(name: str, arguments: list[str], environment: dict[str, str]) -> None:
    started = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "quantstudio", *arguments], stdout=subprocess.DEVNULL, env=environment
    )
    _pid, status, used = os.wait4(process.pid, 0)
    seconds, cpu = perf_counter() - started, used.ru_utime + used.ru_stime
    peak, code = used.ru_maxrss / 1e6, status >> 8
    print(f"{name}: {seconds:.0f} s ({cpu:.0f} s of CPU), peak {peak:.2f} GB, code {code}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:4]))
