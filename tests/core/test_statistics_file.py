from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantstudio.core.errors import CalibrationError, OutputError
from quantstudio.core.statistics import Histogram, Statistics, WeightStatistics
from quantstudio.core.statistics_file import (
    load_statistics,
    load_weight_statistics,
    save_statistics,
    save_weight_statistics,
    statistics_digest,
)


def histogram(seed: int, bins: int = 4096) -> Histogram:
    counts = np.random.default_rng(seed).integers(0, 1000, bins)
    return Histogram(counts, -8.0, 8.0, -7.1 - seed, 6.3)


def some_statistics() -> Statistics:
    shared = histogram(1)
    tensors = {"x": histogram(0), "größe/0": shared, "reshaped": shared}
    return Statistics(tensors, 512, "graph", "data", masked=("mask",))


def weight_row(name: str, channels: int, sqnr: dict[str, float]) -> WeightStatistics:
    rng = np.random.default_rng(channels)
    low, high, p1, p99, median = (rng.standard_normal(channels).astype(np.float32) for _ in range(5))
    counts = histogram(channels, 2048)
    return WeightStatistics(name, counts, 0.1, 0.2, 3.5, 0.001, low, high, p1, p99, median, sqnr)


def same(a: Histogram, b: Histogram) -> bool:
    ends = ("low", "high", "minimum", "maximum")
    return np.array_equal(a.counts, b.counts) and all(getattr(a, n) == getattr(b, n) for n in ends)


def test_that_statistics_survive_a_round_trip(tmp_path: Path) -> None:
    before = some_statistics()
    save_statistics(tmp_path / "s.npz", before)
    after = load_statistics(tmp_path / "s.npz")
    assert list(after.tensors) == list(before.tensors)
    assert all(same(after.tensors[n], before.tensors[n]) for n in before.tensors)
    assert after.tensors["reshaped"] is after.tensors["größe/0"]
    assert (after.samples, after.graph_digest, after.data_digest) == (512, "graph", "data")
    assert after.masked == ("mask",)
    assert statistics_digest(after) == statistics_digest(before)


def test_that_empty_statistics_survive_too(tmp_path: Path) -> None:
    save_statistics(tmp_path / "s.npz", Statistics({}, 1, "g", "d"))
    assert load_statistics(tmp_path / "s.npz").tensors == {}
    save_weight_statistics(tmp_path / "w.npz", ())
    assert load_weight_statistics(tmp_path / "w.npz") == ()


def test_that_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_statistics(tmp_path / name, some_statistics())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_that_any_change_changes_the_digest() -> None:
    base = some_statistics()
    counts = base.tensors["x"].counts.copy()
    counts[7] += 1
    others = [
        replace(base, samples=511),
        replace(base, graph_digest="other"),
        replace(base, masked=()),
        replace(base, tensors={**base.tensors, "x": replace(base.tensors["x"], counts=counts)}),
        replace(base, tensors={**base.tensors, "x": replace(base.tensors["x"], minimum=-0.5)}),
        replace(base, tensors={"y" if n == "x" else n: h for n, h in base.tensors.items()}),
    ]
    assert len({statistics_digest(s) for s in [base, *others]}) == len(others) + 1


def test_that_numpy_alone_can_read_the_file(tmp_path: Path) -> None:
    save_statistics(tmp_path / "s.npz", some_statistics())
    with np.load(tmp_path / "s.npz", allow_pickle=False) as archive:
        assert str(archive["schema"]) == "quantstudio.statistics/1"
        assert archive["names"].tolist() == ["x", "größe/0", "reshaped"]
        assert archive["counts"].shape == (2 * 4096,)


def test_that_weight_statistics_survive_a_round_trip(tmp_path: Path) -> None:
    before = (weight_row("conv", 8, {"weight-int8": 41.5, "fp16": float("inf")}), weight_row("fc", 3, {}))
    save_weight_statistics(tmp_path / "w.npz", before)
    after = load_weight_statistics(tmp_path / "w.npz")
    assert [r.layer for r in after] == ["conv", "fc"]
    for a, b in zip(after, before, strict=True):
        assert same(a.histogram, b.histogram)
        assert a.sqnr_db == b.sqnr_db
        assert (a.mean, a.std, a.kurtosis, a.outlier_share) == (b.mean, b.std, b.kurtosis, b.outlier_share)
        for name in ("channel_low", "channel_high", "channel_p1", "channel_p99", "channel_median"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
            assert getattr(a, name).dtype == np.float32


def damaged_forms(good: bytes) -> dict[str, bytes]:
    middle = len(good) // 2
    return {
        "empty": b"",
        "text": b"hello\n" * 100,
        "random": np.random.default_rng(0).bytes(5000),
        "truncated": good[:middle],
        "flipped": good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :],
    }


@pytest.mark.parametrize("form", ["empty", "text", "random", "truncated", "flipped"])
def test_that_damaged_files_are_refused_in_one_line(tmp_path: Path, form: str) -> None:
    path = tmp_path / "s.npz"
    save_statistics(path, some_statistics())
    path.write_bytes(damaged_forms(path.read_bytes())[form])
    with pytest.raises(CalibrationError, match=r"s\.npz") as caught:
        load_statistics(path)
    assert "\n" not in caught.value.one_line
    with pytest.raises(CalibrationError):
        load_weight_statistics(path)


def test_that_other_kinds_of_file_are_told_apart(tmp_path: Path) -> None:
    save_weight_statistics(tmp_path / "w.npz", (weight_row("conv", 8, {}),))
    with pytest.raises(CalibrationError, match="weight-statistics/1"):
        load_statistics(tmp_path / "w.npz")
    np.savez(tmp_path / "n.npz", x=np.zeros(3))
    with pytest.raises(CalibrationError, match="not a readable"):
        load_statistics(tmp_path / "n.npz")
    np.savez(tmp_path / "o.npz", schema=np.array("quantstudio.statistics/1"), x=np.array([{}], dtype=object))
    with pytest.raises(CalibrationError, match="not a readable"):
        load_statistics(tmp_path / "o.npz")


@pytest.mark.parametrize("lost", ["counts", "names", "rows"])
def test_that_a_file_with_a_wrong_array_is_refused(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "s.npz"
    save_statistics(path, some_statistics())
    with np.load(path) as archive:
        arrays = {n: archive[n] for n in archive.files}
    np.savez(path, **{**arrays, lost: arrays[lost][:-1]})
    with pytest.raises(CalibrationError, match="not a readable"):
        load_statistics(path)


def test_that_weight_columns_of_other_lengths_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    save_weight_statistics(path, (weight_row("conv", 8, {}), weight_row("fc", 3, {})))
    with np.load(path) as archive:
        arrays = {n: archive[n] for n in archive.files}
    np.savez(path, **{**arrays, "layers": arrays["layers"][:1]})
    with pytest.raises(CalibrationError, match="not a readable"):
        load_weight_statistics(path)


def test_that_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no such statistics file"):
        load_statistics(tmp_path / "none.npz")
    with pytest.raises(CalibrationError, match="cannot read"):
        load_statistics(tmp_path)
    with pytest.raises(OutputError):
        save_statistics(tmp_path / "none" / "s.npz", some_statistics())
