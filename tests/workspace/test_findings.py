"""What is known is found again when its inputs come back, in the same turn and without computing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from quantstudio.core.data_spec import DataSpec, parse_transform
from quantstudio.core.errors import ProjectError
from quantstudio.core.findings import KINDS, KNOWN_DATA, SENSITIVITY, data_identity
from quantstudio.core.precision import FP32, STATIC_INT8
from quantstudio.core.recipe import LayerRule
from quantstudio.core.variants import Variant
from quantstudio.project.references import ReferenceKind
from quantstudio.workspace.values import EngineOptions
from tests.workspace.conftest import Desk
from tests.workspace.putting import known_of


def conv(desk: Desk) -> str:
    return next(layer.name for layer in desk.known.layers if layer.op_type == "Conv")


def current(desk: Desk) -> Variant | None:
    return desk.known.current_variant


def figures(desk: Desk) -> tuple[Any, ...]:
    """Everything a screen shows of the present plan."""
    known = desk.known
    assert known.current_variant is not None
    assert known.base is not None
    return (
        known.current_variant,
        known.base.result,
        known.prediction,
        dict(known.layer_sensitivity),
        known.sensitivity_curve,
        known.costs,
    )


def test_that_undo_brings_back_the_measured_figures_in_the_same_turn(measured: Desk) -> None:
    known, before = measured.known, figures(measured)
    jobs = len(measured.runner.submitted)
    known.edits.set_scheme([conv(measured)], "fp32")
    assert current(measured) is None
    known.edits.undo()
    assert figures(measured) == before  # nothing was pumped in between
    assert known.current_variant is not None
    assert known.current_variant.result is not None
    measured.settle()
    assert len(measured.runner.submitted) == jobs


def test_that_a_layer_flipped_away_and_back_leaves_every_figure_as_it_was(measured: Desk) -> None:
    known, before, name = measured.known, figures(measured), conv(measured)
    known.edits.set_scheme([name], "fp32")
    known.edits.set_scheme([name], "static-int8")
    assert figures(measured) == before
    known.runs.measure()
    measured.settle()
    assert measured.runner.tasks[-1] == "compare"  # measured once more, and not built again
    assert measured.runner.tasks.count("quantize") == 1


def test_that_recipes_that_come_to_the_same_are_one_variant(measured: Desk) -> None:
    known = measured.known
    known.edits.add_rule(LayerRule(STATIC_INT8, op_types=("Conv",)))
    known.edits.add_rule(LayerRule(FP32, ("no such layer*",)))
    assert known.current_variant is not None
    assert known.current_variant.name == "INT8"
    known.runs.quantize()
    measured.settle()
    assert [variant.name for variant in known.variants] == ["FP32", "INT8"]


def test_that_choosing_the_old_data_back_brings_everything_back_at_once(
    measured: Desk, data: DataSpec, other_data: DataSpec
) -> None:
    known, before = measured.known, figures(measured)
    known.opening.set_data(other_data, None)
    assert not known.layer_sensitivity
    assert known.sensitivity_curve is None
    assert known.statistics_file is None
    assert current(measured) is None
    assert all(variant.result is None for variant in known.variants)
    known.opening.set_data(data, None)
    assert figures(measured) == before


def test_that_data_is_known_by_its_content_wherever_it_lies(
    measured: Desk, data: DataSpec, tmp_path: Path
) -> None:
    known, before = measured.known, figures(measured)
    copy = tmp_path / "elsewhere" / "copy.npz"
    copy.parent.mkdir()
    shutil.copyfile(data.path, copy)
    known.opening.set_data(DataSpec(str(copy)), None)
    assert figures(measured) == before
    known.opening.set_data(DataSpec(str(copy), parse_transform("scale=1/255")), None)
    assert current(measured) is None
    known.opening.set_data(DataSpec(str(copy), samples=2), None)
    assert current(measured) is None
    Path(data.path).write_bytes(b"something else")
    known.opening.set_data(data, None)
    assert current(measured) is None


def test_that_test_data_alone_changes_what_is_measured_and_nothing_else(
    measured: Desk, data: DataSpec, other_data: DataSpec
) -> None:
    known = measured.known
    known.documents.choose_data(data, other_data)
    measured.settle()
    variant = current(measured)
    assert variant is not None
    assert variant.result is None
    assert known.sensitivity_curve is not None
    known.documents.choose_data(data, None)
    measured.settle()
    variant = current(measured)
    assert variant is not None
    assert variant.result is not None
    assert measured.runner.tasks.count("calibrate") == 1


def test_that_other_calibration_samples_are_undone_like_any_edit(measured: Desk) -> None:
    known, before = measured.known, figures(measured)
    settings = known.recipe.calibration
    known.edits.set_calibration(replace(settings, samples=64))
    assert current(measured) is None
    assert known.statistics_file is not None  # those of before are shown until there are others
    known.runs.calibrate()
    measured.settle()
    assert known.statistics_file.samples == 64
    known.edits.undo()
    assert known.statistics_file.samples == settings.samples
    assert figures(measured) == before


def test_that_measurements_are_kept_by_how_they_were_made(measured: Desk) -> None:
    known = measured.known
    first = known.current_variant
    known.options = EngineOptions(threads=2)
    assert known.current_variant == first  # nothing newer is known
    known.runs.measure()
    measured.settle()
    second = known.current_variant
    assert first is not None
    assert second is not None
    assert second.result is not first.result
    known.options = EngineOptions()
    assert known.current_variant is not None
    assert known.current_variant.result is first.result


def test_that_what_ends_after_other_data_was_chosen_is_kept_for_the_data_it_was_made_with(
    measured: Desk, data: DataSpec, other_data: DataSpec
) -> None:
    known, runner = measured.known, measured.runner
    name = conv(measured)
    known.edits.set_scheme([name], "fp32")
    known.runs.quantize()
    measured.settle()
    runner.is_holding = True
    known.runs.measure()
    known.opening.set_data(other_data, None)
    runner.is_holding = False
    runner.release()
    measured.settle()
    assert all(variant.result is None for variant in known.variants)
    known.opening.set_data(data, None)
    assert known.current_variant is not None
    assert known.current_variant.result is not None


def test_that_every_finding_is_on_disk_when_it_is_flushed(measured: Desk) -> None:
    known = measured.known
    known.findings.flush()
    kept = known_of(known.project)
    assert figures(measured)[1:] == (
        kept.base.result if kept.base else None,
        kept.prediction,
        dict(kept.layer_sensitivity),
        kept.sensitivity_curve,
        kept.costs,
    )
    assert kept.variants == known.variants


def test_that_a_file_that_cannot_be_written_is_told_once_and_nothing_is_forgotten(
    desk: Desk, data: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = desk.known
    said: list[str] = []
    known.notified.connect(lambda notice: said.append(notice.text))

    def full(*_: object) -> None:
        raise ProjectError("the disk is full")

    monkeypatch.setattr(known.project.findings, "put", full)
    known.opening.set_data(data, None)
    known.runs.analyze()
    desk.settle()
    assert len(known.layer_sensitivity) == len(known.layers)
    assert said.count("Not saved: the disk is full") == 1
    monkeypatch.undo()
    known.runs.analyze()
    desk.settle()
    key = known.subject.sensitivity_key(SENSITIVITY, known.ground.graph) if known.subject else ""
    assert len(known.project.findings.rows(SENSITIVITY, key)) == len(known.layers)


def test_that_one_signal_tells_of_each_kind(desk: Desk, data: DataSpec) -> None:
    told: set[str] = set()
    for kind in KINDS:
        desk.known.findings.changed(kind).connect(partial(lambda name, _key: told.add(name), kind.name))
    desk.known.opening.set_data(data, None)
    desk.known.runs.run_all()
    desk.settle()
    assert told == {
        "calibration",
        "sensitivity",
        "sensitivity-run",
        "curve",
        "costs",
        "variant",
        "measurement",
        "summary",
    }


def test_that_data_of_a_project_of_before_is_known_again_by_its_content(desk: Desk, data: DataSpec) -> None:
    """It was known by its path alone; once its content is seen, any copy of it will do."""
    known = desk.known
    known.project.set_data(ReferenceKind.CALIBRATION, data, f"path:{data.path}")
    known.opening.open_project(known.project)
    desk.settle()
    assert known.subject is not None
    assert known.subject.calibration is not None
    identity = known.subject.calibration.identity
    assert identity == data_identity(data, f"path:{data.path}")
    known.opening.set_data(None, None)
    known.opening.set_data(data, None)
    assert known.subject.calibration.identity == identity
    assert len(known.project.findings.keys(KNOWN_DATA)) == 1


def test_that_figures_stay_when_the_cache_has_lost_the_statistics(measured: Desk) -> None:
    known, before = measured.known, figures(measured)
    file = known.statistics_file
    assert file is not None
    Path(file.path).unlink()
    known.arrays.load_activations(file.path)
    measured.settle()
    assert measured.known.statistics_file is None
    assert figures(measured) == before
    known.runs.calibrate()
    measured.settle()
    assert known.statistics_file == file
