"""Folders, disks and projects that cannot take what a command writes, or cannot be read: nothing is lost."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.findings import FindingKind, costs_key
from quantstudio.project.store import Project
from tests.cli.refusals import DATA, NET, OLD, SAMPLE

pytestmark = pytest.mark.usefixtures("one_cache")


def outputs(folder: Path, project: Path, recipe: Path) -> Iterator[list[str]]:
    """Each command that writes, into a folder."""
    quantize = ["quantize", NET, "--preset", "weight-int8"]
    yield [*quantize, "-o", str(folder / "m.onnx")]
    yield ["calibrate", NET, *DATA, "--samples", "16", "-o", str(folder / "s.npz")]
    yield ["run", str(recipe), "-o", str(folder / "m.onnx")]
    yield ["report", str(project), "-o", str(folder / "r.html")]
    yield ["inspect", NET, "--json", str(folder / "j.json")]


def test_that_folders_that_are_not_there_or_no_folders_are_refused(
    tmp_path, out, project, good_recipe, refused
):
    recipe = tmp_path / "r.json"
    recipe.write_text(json.dumps(good_recipe), encoding="utf-8")
    for folder in (tmp_path / "nowhere", project):
        for arguments in outputs(folder, project, recipe):
            assert str(folder) in refused(arguments)
    assert str(tmp_path / "nowhere") in refused(["search", NET, *DATA, "-o", str(tmp_path / "nowhere" / "m")])
    assert str(project) in refused(["demo", "--out", str(project / "demo")])
    for name in ("", "x" * 300, str(out)):
        refused(["quantize", NET, "--preset", "weight-int8", "-o", name])
        refused(["search", NET, *DATA, "-o", name])
        refused(["calibrate", NET, *DATA, "-o", name])


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="folders have no owner")
def test_that_a_read_only_folder_is_refused(tmp_path, out, project, good_recipe, refused):
    recipe = tmp_path / "r.json"
    recipe.write_text(json.dumps(good_recipe), encoding="utf-8")
    out.chmod(0o555)
    try:
        if os.access(out, os.W_OK):
            pytest.skip("the superuser may write anywhere")
        for arguments in outputs(out, project, recipe):
            assert "read-only" in refused(arguments)
    finally:
        out.chmod(0o755)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting needs the superuser"
)
@pytest.mark.parametrize("options", ["size=64k", "size=4m,ro"], ids=["full", "read-only"])
def test_that_a_full_or_read_only_disk_keeps_the_old_files(
    options, out, tmp_path, project, good_recipe, capfd
):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = options.partition(",")[0]
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        names = ("m.onnx", "m.recipe.json", "s.npz", "r.html", "j.json")
        for name in names:
            (disk / name).write_bytes(OLD)
        if "ro" in options:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        else:
            (disk / "filling").write_bytes(bytes(44 * 1024))
            (disk / "rest").open("wb").close()
        recipe = tmp_path / "r.json"
        recipe.write_text(json.dumps(good_recipe), encoding="utf-8")
        before = {path.name: path.read_bytes() for path in disk.iterdir()}
        capfd.readouterr()
        for arguments in outputs(disk, project, recipe):
            if arguments[0] == "inspect" and "ro" not in options:
                continue  # its few kilobytes may still fit
            assert invoke(arguments) == 2
            captured = capfd.readouterr()
            assert captured.out == ""
            assert captured.err.count("\n") == 1
            assert str(disk) in captured.err
            assert {path.name: path.read_bytes() for path in disk.iterdir()} == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_that_no_output_replaces_an_input(tmp_path, out, refused):
    network, data = tmp_path / "net.onnx", tmp_path / "d.npz"
    network.write_bytes(SAMPLE.model.read_bytes())
    data.write_bytes(SAMPLE.train.read_bytes())
    options = ["--data", str(data), "--transform", SAMPLE.transform, "--preset", "static-int8"]
    refused(["quantize", str(network), *options, "-o", str(network)])
    refused(["quantize", str(network), *options, "-o", str(data)])
    refused(["calibrate", str(network), *options[:4], "-o", str(data)])
    refused(["inspect", str(network), "--json", str(network)])
    refused(["quantize", NET, *options, "-o", str(out / "m.onnx"), "--json", str(out / "m.onnx")])
    refused(["search", str(network), *options[:4], "-o", str(network)])
    refused(["search", NET, *options[:4], "-o", str(data)])
    refused(["search", NET, *options[:4], "-o", str(out / "m.onnx"), "--json", str(out / "m.recipe.json")])
    assert network.read_bytes() == SAMPLE.model.read_bytes()
    assert data.read_bytes() == SAMPLE.train.read_bytes()


def test_that_a_cache_that_cannot_be_made_says_how_to_move_it(tmp_path, monkeypatch, refused):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUANTSTUDIO_CACHE", str(tmp_path / "file" / "cache"))
    assert "QUANTSTUDIO_CACHE" in refused(["inspect", NET])


def _sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return change


def _cut(share: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(_sql("pragma user_version=999"), "newer", id="newer version"),
        pytest.param(_sql("pragma application_id=7"), "not a QuantStudio project", id="other application"),
        pytest.param(_cut(0.001), "project", id="cut at the start"),
        pytest.param(_cut(0.3), "project", id="cut"),
        pytest.param(_cut(0.9), "project", id="cut at the end"),
    ],
)
def test_that_a_project_that_is_not_whole_is_refused_and_kept(change, says, project, out, refused):
    change(project)
    before = project.read_bytes()
    assert says in refused(["report", str(project), "-o", str(out / "r.html")])
    assert project.read_bytes() == before


@pytest.mark.parametrize("seed", range(6))
def test_that_a_damaged_project_never_ends_in_a_fault(seed, project, out, refused, capfd):
    generator = np.random.default_rng(seed)
    content = bytearray(project.read_bytes())
    for place in generator.integers(100, len(content), 80):
        content[place] = int(generator.integers(0, 256))
    project.write_bytes(content)
    if refused(["report", str(project), "-o", str(out / "r.html")], may_succeed=True):
        assert project.read_bytes() == content


def test_that_a_result_that_cannot_be_read_is_left_out_of_the_report(project, tmp_path, capfd):
    with Project.open(project) as opened:
        assert opened.model is not None
        key = costs_key(opened.model.summary.digest, has_data=False)
        opened.findings.put(FindingKind("costs", dict), key, {"": {"of": "another version"}})
    before = project.read_bytes()
    capfd.readouterr()
    assert invoke(["report", str(project), "-o", str(tmp_path / "r.html")]) == 0
    assert capfd.readouterr().err.startswith("warning: p.qstudio: result 'costs' was left out")
    assert (tmp_path / "r.html").is_file()
    assert project.read_bytes() == before
