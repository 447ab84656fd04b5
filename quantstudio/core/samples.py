"""The bundled samples: small trained networks with data, found in a checkout and in an installation."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from quantstudio.core.errors import DataError

# It loses something at INT8, and everything here shows where.
DEFAULT_SAMPLE = "digits_uneven"
# The easy case: smaller, faster, nothing lost.
EASY_SAMPLE = "digits_resnet"

_TRANSFORM = "scale=1/16 layout=NCHW"
_SAMPLES = {
    "digits_uneven": (
        "CNN with uneven channels",
        "INT8 costs it three points, nearly all in one layer: see which, then keep it float or equalize.",
    ),
    "digits_resnet": ("Residual CNN on digits", "7 convolutions with shortcuts, ReLU, one linear layer."),
    "digits_mobilenet": (
        "Depthwise CNN on digits",
        "Inverted residuals with ReLU6; one scale for a whole weight costs it accuracy.",
    ),
    "digits_transformer": (
        "Small transformer on digits",
        "16 patches, 4 encoder blocks with LayerNorm, GELU and Softmax.",
    ),
    "digits_two_bits": (
        "Two bits a weight",
        "Rounded to four levels it only guesses; steps win it back, at a thirteenth of the size.",
    ),
}
# A sample that opens with a plan: whose network it is, and what every layer begins in.
_PLANS = {"digits_two_bits": ("digits_resnet", "static-int2")}


@dataclass(frozen=True, slots=True)
class Sample:
    """A model with training and test data that nobody has to look for.

    Attributes:
        name: Short name.
        model: ONNX file.
        train: npz to calibrate from.
        test: npz to measure on.
        transform: What makes model inputs of the stored images, as `parse_transform` reads it.
        title: A few words for a menu.
        text: One sentence about what it shows.
        scheme: Scheme its plan begins with; empty for the usual one.
    """

    name: str
    model: Path
    train: Path
    test: Path
    transform: str
    title: str
    text: str
    scheme: str = ""


def sample_names() -> tuple[str, ...]:
    """Names of the bundled samples, the default first."""
    return tuple(_SAMPLES)


def sample_title(name: str) -> str:
    """A few words for a menu; the samples need not be installed."""
    return _SAMPLES[name][0]


def sample(name: str = DEFAULT_SAMPLE) -> Sample:
    """A bundled sample by name.

    Raises:
        DataError: the name is unknown (the message lists the known ones), or its files are not installed.
    """
    if name not in _SAMPLES:
        raise DataError(f"unknown sample {name!r}", hint=f"Known samples: {', '.join(_SAMPLES)}")
    folder = samples_folder()
    title, text = _SAMPLES[name]
    network, scheme = _PLANS.get(name, (name, ""))
    found = Sample(
        name=name,
        model=folder / f"{network}.onnx",
        train=folder / "digits_train.npz",
        test=folder / "digits_test.npz",
        transform=_TRANSFORM,
        title=title,
        text=text,
        scheme=scheme,
    )
    for path in (found.model, found.train, found.test):
        if not path.is_file():
            raise DataError(
                f"the bundled sample {name!r} is incomplete",
                where=str(path),
                hint="Install again, or set QUANTSTUDIO_SAMPLES to resources/samples of a checkout",
            )
    return found


def samples_folder() -> Path:
    """Folder of the bundled samples.

    QUANTSTUDIO_SAMPLES decides where it is set; else the checkout this package lies in; else the shared
    data of the installation.

    Raises:
        DataError: there is none; the message lists where it was looked for.
    """
    named = os.environ.get("QUANTSTUDIO_SAMPLES")
    if named:
        candidates = [Path(named)]
    else:
        candidates = [
            Path(__file__).resolve().parents[2] / "resources" / "samples",
            Path(sys.prefix) / "share" / "quantstudio" / "samples",
        ]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise DataError(
        "the bundled samples are not installed",
        where=" and ".join(str(folder) for folder in candidates),
        hint="Set QUANTSTUDIO_SAMPLES to resources/samples of a checkout",
    )
