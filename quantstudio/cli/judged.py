"""Options that say what the outputs mean and where the samples are, spelled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from quantstudio.core.data_spec import BatchAxes, parse_batch_axes
from quantstudio.core.errors import DataError
from quantstudio.core.judgement import Judging, Task

TaskOption = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="|".join(Task),
        help="What the network is for; without it that is inferred from labels, shapes, operators and names.",
    ),
]
JudgedOutputOption = Annotated[
    str, typer.Option("--judged-output", "--output", metavar="NAME", help="Output of the model to judge.")
]
# Where --output already is the file to write.
OtherOutputOption = Annotated[
    str, typer.Option("--judged-output", metavar="NAME", help="Output of the model to judge.")
]
MetricOption = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="MODULE:CALLABLE",
        help="Metric of your own, with --trust: called with the outputs of one sample by name and its label "
        "or None, returns a share, higher is better.",
    ),
]
BatchAxisOption = Annotated[
    list[str] | None,
    typer.Option(
        "--batch-axis",
        metavar="NAME=K",
        help="Axis of the samples in an input or output, where the model's symbols do not say; may be given "
        "again.",
    ),
]


def judging_of(task: str, output: str, metric: str = "") -> Judging:
    """What the options say of the outputs.

    Raises:
        DataError: there is no such task.
    """
    if task and task not in list(Task):
        raise DataError(f"unknown task {task!r}", hint=f"Choose one of {', '.join(Task)}")
    return Judging(Task(task) if task else None, output, metric)


def batch_axes_of(texts: Sequence[str] | None) -> BatchAxes:
    """Axes by input or output.

    Raises:
        DataError: one is not NAME=K, or a name comes twice.
    """
    return parse_batch_axes(texts or ())
