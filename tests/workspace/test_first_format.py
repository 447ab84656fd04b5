"""A project that the version before wrote opens with everything in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.findings import PATH_INSTEAD, VARIANT
from quantstudio.core.recipe import uniform_recipe
from quantstudio.project.references import ReferenceKind
from quantstudio.project.store import Project
from quantstudio.workspace.known import Known
from quantstudio.workspace.report_data import project_report
from tests.workspace import putting

DUMP = Path(__file__).parents[1] / "project" / "first_format.sql"


@pytest.fixture
def known_of() -> Iterator[Callable[[Project], Known]]:
    """Reads what a project knows, and lets go of it after the test."""
    made: list[Known] = []

    def read(project: Project) -> Known:
        made.append(putting.known_of(project))
        return made[-1]

    yield read
    for known in made:
        known.background.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file as it was written."""
    path = tmp_path / "old.qstudio"
    connection = sqlite3.connect(path)
    connection.executescript(DUMP.read_text(encoding="utf-8"))
    connection.close()
    return path


def test_that_everything_it_knew_is_known(path: Path, known_of: Callable[[Project], Known]) -> None:
    with Project.open(path) as project:
        known = known_of(project)
        assert [layer.name for layer in known.layers] == ["conv1", "conv2"]
        assert known.calibration_data is not None
        assert (known.calibration_data.path, known.calibration_data.transform.layout) == ("train.npz", "NCHW")
        assert known.test_data is not None
        assert known.weights_file is not None
        assert known.weights_file.path == "weights.npz"
        assert known.statistics_file is not None
        assert (known.statistics_file.path, known.statistics_file.samples) == ("activations.npz", 512)
        assert {name: row.kl for name, row in known.layer_sensitivity.items()} == {"conv1": 0.1, "conv2": 0.2}
        assert known.sensitivity_run is not None
        assert known.analyzed_precisions == {"int8", "int4"}
        assert known.sensitivity_curve is not None
        assert known.sensitivity_curve.accuracy == (0.92, 0.88)
        assert known.costs is not None
        assert known.costs.fp32_ms == 2.0
        assert known.search_result is not None
        assert known.search_result.chosen.metric == 0.915
        assert known.prediction is not None
        assert project.unreadable == ()


def test_that_its_variants_keep_their_figures_and_the_right_one_is_current(
    path: Path, known_of: Callable[[Project], Known]
) -> None:
    with Project.open(path) as project:
        known = known_of(project)
        measured = {v.name: v.result.metrics["top1"] if v.result else None for v in known.variants}
        assert measured == {"FP32": 0.92, "INT8": 0.91, "INT8 · 1 FP32": None, "Dynamic": 0.915}
        assert known.recipe.rules == uniform_recipe("static-int8").rules
        assert known.current_variant is not None
        assert known.current_variant.name == "INT8"
        assert project.redo_label == "Set conv1 to FP32"
        project.redo()
        known.tell_edited()
        assert known.current_variant is not None
        assert known.current_variant.name == "INT8 · 1 FP32"
        assert known.current_variant.key == known.key_of(known.recipe)
        report = project_report(project)
        assert report.comparison is not None
        assert len(report.comparison.variants) == 3


def test_that_moved_data_keeps_what_was_found_with_it(
    path: Path, tmp_path: Path, known_of: Callable[[Project], Known]
) -> None:
    moved = tmp_path / "moved.npz"
    moved.write_bytes(b"samples")
    with Project.open(path) as project:
        reference = project.data(ReferenceKind.CALIBRATION)
        assert reference is not None
        assert reference.digest == f"{PATH_INSTEAD}train.npz"
        project.relocate(ReferenceKind.CALIBRATION, moved)
        known = known_of(project)
        assert known.calibration_data is not None
        assert known.calibration_data.path == str(moved)
        assert len(known.layer_sensitivity) == 2


def test_that_the_old_tables_are_gone_and_a_broken_variant_hurts_nobody(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE variant SET recipe = '{\"rulez\": 1}' WHERE name = 'Dynamic'")
    connection.commit()
    connection.close()
    with Project.open(path) as project:
        assert [one.name for one in project.findings.all(VARIANT).values()] == ["INT8", "INT8 · 1 FP32"]
        assert len(project.unreadable) == 1
    connection = sqlite3.connect(path)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert tables == {"model", "data", "recipe", "history", "history_plan", "present", "finding"}


def test_that_a_project_without_a_model_is_converted(
    tmp_path: Path, known_of: Callable[[Project], Known]
) -> None:
    path = tmp_path / "empty.qstudio"
    connection = sqlite3.connect(path)
    connection.executescript(DUMP.read_text(encoding="utf-8"))
    connection.execute("DELETE FROM model")
    connection.commit()
    connection.close()
    with Project.open(path) as project:
        assert known_of(project).subject is None
        assert project.data(ReferenceKind.TEST) is not None
        project.set_data("test", DataSpec("other.npz"))
