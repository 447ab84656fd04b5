"""`quantstudio data`: the transform a network wants of a data set, and what is wrong with either."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quantstudio.cli.execution import run_task
from quantstudio.cli.judged import (
    BatchAxisOption,
    JudgedOutputOption,
    TaskOption,
    batch_axes_of,
    judging_of,
)
from quantstudio.cli.options import (
    FactoryOption,
    JsonOption,
    ModelArgument,
    TrustOption,
    check_json,
    data_json,
    split_model,
)
from quantstudio.cli.output import console_for, print_table, write_json
from quantstudio.cli.wording import worded
from quantstudio.core.codec import to_json
from quantstudio.core.diagnosis import Caution, DataFigure, Diagnosis, Ground, Trial
from quantstudio.core.figures import MINUS, THIN_SPACE, count, counted, number, percent

_CLASSES_SHOWN = 20
_TRIALS_SHOWN = 8


def command(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="npz file, folder of images, or module:callable with --trust, to calibrate with.",
        ),
    ],
    test: Annotated[
        str, typer.Option("--test", metavar="T", help="Data that accuracy is measured on; DATA without it.")
    ] = "",
    transform: Annotated[
        str | None,
        typer.Option(
            "--transform",
            metavar="T",
            help='Check this transform instead of proposing one; "" for none at all.',
        ),
    ] = None,
    task: TaskOption = "",
    output: JudgedOutputOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Propose a transform by trying, show FP32 accuracy with it, and say what is wrong with the data."""
    from quantstudio.engine.tasks.data import examine_data
    from quantstudio.engine.tasks.models import open_model

    check_json(json, inputs=(model, data, test))
    axes, judging = batch_axes_of(batch_axis), judging_of(task, output)
    given, judged = (
        data_json(one, transform or "", trust=trust, judging=judging, batch_axes=axes) if one else None
        for one in (data, test)
    )
    summary = run_task(open_model, trust=trust, **split_model(model, factory))
    found = run_task(
        examine_data,
        graph_path=summary.graph_path,
        data=given,
        test=judged,
        is_asked=transform is not None,
    )
    if json:
        write_json("data", diagnosis_json(found), json)
    if json != "-":
        _print(found)


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """The document `data --json` writes: transforms as --transform takes them, no pictures."""
    document: dict[str, Any] = to_json(found)
    document |= {
        "proposed": _trial_json(found.proposed),
        "asked": None if found.asked is None else _trial_json(found.asked),
        "trials": [_trial_json(one) for one in found.trials],
        "cautions": [
            {
                "trouble": one.trouble.value,
                "text": one.text,
                "hint": one.hint.text,
                "transform": None if one.transform is None else one.transform.text,
                "is_certain": one.is_certain,
            }
            for one in found.cautions
        ],
        "shown": [
            {"index": one.index, "text": one.text, "label": one.label, "answer": one.answer}
            for one in found.shown
        ],
    }
    return document


def _trial_json(one: Trial) -> dict[str, Any]:
    return {
        "transform": one.transform.text,
        "title": one.title,
        "score": to_json(one.score),
        "samples": one.samples,
    }


def _print(found: Diagnosis) -> None:
    console = console_for("")
    for line in _head(found):
        console.print(plain(line))
    if found.trials and found.trials[0].samples:
        _print_trials(found)
    else:
        console.print(plain(f"{found.reason}."))
    if found.classes:
        rows = [(str(one.index), one.name, plain(count(one.count))) for one in found.classes[:_CLASSES_SHOWN]]
        more = len(found.classes) - _CLASSES_SHOWN
        title = "classes" if more <= 0 else f"classes, the first {_CLASSES_SHOWN} of {len(found.classes)}"
        print_table(console, title, ("#", "name", "samples"), rows, right=(0, 2))
    for row in found.shown if all(row.text for row in found.shown) else ():
        console.print(f"sample {row.index}: {row.text}" + (f"  ({row.label})" if row.label else ""))
    for caution in found.cautions:
        console.print(plain(_warning(caution)))
    if found.figure is not None:
        console.print(plain(_figure(found.figure)))
    if found.asked is None:
        console.print(f'use it with: --transform "{found.proposed.transform.text}"')
    elif found.asked.transform == found.proposed.transform:
        console.print("nothing does better than this transform")


def _head(found: Diagnosis) -> list[str]:
    classes = (
        f", {counted(len(found.classes), 'class').replace('classs', 'classes')}" if found.classes else ""
    )
    lines = [f"{Path(found.path).name}: {count(found.samples)} samples{classes}"]
    lines += [
        f"input {one.name}: stored {one.stored}, {number(one.stored_low, 2)} to "
        f"{number(one.stored_high, 2)}; the network gets {one.given}, {number(one.low, 2)} to "
        f"{number(one.high, 2)}, mean {number(one.mean, 2)}, deviation {number(one.std, 2)}"
        for one in found.inputs
    ]
    if found.judgement is not None:
        lines.append(f"judged as {found.judgement.task.value}: {found.judgement.reason}")
    if found.segments:
        lines.append(f"other columns: {', '.join(found.segments)}")
    return lines


def _print_trials(found: Diagnosis) -> None:
    is_share = found.ground is Ground.LABELS and (found.figure is None or found.figure.is_share)
    score = {
        Ground.LABELS: "accuracy" if is_share else "R²",
        Ground.CONFIDENCE: "told, nats",
        Ground.STATISTICS: "apart, nats",
    }.get(found.ground, "score")

    def written(value: float) -> str:
        if is_share:
            return plain(percent(value))
        return plain(number(-value if found.ground is Ground.STATISTICS else value, 3))

    rows = [
        (one.transform.text or "(none)", plain(one.title), written(one.score), str(one.samples))
        for one in found.trials[:_TRIALS_SHOWN]
    ]
    print_table(
        console_for(""),
        plain(found.reason),
        ("transform", "what it is", score, "samples"),
        rows,
        right=(2, 3),
    )


def _warning(caution: Caution) -> str:
    kind = "warning" if caution.is_certain else "note"
    hint = f" {worded(caution.hint)}." if caution.hint else ""
    transform = f' Try --transform "{caution.transform.text}".' if caution.transform is not None else ""
    return f"{kind}: {caution.text}" + (transform or hint)


def _figure(figure: DataFigure) -> str:
    write = percent if figure.is_share else number
    low, high = write(figure.low), write(figure.high)
    where = f"{count(figure.samples)} of {count(figure.total)} samples of {Path(figure.source).name}"
    which = ", which also calibrates" if figure.is_calibration else ""
    return f"{figure.label} of FP32 {write(figure.value)} [{low}, {high}], measured on {where}{which}"


def plain(text: str) -> str:
    """Figures with spaces and signs that every terminal has."""
    return text.replace(THIN_SPACE, " ").replace(MINUS, "-")
