"""What others do for the same question: a plain loop over the layers, and ONNX Runtime's own debugger."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization import qdq_loss_debug as debugger

from quantstudio.core.distributions import kl_divergence, log_softmax
from quantstudio.engine.analysis.precisions import trial
from quantstudio.engine.data.dataset import Dataset
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.graph.runtime import open_session, run

BATCH = 32


def plain_loop(graph: Graph, dataset: Dataset, samples: int, precision: str) -> dict[str, float]:
    """Mean KL by layer: copy the model, change one weight, open a session, run, compare."""
    one = trial(precision)
    weights = {t.name: t for t in graph.proto.graph.initializer}
    session = open_session(graph.proto.SerializeToString())
    base = log_softmax(_outputs(session, dataset, samples))
    found = {}
    for layer in graph.layers:
        if not (layer.quantizable and layer.weight_name in weights):
            continue
        copy = onnx.ModelProto()
        copy.CopyFrom(graph.proto)
        changed = next(t for t in copy.graph.initializer if t.name == layer.weight_name)
        rounded = one.rounded(numpy_helper.to_array(changed), layer.channel_axis)
        changed.CopyFrom(numpy_helper.from_array(rounded, layer.weight_name))
        outputs = _outputs(open_session(copy.SerializeToString()), dataset, samples)
        found[layer.name] = float(kl_divergence(base, log_softmax(outputs)).mean())
    return found


@contextmanager
def debugger_models(graph: Graph, dataset: Dataset, samples: int) -> Iterator[tuple[Path, Path]]:
    """The FP32 model, and ORT's quantized one (QDQ, U8 activations, S8 weights per channel)."""
    logging.getLogger().setLevel(logging.ERROR)
    with TemporaryDirectory() as folder:
        plain, quantized = Path(folder) / "plain.onnx", Path(folder) / "quantized.onnx"
        onnx.save(graph.proto, plain)
        quantize_static(
            str(plain),
            str(quantized),
            _Reader(dataset, samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        yield plain, quantized


def runtime_debugger(
    graph: Graph, dataset: Dataset, samples: int, paths: tuple[Path, Path]
) -> dict[str, dict[str, float]]:
    """Both errors of each layer's output (negative SQNR in dB) from ORT's qdq_loss_debug."""
    seen = []
    for path in paths:
        augmented = path.with_suffix(".all.onnx")
        debugger.modify_model_output_intermediate_tensors(str(path), str(augmented))
        seen.append(debugger.collect_activations(str(augmented), _Reader(dataset, samples)))
    errors = debugger.compute_activation_error(debugger.create_activation_matching(seen[1], seen[0]))
    return {
        label: {
            layer.name: -float(errors[layer.outputs[0]][key])
            for layer in graph.layers
            if layer.outputs and key in errors.get(layer.outputs[0], {})
        }
        for label, key in (("local", "qdq_err"), ("accumulated", "xmodel_err"))
    }


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, dataset: Dataset, samples: int) -> None:
        self._feeds = _feeds(dataset, samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _feeds(dataset: Dataset, samples: int) -> Iterator[dict[str, Any]]:
    for batch in dataset.batches(BATCH, stop=samples):
        yield dict(batch.feed)


def _outputs(session: Any, dataset: Dataset, samples: int) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(run(session, f)[0], np.float64) for f in _feeds(dataset, samples)])
