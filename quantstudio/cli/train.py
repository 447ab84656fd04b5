"""`quantstudio train`: train a network through its rounding, towards another one, or as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer

from quantstudio.cli.compare import print_comparison
from quantstudio.cli.compressing import Asked, Compressed, SeedOption, compressed, tell
from quantstudio.cli.execution import run_task
from quantstudio.cli.judged import (
    BatchAxisOption,
    MetricOption,
    OtherOutputOption,
    TaskOption,
    batch_axes_of,
    judging_of,
)
from quantstudio.cli.options import (
    CalibrationSamplesOption,
    DataOption,
    FactoryOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    RecipeOption,
    RulesOption,
    TargetOption,
    TransformOption,
    TrustOption,
    absolute,
    data_json,
)
from quantstudio.cli.output import write_json
from quantstudio.core.errors import RecipeError
from quantstudio.core.results import CompareResult
from quantstudio.core.schemes import NAMED_SCHEMES, listed_schemes
from quantstudio.core.steps import SettingValue, Step

app = typer.Typer(
    help="Train a network: through its rounding (qat), towards the answers of another (distill), or as it is "
    "(finetune). A run that was ended goes on where it was when the same command is given again.",
    no_args_is_help=True,
    add_completion=False,
)

TestOption = Annotated[
    str, typer.Option("--test", metavar="T", help="Data to compare the result with the original on.")
]
MethodOption = Annotated[
    str,
    typer.Option("--method", metavar="NAME,...", help="Steps before the training, in their order: gptq."),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help="Scheme of every layer that can have it; default: static-int8, and fp32 for finetune. "
        f"{listed_schemes(NAMED_SCHEMES)}.",
    ),
]
EpochsOption = Annotated[
    float | None,
    typer.Option("--epochs", help="How often every sample is trained on; 0.5 for every second one."),
]
RateOption = Annotated[
    float | None,
    typer.Option("--rate", help="Largest step, of the spread of a channel's weights; default: 0.002."),
]
BatchOption = Annotated[int | None, typer.Option("--batch", help="Samples of a step.")]
TrainSamplesOption = Annotated[
    int | None, typer.Option("--train-samples", help="Samples to train on; default: all of the data.")
]
TeacherOption = Annotated[
    float | None,
    typer.Option("--teacher", help="Part of the original network's answers beside the labels, 0 to 1."),
]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", help="Above 1, the teacher's small scores count for more.")
]
PatienceOption = Annotated[
    float | None, typer.Option("--patience", help="End behind so many epochs without a better state.")
]
FlipOption = Annotated[bool, typer.Option("--flip", help="Mirror every other picture left to right.")]
CropOption = Annotated[int | None, typer.Option("--crop", help="Move pictures by up to so many pixels.")]
LossOption = Annotated[
    str,
    typer.Option("--loss", metavar="MODULE:CALLABLE", help="A loss of your own; needs --trust."),
]
FeaturesOption = Annotated[
    str, typer.Option("--features", metavar="NODE,...", help="Nodes whose outputs are compared as well.")
]
StudentOption = Annotated[
    str,
    typer.Option(
        "--student", help="Train this network to answer as MODEL, instead of MODEL; with --trust a factory."
    ),
]


@app.command("qat")
def qat(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    test: TestOption = "",
    preset: PresetOption = "",
    recipe: RecipeOption = "",
    rules: RulesOption = None,
    method: MethodOption = "",
    epochs: EpochsOption = None,
    rate: RateOption = None,
    batch: BatchOption = None,
    train_samples: TrainSamplesOption = None,
    teacher: TeacherOption = None,
    temperature: TemperatureOption = None,
    patience: PatienceOption = None,
    flip: FlipOption = False,
    crop: CropOption = None,
    loss: LossOption = "",
    target: TargetOption = "",
    samples: CalibrationSamplesOption = None,
    seed: SeedOption = None,
    transform: TransformOption = "",
    task: TaskOption = "",
    judged_output: OtherOutputOption = "",
    metric: MetricOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Train through the rounding of a preset or recipe; the recipe is written beside the file."""
    settings = _settings(
        epochs=epochs, rate=rate, batch=batch, samples=train_samples, teacher=teacher,
        temperature=temperature, patience=patience, flip=flip or None, crop=crop, loss=loss or None,
    )  # fmt: skip
    asked = Asked(
        model, output, data, transform, preset, recipe, tuple(rules or ()), target, samples, seed, 0.0, task,
        judged_output, metric, tuple(batch_axis or ()), trust, factory, json, "static-int8",
    )  # fmt: skip
    _train(asked, [*_named(method), Step("qat", settings)], test)


@app.command("finetune")
def finetune(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    test: TestOption = "",
    preset: PresetOption = "",
    recipe: RecipeOption = "",
    rules: RulesOption = None,
    epochs: EpochsOption = None,
    rate: RateOption = None,
    batch: BatchOption = None,
    train_samples: TrainSamplesOption = None,
    teacher: TeacherOption = None,
    temperature: TemperatureOption = None,
    patience: PatienceOption = None,
    flip: FlipOption = False,
    crop: CropOption = None,
    loss: LossOption = "",
    target: TargetOption = "",
    samples: CalibrationSamplesOption = None,
    seed: SeedOption = None,
    transform: TransformOption = "",
    task: TaskOption = "",
    judged_output: OtherOutputOption = "",
    metric: MetricOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Train the float network, before the steps of a recipe that round; nothing is quantized by default."""
    settings = _settings(
        epochs=epochs, rate=rate, batch=batch, samples=train_samples, teacher=teacher,
        temperature=temperature, patience=patience, flip=flip or None, crop=crop, loss=loss or None,
    )  # fmt: skip
    asked = Asked(
        model, output, data, transform, preset, recipe, tuple(rules or ()), target, samples, seed, 0.0, task,
        judged_output, metric, tuple(batch_axis or ()), trust, factory, json, "fp32",
    )  # fmt: skip
    _train(asked, [Step("finetune", settings)], test)


@app.command("distill")
def distill(
    model: ModelArgument,
    output: OutputOption,
    data: DataOption = "",
    test: TestOption = "",
    student: StudentOption = "",
    preset: PresetOption = "",
    recipe: RecipeOption = "",
    rules: RulesOption = None,
    method: MethodOption = "",
    epochs: EpochsOption = None,
    rate: RateOption = None,
    batch: BatchOption = None,
    train_samples: TrainSamplesOption = None,
    temperature: TemperatureOption = None,
    features: FeaturesOption = "",
    patience: PatienceOption = None,
    flip: FlipOption = False,
    crop: CropOption = None,
    target: TargetOption = "",
    samples: CalibrationSamplesOption = None,
    seed: SeedOption = None,
    transform: TransformOption = "",
    task: TaskOption = "",
    judged_output: OtherOutputOption = "",
    metric: MetricOption = "",
    batch_axis: BatchAxisOption = None,
    trust: TrustOption = False,
    factory: FactoryOption = "",
    json: JsonOption = "",
) -> None:
    """Train towards the answers of MODEL, without labels: its own quantized form, or another network."""
    settings = _settings(
        epochs=epochs, rate=rate, batch=batch, samples=train_samples, temperature=temperature,
        features=features or None, patience=patience, flip=flip or None, crop=crop,
    )  # fmt: skip
    asked = Asked(
        student or model, output, data, transform, preset, recipe, tuple(rules or ()), target, samples, seed,
        0.0, task, judged_output, metric, tuple(batch_axis or ()), trust, factory, json,
        "fp32" if student else "static-int8",
    )  # fmt: skip
    if student:
        settings = {**settings, **_teacher(model, trust=trust)}
    _train(asked, [*_named(method), Step("distill", settings)], test, base=model)


def _teacher(model: str, *, trust: bool) -> Mapping[str, SettingValue]:
    """The network to learn from, opened and named by its content."""
    from quantstudio.engine.tasks.models import open_model

    summary = run_task(open_model, path=model, trust=trust)
    # What was opened lies in the cache, whatever it came from: a file of weights or a program, too.
    own = absolute(model) if model.endswith(".onnx") else summary.graph_path
    return {"original": own, "original_digest": summary.digest}


def _settings(**given: SettingValue | None) -> dict[str, SettingValue]:
    """Those that are given."""
    return {name: value for name, value in given.items() if value is not None}


def _named(method: str) -> list[Step]:
    return [Step(name.strip()) for name in method.split(",") if name.strip()]


def _train(asked: Asked, steps: list[Step], test: str, base: str = "") -> None:
    """Build with the steps behind those of the recipe, or where they belong, and compare if asked."""
    if not asked.data:
        raise RecipeError("training needs data", hint="Give --data")
    done = compressed(asked, steps, behind=True, reads=[test, base])
    compared = _compared(asked, done, test, base) if test else None
    if asked.json and compared is not None:
        write_json("train", {**_document(done), "test": _compare_document(compared)}, asked.json)
        asked = replace(asked, json="-" if asked.json == "-" else "")
        if asked.json == "-":
            return
    tell(asked, done, "train")
    if compared is not None and asked.json != "-":
        print_comparison(compared)


def _document(done: Compressed) -> Mapping[str, Any]:
    from quantstudio.cli.building import build_json

    return build_json(done.build, done.file, done.paths.beside)


def _compare_document(result: CompareResult) -> Mapping[str, Any]:
    from quantstudio.engine.evaluation.compare import compare_json

    return compare_json(result)


def _compared(asked: Asked, done: Compressed, test: str, base: str) -> CompareResult:
    """The file that was written against the original, on other data."""
    from quantstudio.engine.tasks.compare import compare

    return run_task(
        compare,
        base=base or asked.model,
        variants=[str(done.paths.output)],
        data=data_json(
            test,
            asked.transform,
            trust=asked.trust,
            judging=judging_of(asked.task, asked.judged_output, asked.metric),
            batch_axes=batch_axes_of(list(asked.batch_axis)),
        ),
        trust=asked.trust,
    )
