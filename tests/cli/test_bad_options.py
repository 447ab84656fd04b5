"""Commands that are typed wrong: one clear line, exit 2, nothing written."""

from __future__ import annotations

import sys

import pytest

from tests.cli.refusals import DATA, NET

pytestmark = pytest.mark.usefixtures("one_cache")

SEARCH = ["search", NET, *DATA, "-o", "m.onnx"]
DEVICES = ["devices", "--json"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "Commands:"),
        (["quantise", NET], "did you mean 'quantize'"),
        (["--frob"], "--frob"),
        (["compare", NET, *DATA], "VARIANT"),
        (["compare", NET, NET, *DATA, "--threads", "100000"], "--threads"),
        (["compare", NET, NET, *DATA, "--provider", "abacus"], "'abacus'"),
        (["inspect", ""], "MODEL"),
        (["inspect", "os:system"], "--trust"),
        (["calibrate", NET, "--data", "", "-o", "s.npz"], "--data"),
        (["calibrate", NET, "--data", "os:system", "-o", "s.npz"], "--trust"),
        (["quantize", NET, "-o", "m.onnx", "--samples", "0"], "--samples"),
        (["quantize", NET, *DATA, "-o", "m.onnx", "--range-method", "x"], "minmax"),
        (["quantize", NET, "-o", "m.onnx", "--set", "*=fp32"], "--preset"),
        (["quantize", NET, "-o", "m.onnx", "--preset", "auto", "--recipe", "r.json"], "not both"),
        (["sensitivity", NET, *DATA, "--method", "magic"], "fisher"),
        (["sensitivity", NET, *DATA, "--reference", "int7"], "int7"),
        (["demo", "--sample", "nope", "--out", "demo"], "digits_resnet"),
        ([*SEARCH, "--average-bits", "nan"], "--average-bits nan cannot be a bound"),
        ([*SEARCH, "--max-size-mb", "inf"], "--max-size-mb inf cannot be a bound"),
        ([*SEARCH, "--recover", "nope"], "nope"),
        ([*SEARCH, "--max-size-mb", "0"], "Give 1 or more"),
        ([*SEARCH, "--average-bits", "40"], "Give 1 to 32"),
        ([*SEARCH, "--max-drop", "-1"], "accuracy drop"),
        ([*SEARCH, "--share-above-8", "2"], "Give 0 to 1"),
        ([*SEARCH, "--activations", "some"], "weight-only"),
        ([*SEARCH, "--pin", "node_Conv_152"], "PATTERN=SCHEME"),
        ([*SEARCH, "--pin", "nope=fp32"], "nope"),
        ([*SEARCH, "--samples", "0"], "--samples"),
        (["search", NET, "--average-bits", "6", "-o", "m.onnx"], "--data"),
        ([*DEVICES, "nowhere/d.json"], "nowhere"),
    ],
)
def test_that_a_mistyped_command_is_one_line(arguments, says, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    assert says in refused(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a display")
def test_that_a_window_without_a_display_is_refused(monkeypatch, refused):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert "quantstudio demo" in refused(["gui"])
