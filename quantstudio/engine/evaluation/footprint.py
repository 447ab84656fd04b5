"""What a model takes: bytes on disk, bytes of weights, memory and load time in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from quantstudio.core.codec import from_json
from quantstudio.core.errors import MeasureError, ModelLoadError
from quantstudio.core.events import CancelToken
from quantstudio.core.hints import Hint
from quantstudio.core.results import Footprint
from quantstudio.core.version import ROOT
from quantstudio.engine.graph.protos import bodies, tensor_bytes
from quantstudio.engine.graph.runtime import Feed, first_line, resolve_provider, worker_threads

PROBES = 3
# A model that takes this long to load is probed once: its figure is steady enough.
SLOW_SECONDS = 4.0
PROBE_TIMEOUT_SECONDS = 600.0
POLL_SECONDS = 0.05


def footprint(
    model: Path,
    feed: Feed,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    probes: int = PROBES,
    cancel: CancelToken | None = None,
) -> Footprint:
    """Disk, weights, peak memory and load time of a model.

    Args:
        model: Model file.
        feed: What the probing process runs it on, once.
        threads: Intra-op threads; None for `worker_threads()`.
        provider: Execution provider, short or full name.
        probes: Processes started; each figure is the median.
        cancel: Kills the probing process when set.

    Raises:
        MeasureError: the probing process fails.
        JobCancelled: `cancel` was set.
    """
    size_bytes, weight_bytes = file_bytes(model)
    with tempfile.TemporaryDirectory(prefix="quantstudio-probe-") as folder:
        feed_path = Path(folder) / "feed.npz"
        # By position: an input may be named "file", which savez takes for its own argument.
        np.savez(feed_path, *feed.values())
        argument = json.dumps(
            {
                "model": str(Path(model).resolve()),
                "feed": str(feed_path),
                "inputs": list(feed),
                "threads": threads or worker_threads(),
                "provider": resolve_provider(provider),
            }
        )
        answers = []
        for _ in range(max(probes, 1)):
            started = monotonic()
            answers.append(_probed(argument, model, cancel))
            if monotonic() - started > SLOW_SECONDS:
                break
    return Footprint(
        size_bytes=size_bytes,
        weight_bytes=weight_bytes,
        peak_memory_bytes=int(median(a["peak_bytes"] for a in answers)),
        load_ms=float(median(a["load_ms"] for a in answers)),
        runtime_memory_bytes=int(median(a["before_bytes"] for a in answers)),
    )


def file_bytes(model: Path) -> tuple[int, int]:
    """Bytes on disk with external data files, and bytes of all constant tensors.

    Raises:
        ModelLoadError: the file is not an ONNX model.
    """
    try:
        proto = onnx.load(str(model), load_external_data=False)
    except Exception as error:  # onnx, protobuf and the file system each raise their own
        raise ModelLoadError(f"not an ONNX model: {first_line(error)}", where=str(model)) from error
    weight_bytes = 0
    external: set[str] = set()
    for tensor in _constants(proto.graph):
        weight_bytes += tensor_bytes(tensor)
        if tensor.data_location == TensorProto.EXTERNAL:
            external.update(e.value for e in tensor.external_data if e.key == "location")
    size = model.stat().st_size
    size += sum(p.stat().st_size for p in (model.parent / name for name in external) if p.is_file())
    return size, weight_bytes


def _constants(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
    for node in graph.node:
        yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)
        for body in bodies(node):
            yield from _constants(body)


def _probed(argument: str, model: Path, cancel: CancelToken | None) -> dict[str, Any]:
    environment = dict(os.environ)
    root = str(ROOT)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "quantstudio.engine.evaluation.footprint_probe", argument],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise MeasureError(
            f"cannot start a process to measure memory ({error.strerror})",
            where=str(model),
            hint="Measure without the footprint",
        ) from error
    with process:
        try:
            output, errors = _finished(process, cancel)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0 or not output.strip():
        lines = errors.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with code {process.returncode}"
        raise MeasureError(
            f"the process that measures memory failed: {reason}",
            where=str(model),
            hint="The model may need more memory than there is; measure without the footprint",
        )
    # The last line: a provider's library may print before it.
    answer: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    if "error" in answer:
        raise MeasureError(answer["error"], where=str(model), hint=from_json(Hint, answer["hint"]))
    return answer


def _finished(process: subprocess.Popen[bytes], cancel: CancelToken | None) -> tuple[bytes, bytes]:
    deadline = monotonic() + PROBE_TIMEOUT_SECONDS
    while True:
        if cancel is not None:
            cancel.raise_if_set()
        try:
            return process.communicate(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if monotonic() > deadline:
                raise MeasureError(
                    f"loading and running the model once took over {PROBE_TIMEOUT_SECONDS:.0f} s",
                    hint="Measure without the footprint",
                ) from None
