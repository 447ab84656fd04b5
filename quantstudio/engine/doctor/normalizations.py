"""What a network's batch normalizations remember of the data it was trained on.

Opening folds them into the convolutions, so they are read from the file itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from quantstudio.core.data_spec import Transform
from quantstudio.core.errors import ModelLoadError
from quantstudio.core.events import CancelToken
from quantstudio.core.layers import ModelSummary
from quantstudio.engine.doctor.network import Network, Samples, scaled_feed

# The first ones see the data as it comes; what is behind them is normalized already.
LAYERS = 3
LARGEST_FILE_BYTES = 400_000_000
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class _Remembered:
    """Mean and variance of each channel of a tensor, shape [C]."""

    tensor: str
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


class Normalizations:
    """The first batch normalizations of a network."""

    def __init__(self, network: Network, remembered: Sequence[_Remembered]) -> None:
        self._network = network
        self._remembered = tuple(remembered)

    def misfit(self, samples: Samples, transform: Transform) -> float:
        """How far what reaches them is from what they remember: mean KL divergence of a channel, nats.

        Raises:
            MeasureError: the network does not run on the samples.
            JobCancelled: the token was set.
        """
        seen: list[list[NDArray[np.float64]]] = [[] for _ in self._remembered]
        for batch in samples.batches:
            found = self._network.run(
                scaled_feed(batch, samples.scaled, transform), [one.tensor for one in self._remembered]
            )
            for rows, tensor in zip(seen, found, strict=True):
                channels = np.moveaxis(np.asarray(tensor[: batch.count], np.float64), 1, 0)
                rows.append(channels.reshape(len(channels), -1))
        return float(
            np.mean(
                [
                    _divergence(np.concatenate(r, axis=1), m)
                    for r, m in zip(seen, self._remembered, strict=True)
                ]
            )
        )


def read_normalizations(summary: ModelSummary, cancel: CancelToken) -> Normalizations | None:
    """The batch normalizations of the file a model was opened from; None where there are none to read."""
    path = Path(summary.source_path)
    if path.suffix.lower() != ".onnx" or not path.is_file() or path.stat().st_size > LARGEST_FILE_BYTES:
        return None
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError):
        return None
    if any(uses_external_data(tensor) for tensor in model.graph.initializer):
        return None
    remembered = _remembered(model)
    names = [info.name for info in model.graph.input]
    if not remembered or not {info.name for info in summary.inputs} <= set(names):
        return None
    del model.graph.output[:]
    for one in remembered:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(one.tensor))
    try:
        network = Network(model.SerializeToString(), cancel)
    except ModelLoadError:
        return None
    return Normalizations(network, remembered)


def _remembered(model: onnx.ModelProto) -> list[_Remembered]:
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    given = {info.name for info in model.graph.input}
    found = []
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or not {*node.input[3:5]} <= held.keys():
            continue
        if node.input[0] in given:
            continue  # it would be an output that is an input
        mean, variance = (numpy_helper.to_array(held[name]).astype(np.float64) for name in node.input[3:5])
        found.append(_Remembered(node.input[0], mean, variance))
        if len(found) == LAYERS:
            break
    return found


def _divergence(seen: NDArray[np.float64], remembered: _Remembered) -> float:
    """Of normal distributions, from what a channel remembers to what it sees; mean over the channels."""
    mean, variance = seen.mean(axis=1), seen.var(axis=1) + _EPSILON
    known = remembered.variance + _EPSILON
    each = 0.5 * (np.log(known / variance) + (variance + (mean - remembered.mean) ** 2) / known - 1)
    return float(each.mean())
