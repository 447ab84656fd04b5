"""Options several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quantstudio.core.codec import to_json
from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import OutputError

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="ONNX file; or, with --trust, .pt2, TorchScript or module:factory."),
]
DataOption = Annotated[
    str,
    typer.Option("--data", metavar="D", help="npz file, folder of images, or module:callable with --trust."),
]
TransformOption = Annotated[
    str,
    typer.Option(
        "--transform", metavar="T", help='For example "scale=1/255 mean=0.2860 std=0.3530 layout=NCHW".'
    ),
]
SamplesOption = Annotated[
    int, typer.Option("--samples", min=1, help="Samples to use, from the start of the data.")
]
JsonOption = Annotated[
    str, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - for standard output.")
]
TrustOption = Annotated[bool, typer.Option("--trust", help="Agree that opening this file runs code.")]
FactoryOption = Annotated[
    str,
    typer.Option("--factory", metavar="MODULE:CALLABLE", help="Makes the network a state_dict belongs to."),
]


def data_json(path: str, transform: str, *, samples: int = 0, trust: bool = False) -> dict[str, Any]:
    """A data set reference as tasks take it.

    Raises:
        DataError: the transform cannot be read.
    """
    spec = DataSpec(path=path, transform=parse_transform(transform), samples=samples, trusted=trust)
    return dict(to_json(spec))


def checked_output(path: str) -> Path:
    """The output path, refused before any work is done if it cannot be written.

    Raises:
        OutputError: the folder does not exist, or the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError("the output is a folder", where=path, hint="Give a file name")
    if not target.parent.is_dir():
        raise OutputError("the output folder does not exist", where=str(target.parent), hint="Make it first")
    return target


def split_model(model: str, factory: str) -> dict[str, str]:
    """Parameters of `open_model`: a state_dict is a state put onto a factory."""
    return {"path": factory, "state": model} if factory else {"path": model, "state": ""}
