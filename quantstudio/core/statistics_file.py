"""Statistics on disk: one .npz that needs numpy only, with the same bytes for the same values."""

from __future__ import annotations

import hashlib
import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from quantstudio.core.errors import CalibrationError
from quantstudio.core.files import write_bytes
from quantstudio.core.statistics import Histogram, Statistics, WeightStatistics

STATISTICS_SCHEMA = "quantstudio.statistics/1"
WEIGHTS_SCHEMA = "quantstudio.weight-statistics/1"

Arrays = dict[str, NDArray[Any]]

_SCALARS = ("mean", "std", "kurtosis", "outlier_share")
_CHANNELS = ("channel_low", "channel_high", "channel_p1", "channel_p99", "channel_median")
_CORRUPT = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    NotImplementedError,
    RuntimeError,
)


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write activation statistics.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    write_bytes(Path(path), _packed(_statistics_arrays(statistics)))


def load_statistics(path: Path) -> Statistics:
    """Read activation statistics.

    Raises:
        CalibrationError: no such file, damaged, or of another kind or version.
    """
    path = Path(path)
    arrays = _unpacked(path, STATISTICS_SCHEMA, "Calibrate again")
    try:
        distinct = _histograms(arrays)
        rows = arrays["rows"]
        names = [str(n) for n in arrays["names"]]
        return Statistics(
            tensors={name: distinct[int(row)] for name, row in zip(names, rows, strict=True)},
            samples=int(arrays["samples"]),
            graph_digest=str(arrays["graph_digest"]),
            data_digest=str(arrays["data_digest"]),
            masked=tuple(str(n) for n in arrays["masked"]),
        )
    except _CORRUPT as error:
        raise _damaged(path, "Calibrate again") from error


def statistics_digest(statistics: Statistics) -> str:
    """SHA-256 of everything in the statistics; equal values have equal digests on every machine."""
    return hashlib.sha256(_packed(_statistics_arrays(statistics))).hexdigest()


def save_weight_statistics(path: Path, layers: Sequence[WeightStatistics]) -> None:
    """Write weight statistics.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    schemes = sorted({name for layer in layers for name in layer.sqnr_db})
    arrays: Arrays = {
        "schema": np.array(WEIGHTS_SCHEMA),
        "layers": _text([layer.layer for layer in layers]),
        "schemes": _text(schemes),
        "sqnr_db": np.array(
            [[layer.sqnr_db.get(name, np.nan) for name in schemes] for layer in layers], dtype=np.float64
        ).reshape(len(layers), len(schemes)),
        "channels": np.array([len(layer.channel_low) for layer in layers], dtype=np.int64),
        **_histogram_arrays([layer.histogram for layer in layers]),
    }
    for name in _SCALARS:
        arrays[name] = np.array([getattr(layer, name) for layer in layers], dtype=np.float64)
    for name in _CHANNELS:
        parts = [np.asarray(getattr(layer, name), dtype=np.float32) for layer in layers]
        arrays[name] = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    write_bytes(Path(path), _packed(arrays))


def load_weight_statistics(path: Path) -> tuple[WeightStatistics, ...]:
    """Read weight statistics.

    Raises:
        CalibrationError: no such file, damaged, or of another kind or version.
    """
    path = Path(path)
    hint = "Open the model again"
    arrays = _unpacked(path, WEIGHTS_SCHEMA, hint)
    try:
        layers = [str(n) for n in arrays["layers"]]
        schemes = [str(n) for n in arrays["schemes"]]
        ends = np.cumsum(arrays["channels"])
        columns: dict[str, Any] = {name: arrays[name] for name in _SCALARS}
        columns |= {name: np.split(arrays[name], ends)[:-1] for name in _CHANNELS}
        histograms = _histograms(arrays)
        if not len(layers) == len(histograms) == len(ends) == len(arrays["sqnr_db"]):
            raise ValueError("columns of different lengths")
        return tuple(
            _weight_row(
                i, layer, histograms[i], columns, dict(zip(schemes, arrays["sqnr_db"][i], strict=True))
            )
            for i, layer in enumerate(layers)
        )
    except _CORRUPT as error:
        raise _damaged(path, hint) from error


def _weight_row(
    i: int, layer: str, histogram: Histogram, columns: Mapping[str, Any], sqnr_db: Mapping[str, float]
) -> WeightStatistics:
    return WeightStatistics(
        layer=layer,
        histogram=histogram,
        mean=float(columns["mean"][i]),
        std=float(columns["std"][i]),
        kurtosis=float(columns["kurtosis"][i]),
        outlier_share=float(columns["outlier_share"][i]),
        channel_low=columns["channel_low"][i],
        channel_high=columns["channel_high"][i],
        channel_p1=columns["channel_p1"][i],
        channel_p99=columns["channel_p99"][i],
        channel_median=columns["channel_median"][i],
        sqnr_db={name: float(value) for name, value in sqnr_db.items() if not np.isnan(value)},
    )


def _statistics_arrays(statistics: Statistics) -> Arrays:
    # Tensors that hold the same values share one histogram, and keep sharing it on disk.
    distinct: dict[int, Histogram] = {id(h): h for h in statistics.tensors.values()}
    row = {key: i for i, key in enumerate(distinct)}
    return {
        "schema": np.array(STATISTICS_SCHEMA),
        "names": _text(list(statistics.tensors)),
        "rows": np.array([row[id(h)] for h in statistics.tensors.values()], dtype=np.int64),
        "samples": np.array(statistics.samples, dtype=np.int64),
        "graph_digest": np.array(statistics.graph_digest),
        "data_digest": np.array(statistics.data_digest),
        "masked": _text(list(statistics.masked)),
        **_histogram_arrays(list(distinct.values())),
    }


def _histogram_arrays(histograms: Sequence[Histogram]) -> Arrays:
    counts = [np.asarray(h.counts, dtype=np.int64) for h in histograms]
    arrays: Arrays = {
        "bins": np.array([len(c) for c in counts], dtype=np.int64),
        "counts": np.concatenate(counts) if counts else np.zeros(0, np.int64),
    }
    for name in ("low", "high", "minimum", "maximum"):
        arrays[name] = np.array([getattr(h, name) for h in histograms], dtype=np.float64)
    return arrays


def _histograms(arrays: Mapping[str, NDArray[Any]]) -> list[Histogram]:
    bins = arrays["bins"]
    if int(bins.sum()) != len(arrays["counts"]):
        raise ValueError("counts and bins disagree")
    parts = np.split(arrays["counts"].astype(np.int64, copy=False), np.cumsum(bins))[: len(bins)]
    ends = (arrays[name] for name in ("low", "high", "minimum", "maximum"))
    return [
        Histogram(counts, float(low), float(high), float(minimum), float(maximum))
        for counts, low, high, minimum, maximum in zip(parts, *ends, strict=True)
    ]


def _text(names: Sequence[str]) -> NDArray[np.str_]:
    return np.array(list(names), dtype=np.str_) if names else np.zeros(0, dtype="<U1")


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The archive's bytes; numpy.savez would write the time of day into it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            npy_format.write_array(content, little, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
    return buffer.getvalue()


def _unpacked(path: Path, schema: str, hint: str) -> Arrays:
    try:
        with path.open("rb") as handle, zipfile.ZipFile(handle) as archive:
            arrays: Arrays = {}
            for info in archive.infolist():
                with archive.open(info) as stream:
                    arrays[info.filename.removesuffix(".npy")] = np.asarray(
                        npy_format.read_array(stream, allow_pickle=False)
                    )
        found = str(arrays["schema"])
    except FileNotFoundError:
        raise CalibrationError("no such statistics file", where=str(path), hint=hint) from None
    except OSError as error:
        raise CalibrationError(f"cannot read ({error.strerror or error})", where=str(path)) from error
    except _CORRUPT as error:
        raise _damaged(path, hint) from error
    if found != schema:
        raise CalibrationError(
            f"the file holds {found[:60]!r}, expected {schema!r}", where=str(path), hint=hint
        )
    return arrays


def _damaged(path: Path, hint: str) -> CalibrationError:
    return CalibrationError(
        "not a readable statistics file (damaged or of another kind)", where=str(path), hint=hint
    )
