"""What tasks are given as JSON values and paths, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from quantstudio.core.codec import CodecError, from_json
from quantstudio.core.data_spec import DataSpec, is_text
from quantstudio.core.errors import CalibrationError, DataError, RecipeError
from quantstudio.core.events import CancelToken, Reporter, Severity
from quantstudio.core.hints import Hint, HintAction
from quantstudio.core.layers import ModelSummary, TensorInfo
from quantstudio.core.precision import STATIC_INT8
from quantstudio.core.recipe import is_legal
from quantstudio.core.schemes import AUTO, preset_scheme
from quantstudio.core.statistics import Statistics
from quantstudio.core.statistics_file import load_statistics
from quantstudio.core.target import Target
from quantstudio.engine.data.dataset import Dataset, open_dataset
from quantstudio.engine.data.text import text_network
from quantstudio.engine.graph.graph import Graph
from quantstudio.engine.pipeline.observed import collected

T = TypeVar("T")

DEFAULT_SAMPLES = 512


def dataset_of(graph: Graph, data: Mapping[str, Any]) -> Dataset:
    """The data set of a `DataSpec` in JSON, opened for a model.

    Raises:
        RecipeError: a field is wrong.
        DataError: the data cannot be read, or does not fit the model, or an axis is given of nothing it has.
    """
    spec = value_of(DataSpec, data, "data")
    names = [one.name for one in (*graph.summary.inputs, *graph.summary.outputs)]
    for name, _ in spec.batch_axes:
        if name not in names:
            raise DataError(
                f"an axis of samples is given for {name!r}, which is no input or output of the model",
                hint=f"It has {', '.join(names)}",
            )
    summary = graph.summary
    network = text_network(summary) if is_text(spec.path) else None
    return open_dataset(spec, summary.inputs, classes=class_count(summary), network=network)


def statistics_of(graph: Graph, path: str) -> Statistics | None:
    """The statistics in a file; None for no path.

    Raises:
        CalibrationError: the file cannot be read, or was made from another model.
    """
    if not path:
        return None
    found = load_statistics(Path(path))
    if found.graph_digest != graph.digest:
        raise CalibrationError(
            "the statistics were collected on another model",
            where=path,
            hint=Hint("Calibrate this model", HintAction.CALIBRATE),
        )
    return found


def calibrated_ranges(
    graph: Graph,
    dataset: Dataset,
    samples: int,
    given: Statistics | None,
    reporter: Reporter,
    cancel: CancelToken,
) -> Statistics | None:
    """Statistics of a graph for analyses: those given if they are its own, else collected once and kept.

    None where a tensor holds NaN or infinity, which is told: weights can be analyzed all the same.

    Raises:
        JobCancelled: `cancel` was set.
    """
    try:
        return collected(graph, dataset, samples, given=given, reporter=reporter, cancel=cancel)
    except CalibrationError as error:
        reporter.message(f"{error.one_line} Static precisions are left out", Severity.WARNING)
        return None


def needs_statistics(graph: Graph, preset: str, target: Target) -> bool:
    """Whether a preset makes anything static on a target."""
    # What no layer can be is refused, or done without, when it is built.
    asked = STATIC_INT8 if preset == AUTO else preset_scheme(preset)
    return asked.is_static and any(is_legal(layer, asked, target) for layer in graph.layers)


def value_of(kind: type[T], value: Mapping[str, Any], where: str) -> T:
    """A frozen value from JSON.

    Raises:
        RecipeError: a field is missing or wrong; the message names it after `where`.
    """
    try:
        return from_json(kind, value, where)
    except CodecError as error:
        raise RecipeError(str(error), hint="Check the file against one written by this version") from error


def class_count(summary: ModelSummary) -> int | None:
    """How many classes the network tells apart at most, where an output says so: [N, K] float scores, K > 1.

    One column is a regression or a yes-or-no, and the labels tell which. Which of several outputs the labels
    are about is found out later, from more than shapes.
    """
    return max((count for output in summary.outputs if (count := _scores_of(output))), default=None)


def _scores_of(output: TensorInfo) -> int | None:
    if not output.dtype.startswith(("float", "bfloat")):
        return None
    _, *rest = output.shape or (None,)
    if not rest or any(size != 1 for size in rest[1:]):
        return None
    return rest[0] if isinstance(rest[0], int) and rest[0] > 1 else None
