"""ONNX Runtime sessions: the only place that makes them, so threads and errors agree everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from quantstudio.core.cores import allowed_cores
from quantstudio.core.errors import MeasureError, ModelLoadError
from quantstudio.core.events import CancelToken, never_cancelled
from quantstudio.core.hints import Hint, HintAction
from quantstudio.engine.graph.mapped import content_bytes, holds_mapped, is_mapped, point_to
from quantstudio.engine.graph.protos import as_array

# Failures are raised; without this the runtime prints each of them on standard error as well.
ort.set_default_logger_severity(4)

CPU = "CPUExecutionProvider"
# In every CPU build of 1.31: it calls models on a server, and leaves all others to the CPU without a word.
_REMOTE = "AzureExecutionProvider"

# ONNX Runtime 1.31 turns DequantizeLinear -> Conv(float weight) -> QuantizeLinear into an integer Conv at
# load: a layer asked to be FP32 would silently become INT8.
SILENT_REQUANTIZERS = ("WeightBiasQuantization",)

# "[ONNXRuntimeError] : 1 : FAIL : " says nothing to a person.
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?")
# A shape that does not fit: the input in the first line, an axis in each line behind it.
_INPUT = re.compile(r"invalid dimensions for input: (\S+)")
_AXIS = re.compile(r"index: (\d+) Got: (\S+) Expected: (\S+)")

# Behind these the optimized graph of a large model keeps its weights in a file beside it.
_WEIGHTS_BESIDE = (
    ("session.optimized_model_external_initializers_file_name", "{}.weights"),
    ("session.optimized_model_external_initializers_min_size_in_bytes", "65536"),
)

Feed = Mapping[str, NDArray[np.generic]]


class Optimization(StrEnum):
    """How far the runtime may rewrite the graph."""

    NONE = "none"
    BASIC = "basic"
    ALL = "all"


_LEVELS = {
    Optimization.NONE: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    Optimization.BASIC: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    Optimization.ALL: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def worker_threads() -> int:
    """Threads for engine work: the physical cores it may use less one for the window, at least one."""
    return max(1, allowed_cores(psutil.cpu_count(logical=False) or psutil.cpu_count() or 2) - 1)


def available_providers() -> tuple[str, ...]:
    """Execution providers installed here that run a model on this machine, CPU last."""
    return tuple(name for name in ort.get_available_providers() if name != _REMOTE)


def resolve_provider(name: str) -> str:
    """The full name of an execution provider given by short name ("cpu", "cuda", "openvino").

    Raises:
        MeasureError: it is not installed here; the message lists what is.
    """
    if not name:
        return CPU
    for provider in available_providers():
        if name.lower() in (provider.lower(), provider.removesuffix("ExecutionProvider").lower()):
            return provider
    installed = ", ".join(p.removesuffix("ExecutionProvider").lower() for p in available_providers())
    raise MeasureError(
        f"execution provider {name!r} is not installed",
        hint=Hint(
            f"Others come with other builds of onnxruntime. Installed here: {installed}",
            HintAction.CHOOSE_DEVICE,
        ),
    )


def open_session(
    model: Path | bytes | ModelProto,
    *,
    threads: int | None = None,
    optimization: Optimization = Optimization.ALL,
    provider: str = CPU,
    optimized_path: Path | None = None,
    profile_prefix: Path | None = None,
    keep_float_layers: bool = True,
    initializers: Mapping[str, NDArray[np.generic]] | None = None,
    is_large: bool = False,
    cancel: CancelToken | None = None,
) -> ort.InferenceSession:
    """A session with explicit threads.

    Args:
        model: File (preferred: no copy, external data is found), serialized bytes, or a model in memory,
            whose mapped weights are used where they lie.
        threads: Intra-op threads; None for `worker_threads()`.
        optimization: Graph optimization level.
        provider: Full provider name; CPU is always the fallback.
        optimized_path: Where to write the optimized graph.
        profile_prefix: Turns profiling on; never time with it.
        keep_float_layers: Disable the optimizers that re-quantize float layers.
        initializers: Values of the model's external initializers, by name; the caller keeps them alive as
            long as the session. (Not `SessionOptions.add_initializer`: full optimization silently ignores a
            Conv weight replaced that way, seen in 1.31.)
        is_large: Weights are too many to copy: without optimization they are used where they lie, and the
            optimized graph keeps them in a file of its own.
        cancel: Ends the load, between two steps of it, when set.

    Raises:
        ModelLoadError: the runtime refuses the model; the message is the runtime's first line.
        JobCancelled: `cancel` was set.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or worker_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _LEVELS[optimization]
    options.log_severity_level = 4
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
        for key, value in _WEIGHTS_BESIDE if is_large else ():
            options.add_session_config_entry(key, value.format(optimized_path.name))
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if isinstance(model, ModelProto):
        model, own = _referring(model)
        initializers = {**own, **(initializers or {})}
    if is_large and optimization is Optimization.NONE:
        options.add_session_config_entry("session.disable_prepacking", "1")
        # The default order runs what reads constants alone first: all dequantized weights at once, in 1.31.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if initializers:
        values = [ort.OrtValue.ortvalue_from_numpy(value) for value in initializers.values()]
        options.add_external_initializers(list(initializers), values)
    providers = [provider] if provider == CPU else [provider, CPU]
    source = model if isinstance(model, bytes) else str(model)
    token = cancel or never_cancelled()
    token.raise_if_set()
    try:
        with token.on_set(partial(options.set_load_cancellation_flag, True)):
            return ort.InferenceSession(
                source,
                options,
                providers=providers,
                disabled_optimizers=list(SILENT_REQUANTIZERS) if keep_float_layers else None,
            )
    except Exception as error:  # the runtime's exception classes share no public base
        token.raise_if_set()
        raise ModelLoadError(
            f"ONNX Runtime refuses the model: {first_line(error)}",
            where=str(model) if isinstance(model, Path) else "",
            hint="It is damaged or made for another runtime: get it again from its source",
        ) from error


def _referring(model: ModelProto) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    """A model without the weights it has in a file, and these."""
    if not holds_mapped(model):
        return bytes(model.SerializeToString()), {}
    bare = ModelProto()
    bare.CopyFrom(model)
    own = {}
    for tensor in filter(is_mapped, bare.graph.initializer):
        own[tensor.name] = as_array(tensor)
        tensor.CopyFrom(reference(tensor))
    return bytes(bare.SerializeToString()), own


def reference(tensor: TensorProto) -> TensorProto:
    """An initializer without its values, which `open_session` is given by name."""
    made = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    # The runtime wants a place, and does not look there for initializers it is handed.
    point_to(made, "-", 0, content_bytes(tensor))
    return made


def run(
    session: ort.InferenceSession,
    feed: Feed,
    outputs: Sequence[str] | None = None,
    options: ort.RunOptions | None = None,
    *,
    cancel: CancelToken | None = None,
) -> list[NDArray[np.generic]]:
    """Outputs of one run.

    Args:
        session: The model.
        feed: Arrays by input name.
        outputs: Which outputs; None for all.
        options: Another thread may end the run through `options.terminate`.
        cancel: Ends the run, at the next operator, when set.

    Raises:
        MeasureError: the runtime fails; the message is its first line.
        JobCancelled: `cancel` was set.
    """
    options = options or ort.RunOptions()
    names = list(outputs) if outputs is not None else None
    token = cancel or never_cancelled()
    token.raise_if_set()
    with token.on_set(partial(setattr, options, "terminate", True)), run_failures(token):
        return list(session.run(names, dict(feed), options))


@contextmanager
def run_failures(cancel: CancelToken) -> Iterator[None]:
    """The runtime's own exceptions as ours.

    Raises:
        MeasureError: a run failed; the message is its first line.
        JobCancelled: it failed because `cancel` ended it.
    """
    try:
        yield
    except Exception as error:  # the runtime's exception classes share no public base
        cancel.raise_if_set()
        raise MeasureError(
            f"the model does not run on this data: {first_line(error)}",
            hint=Hint(
                "Compare the names, types and shapes of the data with those of the model's inputs",
                HintAction.CHECK_DATA,
            ),
        ) from error


def fitted_feed(session: ort.InferenceSession, feed: Feed) -> dict[str, NDArray[np.generic]]:
    """The feed under the session's own input names.

    Two exports of one network often differ in the name of their input; where there is only one, its name does
    not matter.
    """
    names = [one.name for one in session.get_inputs()]
    if len(names) == len(feed) == 1:
        return {names[0]: next(iter(feed.values()))}
    return dict(feed)


def check_provider(session: ort.InferenceSession, provider: str) -> None:
    """Refuse a session that does not run on the provider it was asked for.

    The runtime leaves a model to the CPU when a provider's driver is missing, and says nothing.

    Raises:
        MeasureError: it runs on another one.
    """
    actual = str(session.get_providers()[0])
    if actual != provider:
        raise MeasureError(
            f"{provider} is installed but could not start",
            hint=Hint(f"Check its driver, or use {actual}", HintAction.CHOOSE_DEVICE),
        )


def first_line(error: BaseException) -> str:
    """First line of a runtime's message, without its class prefix; what does not fit of a wrong shape."""
    text = str(error).strip().splitlines()
    axes = _AXIS.findall(str(error))
    name = _INPUT.search(text[0]) if text else None
    if axes and name is not None:
        unfit = ", ".join(f"{got} where it wants {wanted} along axis {axis}" for axis, got, wanted in axes)
        return f"its input {name[1]!r} got {unfit}"
    return _CODE.sub("", text[0])[:400] if text else type(error).__name__
