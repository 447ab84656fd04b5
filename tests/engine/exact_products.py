"""Integer products without overflow, on every processor.

An x86 processor without VNNI adds pairs of U8 x S8 products in 16 bits, where they saturate: a variant that
is right gives wrong values there. ONNX Runtime takes other kernels when asked, and ignores that elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail


def exact_session(
    source: bytes | Path | str, level: ort.GraphOptimizationLevel | None = None
) -> ort.InferenceSession:
    """A session whose values can be judged, on one thread."""
    source = source if isinstance(source, bytes) else str(source)
    options = _options(ort.GraphOptimizationLevel.ORT_ENABLE_ALL if level is None else level)
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Fail:
        # ONNX Runtime 1.31 cannot change the kernels of nodes that share a weight;
        # unfused they do not overflow.
        options = _options(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _options(level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    return options
