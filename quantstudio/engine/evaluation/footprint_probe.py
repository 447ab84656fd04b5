"""A fresh process that loads one model, runs it once and tells what that took.

Run as a module with one JSON argument; prints one JSON line. Imports no more than running a model needs,
since everything imported would count as the model's memory.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil

from quantstudio.core.errors import QuantStudioError
from quantstudio.engine.graph.runtime import fitted_feed, open_session, run


def main(argument: str) -> int:
    """Measure what the JSON argument asks for."""
    asked: dict[str, Any] = json.loads(argument)
    with np.load(asked["feed"], allow_pickle=False) as archive:
        feed = {name: archive[key] for name, key in zip(asked["inputs"], archive.files, strict=True)}
    before = psutil.Process().memory_info().rss
    try:
        start = perf_counter()
        session = open_session(Path(asked["model"]), threads=asked["threads"], provider=asked["provider"])
        load_ms = (perf_counter() - start) * 1e3
        run(session, fitted_feed(session, feed))
    except QuantStudioError as error:
        answer: dict[str, Any] = {"error": error.what, "hint": asdict(error.hint)}
    else:
        answer = {"load_ms": load_ms, "peak_bytes": peak_bytes(), "before_bytes": before}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    On Linux VmHWM, which starts anew with the program; getrusage's figure does not: it begins with the size
    of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
