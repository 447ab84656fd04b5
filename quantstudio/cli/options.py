"""Options several commands share, spelled once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import DataError, ModelLoadError, OutputError, RecipeError
from quantstudio.core.files import file_digest
from quantstudio.core.judgement import INFERRED, Judging
from quantstudio.core.recipe import LayerRule
from quantstudio.core.schemes import NAMED_SCHEMES, listed_schemes, named_scheme
from quantstudio.core.target import DEFAULT_TARGET, targets
from quantstudio.project.recipe_file import ModelSource
from quantstudio.project.references import is_callable_name

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="ONNX file; or, with --trust, .pt2, TorchScript or module:factory."),
]
OutputOption = Annotated[str, typer.Option("-o", "--output", metavar="OUT.onnx", help="File to write.")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="D",
        help="npz file (an array per input, or images/x; labels or y), folder of images (one subfolder per "
        "class), text (.txt, or .jsonl with a text a line; tokenizer.json beside it or beside the model), or "
        "module:callable with --trust.",
    ),
]
TransformOption = Annotated[
    str,
    typer.Option(
        "--transform",
        metavar="T",
        help="What each sample goes through, of resize= crop= channels= scale= mean= std= layout=; for "
        'example "scale=1/255 mean=0.2860 std=0.3530 layout=NCHW". Of text: context=256, tokens a window.',
    ),
]
SamplesOption = Annotated[
    int, typer.Option("--samples", min=1, help="Samples to use, from the start of the data.")
]
StatisticsOption = Annotated[
    str,
    typer.Option(
        "--statistics", metavar="STATS.npz", help="What `quantstudio calibrate` wrote for this model."
    ),
]
RecipeOption = Annotated[
    str, typer.Option("--recipe", metavar="R.json", help="Recipe file, instead of a preset.")
]
RulesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATTERN=SCHEME",
        help='Scheme of the layers that match, such as "stem*=fp32"; may be given again, the last match '
        f"wins. Schemes: {listed_schemes(NAMED_SCHEMES)}; weight-W/64 has blocks of 64 weights, "
        "weight-W/64/asymmetric a zero point for each.",
    ),
]
UnpackedOption = Annotated[
    bool,
    typer.Option(
        "--unpacked",
        help="Write a byte a weight below 8 bits, for runtimes that do not unpack when they load a file.",
    ),
]
RangeMethodOption = Annotated[
    str,
    typer.Option(
        "--range-method",
        help="Range method for activations: minmax, percentile, mse (the default) or entropy.",
    ),
]
CalibrationSamplesOption = Annotated[
    int | None,
    typer.Option(
        "--samples", min=1, help="Samples to calibrate with; default: 512, or what the recipe says."
    ),
]
JsonOption = Annotated[
    str, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output.")
]
ProviderOption = Annotated[
    str, typer.Option("--provider", help="Execution provider: cpu, cuda, openvino, ... (see `devices`).")
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        help="What to quantize for; default: what the recipe says, or what fits this machine "
        f"({DEFAULT_TARGET.name}). " + " ".join(f"{one.name}: {one.text}." for one in targets()),
    ),
]
TrustOption = Annotated[bool, typer.Option("--trust", help="Agree that opening this file runs code.")]
FactoryOption = Annotated[
    str,
    typer.Option("--factory", metavar="MODULE:CALLABLE", help="Makes the network a state_dict belongs to."),
]


def data_json(
    path: str,
    transform: str,
    *,
    samples: int = 0,
    trust: bool = False,
    judging: Judging = INFERRED,
    batch_axes: tuple[tuple[str, int], ...] = (),
) -> dict[str, Any]:
    """A data set reference as tasks take it, with what is said of the outputs.

    Raises:
        DataError: the path is empty, or the transform cannot be read.
    """
    if not path.strip():
        raise DataError("--data names no file", hint="Give --data FILE.npz or a folder of images")
    spec = DataSpec(path, parse_transform(transform), samples, trust, batch_axes, judging)
    return dict(to_json(spec))


def checked_output(path: str, *, inputs: Iterable[str] = ()) -> Path:
    """The output path, refused before any work is done if it cannot be written.

    Args:
        path: What the user gave.
        inputs: Files that are read or written besides, which it must not replace.

    Raises:
        OutputError: the folder does not exist or is read-only, the path is a folder or one of `inputs`.
    """
    if not path.strip():
        raise OutputError("an output has no name", hint="Give a file name")
    target = Path(path)
    try:
        is_folder, has_folder = target.is_dir(), target.parent.is_dir()
        taken = next((name for name in inputs if name and _is_same(target, name)), None)
    except (OSError, ValueError) as error:  # a name too long, or with characters no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"not a file name ({reason.lower()})", where=path, hint="Give another") from error
    if is_folder:
        raise OutputError("the output is a folder", where=path, hint="Give a file name")
    if not has_folder:
        raise OutputError("the output folder does not exist", where=str(target.parent), hint="Make it first")
    if taken is not None:
        raise OutputError(
            "the output would replace another file of this run", where=path, hint="Give another name"
        )
    if not os.access(target.parent, os.W_OK):
        raise OutputError(
            "the output folder is read-only", where=str(target.parent), hint="Choose one you can write to"
        )
    return target


def made_folder(path: str) -> Path:
    """A folder to write into; made if it is missing.

    Raises:
        OutputError: it cannot be made, or is a file.
    """
    folder = Path(path)
    try:
        folder.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"the folder cannot be made ({reason.lower()})", where=path) from error
    return folder


def check_json(path: str, *, inputs: Iterable[str] = ()) -> None:
    """Refuse a --json file that cannot be written before any work is done.

    Raises:
        OutputError: see `checked_output`.
    """
    if path not in ("", "-"):
        checked_output(path, inputs=inputs)


def split_model(model: str, factory: str) -> dict[str, str]:
    """Parameters of `open_model`: a state_dict is a state put onto a factory.

    Raises:
        ModelLoadError: the path is empty.
    """
    if not model.strip():
        raise ModelLoadError("MODEL names no file", hint="Give an ONNX file")
    return {"path": factory, "state": model} if factory else {"path": model, "state": ""}


def layer_rule(option: str, text: str) -> LayerRule:
    """The rule that an option such as --set "stem*=fp32" gives.

    Raises:
        RecipeError: it is not PATTERN=SCHEME, or there is no such scheme.
    """
    pattern, equals, name = text.rpartition("=")
    hint = f"Schemes: {listed_schemes(NAMED_SCHEMES)}"
    if not equals:
        raise RecipeError(f"{option} {text!r} is not PATTERN=SCHEME", hint=hint)
    try:
        return LayerRule(named_scheme(name), (pattern,))
    except RecipeError as error:
        raise RecipeError(f"{option} {text!r}: {error.what}", hint=error.hint) from error


def model_source(model: str, factory: str) -> ModelSource:
    """What a recipe says of the model it was made for."""
    path = Path(model)
    return ModelSource(absolute(model), file_digest(path) if path.is_file() else "", factory)


def absolute(path: str) -> str:
    """The path as a printed recipe needs it, which may be saved anywhere; links are kept."""
    return path if is_callable_name(path) else os.path.abspath(path)  # noqa: PTH100  resolve follows links


def _is_same(target: Path, name: str) -> bool:
    other = Path(name)
    if target.exists() and other.exists():
        return target.samefile(other)
    return target.resolve() == other.resolve()
